"""Settings and preparation shared by the scripts on "Understanding and leveraging the learning phases of neural networks".

Scripts: phases_reconstruction, phases_transfer. (This file is no script.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

import common
from clp_min import models
from clp_min.data import Dataset
from clp_min.reconstruction import deconvolution_decoder, linear_probe, reconstruction_loss, trained_decoder_loss, trained_probe
from clp_min.schedule import Phase
from clp_min.seeding import generator, global_seed
from clp_min.train import Setup, cross_entropy


def f0(channels, side, classes):
    return models.linear_softmax(channels * side * side, classes)


def resnet10(channels, side, classes):
    return models.resnet10(channels, classes)


def vgg11(channels, side, classes):
    return models.vgg(11, channels, classes)


def small_vgg(channels, side, classes):
    return models.small_cnn(channels, (8, 16, 32), classes, norm=True)


def small_resnet(channels, side, classes):
    return models.resnet((1, 1, 1), (8, 16, 32), channels, classes)


@dataclass(frozen=True)
class Config:
    """The published experiment."""

    seeds: int = 5  # "five runs"
    train_size: int | None = None
    side: int | None = 32  # "all scaled to 32x32"
    linear: Callable = f0
    net: Callable = resnet10  # phases_fig2, fig4, fig6
    vgg: Callable = vgg11  # phases_fig7; fig2 and fig4 with --net vgg
    lr: float = 0.002
    linear_lr: float = 0.002
    momentum: float = 0.9  # not stated in the paper; in the authors' code
    batch_size: int = 128
    last: int = 16  # measured at steps 0, 1, 2, 4 … 2^last; 256 epochs of 60,000 are 2^16.9 steps
    decoder: str = "trained"  # deconvolution, 30 epochs of Adam, and a trained probe; "linear": both by ridge least squares
    generator: tuple = ()


PAPER = Config()
# smaller rates make the near-constant phase longer and the run too
QUICK = replace(
    PAPER,
    seeds=3,
    train_size=2000,
    side=None,
    net=small_resnet,
    vgg=small_vgg,
    lr=0.05,
    linear_lr=0.2,
    momentum=0.0,
    last=10,
    decoder="linear",
    generator=(("noise", 0.2), ("colour", True), ("test_size", 1000)),
)
REAL = replace(QUICK, side=16, generator=())
TINY_RUN = dict(seeds=1, train_size=256, last=3)
CONFIGS = {
    ("shapes", "quick"): QUICK,
    ("fashion_mnist", "quick"): REAL,
    ("mnist", "quick"): REAL,
    ("cifar10", "quick"): REAL,
    ("cifar100", "quick"): replace(REAL, train_size=5000),
    ("shapes", "smoke"): replace(QUICK, **TINY_RUN),
    ("mnist", "smoke"): replace(REAL, **TINY_RUN),
    ("fashion_mnist", "paper"): PAPER,
    ("mnist", "paper"): PAPER,
    ("cifar10", "paper"): PAPER,
    ("cifar100", "paper"): PAPER,
}


def hinge(model, x, y):
    """Multi-class hinge loss: mean over examples of the mean over classes of max(0, 1 + z_k - z_y)."""
    return torch.nn.functional.multi_margin_loss(model(x), y)


def prepare(run, seed, name=None):
    """The data set of one seed (the run's, or the one of this name), standardised, on the device."""
    dataset = common.load_data(run, seed, name)
    if run.config.side:
        dataset = dataset.resized(run.config.side) if run.config.side < dataset.train[0].shape[2] else _enlarged(dataset, run.config.side)
    return dataset.standardised().to(run.arguments.device)


def _enlarged(dataset, side):
    def grown(pair):
        return torch.nn.functional.interpolate(pair[0], size=(side, side), mode="bilinear", align_corners=False), pair[1]

    return Dataset(dataset.name, dataset.classes, grown(dataset.train), grown(dataset.test))


def steps(config):
    """Measured steps: 0 and the powers of two."""
    return {0} | {2**i for i in range(config.last + 1)}


def make_job(config, dataset, net, lr, loss=cross_entropy):
    """(Setup of one net, its one schedule); the paper uses no augmentation and no weight decay."""
    x, y = dataset.train
    setup = Setup(
        model=lambda: net(x.shape[1], x.shape[2], dataset.classes),
        x=x,
        y=y,
        lr=lr,
        batch_size=min(config.batch_size, len(x)),
        optimizer=partial(torch.optim.SGD, momentum=config.momentum),
        loss=loss,
    )
    return setup, {"run": [Phase(-(-(2**config.last) // (len(x) // setup.batch_size)))]}


def loss_of(run, seed, step, features, x, test_features, test_x):
    """Reconstruction loss with the scale's decoder."""
    if run.config.decoder == "linear":
        return float(reconstruction_loss(features, x, test_features, test_x))
    with global_seed(seed, step, "decoder"):
        decoder = deconvolution_decoder(features.shape[1], tuple(x.shape[1:])).to(x.device)
    return float(trained_decoder_loss(decoder, features, x, test_features, test_x, generator(x.device, seed, step, "decoder batches")))


def probe_of(run, seed, step, features, y, test_features, test_y):
    """Accuracy of a linear probe, trained or by least squares like the scale's decoder."""
    if run.config.decoder == "linear":
        return float(linear_probe(features, y, test_features, test_y))
    with global_seed(seed, step, "probe"):
        probe = torch.nn.Linear(features.shape[1], int(y.max()) + 1).to(features.device)
    return float(trained_probe(probe, features, y, test_features, test_y, generator(features.device, seed, step, "probe batches")))
