"""Two normalisations and the first phase ("Trap of feature diversity in the learning of MLPs",
section 3.3, Figures 8 to 10).

norm1 is BatchNorm without scale and shift, BN the whole of it, both after every linear layer but
the last. fig8: the loss with and without them; fig9: how strong weight changes are along the second
common direction against the first; fig10: the similarity of features of different categories. Nets
with a normalisation are measured with the statistics of the measured examples: running statistics
start at 0 and 1, and their warm-up shows a plateau and a fall that are not there.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clp_min.features import cross_class_similarity
from clp_min.study import Curve, Effect, Panel, Study, command_line
from clp_min.train import evaluate

import diversity


@dataclass(frozen=True)
class Config(diversity.Config):
    window: int = 5  # measured points: the last ones of the plateau, or the first of all; ours


CONFIGS = diversity.configs(Config, {}, {})
NORMS = {
    "plain": dict(),
    "norm1": dict(norm=partial(nn.BatchNorm1d, affine=False)),
    "batch norm": dict(norm=True),
}
NORMED = [name for name in NORMS if name != "plain"]


def caption(study):
    c = study.config
    return f"{c.depth} layers of {c.width}, layer {c.layer}"


def diversity_fig8(study):
    """Training loss with and without the normalisations.

    Effects, in doublings, paired by seed: how much sooner than without them the loss is under .95
    ln(classes), least 1, and under .5 nats, least .5 ("speeds up the training"). A run that never
    gets there gives no verdict. Scope: this set, net and rate.
    """
    places = {name: reached(study, name) for name in NORMS}
    effects = []
    for key, what, bound in (("switch", "end of the plateau", 1.0), (0.5, "loss of .5 nats", 0.5)):
        for name in NORMED:
            ratio = np.log2(places["plain"][key] / places[name][key])
            effects.append(Effect(f"doublings sooner, {what}, {name}", ratio, least=bound))
    said = [f"{name} reaches {key} nats after {places[name][key].mean():.0f} steps"
            for name in NORMS for key in (0.5, 0.1)]
    curves = [diversity.curve(study, name, "loss", name) for name in NORMS]
    return Panel(
        claim="normalisations remove the first phase and speed up training", effects=effects,
        axes=[diversity.over_steps(study, "training loss (nats)", curves)], caption=caption(study),
        gate=diversity.trained_gate(study, "plain"),
        finding="; ".join(map(str, effects + said)),
    )


def reached(study, name):
    """"switch", .5, .1 -> (seeds,): steps at which the loss is first so low, at least the first
    measured one."""
    nats = np.log(study.classes)
    shares = {"switch": diversity.PLATEAU, 0.5: 0.5 / nats, 0.1: 0.1 / nats}
    found = {key: diversity.switch(study, name, share) for key, share in shares.items()}
    return {key: np.maximum(steps, study.config.every) for key, steps in found.items()}


def window_mean(study, key, name):
    """(seeds,): mean over the window: the last measured points before the switch of the plain net,
    the first ones after the start of a normalised one, which has no plateau."""
    c = study.config
    points, values = study.results.curve(key, name)
    if name != "plain":
        return values[:, 1 : 1 + c.window].mean(1)
    rows = []
    for step, row in zip(diversity.switch(study, name), values):
        last = points.index(step) if np.isfinite(step) else 0
        rows.append(row[max(last - c.window, 0) : last].mean() if last else np.nan)
    return np.array(rows)


def diversity_fig9(study):
    """Strength of a category's weight change along its second direction, over that along its first.

    Effects: mean over categories and over the window, with each normalisation less without, least
    .05. Directions are the singular vectors of the category's summed change in training mode at
    each point; the paper shows two categories of CIFAR-10, here it is all. Scope as fig8.
    """
    plain = window_mean(study, "second", "plain")
    effects = []
    for name in NORMED:
        more = window_mean(study, "second", name) - plain
        effects.append(Effect(f"s2 / s1 more with {name}", more, least=diversity.COSINE))
    curves = [diversity.curve(study, name, "second", name) for name in NORMS]
    losses = [diversity.curve(study, name, "loss", name) for name in NORMS]
    without = Effect("without, on the plateau", plain)
    axes = [diversity.over_steps(study, "s2 / s1 of weight changes", curves),
            diversity.over_steps(study, "training loss (nats)", losses)]
    return Panel("normalisations spread weight changes over more directions", effects, axes,
                 diversity.trained_gate(study, "plain"), caption=caption(study),
                 finding="; ".join(map(str, [*effects, without])))


def diversity_fig10(study):
    """Features of different categories with and without the normalisations.

    Effects: their mean cosine without any at the switch above the start, least .05; with each
    normalisation at the start above the end, least .005 ("kept decreasing"). The fall that running
    statistics would have shown is printed and drawn apart. Scope as fig8.
    """
    results, found, said = study.results, [], []
    end = diversity.switch(study, "plain")
    risen = diversity.at_steps(study, "cross", "plain", end) - results.at("cross", "plain", 0)
    found.append(Effect("cosine risen to the switch, plain", risen, least=diversity.COSINE))
    for name in NORMED:
        first, last = results.at("cross", name, 0), results.final("cross", name)
        found.append(Effect(f"cosine fallen in all, {name}", first - last, least=0.005))
        wrong = results.at("cross_running", name, 0) - results.final("cross_running", name)
        said.append(Effect(f"fallen with running statistics, {name}", wrong))
    curves = [diversity.curve(study, name, "cross", name) for name in NORMS]
    loss = diversity.curve(study, "plain", "loss", "plain")
    wrong = [Curve(f"{name}, running statistics", *results.curve("cross_running", name))
             for name in NORMED]
    axes = [
        diversity.over_steps(study, "mean cosine of features, different categories", curves),
        diversity.over_steps(study, "training loss (nats)", [loss]),
        diversity.over_steps(
            study, "mean cosine, as running statistics would show it", wrong, "running"
        ),
    ]
    return Panel(
        claim="normalisations keep features of different categories from becoming alike",
        effects=found, axes=axes, gate=diversity.trained_gate(study, "plain"),
        caption=caption(study), finding="; ".join(map(str, found + said)),
    )


PANELS = [diversity_fig8, diversity_fig9, diversity_fig10]


# ---- what is measured


def prepare(study, seed, label):
    return diversity.prepare(study, seed, **NORMS[label])


def second_strength(model, x, y, layer):
    """Mean over categories of s2 / s1, the singular values of the category's summed gradient of
    W_layer, the net in training mode on all the measured examples (a copy)."""
    own = copy.deepcopy(model).train()
    weight = diversity.linear_layers(own)[layer - 1].weight
    loss = F.cross_entropy(own(x), y, reduction="none")
    classes, ratios = y.unique().tolist(), []
    for k in classes:
        [change] = torch.autograd.grad(loss[y == k].sum(), weight, retain_graph=True)
        s = torch.linalg.svdvals(change.double())
        ratios.append(float(s[1] / s[0].clamp(min=1e-300)))
    return sum(ratios) / len(ratios)


def measure(study, run, state):
    layer = study.config.layer
    model, x, y = diversity.net_and_examples(study, run, state)
    features = diversity.factors_of(model, x, y)[layer][1]
    values = diversity.losses(model, run.data, x, y)
    values |= dict(cross=cross_class_similarity(features, y),
                   second=second_strength(state.model, x, y, layer))
    if model is not state.model:
        running = diversity.factors_of(state.model, x, y)[layer][1]
        values |= dict(cross_running=cross_class_similarity(running, y),
                       loss_running=evaluate(state.model, x, y)[1])
    return values


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    plans = {
        label: diversity.plan(c.steps, prepare(study, study.seeds[0], label)[1]) for label in NORMS
    }
    for run, step, state, names in study.sweep(prepare, plans, diversity.measured_steps(c)):
        study.log.add(run.seed, names, step, **measure(study, run, state))
    study.finish()


if __name__ == "__main__":
    command_line(main)
