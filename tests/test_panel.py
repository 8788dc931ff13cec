"""The one rule of the verdict, on made-up effects. What each panel makes of it: test_rules."""

import math
from collections import Counter

import numpy as np
import pytest

from clp_min.study import Effect, Panel
from clp_min.study.panel import (
    not_worse, rank_correlation, saturation, standard_seeds, t_quantile, untrained, verdict,
)


def spread(mean, deviation, n=8, **bounds):
    """An effect of n values with exactly this mean and standard deviation."""
    shape = np.linspace(-1, 1, n)
    return Effect("", mean + deviation * shape / shape.std(ddof=1), **bounds)


def test_effect__mean_and_standard_error_are_the_textbook():
    effect = Effect("", [1.0, 2.0, 6.0])
    assert effect.mean == 3.0 and math.isclose(effect.error, math.sqrt((4 + 1 + 9) / 2 / 3))
    assert effect.n == 3 and math.isnan(Effect("", [1.0]).error)


def test_t_quantile__tables_and_the_integral():
    """Published tables to their last digit; and P(T > t) summed in plain steps of t."""
    for degrees, printed in ((2, 6.965), (4, 3.747), (7, 2.998), (9, 2.821), (99, 2.365)):
        assert abs(t_quantile(0.99, degrees) - printed) < 6e-4
    for p, degrees in ((0.9, 1), (0.99, 4), (1 - 0.01 / 6, 7)):
        constant = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2)
        constant /= math.sqrt(degrees * math.pi)
        width, t, mass = 1e-4, 0.0, 0.5
        while mass < p:
            mass += width * constant * (1 + (t + width / 2) ** 2 / degrees) ** (-(degrees + 1) / 2)
            t += width
        assert abs(t - t_quantile(p, degrees)) < 3e-4


def test_verdict__one_effect_by_its_interval():
    """Mean 1, t(.99, 7) = 2.998 standard errors wide on each side: the bounds are exact."""
    half = 2.99795 / math.sqrt(8)  # of the interval, for a standard deviation of 1
    for mean, word in (
        (half + 0.51, "reproduced"), (half + 0.49, "undecided"), (0.49 - half, "not reproduced"),
        (0.51 - half, "undecided"), (-0.49 - half, "not reproduced"), (-0.51 - half, "reversed"),
    ):
        assert verdict([spread(mean, 1.0, least=0.5)]) == word, (mean, word)
    assert verdict([spread(0.4, 0.01, least=0.5)]) == "not reproduced"  # certain, too small


def test_verdict__a_claimed_absence_must_lie_inside_and_is_refuted_outside():
    half = 2.99795 / math.sqrt(8)
    for mean, word in (
        (0.0, "reproduced"), (1.99 - half, "reproduced"), (2.01 - half, "undecided"),
        (2.01 + half, "not reproduced"), (1.99 + half, "undecided"),
        (-2.01 - half, "not reproduced"),
    ):
        assert verdict([spread(mean, 1.0, within=2.0)]) == word, (mean, word)


def test_verdict__several_effects():
    yes, no, back, maybe = (spread(m, s, least=1.0) for m, s in ((5, 1), (0, 0.1), (-5, 1), (1, 3)))
    assert verdict([yes, yes]) == "reproduced"
    assert verdict([yes, maybe]) == "undecided"
    assert verdict([yes, no]) == verdict([maybe, no]) == verdict([yes, back]) == "not reproduced"
    assert verdict([back, yes]) == verdict([back, no]) == "reversed"  # the first is the claim
    # Bonferroni: what refutes alone does not among six
    almost = spread(1.0 - 1.2, 1.0, least=1.0)
    assert verdict([almost]) == "not reproduced"
    assert verdict([almost] + [yes] * 5) == "undecided"


def test_verdict__none_without_seeds_numbers_or_a_control():
    good = [spread(5, 1, least=1.0)]
    assert verdict(good, seeds=standard_seeds(8)) == "reproduced"
    for effects, settings, reason in (
        ([spread(5, 1, 4, least=1.0)], {}, "fewer than 5"),
        ([spread(5, 1, 7, least=1.0)] * 3, {}, "fewer than 8"),
        (good, dict(seeds=list(range(8))), "seeds other than 10"),
        (good, dict(seeds=list(range(11, 19))), "seeds other than 10"),
        (good, dict(scale="smoke"), "smoke"),
        (good, dict(gate="nothing learned"), "nothing learned"),
        ([Effect("", [math.nan, *range(7)], least=1.0)], {}, "a value is not finite"),
        ([Effect("", [math.inf, *range(7)], least=1.0)], {}, "a value is not finite"),
    ):
        assert verdict(effects, **settings).startswith(f"no verdict ({reason}"), reason
    assert verdict([spread(5, 1, 5, least=1.0)] * 2) == "reproduced"


def test_verdict__values_that_agree_are_no_more_certain_than_their_step():
    """Eight equal values of step 1: standard error 1 / sqrt(12 * 8), not 0."""
    edge = 2.99795 / math.sqrt(12 * 8)
    assert verdict([Effect("", [edge + 0.01 + 0.5] * 8, least=0.5, step=1.0)]) == "reproduced"
    assert verdict([Effect("", [edge - 0.01 + 0.5] * 8, least=0.5, step=1.0)]) == "undecided"
    assert verdict([Effect("", [0.51] * 8, least=0.5)]) == "reproduced"


@pytest.mark.parametrize("n, k", [(5, 1), (8, 1), (5, 2), (8, 3), (8, 6)])
def test_verdict__false_words_on_noise_are_rare(n, k):
    """4,000 panels of pure noise around the least size that still counts (detects= 1.5 %): nothing
    is reproduced, and around minus it nothing reversed, in more than 1 % but for chance."""
    rng, words = np.random.default_rng(n * 10 + k), {1: Counter(), -1: Counter()}
    for sign in words:
        for _ in range(4000):
            noise = rng.normal(sign * 0.3, 1, (k, n))
            words[sign][verdict([Effect("", row, least=0.3) for row in noise])] += 1
    bar = 4000 * 0.01 + 5 * math.sqrt(4000 * 0.01 * 0.99)
    assert words[1]["reproduced"] <= bar and words[-1]["reversed"] <= bar, words
    assert words[1]["not reproduced"] <= bar  # what holds at its bound is not refuted either


def test_effect__bounds_are_positive_and_one_is_needed_to_decide():
    for bad in (dict(least=0.0), dict(least=-1.0), dict(within=0.0), dict(least=math.nan)):
        with pytest.raises(ValueError, match="must be > 0"):
            Effect("points", [1.0, 2.0], **bad)
    with pytest.raises(ValueError, match="neither least nor within"):
        verdict([Effect("points", np.arange(5.0))])
    with pytest.raises(ValueError, match="one number per seed"):
        Effect("points", [[1.0]], least=1.0)


def test_effect__agreeing_counts_signs_or_the_inside():
    assert Effect("", [1.0, -1.0, 0.0, 3.0, 2.0], least=1.0).agreeing() == 3
    assert Effect("", [1.0, -1.0, 0.0, 3.0, 2.0], within=1.5).agreeing() == 3


def test_panel__says_half_and_double_the_bounds_and_the_n_that_decides():
    panel = Panel("", [spread(2.0, 1.0, least=1.5)], seeds=standard_seeds(8))
    assert panel.verdict == "undecided"
    details = panel.details()
    assert details["half"] == "reproduced" and details["double"] == "undecided"
    n = details["seeds_to_decide"]  # the first n at which t(.99, n - 1) / sqrt(n) < .5
    half = [t_quantile(0.99, m - 1) / math.sqrt(m) for m in (n, n - 1)]
    assert half[0] < 0.5 <= half[1]
    never = Panel("", [spread(1.5, 1.0, least=1.5)], seeds=standard_seeds(8))
    assert never.details()["seeds_to_decide"] is None
    sure = Panel("", [spread(9.0, 1.0, least=1.5)], seeds=standard_seeds(8))
    assert sure.details() == {"half": "reproduced", "double": "reproduced"}
    assert sure.seeds_to_decide() == 5  # fewer never give a verdict


def test_panel__on_a_statement_agrees_or_disagrees():
    many = dict(statement="holds", seeds=standard_seeds(3))
    assert Panel("", **many).verdict == "holds"
    assert Panel("", **many, agrees=False).verdict == "disagrees"
    assert Panel("", **many, repetitions=4).verdict.startswith("no verdict")
    assert Panel("", **many, scale="smoke").verdict.startswith("no verdict")


def test_saturation__and_rank_correlation():
    assert saturation([0, 5, 9.6, 10, 8]) == 2
    assert saturation([0, -1, -2]) == 0 and saturation([1, 2, 4]) == 2
    rows = [[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 0], [1, 1, 2, 2], [2, 1, 4, 3]]
    # by hand: ties have the mean of their ranks; 4 / sqrt(4 * 5) and 1 - 6 * 4 / 60
    assert np.allclose(rank_correlation(rows), [1, -1, 0, 4 / math.sqrt(20), 0.6])


def test_untrained__twice_chance_is_the_bar():
    assert untrained([21.0, 19.0], 10) == "" and "20 %" in untrained([19.0, 20.5], 10)


def test_effect__two_seeds_have_an_interval_and_one_has_none():
    two = Effect("points", [1.0, 2.0], least=0.5)
    assert math.isclose(two.reach(), 31.8205 / 2, rel_tol=1e-4)  # t(.99) of one degree, sd / sqrt 2
    assert math.isclose(two.error, 0.5)
    assert math.isnan(Effect("points", [1.0], least=0.5).reach())
    assert Effect("points", [-1.0, 0.0, 2.0]).agreeing() == 1


def test_not_worse__two_points_are_added_to_the_lead():
    effect = not_worse("points ahead", np.array([-0.4, 0.1]), 0.5, 0.1)
    assert effect.values.tolist() == [0.6, 1.1] and (effect.least, effect.step) == (0.5, 0.1)
    assert effect.unit == "points ahead, plus 1"


def test_effect__in_words_with_two_digits_of_its_error():
    rows = {  # (mean, standard error of eight) -> text
        (1.5, 0.3): "1.50 ± 0.30 points", (1.23456, 0.0123): "1.235 ± 0.012 points",
        (1.0, 0.00012): "1.0000 ± 0.0001 points", (12.0, 3.0): "12.00 ± 3.00 points",
    }
    signs = np.array([1, -1, 1, -1, 1, -1, 1, -1])
    for (mean, error), text in rows.items():
        assert str(Effect("points", mean + signs * error * math.sqrt(7))) == text
    assert str(Effect("points", [2.0])) == "2.00 points"
