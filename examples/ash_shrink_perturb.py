"""Shrink, perturb, repeat (Ash & Adams, "On warm-starting neural network training").

Before the second stage every parameter becomes shrink * theta + perturb * theta', theta' a newly
initialised net. shrink_perturb: accuracy over both numbers, against random and warm starts; online:
data that come in rounds, with what each arm costs; "towards init" stays warm and adds a multiple
of the squared distance from the first weights to the loss.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from clp_min.schedule import shrink_and_perturb
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio, not_worse
from clp_min.train import cross_entropy, fresh_model

import ash


@dataclass(frozen=True)
class Config(ash.Config):
    shrinks: tuple = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    perturbs: tuple = (0.01, 0.1)
    rounds: int = 10
    pulls: tuple = (0.0003, 0.001, 0.003)  # of the squared distance from the first weights; ours


CONFIGS = ash.configs(
    Config, shapes=dict(shrinks=(0.2, 0.4, 0.8), rounds=3),
    cifar10=dict(shrinks=(0.2, 0.4, 0.8), rounds=3),
    smoke=dict(shrinks=(0.4,), perturbs=(0.1,), rounds=2, pulls=(0.001,)),
)
ARMS = {"cold": (0.0, 1.0), "warm": (1.0, 0.0)}


def ash_shrink_perturb(study):
    """Final accuracy over shrink and perturb.

    Effects, at the settings' ``shrink`` and ``perturb``: points above warm, least 1; at most 1
    behind random ("completely eliminates the gap"); log of random's steps over those of its second
    stage, least .1 ("savings": the half was trained before). Scope of ash_warm_start.
    """
    c, results = study.config, study.results
    chosen = spelled(c.shrink, c.perturb)
    random, warm, ours = results.final("accuracy", ["random", "warm", chosen]).T
    steps = results.final("steps", [chosen, "half"])
    saved = log_ratio(results.final("steps", "random"), steps[:, 0] - steps[:, 1])
    effects = [
        Effect(f"points, {chosen} - warm", ours - warm, least=ash.POINT, step=study.step()),
        not_worse(f"points, {chosen} - random", ours - random, ash.POINT, study.step()),
        Effect("log (steps, random / second stage)", saved, least=ash.TENTH),
    ]
    train = results.final("train_accuracy", ["random", "warm", chosen]).mean(0)
    curves = [
        Curve(f"perturb {p}", list(c.shrinks), results.final("accuracy", [
            spelled(s, p) for s in c.shrinks]))
        for p in c.perturbs
    ]
    flat = np.ones(len(c.shrinks))
    curves += [
        Curve(name, list(c.shrinks), values[:, None] * flat, style="dashed")
        for name, values in (("random", random), ("warm", warm))
    ]
    counts = np.stack([results.final("steps", "random"), steps[:, 0] - steps[:, 1]], 1)
    axes = [
        Axes("test accuracy (%)", curves, x="shrink"),
        Axes("steps of training on all", [ash.bars("steps", ["random", chosen], counts)], x="",
             kind="bar"),
    ]
    return Panel(
        "shrinking and perturbing closes the gap of the warm start, and saves steps", effects, axes,
        ash.random_gate(study), "; ".join([*map(str, effects), "training accuracy of random, warm,"
                                           f" this: {', '.join(f'{v:.1f}' for v in train)} %"]),
    )


def ash_online(study):
    """Data in equal rounds; each round trains on all that has come.

    Effects, after the last round: points that warm is behind cold, least 1; shrink and perturb at
    most 1 behind cold; log of cold's steps in all over its, least .1. "Towards init" is printed.
    Scope of ash_warm_start.
    """
    c, results, arms = study.config, study.results, arms_of(study.config)
    runs = [f"rounds {arm}" for arm in arms]
    final = dict(zip(arms, results.final("accuracy", runs).T))
    steps = dict(zip(arms, results.final("steps", runs).T))
    ours = "shrink and perturb"
    effects = [
        Effect("points, cold - warm", final["cold"] - final["warm"], least=ash.POINT,
               step=study.step()),
        not_worse(f"points, {ours} - cold", final[ours] - final["cold"], ash.POINT, study.step()),
        Effect(f"log (steps, cold / {ours})", log_ratio(steps["cold"], steps[ours]),
               least=ash.TENTH),
    ]
    said = [Effect(f"points, {pulled(p)} - warm", final[pulled(p)] - final["warm"])
            for p in c.pulls]
    axes = [
        Axes(y, [Curve(arm, *results.curve(key, f"rounds {arm}")) for arm in arms],
             x="training images")
        for key, y in (("accuracy", "test accuracy (%)"), ("steps", "steps so far"))
    ]
    return Panel(
        "shrink, perturb, repeat keeps up with training anew in every round, at less cost", effects,
        axes, ash.random_gate(study, "rounds cold"), "; ".join(map(str, [*effects, *said])),
        caption=f"{c.rounds} rounds",
    )


PANELS = [ash_shrink_perturb, ash_online]


# ---- what is trained


def spelled(shrink, perturb):
    return f"shrink {shrink} perturb {perturb}"


def pulled(pull):
    return f"towards init {pull:g}"


def arms_of(c):
    """Arm of the rounds -> (shrink, perturb) before each later one."""
    return ARMS | {"shrink and perturb": (c.shrink, c.perturb)} | {
        pulled(p): (1.0, 0.0) for p in c.pulls
    }


class TowardsInit:
    """The loss with ``pull`` times the squared distance from the first weights of a seed."""

    def __init__(self, setup, seed, pull):
        first = fresh_model(setup, seed, "init")
        self.first, self.pull = [p.detach().clone() for p in first.parameters()], pull

    def __call__(self, model, x, y):
        both = zip(model.parameters(), self.first)
        apart = sum((p - q).square().sum() for p, q in both)
        return cross_entropy(model, x, y) + self.pull * apart


def stages_of(c, setup, seed, label):
    """name -> phases, for the data of one seed; label: "rounds", or "" for the grid."""
    first, rest = ash.halves(c, setup, seed)
    if not label:
        half = ash.stage(c, setup, subset=first)
        plan = {"random": [ash.stage(c, setup)], "half": [half],
                "warm": [half, ash.stage(c, setup, event=ash.WARM)]}
        for shrink in c.shrinks:
            for perturb in c.perturbs:
                event = shrink_and_perturb(shrink, perturb)
                plan[spelled(shrink, perturb)] = [half, ash.stage(c, setup, event=event)]
        return plan
    order, n = torch.cat([first, rest]), len(setup.x)
    parts = [order[: n * (k + 1) // c.rounds] for k in range(c.rounds)]
    plan, losses = {}, {pulled(p): TowardsInit(setup, seed, p) for p in c.pulls}
    begin = ash.stage(c, setup, subset=parts[0])
    for arm, numbers in arms_of(c).items():
        event, loss = shrink_and_perturb(*numbers), losses.get(arm)
        plan[arm] = [begin if loss is None else ash.stage(c, setup, subset=parts[0], loss=loss)]
        plan[arm] += [ash.stage(c, setup, subset=p, event=event, loss=loss) for p in parts[1:]]
    return plan


def prepare(study, seed, label):
    return ash.prepare(study, seed)


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    labels = [""] * study.wants(ash_shrink_perturb) + ["rounds"] * study.wants(ash_online)
    for unit in ash.units(study, prepare, partial(stages_of, c), labels):
        for epoch, state, names in study.work.trained(unit):
            if epoch and not state.event and ash.is_last(c, state):
                own = state.phase.subset
                point = len(own) if own is not None else len(unit.setup.x)
                ash.record(study, unit, state, names, point)
    study.finish()


if __name__ == "__main__":
    command_line(main)
