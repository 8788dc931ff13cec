"""The common direction of weight changes in the first phase ("Trap of feature diversity in the
learning of MLPs", Figures 4 to 7 and 17, Table 1).

At the last measured points before the loss falls (by two definitions; the first decides), and at
step 0: strengths along five common directions (fig4), of the parts of each example's change by
Theorem 1 (table1), features against the measured change of V (fig5, whose printed version is an
identity), Theorem 2's product against what random weights give (fig6), accuracy by category (fig7),
both terms of Theorem 2's proof (fig17).
Read over the two categories with the highest accuracy, over layers 2 to 6, one step on each example
alone or, where that is said, as measured between two points.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from clp_min.features import (
    common_directions, component_strengths, direction_agreement, direction_strengths,
    recursive_directions, summed_change, theorem2_terms,
)
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio
from clp_min.train import fresh_model
from theory.common_direction import null_frequency

import diversity


@dataclass(frozen=True)
class Config(diversity.Config):
    window: int = 5  # measured points before the switch, fixed beforehand; ours
    layers: tuple = (2, 3, 4, 5, 6)  # Table 1
    directions: int = 5


CONFIGS = diversity.configs(Config, {}, dict(layers=(2, 3)))
NET, WINDOW, EARLY = "net", "net window", "net early window"
WINDOWS = {WINDOW: diversity.PLATEAU, EARLY: 0.99}  # where it ends: shares of ln(classes)


def caption(study):
    c = study.config
    return f"{c.depth} layers of {c.width}; the {c.window} measured points before the switch"


def panel(study, claim, effects, axes, more=()):
    """What all panels here share."""
    return Panel(
        claim=claim, effects=effects, axes=axes, gate=diversity.trained_gate(study, NET),
        caption=caption(study), finding="; ".join(map(str, [*effects, *more])),
    )


def read(study, key, window=WINDOW):
    """(seeds, layers, …): what the second stage measured."""
    return study.results.at(key, window, 0)


def in_second_window(unit, values):
    """The same number of the second window, which ends where the loss is under .99 ln(classes): it
    does not decide. values (seeds, layers)."""
    return Effect(f"{unit} (window before .99 ln classes)", values.mean(1))


def over_layers(study, rows):
    """Curves over layers: label -> (seeds, layers)."""
    return [Curve(label, list(study.config.layers), values) for label, values in rows.items()]


def diversity_fig4(study):
    """Strength of a category's summed weight change along its five common directions (Eq. 3 over
    the window).

    Effects, means over layers: log (s1 / s2), least 1 (2.7 times; the paper says about ten); and
    its growth over step 0, least .1: random weights have such a ratio already. Scope: this set and
    net; the window ends with the first phase.
    """
    late, early = read(study, "strengths"), read(study, "strengths_start")
    ratios = [log_ratio(s[:, :, 0], s[:, :, 1]) for s in (late, early)]
    effects = [
        Effect("log (s1 / s2)", ratios[0].mean(1), least=1.0),
        Effect("more than at step 0", (ratios[0] - ratios[1]).mean(1), least=diversity.TENTH),
    ]
    other = log_ratio(*np.moveaxis(read(study, "recursive")[:, :, :2], 2, 0)).mean(1)
    more = Effect("log (s1 / s2) by Appendix D's recursion", other)
    before = read(study, "strengths", EARLY)
    sooner = in_second_window("log (s1 / s2)", log_ratio(before[:, :, 0], before[:, :, 1]))
    ranks = list(range(1, late.shape[2] + 1))
    shares = {"before the switch": late, "step 0": early}
    axes = [
        Axes("strength / s1, mean of layers", [
            Curve(label, ranks, (s / np.maximum(s[:, :, :1], 1e-300)).mean(1))
            for label, s in shares.items()
        ], x="common direction", log=True),
        Axes("log (s1 / s2)", over_layers(study, dict(zip(shares, ratios))), x="layer"),
    ]
    return panel(study, "weight changes go along one direction", effects, axes, [more, sooner])


PARTS = ["primary", "S1", "S2", "S3", "all others"]


def diversity_table1(study):
    """Strengths of the parts of each example's weight change by Theorem 1.

    Effects, means over layers: log of the primary part over each of the three with the largest
    singular values, least 1; over the sum of all others, least .1; and the growth over step 0 of
    the first, least .1. Scope as fig4; the parts are exact for a step on one example.
    """
    late, early = read(study, "parts"), read(study, "parts_start")
    effects = [
        Effect(f"log (primary / {PARTS[i]})", log_ratio(late[:, :, 0], late[:, :, i]).mean(1),
               least=1.0 if i < 4 else diversity.TENTH)
        for i in range(1, 5)
    ]
    grown = log_ratio(late[:, :, 0], late[:, :, 1]) - log_ratio(early[:, :, 0], early[:, :, 1])
    effects.append(Effect("log (primary / S1), more than at step 0", grown.mean(1),
                          least=diversity.TENTH))
    axes = [
        Axes(f"strength, {when}", over_layers(study, {
            part: values[:, :, i] for i, part in enumerate(PARTS)
        }), x="layer", log=True)
        for when, values in (("before the switch", late), ("step 0", early))
    ]
    before = read(study, "parts", EARLY)
    ratio = log_ratio(before[:, :, 0], before[:, :, 1])
    sooner = in_second_window("log (primary / S1)", ratio)
    found = panel(study, "the primary part of weight changes outweighs all others", effects, axes,
                  [sooner])
    return replace(found, printed="CIFAR-10, layers 2 to 6: primary 154 to 282, S1 to S3 9 to 16")


def diversity_fig5(study):
    """Features against the change of V, as measured between two points, all examples together.

    Effect: their mean cosine over a category's examples, in absolute value, mean over layers, above
    that of a random direction (sqrt(2 / (pi width)), if the examples are alike), least .05. The
    printed figure takes one example's own change, dV(x) = -lr (C'delta) F(x): its cosine with F(x)
    is 1 or -1 for any C (ledger: diversity_fig5_one_sample). Scope as fig4.
    """
    cosines, chance = read(study, "with_v"), math.sqrt(2 / math.pi / study.config.width)
    effect = Effect("cosine of features and the measured change of V, above chance",
                    cosines.mean(1) - chance, least=diversity.COSINE)
    rows = {"features, dV": cosines, "chance": np.full_like(cosines, chance)}
    axes = [Axes("mean cosine", over_layers(study, rows), x="layer")]
    sooner = in_second_window("cosine", read(study, "with_v", EARLY))
    return panel(study, "the coefficient V is pushed along the features", [effect], axes, [sooner])


def diversity_fig6(study):
    """Theorem 2's product o(x): how often is it positive?

    Effects, means over layers: the share of positive ones less what Gaussian weights and random
    directions give (three quarters for square layers), least .05, with dF = -gradient, the paper's
    stand-in, and with the measured change of the features. Scope as fig4.
    """
    null = null_frequency(study.config.width, study.config.width)
    rows = {"dF = - gradient": read(study, "agree")}
    rows["dF as measured"] = read(study, "agree_measured")
    effects = [
        Effect(f"share of positive o(x) above chance, {label}", values.mean(1) - null, least=0.05)
        for label, values in rows.items()
    ]
    mean = Effect("mean o(x), dF = - gradient", read(study, "o").mean(1))
    rows["chance"] = np.full_like(rows["dF = - gradient"], null)
    axes = [Axes("share of positive o(x)", over_layers(study, rows), x="layer")]
    sooner = in_second_window(
        "share above chance, dF as measured", read(study, "agree_measured", EARLY) - null
    )
    return panel(study, "features and V push each other the same way", effects, axes,
                 [mean, sooner])


def diversity_fig7(study):
    """Accuracy by category at the switch: "only a single or two" are learned.

    Effects: three less the number of categories with more than two and a half times the accuracy of
    guessing, least .5 (so fewer than 2.5 on the mean); points by which the best one is above that,
    least 10. Scope as fig4; measured training images.
    """
    bar = 250 / study.classes
    end = diversity.switch(study, NET)
    points, values = study.results.curve("by_class", NET)
    rows = np.stack([
        row[points.index(step)] if np.isfinite(step) else row[0] * np.nan
        for step, row in zip(end, values)
    ])
    effects = [
        Effect("three less the categories learned", 3 - (rows > bar).sum(1), least=0.5, step=1.0),
        Effect("points of the best one above that bar", rows.max(1) - bar, least=10.0),
    ]
    ordered = -np.sort(-rows, axis=1)
    curve = Curve("at the switch", [f"{i + 1}." for i in range(ordered.shape[1])], ordered)
    axes = [
        Axes("accuracy (%)", [curve], x="categories, best first", kind="bar"),
        Axes("loss (nats)", [diversity.curve(study, "training", "loss", NET)], x="step"),
    ]
    return panel(study, "one or two categories are learned in the first phase", effects, axes)


def diversity_fig17(study):
    """Both terms of Theorem 2's proof: |V|^2 C'delta and V'eps delta.

    Effect: log of the ratio of their sizes, median over examples, mean over layers, least .1 (the
    paper: "almost three times", log 3 = 1.1). sigma_max(eps) / |V|, claimed small and shown
    nowhere, is printed and drawn. Scope as fig4.
    """
    ratio, sigma = read(study, "terms"), read(study, "sigma")
    effect = Effect("log (|V|^2 |C'delta| / |V'eps delta|)", ratio.mean(1), least=diversity.TENTH)
    axes = [
        Axes("log ratio of the terms", over_layers(study, {"median": ratio}), x="layer"),
        Axes("sigma_max(eps) / |V|", over_layers(study, {"before the switch": sigma}), x="layer"),
    ]
    more = Effect("sigma_max(eps) / |V|", sigma.mean(1))
    sooner = in_second_window("log ratio of the terms", read(study, "terms", EARLY))
    return panel(study, "the neglected term of Theorem 2's proof is the smaller", [effect], axes,
                 [more, sooner])


PANELS = [
    diversity_fig4, diversity_table1, diversity_fig5, diversity_fig6, diversity_fig7,
    diversity_fig17,
]


# ---- what is measured


def prepare(study, seed, label):
    return diversity.prepare(study, seed)


def snapshot(study, unit, step):
    """The net at a kept step with its factors: (weights of the linear layers, factors)."""
    model = fresh_model(unit.setup, unit.seed, "init")
    model.load_state_dict(study.kept(unit.seed, f"step {step}")["model"])
    x, y = (part[: study.config.examples] for part in unit.data.train)
    weights = [m.weight.detach() for m in diversity.linear_layers(model)]
    return weights, diversity.factors_of(model, x, y)


def measure_window(study, unit, window_name):
    """Second stage of a unit: a window before the switch, and step 0."""
    c, log = study.config, study.log
    if log.series(unit.seed, window_name, "strengths")[0]:
        return
    steps, loss = log.series(unit.seed, NET, "loss")
    bar = WINDOWS[window_name] * np.log(unit.data.classes)
    under = [s for s, v in zip(steps, loss) if v < bar]
    end = under[0] if under else steps[-1]
    window = [s for s in steps if s < end][-c.window :] or [0]
    accuracies = log.points[unit.seed, NET][end]["by_class"]
    best = sorted(range(len(accuracies)), key=lambda k: -accuracies[k])[:2]
    shots = {step: snapshot(study, unit, step) for step in {0, *window, end}}
    y = unit.data.train[1][: c.examples]
    rows = {key: [] for key in ("strengths", "strengths_start", "recursive", "parts", "parts_start",
                                "with_v", "agree", "agree_measured", "o", "terms", "sigma")}
    for layer in c.layers:
        found = [layer_values(c, shots, window, end, layer, y == k) for k in best]
        for key in rows:
            rows[key].append(np.mean([one[key] for one in found], 0).tolist())
    log.add(unit.seed, [window_name], 0, **rows)


def directions_of(shots, steps, layer, own, k):
    """Common directions (k, h) of a layer by Eq. 3 over these steps and examples."""
    parts = [shots[step][1][layer - 1] for step in steps]
    return common_directions(
        (torch.cat([d[own] for d, _ in parts]), torch.cat([f[own] for _, f in parts])), k
    )


def layer_values(c, shots, window, end, layer, own):
    """Everything about one layer and one category's examples, means over the window."""
    values, steps = {}, [*window, end]
    for ending, at in (("", window), ("_start", [0])):
        directions = directions_of(shots, at, layer, own, c.directions)
        above = directions_of(shots, at, layer + 1, own, 1)[0]
        strengths, parts, recursive = [], [], []
        for step in at:
            weights, factors = shots[step]
            change = summed_change([part[own] for part in factors[layer - 1]])
            strengths.append(direction_strengths(change, directions))
            again = recursive_directions(directions[0], change, c.directions)
            recursive.append(direction_strengths(change, again))
            gates = (factors[layer][1][own] > 0).to(change.dtype)
            primary, others, rest = component_strengths(
                weights[layer], above, gates, factors[layer][0][own], factors[layer - 1][1][own]
            )
            parts.append(torch.stack([primary, *others.T[:3], rest]).mean(1))
        values[f"strengths{ending}"] = torch.stack(strengths).mean(0).tolist()
        values[f"parts{ending}"] = torch.stack(parts).mean(0).tolist()
        if not ending:
            values["recursive"] = torch.stack(recursive).mean(0).tolist()
            first = directions[0]
    rows = [
        step_values(shots, now, following, layer, own, first)
        for now, following in zip(steps, steps[1:])
    ]
    return values | {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def step_values(shots, now, following, layer, own, c):
    """What needs two points: the changes of V and of the features as they were measured."""
    (weights, factors), (later, after) = shots[now], shots[following]
    w, (delta, features) = weights[layer - 1], [part[own] for part in factors[layer - 1]]
    change = after[layer - 1][1][own] - features
    dv = (later[layer - 1] - w).T @ c
    with_v = torch.cosine_similarity(features, dv[None], dim=1).mean().abs()
    o = direction_agreement(w, c, delta, features)
    measured = direction_agreement(w, c, delta, features, change)
    one, other, sigma = theorem2_terms(w, c, delta)
    terms = torch.log(one.abs().clamp(min=1e-30) / other.abs().clamp(min=1e-30)).median()
    return dict(
        with_v=float(with_v), agree=float((o > 0).double().mean()), o=float(o.mean()),
        agree_measured=float((measured > 0).double().mean()), terms=float(terms), sigma=sigma,
    )


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, at = study.config, diversity.measured_steps(study.config)
    plans = {NET: diversity.plan(c.steps, prepare(study, study.seeds[0], NET)[1])}
    for unit in study.units(prepare, plans):
        x, y = (part[: c.examples] for part in unit.data.train)
        for step, state, names in study.work.trained(unit, at):
            values = diversity.losses(state.model, unit.data, x, y)
            values["by_class"] = diversity.by_class(state.model, x, y, unit.data.classes)
            study.log.add(unit.seed, names, step, **values)
            least = min(study.log.series(unit.seed, NET, "loss")[1][:-1], default=np.inf)
            late, first = (least < WINDOWS[w] * np.log(unit.data.classes) for w in (WINDOW, EARLY))
            # the plateau, and the first point after it
            if not late:
                study.keep(unit.seed, f"step {step}", state)
                # both windows: from the end of the first on, all is kept
                if (old := step - (c.window + 1) * c.every) > 0 and not first:
                    study.drop(unit.seed, f"step {old}")
        for window_name in WINDOWS:
            measure_window(study, unit, window_name)
    study.finish()


if __name__ == "__main__":
    command_line(main)
