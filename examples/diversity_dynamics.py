"""Two phases in the training of MLPs ("Trap of feature diversity in the learning of MLPs",
Figures 1 to 3).

fig1: the training loss stays, then falls. fig2a to 2c: in the first phase the features of different
categories, the feature gradients within a category and the weight changes of pseudo-neurons become
alike, and unlike after it; fig2d: the test error; order, escape: which comes first, and where the
gradient comes from at the end of the phase. fig3: several depths and widths.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np
import torch

from clp_min.features import (
    dormant_share, effective_rank, pseudo_neuron_similarity, summed_change,
)
from clp_min.study import Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio

import diversity


@dataclass(frozen=True)
class Config(diversity.Config):
    # (depth, width) of fig3; several, not stated which
    nets: tuple = ((7, 512), (9, 256), (9, 512), (11, 512))


CONFIGS = diversity.configs(
    Config, dict(nets=((6, 128), (8, 128), (8, 256))), dict(nets=((4, 16), (5, 16)))
)


def main_net(study):
    """The name of the net of fig1 and fig2."""
    return f"{study.config.depth}x{study.config.width}"


def caption(study):
    c = study.config
    return f"{c.depth} layers of {c.width}, layer {c.layer}"


def diversity_fig1(study):
    """Training loss: a plateau, then a sudden fall.

    Effects: epochs to the switch (loss under .95 ln classes), least 5; log of the plateau's length
    over the time from there to half of ln(classes), least .1 ("suddenly"). Scope: this set, net,
    rate and initialisation; nets with biases begin with similar features.
    """
    c, name = study.config, main_net(study)
    end, half = diversity.switch(study, name), diversity.switch(study, name, 0.5)
    epoch = diversity.epoch(study)
    effects = [
        Effect("epochs of plateau", end / epoch, least=5.0, step=c.every / epoch),
        Effect("log (plateau / time from .95 to .5 of ln classes)",
               np.log(end / np.maximum(half - end, c.every)), least=diversity.TENTH),
    ]
    curves = [diversity.curve(study, "training", "loss", name),
              diversity.curve(study, "test", "test_loss", name)]
    return Panel(
        claim="the loss stays for a first phase, then suddenly falls", effects=effects,
        axes=[diversity.over_steps(study, "loss (nats)", curves)],
        gate=diversity.trained_gate(study, name),
        caption=caption(study), headline=effects[0],
        finding="; ".join(map(str, [*effects, Effect("steps to the switch", end)])),
    )


def similarity_panel(study, claim, keys, effects):
    """What fig2a to 2c share: similarities and the loss along the steps."""
    name = main_net(study)
    curves = [diversity.curve(study, label, key, name) for key, label in keys.items()]
    loss = diversity.curve(study, "training", "loss", name)
    axes = [diversity.over_steps(study, "mean cosine", curves),
            diversity.over_steps(study, "loss (nats)", [loss])]
    return Panel(claim, effects, axes, diversity.trained_gate(study, name), caption=caption(study))


def diversity_fig2a(study):
    """Features of different categories.

    Effects: their mean cosine at the switch above that of the start and of the end, least .05
    each; and the step of the greatest one minus that of the switch, within a tenth of the plateau
    (each seed's own places). Scope as fig1.
    """
    effects = diversity.rise_and_fall(study, "cross", main_net(study), "cosine")
    keys = {"cross": "features, different categories", "all": "features, all pairs"}
    return similarity_panel(
        study, "features of different categories become alike until the switch", keys, effects
    )


def diversity_fig2b(study):
    """Feature gradients within a category. Effects and scope of fig2a."""
    effects = diversity.rise_and_fall(study, "within", main_net(study), "cosine")
    keys = {"within": "feature gradients, same category"}
    return similarity_panel(
        study, "feature gradients of a category become alike until the switch", keys, effects
    )


def diversity_fig2c(study):
    """Weight changes of pseudo-neurons: columns of a category's summed change (a single example's
    are alike by rank one), and columns of the weights themselves (the text's claim).

    Effects: the changes' mean cosine at the switch above that of the start, least .05; the weights'
    likewise, least .01 (they begin orthogonal). Scope as fig1.
    """
    name, results = main_net(study), study.results
    end = diversity.switch(study, name)
    effects = []
    for key, what, bound in (("pseudo", "weight changes", diversity.COSINE),
                             ("columns", "weights", 0.01)):
        risen = diversity.at_steps(study, key, name, end) - results.at(key, name, 0)
        effects.append(Effect(f"cosine of {what}: risen to the switch", risen, least=bound))
    keys = {"pseudo": "weight changes of pseudo-neurons", "columns": "weights of pseudo-neurons"}
    return similarity_panel(
        study, "weight changes of pseudo-neurons become alike, and so do weights", keys, effects
    )


def diversity_fig2d(study):
    """Epoch-wise double descent, said to fall and rise within the first phase.

    Effects: points by which the test error falls from the start to half of the plateau, and rises
    from there to the switch, least 1 each. A later rise by over-fitting is none of it. Scope as
    fig1.
    """
    c, name = study.config, main_net(study)
    end = diversity.switch(study, name)
    half = np.round(end / 2 / c.every) * c.every
    first, middle, last = (
        100 - diversity.at_steps(study, "test_accuracy", name, steps)
        for steps in (np.where(np.isfinite(end), 0.0, np.nan), half, end)
    )
    rule = dict(least=diversity.POINT, step=study.step())
    effects = [
        Effect("points risen from half of the plateau to the switch", last - middle, **rule),
        Effect("points fallen to half of the plateau", first - middle, **rule),
    ]
    error = Curve("test", *study.results.curve("test_accuracy", name))
    error = Curve("test", error.x, 100 - error.values)
    loss = diversity.curve(study, "training", "loss", name)
    return Panel(
        claim="the test error falls and rises again before the loss does anything",
        effects=effects, gate=diversity.trained_gate(study, name), caption=caption(study),
        axes=[diversity.over_steps(study, "test error (%)", [error]),
              diversity.over_steps(study, "loss (nats)", [loss])],
    )


def diversity_fig3(study):
    """Several depths and widths: features over all pairs, and gradients within a category.

    Effects, for each net: both at the switch above the start, least .05. A net that never leaves
    the plateau gives no verdict. Scope as fig1.
    """
    c, effects, gates, curves = study.config, [], [], {"all": [], "within": [], "loss": []}
    for depth, width in c.nets:
        name = f"{depth}x{width}"
        end = diversity.switch(study, name)
        gates.append(diversity.trained_gate(study, name))
        for key, what in (("all", "features"), ("within", "gradients")):
            risen = diversity.at_steps(study, key, name, end) - study.results.at(key, name, 0)
            unit = f"cosine of {what}: risen to the switch, {name}"
            effects.append(Effect(unit, risen, least=diversity.COSINE))
        for key in curves:
            curves[key].append(diversity.curve(study, name, key, name))
    labels = {"all": "features, all pairs (mean cosine)", "within": "gradients (mean cosine)",
              "loss": "training loss (nats)"}
    axes = [diversity.over_steps(study, labels[key], curves[key]) for key in curves]
    return Panel("features and gradients become alike in MLPs of all depths and widths", effects,
                 axes, next(filter(None, gates), ""), caption=f"layer {c.layer}")


def diversity_order(study):
    """Appendix A.7: gradients become alike first, features after them.

    Effect: the step at which features of different categories have made half of their rise up to
    the switch, less the one at which feature gradients of a category have, as a share of the
    plateau, least .1. Scope as fig1; each from its own start.
    """
    name = main_net(study)
    later = diversity.half_rise(study, "cross", name) - diversity.half_rise(study, "within", name)
    end = diversity.switch(study, name)
    effect = diversity.of_plateau(study, "of the plateau, features after gradients", later, end,
                                  least=diversity.TENTH)
    keys = {"cross": "features, different categories", "within": "gradients, same category"}
    claim = "in the first phase gradients become alike before features do"
    return similarity_panel(study, claim, keys, [effect])


def diversity_escape(study):
    """Section 3.2.2: a category or two "soon saturate, and the gradient mainly comes from" the
    others, which ends the first phase.

    Effects, for the category with the highest accuracy at the switch: log of its share of the
    gradient's norm at half of the plateau over that at the switch ("saturates"), least .1; of the
    others' share there above a half ("mainly"), least .1. Norms of the summed gradients of each
    category's measured examples, all layers. Scope as fig1; that category is the one that the net
    gives for most examples then.
    """
    c, name = study.config, main_net(study)
    end = diversity.switch(study, name)
    half = np.round(end / 2 / c.every) * c.every
    best = diversity.at_steps(study, "by_class", name, end).argmax(1)
    share, before = (
        np.take_along_axis(diversity.at_steps(study, "shares", name, steps), best[:, None], 1)[:, 0]
        for steps in (end, half)
    )
    effects = [
        Effect("log (the best category's share, half of the plateau / switch)",
               log_ratio(before, share), least=diversity.TENTH),
        Effect("of the others' share above a half, at the switch", 0.5 - share,
               least=diversity.TENTH),
    ]
    points, shares = study.results.curve("shares", name)
    own = np.where(np.isfinite(end)[:, None], shares[range(len(best)), :, best], np.nan)
    curves = [Curve("category that is best at the switch", points, own),
              Curve("category with the largest gradient", points, shares.max(2))]
    loss = diversity.curve(study, "training", "loss", name)
    return Panel(
        claim="the category learned first saturates, and the others' gradients end the first phase",
        effects=effects, gate=diversity.trained_gate(study, name), caption=caption(study),
        axes=[diversity.over_steps(study, "share of the gradient's norm", curves),
              diversity.over_steps(study, "loss (nats)", [loss])],
        finding=f"{effects[0]}; {effects[1]}; the best category's share is {before.mean():.3f} and"
        f" {share.mean():.3f}, an equal one {1 / study.classes:.3f}",
    )


PANELS = [
    diversity_fig1, diversity_fig2a, diversity_fig2b, diversity_fig2c, diversity_fig2d,
    diversity_order, diversity_escape, diversity_fig3,
]


# ---- what is measured


def prepare(study, seed, label):
    depth, width = map(int, label.split("x"))
    return diversity.prepare(study, seed, depth=depth, width=width)


def measure(study, run, state):
    """Losses, similarities, and the plasticity literature's measures -> values for the log."""
    layer = study.config.layer
    model, x, y = diversity.net_and_examples(study, run, state)
    factors = diversity.factors_of(model, x, y)
    features, gradients = diversity.features_and_gradients(model, factors, layer)
    delta, inputs = factors[layer - 1]
    classes = [y == k for k in range(run.data.classes)]
    changes = [summed_change((delta[own], inputs[own])) for own in classes if int(own.sum()) > 1]
    norms = [_gradient_norm(factors, own) if bool(own.any()) else 0.0 for own in classes]
    values = diversity.losses(model, run.data, x, y)
    return values | diversity.similarities(features, gradients, y) | dict(
        pseudo=sum(map(pseudo_neuron_similarity, changes)) / len(changes),
        columns=pseudo_neuron_similarity(diversity.linear_layers(model)[layer - 1].weight.detach()),
        dormant=dormant_share(features),
        rank=effective_rank(features) if bool(features.any()) else 0.0,
        shares=[norm / max(sum(norms), 1e-30) for norm in norms],
        by_class=diversity.by_class(model, x, y, run.data.classes),
    )


def _gradient_norm(factors, own):
    """Norm of the gradient of one category's summed loss, all layers."""
    squares = [summed_change((d[own], f[own])).square().sum() for d, f in factors]
    return float(torch.stack(squares).sum().sqrt())


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    wanted = [main_net(study)] if study.wants(*PANELS[:-1]) else []
    if study.wants(diversity_fig3):
        wanted += [f"{depth}x{width}" for depth, width in c.nets]
    plans = {}
    for label in dict.fromkeys(wanted):
        plans[label] = diversity.plan(c.steps, prepare(study, study.seeds[0], label)[1])
    for run, step, state, names in study.sweep(prepare, plans, diversity.measured_steps(c)):
        study.log.add(run.seed, names, step, **measure(study, run, state))
    study.finish()


if __name__ == "__main__":
    command_line(main)
