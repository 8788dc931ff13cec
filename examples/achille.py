"""Settings shared by the scripts on Achille, Rovere & Soatto, "Critical learning
periods in deep networks".

Scripts: blur_deficit, achille_window, achille_deficits, achille_layers, achille_recovery,
achille_choices. Settings only; not a script. Each script extends ``Config`` with its own rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from clp_min import deficits, models
from clp_min.augment import crop_and_flip
from clp_min.schedule import exponential
from clp_min.study import scales
from clp_min.train import Setup, accuracy


@dataclass(frozen=True)
class Config:
    """The published experiment. The overview states no number; values are those that public
    replications quote from the paper's Appendix A, where no comment says otherwise."""

    seeds: int = 8  # not stated; ours: what a verdict on more than two effects needs
    # ---- data and net
    train_size: int | None = None  # all of CIFAR-10
    side: int | None = None  # average the images down to side x side
    net: Callable = models.all_cnn
    norm: bool = True  # BatchNorm
    augment: Callable | None = crop_and_flip
    # 32 -> 8 -> 32 bilinear; antialias not stated; ours
    blur: Callable = partial(deficits.downsample_blur, size=8, antialias=True)
    # ---- optimisation
    lr: float = 0.05
    decay: float = 0.97  # of the learning rate, per epoch; it goes on through the deficit
    momentum: float = 0.9  # not stated; ours
    weight_decay: float = 0.001
    batch_size: int = 128
    clip: float | None = None
    bfloat16: bool = False  # compute in it
    # ---- achille_fisher, achille_layers
    fisher_examples: int = 1000  # ours; by random signs, in the paper by variational noise


# quick settings: a constant learning rate, so that a late deficit is not also a deficit at a low
# rate; no BatchNorm, no augmentation and few images make the effect large; they were chosen because
# they do, and say nothing of natural images
TEXTURES = dict(
    net=partial(models.small_cnn, init=models.kaiming_normal), norm=False, augment=None,
    blur=partial(deficits.gaussian_blur, kernel_size=13, sigma=2.0),
    decay=1.0, weight_decay=5e-4, clip=2.0, fisher_examples=200,
)
REAL = TEXTURES | dict(blur=partial(deficits.pooled_blur, size=4), weight_decay=0.0)
DEEP_MLP = partial(models.mlp, hidden=(128,) * 6, init=models.kaiming_normal)
FASHION = REAL | dict(train_size=1000, net=DEEP_MLP)
CIFAR = REAL | dict(train_size=2000, side=16)
# evening: the published protocol on the paper's own images, a quarter of the channels, fewer
# epochs, so that the rate falls faster
EVENING = dict(
    seeds=5, train_size=10_000, net=partial(models.all_cnn, width=24), decay=0.92, bfloat16=True,
    fisher_examples=500,
)
TINY = dict(seeds=1, train_size=256, fisher_examples=20)


def configs(Config, textures, fashion_mnist, cifar10, smoke, evening=None):
    """(data, scale) -> Config of one script: the shared settings and its own rows."""
    fashion = FASHION | fashion_mnist
    sets = {"textures": TEXTURES | textures, "fashion_mnist": fashion, "mnist": fashion}
    sets["cifar10"] = CIFAR | cifar10
    real = {"cifar10": EVENING | evening} if evening else None
    return scales(Config, sets, TINY | smoke, ["cifar10"], real)


NORM = "put BatchNorm into the net of the quick scale (the effect is smaller)"
OPTIONS = [("--norm", dict(choices=["batch"], help=NORM), "batchnorm")]


def prepare(study, seed, c=None, **generator):
    """(Dataset, Setup): the seed draws the data (or its subset), the first weights, the batches.
    c, generator: other settings than the study's, of the run and of the data."""
    c = c or study.config
    data = study.prepared_data(seed, **generator)
    x, y = data.train
    norm = c.norm or vars(study.arguments).get("norm") == "batch"
    setup = Setup(
        model=partial(c.net, x.shape[1:], data.classes, norm=norm), x=x, y=y,
        lr=c.lr if c.decay == 1 else exponential(c.lr, c.decay), weight_decay=c.weight_decay,
        batch_size=c.batch_size, optimizer=partial(torch.optim.SGD, momentum=c.momentum),
        augment=c.augment, clip=c.clip, autocast=torch.bfloat16 if c.bfloat16 else None,
        channels_last=x.shape[1] > 1,
    )
    return data, setup


# least sizes that count, ours, written before the runs that they judge
DAMAGE = 5.0  # points: a loss that a reader would call damage; five times what seeds differ by
POINT = 1.0  # points: above what one or two of 100 images make
TENTH = 0.1  # of a logarithm: a change by 10 %


def accuracy_at(study, schedules, ends):
    """Train the schedules (name -> phases) and log their test accuracy at the epochs ``ends``."""
    for run, epoch, state, names in study.sweep(prepare, schedules):
        if epoch in ends:
            correct = accuracy(state.model, *run.data.test)
            study.log.add(run.seed, names, epoch, accuracy=correct)
