"""Which deficits hurt? Blur against vertical flip, permuted labels and white noise; and blur as
a poor pre-training (Achille et al. 2018)."""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from clp_min.deficits import (
    downsample_blur, gaussian_blur, images, labels, noise_images, permute_labels, pooled_blur,
    vertical_flip,
)
from clp_min.schedule import Phase, new_training_run, restart_learning_rate
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import untrained

import achille


@dataclass(frozen=True)
class Config(achille.Config):
    length: int = 100  # epochs of each deficit; ours
    clean: int = 160  # epochs after it; ours, as in the main job
    pretraining: tuple = (0, 10, 100)  # epochs of pre-training on blurred images; ours
    # 32 -> 16 -> 32; ours
    weak_blur: Callable = partial(downsample_blur, size=16, antialias=True)


HALF = partial(pooled_blur, size=8)
CONFIGS = achille.configs(
    Config,
    textures=dict(
        length=40, clean=30, pretraining=(0, 5, 40),
        weak_blur=partial(gaussian_blur, kernel_size=5, sigma=0.5),
    ),
    fashion_mnist=dict(length=200, clean=200, pretraining=(0, 25, 200), weak_blur=HALF),
    cifar10=dict(length=150, clean=50, pretraining=(0, 20, 150), weak_blur=HALF),
    # four effects need eight seeds; fewer images and clean epochs, so that achille_deficits ends
    # in two and a half hours
    evening=dict(seeds=8, train_size=5_000, length=30, clean=20, pretraining=(0, 30)),
    smoke=dict(length=2, clean=2, pretraining=(0, 1, 2)),
)
KINDS = ("blur", "vertical flip", "permuted labels", "white noise")


def achille_deficits(study):
    """Accuracy lost to each deficit of one length at the start, as many clean epochs after it.

    Drops are against the clean run of the same total length. Effects: points that blur costs more
    than the others' mean, least 3; and points lost to each other deficit, within 1: it "does not
    have any impact". Where the rate decays, the same with the rate restarted after the deficit (and
    in the clean run) stands beside it. Scope: this length, and its own decay of the rate.
    """
    c, results = study.config, study.results
    clean = results.at("accuracy", "clean", c.length + c.clean)
    lost = clean[:, None] - results.final("accuracy", KINDS)  # (seeds, kinds)
    more = lost[:, 0] - lost[:, 1:].mean(1)
    effects = [Effect("points more than the others' mean", more, least=3.0, step=study.step())]
    for kind, row in zip(KINDS[1:], lost.T[1:]):
        rule = dict(within=achille.POINT, step=study.step())
        effects.append(Effect(f"points lost to {kind}", row, **rule))
    costs = ", ".join(f"{kind} {Effect('points', row)}" for kind, row in zip(KINDS, lost.T))
    curves, y = [Curve("drop", KINDS, lost)], f"accuracy lost to {c.length} epochs (points)"
    if c.decay < 1:
        again = results.final("accuracy", [f"restarted {kind}" for kind in ("clean", *KINDS)])
        curves.append(Curve("rate restarted", KINDS, again[:, :1] - again[:, 1:]))
        costs += "; with the rate restarted: " + ", ".join(
            f"{kind} {Effect('points', row)}" for kind, row in zip(KINDS, curves[1].values.T)
        )
    return Panel(
        claim="low-level damage hurts; high-level changes and deprivation do little",
        effects=effects, gate=untrained(clean, study.classes),
        finding=f"{c.length} epochs cost: {costs}", axes=[Axes(y, curves, "deficit", kind="bar")],
        caption=f"{c.clean} clean epochs after it",
    )


def achille_pretraining(study):
    """Pre-training on blurred images, then an ordinary run (fresh optimizer and
    rate) on sharp ones.

    Effects: points by which the longest pre-training ends below none (paired), least 1; and below
    as long a one on images blurred less, least 1 ("images that are too blurry"). Scope: two
    strengths of blur.
    """
    c, results = study.config, study.results
    names = [f"pretraining {d}" if d else "clean" for d in c.pretraining]
    ends = zip(names, c.pretraining)
    correct = np.stack([results.at("accuracy", name, d + c.clean) for name, d in ends], 1)
    rule = dict(least=achille.POINT, step=study.step())
    weak = results.final("accuracy", "weak pretraining")
    effects = [
        Effect("points of accuracy lost", correct[:, 0] - correct[:, -1], **rule),
        Effect("points below pre-training on images blurred less", weak - correct[:, -1], **rule),
    ]
    curve = Curve("sharp epochs after pre-training", c.pretraining, correct)
    less = Curve("blurred less", c.pretraining[-1:], weak[:, None], style="points")
    return Panel(
        claim="pre-training on images that are too blurry is worse than none", effects=effects,
        gate=untrained(correct[:, 0], study.classes),
        finding=f"{c.pretraining[-1]} epochs of pre-training on blurred images: {effects[0]};"
        f" {effects[1]}",
        axes=[Axes("final test accuracy (%)", [curve, less], "epochs on blurred images before")],
        caption=f"{c.clean} sharp epochs after it",
    )


PANELS = [achille_deficits, achille_pretraining]


def schedules(study):
    """name -> phases."""
    c, classes = study.config, achille.prepare(study, study.seeds[0])[0].classes
    blur = images(c.blur)
    shifted = [(k + 1) % classes for k in range(classes)]  # which permutation: not stated; ours
    changes = blur, images(vertical_flip), labels(permute_labels, shifted), noise_images
    plan = {"clean": [Phase(c.length + c.clean)]}
    if study.wants(achille_deficits):
        plan |= {k: [Phase(c.length, change), Phase(c.clean)] for k, change in zip(KINDS, changes)}
        again = Phase(c.clean, event=restart_learning_rate)
        for kind, change in zip(("clean", *KINDS), (None, *changes)):
            if c.decay < 1:
                plan[f"restarted {kind}"] = [Phase(c.length, change), again]
    if study.wants(achille_pretraining):
        for d in filter(None, c.pretraining):  # 0 is the clean run
            plan[f"pretraining {d}"] = [Phase(d, blur), Phase(c.clean, event=new_training_run)]
        weak = Phase(c.pretraining[-1], images(c.weak_blur))
        plan["weak pretraining"] = [weak, Phase(c.clean, event=new_training_run)]
    return plan


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, achille.OPTIONS)
    c = study.config
    ends = {d + c.clean for d in (c.length, *c.pretraining)}
    achille.accuracy_at(study, schedules(study), ends)
    study.finish()


if __name__ == "__main__":
    command_line(main)
