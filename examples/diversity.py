"""Settings shared by the scripts on Liu et al., "Trap of feature diversity in the learning of
MLPs".

Scripts: diversity_dynamics, diversity_directions, diversity_normalization. Settings only; not a
script. In a first phase the loss of a deep MLP stays where it was and features of different
categories become alike; its end is the first measured step at which the training loss is under .95
ln(classes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from clp_min import models
from clp_min.augment import crop_and_flip
from clp_min.features import layer_factors
from clp_min.schedule import Phase
from clp_min.study import Curve, Effect, scales
from clp_min.study.panel import untrained
from clp_min.train import Setup, batch_statistics, evaluate

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
TINY = dict(seeds=1, train_size=200, width=16, depth=5, steps=8, every=2, examples=40)


def configs(Config, rows, smoke, sets=SETS):
    """(data, scale) -> Config of one script: the shared settings and its own rows."""
    return scales(Config, {name: own | rows for name, own in sets.items()}, TINY | smoke,
                  ["cifar10"])


def prepare(study, seed, **changed):
    """(Dataset, Setup) of an MLP of ``depth`` linear layers; changed: depth, width, norm,
    activation, lr, batch_size."""
    c, data = study.config, study.prepared_data(seed, **dict(study.config.generator))
    depth, width = changed.pop("depth", c.depth), changed.pop("width", c.width)
    settings = {k: changed.pop(k) for k in ("norm", "activation") if k in changed}
    x, y = data.train
    net = partial(MLP, x.shape[1:], data.classes, (width,) * (depth - 1), **settings)
    rest = dict(lr=c.lr, batch_size=c.batch_size) | changed
    optimizer = partial(torch.optim.SGD, momentum=c.momentum)
    return data, Setup(model=net, x=x, y=y, optimizer=optimizer, augment=c.augment, **rest)


def plan(c, setup):
    """The one schedule, as long as the steps of the settings ask for."""
    return {"": [Phase(-(-c.steps // (len(setup.x) // setup.batch_size)))]}


def measured_steps(c):
    return set(range(0, c.steps + 1, c.every))


def linear_layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def net_and_examples(study, run, state):
    """(net to be measured, x, y): the first ``examples`` training examples; BatchNorm, where there
    is some, has their own statistics (running ones start at 0 and 1 and would show a plateau of
    their warm-up)."""
    x, y = (part[: study.config.examples] for part in run.data.train)
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in state.model.modules())
    return (batch_statistics(state.model, x) if normed else state.model), x, y


def features_and_gradients(model, x, y, layer):
    """(features F_l (n, d), gradients of each example's loss in them (n, d), factors of all
    layers)."""
    factors = list(layer_factors(model, x, y).values())
    delta, features = factors[layer]
    return features, delta @ linear_layers(model)[layer].weight.detach(), factors


def losses(model, data, x, y):
    """Loss and accuracy on the measured training examples and on test images."""
    (correct, loss), (test_correct, test_loss) = evaluate(model, x, y), evaluate(model, *data.test)
    return dict(loss=loss, accuracy=correct, test_loss=test_loss, test_accuracy=test_correct)


# ---- places and effects


PLATEAU = 0.95  # of ln(classes): the first phase ends where the loss is under it


def switch(study, name, share=PLATEAU):
    """(seeds,): the first measured step at which the training loss is under ``share`` ln(classes),
    the end of the first phase; nan if it never is."""
    steps, loss = study.results.curve("loss", name)
    under = loss < share * np.log(study.classes)
    return np.where(under.any(1), np.array(steps, dtype=float)[under.argmax(1)], np.nan)


def at_steps(study, key, name, steps):
    """(seeds,): a measurement at each seed's own step; nan where that is nan."""
    points, values = study.results.curve(key, name)
    places = [points.index(s) if np.isfinite(s) else None for s in steps]
    return np.array([np.nan if i is None else row[i] for i, row in zip(places, values)])


def rise_and_fall(study, key, name, what):
    """Three effects: the measurement rises to the switch, falls after it, and is greatest there."""
    c, end = study.config, switch(study, name)
    points, values = study.results.curve(key, name)
    there = at_steps(study, key, name, end)
    top = np.array(points, dtype=float)[values.argmax(1)]
    return [
        Effect(f"{what}: risen to the switch", there - values[:, 0], least=COSINE),
        Effect(f"{what}: fallen from it to the end", there - values[:, -1], least=COSINE),
        Effect(f"{what}: its greatest after the switch, of the plateau", (top - end) / end,
               within=TENTH, step=c.every / np.nanmean(end) if np.isfinite(end).any() else 0.0),
    ]


def curve(study, label, key, name, style="line"):
    """A curve over steps."""
    return Curve(label, *study.results.curve(key, name), style=style)


def trained_gate(study, name):
    """Why nothing follows from a net that never leaves the plateau, or has not learned."""
    if not np.isfinite(switch(study, name)).all():
        return "a run never leaves the plateau"
    return untrained(study.results.final("accuracy", name), study.classes)
