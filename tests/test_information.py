"""Binned mutual information against dictionaries and loops, known channels, and
its traps as numbers."""

import itertools
import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch

from clp_min.information import READINGS
from clp_min.seeding import generator
from theory.binning import (
    binary_channel_information, gaussian_bin_probabilities, gaussian_plug_in_error,
)

import oracles
from adapters import (
    binned_mutual_information, gaussian_binned_entropy, label_information, plug_in_bias,
)
from compare import EXACT, MC, assert_close, assert_mean, draws

RULES = ("clip", "extend", "drop")


@pytest.mark.parametrize("reading, outside, bins", [*itertools.product(READINGS, RULES, (30, 4))])
def test_binned_mutual_information__equals_dictionaries(reading, outside, bins):
    t, y = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (80, 4))), torch.arange(80) % 4
    t[:6] = torch.tensor([-1.0, 1.0, -7.0, 7.0])  # edges and beyond
    expected = oracles.mutual_information(t.tolist(), reading, y, bins, outside=outside)
    assert_close(
        binned_mutual_information(t, reading, y, bins, outside=outside), expected, EXACT, 1e-12
    )


@pytest.mark.parametrize("bins, low, high", [
    (30, -1.0, 1.0), (7, 0.1, 0.7), (1000, 1e6, 1e6 + 1), (29, -3e-9, 5e-9), (3, -1e12, 1e-3),
])
def test_binned_mutual_information__one_bit_beside_an_edge_is_another_bin(bins, low, high):
    edges = np.linspace(low, high, bins + 1)
    beside = [np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)]
    values = np.concatenate([edges, *beside, [-1e300, 1e300], np.linspace(low - 1, high + 1, 999)])
    place = [sum(edge <= value for edge in edges) - (value == high) for value in values]
    shares = np.unique(place, return_counts=True)[1] / len(values)
    found = binned_mutual_information(
        values[:, None], "joint", bins=bins, low=low, high=high, outside="extend"
    )
    assert_close(found, -(shares * np.log2(shares)).sum(), EXACT)


@pytest.mark.parametrize("outside", RULES)
def test_binned_mutual_information__every_exact_edge_begins_its_own_bin(outside):
    """floor((t + 1) * 15) puts some edges one bin low; here each of the 31 edges is one value,
    and the last closes the last bin."""
    edges = np.linspace(-1, 1, 31)
    assert_close(
        binned_mutual_information(edges[:30, None], "per_logit", outside=outside), math.log2(30),
        EXACT,
    )
    assert_close(
        binned_mutual_information(edges[29:, None], "per_logit", outside=outside), 0.0, EXACT, 1e-15
    )


@pytest.mark.claim("revisiting_b22_binning", verdict="holds",
                   number="30 intervals give the printed bins")
def test_binned_mutual_information__papers_example(number):
    """[-.9, -.5, .1, .4, .8] -> [1, 7, 16, 21, 27] needs 30 intervals, 31 edges: with 29
    intervals (30 edges) the bins are [1, 7, 15, 20, 26]."""
    t, expected = [-0.9, -0.5, 0.1, 0.4, 0.8], [1, 7, 16, 21, 27]
    representative = (np.array(expected) + 0.5) / 15 - 1  # the middle of the bin the paper names
    for value, middle in zip(t, representative):
        assert binned_mutual_information(np.array([[value], [middle]]), "per_logit") == 0.0
    assert [oracles.bin_of(v, 29, -1, 1, "clip") for v in t] == [1, 7, 15, 20, 26]
    of = {n: [oracles.bin_of(v, n, -1, 1, "clip") for v in t] for n in range(2, 100)}
    number(*[n for n, bins in of.items() if bins == expected])


def test_binned_mutual_information__known_channels():
    identity = np.repeat(np.linspace(-0.9, 0.9, 8), 5)[:, None]
    assert_close(
        binned_mutual_information(identity, "label", np.repeat(np.arange(8), 5)), 3.0, EXACT
    )
    product = np.tile(np.linspace(-0.9, 0.9, 4), 4)[:, None]
    assert_close(
        binned_mutual_information(product, "label", np.repeat(np.arange(4), 4)), 0.0, EXACT, 1e-12
    )
    bits = np.repeat([0, 1], 100)
    received = np.concatenate([np.repeat([0, 1], [89, 11]), np.repeat([1, 0], [89, 11])])
    assert_close(
        binned_mutual_information((received - 0.5)[:, None], "label", bits),
        binary_channel_information(0.11), EXACT,
    )
    assert_close(binary_channel_information(0.11), 0.500084, 1e-5)


@pytest.mark.claim("revisiting_b22_readings", verdict="underdetermined")
def test_binned_mutual_information__joint_reading_is_the_number_of_examples():
    """With ten logits every example has a cell of its own: I(X;T) = log2 N whatever the net has
    learned. The text excludes none of five readings, and this one is empty."""
    for n in (300, 2000):
        t = np.random.default_rng(0).normal(0, 0.5, (n, 10))
        assert_close(binned_mutual_information(t, "joint"), math.log2(n), 1e-3)


def test_binned_mutual_information__many_outputs_do_not_overflow():
    """Only the first column differs: a packed key that overflows loses just that one."""
    t = np.zeros((30, 40))
    t[:, 0] = np.linspace(-0.99, 0.99, 30)
    assert_close(binned_mutual_information(t, "joint"), math.log2(30), EXACT)
    t = np.random.default_rng(0).normal(0, 0.5, (40, 200))
    t[20:] = t[:20]
    assert_close(binned_mutual_information(t, "joint"), math.log2(20), EXACT)


@pytest.mark.parametrize("outside", RULES)
@pytest.mark.parametrize("scale", [0.1, 0.5871, 2.0])
def test_binned_mutual_information__gaussian_closed_form(scale, outside):
    n = 400_000
    t = scale * np.random.default_rng(1).normal(size=(n, 1))
    p_bias = plug_in_bias(30, n)
    assert (
        abs(
            binned_mutual_information(t, "per_logit", outside=outside)
            - gaussian_binned_entropy(scale, outside=outside)
            - p_bias
        )
        < 0.01
    )


@pytest.mark.claim("revisiting_memorise_then_forget", verdict="does not follow",
                   number="4.81 bits at the top, 1.09 at the end, nothing learned")
def test_gaussian_binned_entropy__rises_and_falls_by_scale_alone(number):
    """Finding 2 reads a rise and fall of I(X;T) as memorising and forgetting. Logits that only
    grow in scale, learning nothing, show both: the observation may hold, the inference is none."""
    values = [gaussian_binned_entropy(s) for s in (0.001, 0.2, 0.5, 0.5871, 0.6, 1, 5, 100)]
    assert_close(values, [1.0, 3.6387, 4.7702, 4.81269, 4.8119, 4.3996, 2.1688, 1.0917], 1e-5)
    number(values[3])
    dropped = [gaussian_binned_entropy(s, outside="drop") for s in (0.2, 0.5, 1, 5, 100)]
    assert all(a < b for a, b in zip(dropped, dropped[1:])) and dropped[-1] < math.log2(30)


def test_label_information__shuffled_labels_score_nearly_as_well():
    """50,000 examples, ten outputs, 30 bins: most of I(T;Y) is there for shuffled labels; with 2
    bins next to nothing."""
    y = torch.arange(50_000) % 10
    t = torch.randn(50_000, 10, generator=generator("cpu", 0)) + 2.0 * torch.nn.functional.one_hot(
        y, 10
    )
    p = t.softmax(1)
    true, shuffled = label_information(p, y, generator("cpu", 1), low=0.0)
    assert true < math.log2(10) + 1e-9 and shuffled > 0.5 * true
    assert label_information(p, y, generator("cpu", 1), low=0.0, bins=2)[1] < 0.05


def test_plug_in_bias__first_order():
    p, n = np.full(30, 1 / 30), 300
    entropies = [
        binned_mutual_information(
            (2 * draws(i).choice(30, n, p=p)[:, None] + 1) / 30 - 1, "per_logit"
        )
        for i in range(200)
    ]
    bias = plug_in_bias(30, n)
    second = (1 - sum(1 / p)) / (12 * n**2 * math.log(2))  # the next order
    assert_mean(np.array(entropies) - math.log2(30), bias + second, detects=0.2 * abs(bias))
    assert_close(plug_in_bias(30, n), -0.0697, 1e-2)


def test_binned_mutual_information__bad_input_is_named():
    t = np.zeros((4, 3))
    for arguments, message in [
        ((t, "mutual"), "reading"), ((t, "label"), "needs y"),
        ((t, "label", [1, 2]), "N = 4"),
        ((t[0], "joint"), "float tensor"), ((t * np.nan, "joint"), "finite"),
        ((t + 5, "per_logit", None, 30, -1.0, 1.0, "drop"), "no value"),
        ((t, "joint", None, 30, 1.0, -1.0), "low must lie below high"),
        ((t, "joint", None, 30, -1.0, 1.0, "wrap"), "outside"),
        ((t + np.array([0, 5, 0]), "joint", None, 30, -1.0, 1.0, "drop"), "no example"),
    ]:
        with pytest.raises(ValueError, match=message):
            binned_mutual_information(*arguments)


def test_gaussian_plug_in_error__is_the_spread_of_the_estimate():
    """600 samples of 2,000 values: the sd of an sd is 1 / sqrt(2 n) of it, 2.9 %."""
    rng = draws(0)
    for scale in (0.3, 2.0):
        samples = rng.normal(0, scale, (600, 2000, 1))
        drawn = [binned_mutual_information(t, "joint") for t in samples]
        ratio = np.std(drawn, ddof=1) / gaussian_plug_in_error(scale, 2000)
        assert abs(ratio - 1) < MC / math.sqrt(2 * 600), ratio


def test_gaussian_binned_entropy__cells_against_the_normal_distribution():
    cdf, edges = NormalDist(0, 0.7).cdf, np.linspace(-0.5, 1.5, 9)
    inner = np.diff([cdf(edge) for edge in edges])
    cells = partial(gaussian_bin_probabilities, 0.7, 8, -0.5, 1.5)
    below, above = cdf(edges[0]), 1 - cdf(edges[-1])
    assert_close(cells(outside="extend"), [below, *inner, above], EXACT, 1e-15)
    assert_close(cells(outside="drop"), inner / inner.sum(), EXACT)
    inner[0], inner[-1] = inner[0] + below, inner[-1] + above
    assert_close(cells(), inner, EXACT)
    assert_close(gaussian_binned_entropy(0.7, 8, -0.5, 1.5), -(inner * np.log2(inner)).sum(), EXACT)


def test_binary_channel_information__an_error_above_one_is_refused():
    for error in (-0.1, 1.1):
        with pytest.raises(ValueError, match="error"):
            binary_channel_information(error)
    assert binary_channel_information(1.0) == binary_channel_information(0.0) == 1.0
