"""The two phases under other settings ("Trap of feature diversity in the learning of MLPs",
appendix A, Figures 11 to 16).

Six curves each: training and test loss and accuracy, similarity of features of different categories
and of feature gradients within a category. fig11 to fig13: several depths and widths, at the rates
and layers of the paper's three sets (``--data`` chooses the set); fig14: batch sizes; fig15:
learning rates; fig16: activations; difficulty: the plateau against the number of categories. Runs
that two panels share are trained once.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio

import diversity


@dataclass(frozen=True)
class Config(diversity.Config):
    # ---- (depth, width): "different MLPs", not stated which; ours
    nets: tuple = ((7, 512), (9, 256), (9, 512), (11, 512))  # fig11; the first three: fig13
    slow_nets: tuple = ((7, 512), (9, 256), (9, 512), (11, 512))  # fig12
    net: tuple = (7, 256)  # fig14, fig15
    # ---- what is changed
    slow_lr: float = 0.01  # fig12, and the other rate of fig15
    slow_steps: int = 150_000
    batch_sizes: tuple = (100, 500, 1000)
    slopes: tuple = (0.1, 0.01)  # of Leaky ReLU
    classes: tuple = (2, 5)  # simpler tasks, beside all categories; ours


CONFIGS = diversity.configs(
    Config,
    dict(nets=((7, 128), (7, 256), (8, 128), (8, 256)), net=(7, 128), slow_lr=0.03,
         slow_nets=((6, 128), (6, 256), (7, 128), (7, 256)), slow_steps=8000,
         batch_sizes=(100, 250, 500)),
    dict(nets=((4, 16), (5, 16), (5, 24)), slow_nets=((4, 16), (5, 16)), net=(5, 16),
         batch_sizes=(20, 50), slow_steps=8, classes=(5,)),
)
LAYERS = 2, 3  # linear layers whose features are compared: "second", "third"


def groups(c):
    """panel -> label in its figure -> what is changed of the set-up."""

    def of(net, **changed):
        return dict(zip(("depth", "width"), net), **changed)

    def leaky(slope):
        return partial(nn.LeakyReLU, slope)

    nets = {f"{d}x{w}": of((d, w)) for d, w in c.nets}
    slow = {f"{d}x{w}": of((d, w), lr=c.slow_lr) for d, w in c.slow_nets}
    return {
        diversity_fig11: nets,
        diversity_fig12: slow,
        diversity_fig13: dict(list(nets.items())[:3]),
        diversity_fig14: {f"batch {b}": of(c.net, batch_size=b) for b in c.batch_sizes},
        diversity_fig15: {f"rate {lr}": of(c.net, lr=lr) for lr in (c.lr, c.slow_lr)},
        diversity_fig16: {"ReLU": of((c.depth, c.width))} | {
            f"Leaky ReLU {s}": of((c.depth, c.width), activation=leaky(s)) for s in c.slopes
        },
        diversity_difficulty: {"all categories": of((c.depth, c.width))} | {
            f"{k} categories": of((c.depth, c.width), classes=k) for k in c.classes
        },
    }


def run_name(c, changed):
    """One name for one set-up, whichever panels ask for it."""
    parts = [f"{changed['depth']}x{changed['width']}", f"rate {changed.get('lr', c.lr)}",
             f"batch {changed.get('batch_size', c.batch_size)}"]
    if "activation" in changed:
        parts.append(f"leaky {changed['activation'].args[0]}")
    if "classes" in changed:
        parts.append(f"{changed['classes']} categories")
    return ", ".join(parts)


def runs_of(c, panel):
    """label in the panel's figure -> run."""
    return {label: run_name(c, changed) for label, changed in groups(c)[panel].items()}


CURVES = {
    "loss": "training loss (nats)", "test_loss": "test loss (nats)",
    "accuracy": "training accuracy (%)", "test_accuracy": "test accuracy (%)",
    "cross": "features, different categories (mean cosine)",
    "within": "gradients, same category (mean cosine)",
}


def six_curves(study, panel, claim, layer):
    """What all panels here share. Effects, for each run: features and gradients at its switch above
    its start, and features there above its end, least .05 each."""
    c, effects, gates, said = study.config, [], [], []
    names = runs_of(c, panel)
    for label, name in names.items():
        end, rule = diversity.switch(study, name), dict(least=diversity.COSINE)
        gates.append(diversity.trained_gate(study, name))
        told = f"{label}: switch at step {end.mean():.0f}"
        for key, what in (("cross", "features"), ("within", "gradients")):
            key = f"{key}{layer}"
            there = diversity.at_steps(study, key, name, end)
            start, last = study.results.at(key, name, 0), study.results.final(key, name)
            unit = f"cosine of {what}: {{}}, {label}"
            effects.append(Effect(unit.format("risen to the switch"), there - start, **rule))
            if what == "features":
                effects.append(Effect(unit.format("fallen after it"), there - last, **rule))
            told += f", {what} " + " → ".join(f"{v.mean():.2f}" for v in (start, there, last))
        said.append(told)
    axes = []
    for key, y in CURVES.items():
        own = key + str(layer) * (key in ("cross", "within"))
        curves = [diversity.curve(study, label, own, name) for label, name in names.items()]
        axes.append(diversity.over_steps(study, y, curves))
    return Panel(
        claim=claim, effects=effects, axes=axes, gate=next(filter(None, gates), ""),
        caption=f"layer {layer}", finding="; ".join(said),
    )


def diversity_fig11(study):
    """Four depths and widths, rate .1, features of the third layer (the paper's set: CIFAR-10).

    Effects for each net: ``six_curves``. A net that stays on the plateau gives no verdict. Scope:
    this set and initialisation; which MLPs is not stated.
    """
    claim = "MLPs of several depths and widths have the two phases"
    return six_curves(study, diversity_fig11, claim, 3)


def diversity_fig12(study):
    """Four depths and widths at the lower rate, third layer (the paper's set: MNIST).

    Effects and scope of fig11.
    """
    claim = "MLPs of several depths and widths have the two phases at a lower rate"
    return six_curves(study, diversity_fig12, claim, 3)


def diversity_fig13(study):
    """Three of fig11's nets, second layer (the paper's set: fifty classes of Tiny ImageNet, cropped
    to 32 x 32; ours are resized).

    Effects and scope of fig11.
    """
    claim = "MLPs of several depths and widths have the two phases in the second layer"
    return six_curves(study, diversity_fig13, claim, 2)


def diversity_fig14(study):
    """Three batch sizes, second layer. In steps the plateaus are alike; in epochs that of a large
    batch is longer (figure "epochs").

    Effects and scope of fig11.
    """
    found = six_curves(study, diversity_fig14, "MLPs have the two phases at each batch size", 2)
    loss = []
    for label, changed in groups(study.config)[diversity_fig14].items():
        steps, values = study.results.curve("loss", run_name(study.config, changed))
        epoch = diversity.epoch(study, changed["batch_size"])
        loss.append(Curve(label, [step / epoch for step in steps], values))
    again = Axes("training loss over epochs (nats)", loss, x="epoch", figure="epochs")
    return replace(found, axes=[*(replace(axes, epoch=0.0) for axes in found.axes), again])


def diversity_fig15(study):
    """Two learning rates, second layer. Effects and scope of fig11."""
    return six_curves(study, diversity_fig15, "MLPs have the two phases at each learning rate", 2)


def diversity_fig16(study):
    """ReLU and two Leaky ReLUs, second layer. Effects and scope of fig11."""
    return six_curves(study, diversity_fig16, "MLPs have the two phases with Leaky ReLUs too", 2)


def diversity_difficulty(study):
    """Section 1: the first phase is short for simple tasks and long for complex ones.

    Effects: log of the plateau with all categories over that with the first two, and with the first
    five, least .1 each; each ends under .95 ln of its own number of categories. Scope: the number
    of categories stands for difficulty, with as many images of each; this set, net and rate.
    """
    c, places = study.config, {}
    names = runs_of(c, diversity_difficulty)
    for label, name in names.items():
        few = int(label.split()[0]) if label[0].isdigit() else study.classes
        places[label] = np.maximum(diversity.switch(study, name, classes=few), c.every)
    hardest, rule = places.pop("all categories"), dict(least=diversity.TENTH)
    effects = [
        Effect(f"log (plateau, all / {label})", log_ratio(hardest, steps), **rule)
        for label, steps in places.items()
    ]
    curves = [diversity.curve(study, label, "loss", name) for label, name in names.items()]
    said = [f"{label} {steps.mean():.0f} steps" for label, steps in places.items()]
    return Panel(
        claim="the first phase is longer for more categories", effects=effects,
        axes=[Axes("training loss (nats)", curves, x="step")],
        gate=diversity.trained_gate(study, names["all categories"]),
        finding="; ".join([*map(str, effects), f"all {hardest.mean():.0f} steps", *said]),
    )


PANELS = [
    diversity_fig11, diversity_fig12, diversity_fig13, diversity_fig14, diversity_fig15,
    diversity_fig16, diversity_difficulty,
]


def set_ups(study):
    """run -> what is changed, of the panels that are wanted."""
    c = study.config
    chosen = [group for panel, group in groups(c).items() if study.wants(panel)]
    return {run_name(c, changed): changed for group in chosen for changed in group.values()}


def prepare(study, seed, name):
    return diversity.prepare(study, seed, **set_ups(study)[name])


def measure(study, run, state):
    """Losses, and similarities in both layers -> values for the log."""
    model, x, y = diversity.net_and_examples(study, run, state)
    values = diversity.losses(model, run.data, x, y)
    factors = diversity.factors_of(model, x, y)
    for layer in LAYERS:
        features, gradients = diversity.features_and_gradients(model, factors, layer)
        found = diversity.similarities(features, gradients, y)
        values |= {f"{key}{layer}": value for key, value in found.items()}
    return values


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, plans = study.config, {}
    for name, changed in set_ups(study).items():
        steps = c.slow_steps if changed.get("lr") == c.slow_lr else c.steps
        plans[name] = diversity.plan(steps, prepare(study, study.seeds[0], name)[1])
    measured = diversity.measured_steps(c, max(c.steps, c.slow_steps))
    for run, step, state, names in study.sweep(prepare, plans, measured):
        study.log.add(run.seed, names, step, **measure(study, run, state))
    study.finish()


if __name__ == "__main__":
    command_line(main)
