"""Settings and preparation shared by the scripts on "Revisiting critical learning periods in deep neural networks" (anonymous submission).

Scripts: revisiting_information, revisiting_gradient, turning_point. (This file is no script.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

import common
from clp_min import deficits, models
from clp_min.augment import random_affine, random_flip
from clp_min.train import Setup
from clp_min.transformer import DeiT


def flip_and_affine(x, generator):
    return random_affine(random_flip(x, generator), generator)


def resnet18(channels, side, classes):
    return models.resnet18(channels, classes)


def vgg16(channels, side, classes):
    return models.vgg(16, channels, classes)


def deit(channels, side, classes):
    return DeiT(channels, side, classes)


def small_resnet(channels, side, classes):
    return models.resnet((1, 1, 1), (8, 16, 32), channels, classes)


def small_cnn(channels, side, classes):
    return models.small_cnn(channels, classes=classes, init=models.kaiming_normal)


def small_deit(channels, side, classes):
    return DeiT(channels, side, classes, patch=4, dim=32, heads=4, depth=2, hidden=32)


@dataclass(frozen=True)
class Config:
    """The published experiment (section 3.3, 4.4 and Appendix B.1). No code of it is public."""

    seeds: int = 3  # not stated; ours
    # ---- data and nets
    train_size: int | None = None  # all of CIFAR-10
    side: int | None = None
    resnet: Callable = resnet18
    vgg: Callable = vgg16
    deit: Callable = deit
    augment: Callable | None = flip_and_affine  # degrees and range not stated; ours
    blur: Callable = partial(deficits.gaussian_blur, kernel_size=7, sigma=3.0)
    # ---- optimisation: constant rate
    lr: float = 0.01
    deit_lr: float = 0.05
    adam_lr: float = 0.001  # not stated; ours
    momentum_lr: float = 0.01
    weight_decay: float = 1e-6
    batch_size: int = 256
    clip: float | None = None
    # ---- fig1, fig5: three periods; fig2: deficit first, then sharp
    period: int = 100
    durations: tuple = (0, 4, 8, 16, 24, 32, 40, 48, 64, 80)  # not stated; ours
    turning_durations: tuple = (0, 10, 20, 30, 40, 50, 60, 80, 120)  # the same for the turning point; ours
    recovery: int = 160  # sharp epochs after each; not stated; ours
    measure_every: int = 1  # after the three periods' length; until then every epoch
    fisher_examples: int = 1000  # Monte-Carlo sample, size not stated; ours
    information_examples: int = 10_000  # ours
    # ---- fig3, fig4, fig6, fig7, fig8
    epochs: int = 200
    deit_epochs: int = 100
    long_deficit: int = 50
    short_deficit: int = 25
    late_window: tuple = (50, 100)
    batches: int = 8  # per epoch, whose gradients are projected; ours
    top: int = 10


PAPER = Config()
# constant rate and clipping as in the main job's quick settings; SGD without momentum needs a larger rate
QUICK = replace(
    PAPER,
    resnet=small_resnet,
    vgg=small_cnn,
    deit=small_deit,
    augment=None,
    blur=partial(deficits.gaussian_blur, kernel_size=13, sigma=2.0),
    lr=0.2,
    deit_lr=0.2,
    adam_lr=0.002,
    momentum_lr=0.05,
    weight_decay=5e-4,
    batch_size=125,  # eight of them are the training set, so their mean gradient is the full one
    clip=2.0,
    period=15,
    durations=(0, 5, 20, 80, 120),
    turning_durations=(0, 10, 20, 40, 60, 80, 120, 160, 240),
    recovery=20,
    measure_every=5,
    fisher_examples=100,
    information_examples=500,
    epochs=40,
    deit_epochs=40,
    long_deficit=10,
    short_deficit=5,
    late_window=(10, 20),
)
CIFAR = replace(QUICK, train_size=2000, batch_size=128, side=16, blur=partial(deficits.pooled_blur, size=4), lr=0.1)
TINY_RUN = dict(
    seeds=1,
    train_size=256,
    period=2,
    durations=(0, 1, 2),
    turning_durations=(0, 1, 2),
    recovery=2,
    fisher_examples=20,
    information_examples=50,
    epochs=8,
    deit_epochs=4,
    long_deficit=2,
    short_deficit=1,
    late_window=(2, 4),
    batches=2,
    top=2,
)
CONFIGS = {
    ("textures", "quick"): QUICK,
    ("cifar10", "quick"): CIFAR,
    ("textures", "smoke"): replace(QUICK, **TINY_RUN),
    ("cifar10", "smoke"): replace(CIFAR, **TINY_RUN),
    ("cifar10", "paper"): PAPER,
}


def prepare(run, seed):
    """The data set of one seed, standardised, on the device."""
    dataset = common.load_data(run, seed)
    if run.config.side:
        dataset = dataset.resized(run.config.side)
    return dataset.standardised().to(run.arguments.device)


def make_setup(run, dataset, net, lr, optimizer=torch.optim.SGD, **settings):
    """Setup of one net on the data set."""
    config, (x, y) = run.config, dataset.train
    return Setup(
        model=lambda: net(x.shape[1], x.shape[2], dataset.classes),
        x=x,
        y=y,
        lr=lr,
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
        optimizer=optimizer,
        augment=config.augment,
        clip=config.clip,
        channels_last=x.dim() == 4 and net is not config.deit,
        **settings,
    )
