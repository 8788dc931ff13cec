"""The gap of a warm start (Ash & Adams, "On warm-starting neural network training").

warm_start: a net trained on half of the data first, then on all, against one trained on all from
the start, with as many updates too; epochs: how little training on the half is enough;
hyperparameters: batch sizes and rates of the second stage; logistic: convex training and an MLP on
the same data; gradients: old and new data at the start of the second stage.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from clp_min import models
from clp_min.gradients import full_gradient
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio
from clp_min.train import batch_statistics, fresh_model, predict, shrink_perturb

import ash


@dataclass(frozen=True)
class Config(ash.Config):
    few: tuple = (1, 2, 5, 10)  # epochs on the half before all data come
    tested: int = 5  # the one that the rule reads
    longer: int = 350  # epochs of the warm arm that goes on
    sizes: tuple = (4000, 8000, 16_000)  # images of both stages, beside all: the gap against n
    batch_sizes: tuple = (32, 512)  # of the second stage, beside the usual one
    rates: tuple = (0.0003, 0.003)
    mlp: Callable = partial(models.mlp, hidden=(100, 100))
    shrinks: tuple = (1.0, 0.8, 0.6, 0.4, 0.2)  # of ash_gradients


CONFIGS = ash.configs(
    Config, shapes=dict(few=(1, 5), longer=20, batch_sizes=(100,), sizes=(375, 750)),
    cifar10=dict(few=(1, 5), longer=20, batch_sizes=(100,), sizes=(750, 1500)),
    textures=dict(few=(1, 5), longer=20, batch_sizes=(100,), sizes=(375, 750)),
    smoke=dict(few=(1,), tested=1, longer=2, batch_sizes=(100,), rates=(0.003,), sizes=(300,)),
)
NETS = {"": "ResNet", "mlp": "MLP", "logistic": "logistic regression"}


def ash_warm_start(study):
    """Random against warm start, each until it fits the data.

    Effects: points of test accuracy that warm is behind random, least 1; training accuracies apart
    by less than 1 ("final training losses are similar"). The same with as many updates as random
    needed is printed, and the gap with fewer images. Scope: this set (shapes: found by a search,
    see ash.py), net and optimizer.
    """
    results, sizes = study.results, study.config.sizes
    names = ["random", "warm"]
    train = results.final("train_accuracy", names)
    loss = results.final("train_loss", names)
    gap, longer = ash.against_random(study, "warm"), same_updates(study)
    by_size = [ash.against_random(study, f"warm {n}", f"random {n}") for n in sizes] + [gap]
    effects = [
        Effect("points of test accuracy, random - warm", gap, least=ash.POINT, step=study.step()),
        Effect("points of training accuracy, random - warm", train[:, 0] - train[:, 1],
               within=ash.POINT),
    ]
    said = [
        *effects, Effect("points, random - warm with as many updates", longer),
        f"training accuracy {train[:, 0].mean():.1f} and {train[:, 1].mean():.1f} %, loss"
        f" {loss[:, 0].mean():.3f} and {loss[:, 1].mean():.3f}",
        f"{int((gap > 0).sum())} of {len(gap)} seeds behind",
        *(f"{n} images: {Effect('points', v)}" for n, v in zip(sizes, by_size)),
    ]
    axes = [
        Axes(y, [ash.bars("mean of seeds", names, results.final(key, names))], x="start",
             kind="bar")
        for key, y in (("accuracy", "test accuracy (%)"),
                       ("train_accuracy", "training accuracy (%)"))
    ]
    axes.append(Axes("points behind random", [
        ash.bars("warm", ["until it fits", "as many updates"], np.stack([gap, longer], 1))
    ], x="", kind="bar"))
    axes.append(Axes("points behind random, by size", [
        Curve("warm", [*sizes, study.sizes[study.data]["used"]], np.stack(by_size, 1))
    ], x="images of both stages"))
    return Panel("a warm start tests worse than a random one", effects, axes,
                 ash.random_gate(study), "; ".join(map(str, said)))


def same_updates(study):
    """(seeds,): points that the longer warm arm is behind random when its second stage has made as
    many updates, or at its end."""
    results = study.results
    points, accuracies = results.curve("accuracy", "longer", low=2)
    steps = results.curve("steps", "longer", low=2)[1]
    start, needed = results.final("steps", "half"), results.final("steps", "random")
    enough = steps - start[:, None] >= needed[:, None]
    first = np.where(enough.any(1), enough.argmax(1), len(points) - 1)
    there = accuracies[np.arange(len(first)), first]
    return results.final("accuracy", "random") - there


def ash_epochs(study):
    """How little training on half of the data is enough to damage the result.

    Effect: points behind random after ``tested`` epochs on the half, least 1. Scope of
    ash_warm_start.
    """
    c = study.config
    gaps = np.stack([ash.against_random(study, f"few {e}") for e in c.few], 1)
    effect = Effect(f"points behind random after {c.tested} epochs on the half",
                    gaps[:, c.few.index(c.tested)], least=ash.POINT, step=study.step())
    told = ", ".join(f"{e} epochs: {Effect('points', v)}" for e, v in zip(c.few, gaps.T))
    return Panel("a few epochs on half of the data are enough", [effect],
                 [Axes("points behind random", [Curve("warm", list(c.few), gaps)],
                       x="epochs on the half")],
                 ash.random_gate(study), told)


def settings_of(c):
    """label -> what is changed in the second stage."""
    usual = {f"batch {c.batch_size}, rate {c.lr}": {}}
    sizes = {f"batch {b}, rate {c.lr}": {"batch_size": b} for b in c.batch_sizes}
    return usual | sizes | {f"batch {c.batch_size}, rate {r}": {"lr": r} for r in c.rates}


def ash_hyperparameters(study):
    """Batch size and rate of the second stage, of warm and of random.

    Effects: points that warm is behind random at the same setting, least 1 each; and its best
    setting behind random's best, per seed, least 1. Scope of ash_warm_start.
    """
    labels, rule = list(settings_of(study.config)), dict(least=ash.POINT, step=study.step())
    runs = {
        arm: study.results.final("accuracy", [arm, *(f"{arm}, {s}" for s in labels[1:])])
        for arm in ("random", "warm")
    }
    apart = runs["random"] - runs["warm"]
    effects = [Effect("points, the best of random - the best of warm",
                      runs["random"].max(1) - runs["warm"].max(1), **rule)]
    effects += [Effect(f"points, random - warm, {s}", v, **rule) for s, v in zip(labels, apart.T)]
    axes = [Axes("test accuracy (%)", [ash.bars(arm, labels, v) for arm, v in runs.items()],
                 x="second stage", kind="bar")]
    return Panel("no batch size or learning rate closes the gap", effects, axes,
                 ash.random_gate(study))


def ash_logistic(study):
    """Logistic regression, and an MLP, on the same data as the ResNet.

    Effects: points that warm is behind random, logistic regression, within 1; ResNet's gap less
    logistic regression's, least 1. The MLP's gap is printed. A stage that never fits the data ends
    with the most epochs. Scope of ash_warm_start.
    """
    gaps = {
        said: ash.against_random(study, f"{net} warm".strip(), f"{net} random".strip())
        for net, said in NETS.items()
    }
    convex, deep = gaps["logistic regression"], gaps["ResNet"]
    effects = [
        Effect("points, random - warm, logistic regression", convex, within=ash.POINT,
               step=study.step()),
        Effect("points more, ResNet than logistic regression", deep - convex, least=ash.POINT,
               step=study.step()),
    ]
    fits = study.results.final("train_accuracy", "logistic random").mean()
    values = np.stack(list(gaps.values()), 1)
    return Panel(
        "a convex model has no gap where the deep net has one", effects,
        [Axes("points, random - warm", [ash.bars("gap", list(gaps), values)], x="", kind="bar")],
        ash.random_gate(study),
        "; ".join([*map(str, effects), str(Effect("points, MLP", gaps["MLP"])),
                   f"logistic regression fits {fits:.1f} % of the training images"]),
    )


def ash_gradients(study):
    """Gradients of old and new data at the start of the second stage: a warm start's are out of
    balance, shrinking balances them and keeps the predictions.

    Effects: log of the gradient's norm on new data over old data, warm, least 1; by how much
    ``shrink``, ``perturb`` lowers it, least .1; share of the images of the half with the prediction
    kept, less .8, least .05. Batch statistics of the measured images. Scope of ash_warm_start.
    """
    c, results = study.config, study.results
    names = [f"shrunk {s}" for s in c.shrinks]
    ratios, kept = results.final("balance", names), results.final("kept", names)
    chosen = c.shrinks.index(c.shrink)
    effects = [
        Effect("log (gradient, new / old), warm", ratios[:, 0], least=1.0),
        Effect(f"lower at shrink {c.shrink}", ratios[:, 0] - ratios[:, chosen], least=ash.TENTH),
        Effect("of predictions kept, less .8", kept[:, chosen] - 0.8, least=0.05),
    ]
    axes = [
        Axes("log (gradient, new / old)", [Curve("all parameters", list(c.shrinks), ratios)],
             x="shrink"),
        Axes("share of predictions kept", [Curve("images of the half", list(c.shrinks), kept)],
             x="shrink"),
    ]
    return Panel("shrinking balances gradients of old and new data and keeps predictions", effects,
                 axes, ash.random_gate(study))


PANELS = [ash_warm_start, ash_epochs, ash_hyperparameters, ash_logistic, ash_gradients]


# ---- what is trained


def schedules(study, setup, seed, net):
    """name -> phases of one net ("": the settings'), for the data of one seed."""
    c = study.config
    first, _ = ash.halves(c, setup, seed)
    half = ash.stage(c, setup, subset=first)
    plan = {
        "random": [ash.stage(c, setup)], "half": [half],
        "warm": [half, ash.stage(c, setup, event=ash.WARM)],
    }
    if net:
        return plan
    if study.wants(ash_warm_start):
        never = ash.fitted(setup, 101.0, 1)  # it counts the epochs
        plan["longer"] = [half, Phase(c.longer, event=ash.WARM, until=never)]
        order = torch.cat(ash.halves(c, setup, seed))
        for n in c.sizes:
            small = ash.stage(c, setup, subset=order[: round(c.share * n)])
            plan[f"random {n}"] = [ash.stage(c, setup, subset=order[:n])]
            plan[f"warm {n}"] = [small, ash.stage(c, setup, subset=order[:n], event=ash.WARM)]
    if study.wants(ash_epochs):
        for e in c.few:
            plan[f"few {e}"] = [Phase(e, subset=first), ash.stage(c, setup, event=ash.WARM)]
    if study.wants(ash_hyperparameters):
        for label, changed in list(settings_of(c).items())[1:]:
            plan[f"random, {label}"] = [ash.stage(c, setup, **changed)]
            plan[f"warm, {label}"] = [half, ash.stage(c, setup, event=ash.WARM, **changed)]
    return plan


def prepare(study, seed, label):
    nets = {"": None, "mlp": study.config.mlp, "logistic": models.linear_softmax}
    return ash.prepare(study, seed, nets[label])


# ---- what is measured


def measure_gradients(study, unit, state):
    """At the end of the first stage: what each shrink would do to gradients and predictions."""
    c = study.config
    old, new = ash.halves(c, unit.setup, unit.seed)
    x, y = unit.data.train
    before = predict(state.model, x[old]).argmax(1)
    for shrink in c.shrinks:
        model = copy.deepcopy(state.model)
        if shrink < 1:
            fresh = fresh_model(unit.setup, unit.seed, state.epoch, "redraw")
            shrink_perturb(model, fresh, shrink, c.perturb)
        sizes = []
        for part in (new, old):
            own = batch_statistics(model, x[part])
            sizes.append(float(full_gradient(own, x[part], y[part]).norm()))
        kept = predict(batch_statistics(model, x[old]), x[old]).argmax(1) == before
        study.log.add(unit.seed, [f"shrunk {shrink}"], 0,
                      balance=float(log_ratio(np.array(sizes[:1]), np.array(sizes[1:]))[0]),
                      kept=float(kept.double().mean()))


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    labels = [""] + ["mlp", "logistic"] * study.wants(ash_logistic)
    for unit in ash.units(study, prepare, partial(schedules, study), labels):
        for epoch, state, names in study.work.trained(unit):
            if state.event or epoch == 0 or state.rule is None:
                continue
            second = state.phase.event is not None
            if names == ["longer"] and second:
                ash.record(study, unit, state, names, 2 + state.rule.epochs)
                continue
            if not ash.is_last(c, state):
                continue
            ash.record(study, unit, state, names, 1 + second)
            if "half" in names and study.wants(ash_gradients):
                measure_gradients(study, unit, state)
    study.finish()


if __name__ == "__main__":
    command_line(main)
