"""Settings and preparation shared by the scripts on Achille, Rovere & Soatto, "Critical learning periods in deep networks" (2018).

Scripts: blur_deficit, deficit_window, deficit_kinds, fisher_layers. (This file is no script.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

import common
from clp_min import deficits, models
from clp_min.augment import crop_and_flip
from clp_min.train import Setup


def all_cnn(channels, side, classes, norm):
    return models.all_cnn(channels, classes, norm)


def small_cnn(channels, side, classes, norm):
    return models.small_cnn(channels, classes=classes, norm=norm, init=models.kaiming_normal)


def deep_mlp(channels, side, classes, norm):
    return models.mlp((channels * side**2,) + (128,) * 6 + (classes,), norm=norm, init=models.kaiming_normal)


@dataclass(frozen=True)
class Config:
    """The published experiment; values are the paper's where no comment says otherwise."""

    seeds: int = 5  # not stated; ours
    # ---- data and net
    train_size: int | None = None  # all of CIFAR-10
    side: int | None = None  # average the images down to side x side
    net: Callable = all_cnn
    norm: bool = True  # BatchNorm
    augment: Callable | None = crop_and_flip
    blur: Callable = partial(deficits.downsample_blur, size=8, antialias=True)  # 32 -> 8 -> 32 bilinear; antialias not stated; ours
    # ---- optimisation
    lr: float = 0.05
    decay: float = 0.97  # of the learning rate, per epoch; it goes on through the deficit
    momentum: float = 0.9  # not stated; ours
    weight_decay: float = 0.001
    batch_size: int = 128
    clip: float | None = None
    # ---- achille_blur, achille_matched
    clean: int = 160  # epochs after the deficit, the same after every one
    removals: tuple = (0, 20, 40, 60, 80, 100, 120, 140)  # epoch at which the blur is removed; grid not stated; ours
    # ---- achille_restart
    restart_decay: float = 0.97
    restart_removals: tuple = (0, 40, 100)  # ours
    # ---- achille_fisher, achille_layers
    fisher_removals: tuple = (0, 40, 100)  # ours
    fisher_examples: int = 1000  # ours
    measure_every: int = 5  # epochs, besides the first ten and the last; ours
    # ---- achille_window
    window: int = 40  # length of the sliding deficit
    onsets: tuple = (0, 20, 40, 60, 80, 100, 120)  # ours
    window_clean: int = 160
    # ---- achille_deficits, achille_pretraining
    kind_epochs: int = 100  # length of each deficit; ours
    kind_clean: int = 160
    pretraining: tuple = (0, 10, 100)  # epochs of pre-training on blurred images; ours


PAPER = Config()

# notes on the quick settings: constant learning rate, so that a late deficit is not also a deficit at a low rate; no BatchNorm, no
# augmentation and few images make the effect large; they were chosen because they do, and say nothing of natural images
QUICK = replace(
    PAPER,
    seeds=4,
    net=small_cnn,
    norm=False,
    augment=None,
    blur=partial(deficits.gaussian_blur, kernel_size=13, sigma=2.0),
    decay=1.0,
    weight_decay=5e-4,
    clip=2.0,
    clean=30,
    removals=(0, 5, 10, 20, 40),
    restart_removals=(0, 20, 40),
    fisher_removals=(0, 20, 40),
    fisher_examples=200,
    window=20,
    onsets=(0, 10, 20, 40),
    window_clean=60,
    kind_epochs=40,
    kind_clean=30,
    pretraining=(0, 5, 40),
)
FASHION = replace(
    QUICK,
    seeds=3,
    train_size=1000,
    net=deep_mlp,
    blur=partial(deficits.pooled_blur, size=4),
    weight_decay=0.0,
    clean=200,
    removals=(0, 25, 50, 100, 200, 400),
    restart_decay=0.99,
    restart_removals=(0, 100, 200),
    fisher_removals=(0, 100, 200),
    measure_every=25,
    window=100,
    onsets=(0, 100, 200, 300),
    window_clean=200,
    kind_epochs=200,
    kind_clean=200,
    pretraining=(0, 25, 200),
)
CIFAR = replace(
    QUICK,
    seeds=3,
    train_size=2000,
    side=16,
    blur=partial(deficits.pooled_blur, size=4),
    weight_decay=0.0,
    clean=50,
    removals=(0, 20, 60, 150),
    restart_removals=(0, 60),
    fisher_removals=(0, 60, 150),
    window=60,
    onsets=(0, 50, 100),
    window_clean=50,
    kind_epochs=150,
    kind_clean=50,
    pretraining=(0, 20, 150),
)
TINY_RUN = dict(
    seeds=1,
    train_size=256,
    clean=2,
    removals=(0, 1, 2),
    restart_removals=(0, 2),
    fisher_removals=(0, 2),
    fisher_examples=20,
    window=1,
    onsets=(0, 1),
    window_clean=2,
    kind_epochs=2,
    kind_clean=2,
    pretraining=(0, 1, 2),
    measure_every=1,
)
CONFIGS = {
    ("textures", "quick"): QUICK,
    ("fashion_mnist", "quick"): FASHION,
    ("mnist", "quick"): FASHION,
    ("cifar10", "quick"): CIFAR,
    ("textures", "smoke"): replace(QUICK, **TINY_RUN),
    ("fashion_mnist", "smoke"): replace(FASHION, **TINY_RUN),
    ("cifar10", "smoke"): replace(CIFAR, **TINY_RUN),
    ("cifar10", "paper"): PAPER,
}
OPTIONS = [
    ("--norm", dict(choices=["batch"], help="put BatchNorm into the net of the quick scale (the effect is smaller)"), "batchnorm"),
    ("--bfloat16", dict(action="store_true", help="compute in bfloat16, channels last (about 0.4 of the time; other numbers)"), "bfloat16"),
]


def prepare(run, seed):
    """Data set and Setup of one seed: the seed draws the data (or its subset), the initial weights and the order of the batches."""
    config, arguments = run.config, run.arguments
    dataset = common.load_data(run, seed)
    if config.side:
        dataset = dataset.resized(config.side)
    dataset = dataset.standardised().to(arguments.device)
    x, y = dataset.train
    setup = Setup(
        model=lambda: config.net(x.shape[1], x.shape[2], dataset.classes, config.norm or arguments.norm == "batch"),
        x=x,
        y=y,
        lr=config.lr if config.decay == 1 else exponential(config.lr, config.decay),
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
        optimizer=partial(torch.optim.SGD, momentum=config.momentum),
        augment=config.augment,
        clip=config.clip,
        autocast=torch.bfloat16 if arguments.bfloat16 else None,
        channels_last=x.shape[1] > 1,
    )
    return dataset, setup


def exponential(lr, decay):
    """Learning rate lr * decay^epoch."""
    return lambda epoch: lr * decay**epoch


def drops(run, names, reference):
    """Final accuracy lost against ``reference``: one paired difference per seed for each schedule name -> {name: [per seed]}."""
    return {
        name: [run.log.last(seed, reference, "accuracy") - run.log.last(seed, name, "accuracy") for seed in run.seeds] for name in names
    }
