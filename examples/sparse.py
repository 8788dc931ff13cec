"""Settings shared by the scripts on Ye, Wang & Chen, "Generalization and memorization in sparse
neural networks" (a draft).

Scripts: sparse_regimes, sparse_fisher, sparse_noise, sparse_path, sparse_selection. Settings only;
not a script. Of a trained dense net (Sol-D) the smallest weights are pruned; Sol-F goes on from the
rest ("finetuned"), Sol-S from new weights under the same mask ("scratch"), Sol-T from the dense
net's first weights under it ("lottery").
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from clp_min import models
from clp_min.augment import crop_and_flip
from clp_min.schedule import Phase, step_decay
from clp_min.sparsity import prune, prune_and_redraw, prune_and_rewind
from clp_min.study import Curve, Effect, scales
from clp_min.study.panel import untrained
from clp_min.train import Setup, batch_statistics

ARMS = {"finetuned": prune, "scratch": prune_and_redraw, "lottery": prune_and_rewind}
NAMES = {"finetuned": "Sol-F (finetuned)", "scratch": "Sol-S (scratch)", "dense": "Sol-D (dense)"}
NAMES["lottery"] = "Sol-T (lottery)"


@dataclass(frozen=True)
class Config:
    """The published experiment, appendix B.1 where no comment says otherwise."""

    seeds: int = 8  # "five different random seeds", too few for a verdict on more than two effects
    # ---- data and net
    train_size: int | None = None  # all of CIFAR-100; CIFAR-10 in Figures 6 and 7
    side: int | None = None
    net: Callable = partial(models.resnet32x4, init=models.kaiming_normal)
    augment: Callable | None = crop_and_flip  # the authors' code
    generator: tuple = ()  # settings of a synthetic set
    # ---- optimisation; the sparse nets start their schedule anew
    lr: float = 0.1
    factor: float = 0.1
    dense_epochs: int = 200
    dense_milestones: tuple = (100, 150)  # the authors' code
    sparse_epochs: int = 250
    sparse_milestones: tuple = (100, 150, 200)
    momentum: float = 0.9
    weight_decay: float = 2e-4
    batch_size: int = 128
    # ---- what is compared
    # sparsities at which the regimes are tested: the last of the paper's first regime (Table 2),
    # and one of its second
    generalisation: float = 0.9
    optimisation: float = 0.96
    fisher_examples: int = 1000  # "1000 inputs x 5 label draws" in the authors' code; ours is exact
    # "expected": exact; "signs": unbiased, one backward pass, for 100 classes
    labels: str = "signs"


# least sizes that count, ours, written before the runs that they judge
POINT = 1.0  # points of accuracy: above what one or two of 100 images make
DAMAGE = 5.0  # points: what a reader would call a failure
TENTH = 0.1  # of a logarithm: a change by 10 %
NATS = 0.01  # nats of entropy or loss: half of the paper's smallest difference (.02, Table 2)

QUICK = dict(
    augment=None, lr=0.05, dense_epochs=50, dense_milestones=(25, 37), sparse_epochs=50,
    sparse_milestones=(25, 37), batch_size=100, labels="expected",
    generalisation=0.85,  # seeds 0 to 3: the largest test gap with a training gap under a point
)
SHAPES = QUICK | dict(net=partial(models.mlp, hidden=(256, 256), init=models.kaiming_normal))
CNN = partial(models.small_cnn, widths=(16, 32, 32), norm=True, init=models.kaiming_normal)
CIFAR = SHAPES | dict(train_size=2000, side=16)
TINY = dict(
    seeds=1, train_size=200, dense_epochs=2, sparse_epochs=2, dense_milestones=(1,),
    sparse_milestones=(1,), fisher_examples=20, batch_size=50,
)


def configs(Config, shapes, cifar10, smoke, paper="cifar100"):
    """(data, scale) -> Config of one script: the shared settings and its own rows."""
    return scales(Config, {"shapes": SHAPES | shapes, "cifar10": CIFAR | cifar10}, TINY | smoke,
                  [paper])


def prepare(study, seed):
    """(Dataset, Setup): the seed draws the data (or its subset), the first weights, the batches."""
    c, data = study.config, study.prepared_data(seed, **dict(study.config.generator))
    return data, setup_of(c, data, c.net)


def setup_of(c, data, net, **changed):
    """The Setup of a net on the data's training set."""
    x, y = data.train
    settings = dict(
        model=partial(net, x.shape[1:], data.classes), x=x, y=y, batch_size=c.batch_size,
        lr=step_decay(c.lr, c.factor, c.dense_milestones), weight_decay=c.weight_decay,
        optimizer=sgd(c.momentum), augment=c.augment,
    )
    return Setup(**settings | changed)


def sgd(momentum):
    """The optimizer of a Setup."""
    return partial(torch.optim.SGD, momentum=momentum)


def last_layer(setup):
    """(name,) of the last Linear layer, which is never pruned, as in the authors' code."""
    return [name for name, m in setup.model().named_modules() if isinstance(m, nn.Linear)][-1:]


def solutions(c, last, sparsities, arms=("finetuned", "scratch"), epochs=None, rates=None):
    """name -> phases: "dense", and each arm at each sparsity. The same epochs, data order and
    learning rates for all arms; masks from the last epoch of the dense net.

    epochs: (dense, sparse); rates: (first rate, its milestones) of the sparse nets."""
    dense, later = epochs or (c.dense_epochs, c.sparse_epochs)
    first, milestones = rates or (c.lr, c.sparse_milestones)
    plan, lr = {"dense": [Phase(dense)]}, step_decay(first, c.factor, milestones)
    for sparsity in sparsities:
        for arm in arms:
            second = Phase(later, lr=lr, event=ARMS[arm](sparsity, tuple(last)))
            plan[f"{arm} {sparsity}"] = [Phase(dense), second]
    return plan


def measured(state, x):
    """The net to be measured: right after an event (and untrained) its BatchNorm buffers belong to
    other weights, so they are those of x."""
    return batch_statistics(state.model, x) if state.event or state.epoch == 0 else state.model


def ends(c):
    """The epochs at which some solution is final: the dense net, and all others."""
    return {c.dense_epochs, c.dense_epochs + c.sparse_epochs}


def pair(study, key, sparsity):
    """(F, S), each (seeds,): a measurement of the two final nets."""
    names = [f"{arm} {sparsity}" for arm in ("finetuned", "scratch")]
    return study.results.final(key, names).T


def over_sparsities(study, key, sparsities, arms=("finetuned", "scratch"), dense=False):
    """Curves of a final measurement over sparsity."""
    rows = [(arm, [f"{arm} {s}" for s in sparsities]) for arm in arms]
    curves = [Curve(NAMES[arm], sparsities, study.results.final(key, r)) for arm, r in rows]
    if dense:
        level = study.results.at(key, "dense", study.config.dense_epochs)[:, None]
        level = level * np.ones(len(sparsities))
        curves.append(Curve(NAMES["dense"], sparsities, level, style="dashed"))
    return curves


def along(study, key, name, dense_epochs=None):
    """(epochs since the sparse net's start, values (seeds, points)); of "dense" since its own."""
    start = dense_epochs or study.config.dense_epochs
    low, high = (0, start) if name.endswith("dense") else (start, np.inf)
    points, values = study.results.curve(key, name, low, high)
    return [point - low for point in points], values


def hardly_falls(place, kept, where):
    """The effect of a claim that something falls by less than a tenth from a place to the end.

    kept (seeds,): log (end / there). Two tenths are added, so that the bound is above 0.
    """
    return Effect(f"log (last / {place}) + .2, {where}", kept + 2 * TENTH, least=TENTH)


def dense_gate(study, name="dense"):
    """Why nothing follows from a dense net that has not learned, if it has not."""
    return untrained(study.results.at("accuracy", name, study.config.dense_epochs), study.classes)
