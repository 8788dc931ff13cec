"""Settings shared by the scripts on Liu et al., "Trap of feature diversity in the learning of
MLPs".

Scripts: diversity_dynamics, diversity_settings, diversity_directions, diversity_normalization.
Settings only; not a script. In a first phase the loss of a deep MLP stays where it was and features
of different categories become alike; its end is the first measured step at which the training loss
is under .95 ln(classes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from clp_min import models
from clp_min.augment import crop_and_flip
from clp_min.features import (
    cross_class_similarity, feature_similarity, layer_factors, within_class_similarity,
)
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, scales
from clp_min.study.panel import untrained
from clp_min.train import Setup, batch_statistics, evaluate, predict

MLP = partial(models.mlp, bias=False)  # the paper's notation has none; init PyTorch's, not stated


@dataclass(frozen=True)
class Config:
    """The published experiment (section 3.1, appendix A)."""

    seeds: int = 8  # not stated; ours: what a verdict on more than two effects needs
    # ---- data and net
    train_size: int | None = None
    side: int | None = None
    generator: tuple = ()  # settings of a synthetic set
    augment: Callable | None = crop_and_flip
    depth: int = 9  # linear layers
    width: int = 512
    # ---- optimisation
    lr: float = 0.1
    momentum: float = 0.0  # "SGD"; none is mentioned
    batch_size: int = 100
    steps: int = 150_000  # 300 epochs
    # ---- measuring
    every: int = 500  # steps: once an epoch
    examples: int = 1000  # training examples whose features are compared; ours
    layer: int = 3  # whose features are compared; "third linear layer" (A.1)


# least sizes that count, ours, written before the runs that they judge
COSINE = 0.05  # of a mean cosine: ten times what seeds differ by
POINT = 1.0  # points of accuracy
TENTH = 0.1  # of a logarithm, or of the plateau's length

QUICK = dict(
    train_size=2000, augment=None, depth=8, width=128, steps=4000, every=50, examples=300,
)
REAL = QUICK | dict(side=16)
SHAPES = (("noise", 0.25), ("amplitude", (0.5, 1.0)))
SETS = {
    "textures": QUICK, "shapes": QUICK | dict(generator=SHAPES), "mnist": REAL,
    "fashion_mnist": REAL, "cifar10": REAL, "tiny_imagenet50": REAL | dict(steps=6000),
}
PAPER = {  # the paper crops 32 x 32 of Tiny ImageNet's images; ours are resized
    "cifar10": {}, "mnist": dict(augment=None, lr=0.01, steps=180_000, every=600),
    "tiny_imagenet50": dict(side=32, steps=75_000, every=250),
}
TINY = dict(seeds=1, train_size=200, width=16, depth=5, steps=8, every=2, examples=40)


def configs(Config, rows, smoke, sets=SETS):
    """(data, scale) -> Config of one script: the shared settings and its own rows."""
    return scales(Config, {name: own | rows for name, own in sets.items()}, TINY | smoke, PAPER)


def prepare(study, seed, **changed):
    """(Dataset, Setup) of an MLP of ``depth`` linear layers; changed: depth, width, norm,
    activation, lr, batch_size, classes (the first so many)."""
    c, data = study.config, study.prepared_data(seed, **dict(study.config.generator))
    if (few := changed.pop("classes", None)) is not None:
        data = data.relabelled(few, lambda x, y: (x[y < few], y[y < few]))
    depth, width = changed.pop("depth", c.depth), changed.pop("width", c.width)
    settings = {k: changed.pop(k) for k in ("norm", "activation") if k in changed}
    x, y = data.train
    net = partial(MLP, x.shape[1:], data.classes, (width,) * (depth - 1), **settings)
    rest = dict(lr=c.lr, batch_size=c.batch_size) | changed
    optimizer = partial(torch.optim.SGD, momentum=c.momentum)
    return data, Setup(model=net, x=x, y=y, optimizer=optimizer, augment=c.augment, **rest)


def plan(steps, setup):
    """The one schedule, of so many steps, to the end of their last epoch."""
    return {"": [Phase(-(-steps // (len(setup.x) // setup.batch_size)))]}


def measured_steps(c, steps=None):
    return set(range(0, (steps or c.steps) + 1, c.every))


def epoch(study, batch_size=None):
    """How many steps an epoch has."""
    return round(100 / study.step(part="used")) // (batch_size or study.config.batch_size)


def linear_layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def net_and_examples(study, run, state):
    """(net to be measured, x, y): the first ``examples`` training examples; BatchNorm, where there
    is some, has their own statistics (running ones start at 0 and 1 and would show a plateau of
    their warm-up)."""
    x, y = (part[: study.config.examples] for part in run.data.train)
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in state.model.modules())
    return (batch_statistics(state.model, x) if normed else state.model), x, y


def factors_of(model, x, y):
    """[(delta (n, h), features (n, d))] of all linear layers."""
    return list(layer_factors(model, x, y).values())


def features_and_gradients(model, factors, layer):
    """(features F_l (n, d), gradients of each example's loss in them (n, d))."""
    delta, features = factors[layer]
    return features, delta @ linear_layers(model)[layer].weight.detach()


def similarities(features, gradients, y):
    """Mean cosines of features, over pairs of different categories and over all pairs, and of their
    gradients within a category -> values for the log."""
    return dict(cross=cross_class_similarity(features, y), all=feature_similarity(features),
                within=within_class_similarity(gradients, y))


def by_class(model, x, y, classes):
    """Accuracy of each category, percent; 0 for one without examples."""
    right = (predict(model, x).argmax(1) == y).double()
    own = [y == k for k in range(classes)]
    return [100 * float(right[k].mean()) if bool(k.any()) else 0.0 for k in own]


def losses(model, data, x, y):
    """Loss and accuracy on the measured training examples and on test images."""
    (correct, loss), (test_correct, test_loss) = evaluate(model, x, y), evaluate(model, *data.test)
    return dict(loss=loss, accuracy=correct, test_loss=test_loss, test_accuracy=test_correct)


# ---- places and effects


PLATEAU = 0.95  # of ln(classes): the first phase ends where the loss is under it


def switch(study, name, share=PLATEAU, classes=None):
    """(seeds,): the first measured step at which the training loss is under ``share`` ln(classes),
    the end of the first phase; nan if it never is."""
    steps, loss = study.results.curve("loss", name)
    under = loss < share * np.log(classes or study.classes)
    return np.where(under.any(1), np.array(steps, dtype=float)[under.argmax(1)], np.nan)


def at_steps(study, key, name, steps):
    """(seeds, ...): a measurement at each seed's own step; nan where that is nan."""
    points, values = study.results.curve(key, name)
    places = [points.index(s) if np.isfinite(s) else None for s in steps]
    nothing = np.full(values.shape[2:], np.nan)
    return np.array([nothing if i is None else row[i] for i, row in zip(places, values)])


def half_rise(study, key, name):
    """(seeds,): the first measured step at which half of the measurement's rise up to the switch is
    made; nan without a switch."""
    points, values = study.results.curve(key, name)
    found = []
    for step, row in zip(switch(study, name), values):
        if not np.isfinite(step):
            found.append(np.nan)
            continue
        phase = row[: points.index(step) + 1]
        found.append(float(points[(phase >= (phase[0] + phase.max()) / 2).argmax()]))
    return np.array(found)


def of_plateau(study, unit, steps, end, **rule):
    """The effect of a difference of places, as a share of the plateau."""
    length = np.maximum(end, study.config.every)
    grain = study.config.every / np.nanmean(length) if np.isfinite(length).any() else 0.0
    return Effect(unit, steps / length, step=grain, **rule)


def rise_and_fall(study, key, name, what):
    """Three effects: the measurement rises to the switch, falls after it, and is greatest there."""
    end = switch(study, name)
    points, values = study.results.curve(key, name)
    there = at_steps(study, key, name, end)
    top = np.array(points, dtype=float)[values.argmax(1)]
    return [
        Effect(f"{what}: risen to the switch", there - values[:, 0], least=COSINE),
        Effect(f"{what}: fallen from it to the end", there - values[:, -1], least=COSINE),
        of_plateau(study, f"{what}: its greatest after the switch, of the plateau", top - end, end,
                   within=TENTH),
    ]


def curve(study, label, key, name, style="line"):
    """A curve over steps, of at most 120 of the measured points."""
    points, values = study.results.curve(key, name)
    thin = 1 + len(points) // 120
    return Curve(label, points[::thin], values[:, ::thin], style=style)


def over_steps(study, y, curves, figure=""):
    """Axes over steps, with a second scale in epochs."""
    return Axes(y, curves, x="step", figure=figure, epoch=epoch(study))


def trained_gate(study, name):
    """Why nothing follows from a net that never leaves the plateau, or has not learned."""
    if not np.isfinite(switch(study, name)).all():
        return "a run never leaves the plateau"
    return untrained(study.results.final("accuracy", name), study.classes)
