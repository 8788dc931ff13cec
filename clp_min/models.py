"""The networks of the five papers: images (n, *shape) to logits (n, classes); the softmax
is in the loss.

Every constructor takes the shape of one input, (channels, height, width) or (d,), and the number of
classes. Initialisation is an argument: ``init`` is called on the finished model
(``kaiming_normal``); None leaves PyTorch's default. Layers with parameters are all plain nn
modules, which is what ``clp_min.fisher`` covers exactly.
"""

import math

import torch.nn.functional as F
from torch import nn

from clp_min.checks import check_whole


def kaiming_normal(model):
    """Weights N(0, 2 / fan-in), the last layer N(0, 1 / fan-in), biases 0 (He et al. 2015);
    BatchNorm keeps weight 1, bias 0.

    The start of the sparse paper's nets, Appendix B.1."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        nn.init.kaiming_normal_(
            layer.weight, nonlinearity="linear" if layer is layers[-1] else "relu"
        )
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _input(shape, classes, **numbers):
    """Channels of an input (channels, height, width)."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {shape!r}")
    check_whole(1, **dict(zip(("channels", "height", "width"), shape)), classes=classes)
    check_whole(1, **numbers)
    return shape[0]


def _finished(layers, init):
    """The layers as one model, initialised."""
    model = nn.Sequential(*layers)
    if init is not None:
        init(model)
    return model


def linear_softmax(shape, classes, bias=False, init=None):
    """Softmax regression, the F0 of "learning phases": one Linear layer on the flattened input.

    The net of "learning phases", Definition 1 and Eq. 2, in Fig. 1."""
    return mlp(shape, classes, hidden=(), bias=bias, init=init)


def mlp(shape, classes, hidden=(128,), bias=True, norm=False, activation=nn.ReLU, init=None):
    """Fully connected net with ``hidden`` widths; ``norm`` puts BatchNorm1d before each activation
    (True), or another module made for a width.

    The net of "Trap of feature diversity", Section 3.2; with ``norm`` like that of Section 3.3,
    whose norm_1 has no affine part."""
    for size in shape:
        check_whole(1, **{"a size in shape": size})
    check_whole(1, classes=classes)
    sizes, layers = (math.prod(shape), *hidden, classes), [nn.Flatten()]
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        layers.append(nn.Linear(inputs, outputs, bias=bias))
        if i < len(sizes) - 2:
            made = nn.BatchNorm1d if norm is True else norm
            layers += ([made(outputs)] if norm else []) + [activation()]
    return _finished(layers, init)


def _conv(inputs, outputs, stride=1, kernel=3, norm=True, bias=True):
    """Convolution, BatchNorm if asked, ReLU, as a list of modules."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)]
    return layers + ([nn.BatchNorm2d(outputs)] if norm else []) + [nn.ReLU()]


class GridMean(nn.AdaptiveAvgPool2d):
    """The mean over a grid; where its cells are equal, with a backward pass that is deterministic
    on CUDA too."""

    def forward(self, x):
        cells = [side // self.output_size for side in x.shape[-2:]]
        equal = all(side % self.output_size == 0 for side in x.shape[-2:])
        return F.avg_pool2d(x, cells) if equal else super().forward(x)


def small_cnn(shape=(3, 32, 32), classes=10, widths=(16, 32, 64), norm=False, pool=2, init=None):
    """The net of the quick scale: 3x3 convolutions, all but the first with stride 2, mean over a
    pool x pool grid, Linear."""
    layers, inputs = [], _input(shape, classes, pool=pool)
    for i, width in enumerate(widths):
        layers += _conv(inputs, width, stride=1 if i == 0 else 2, norm=norm)
        inputs = width
    layers += [GridMean(pool), nn.Flatten(), nn.Linear(inputs * pool**2, classes)]
    return _finished(layers, init)


def all_cnn(shape=(3, 32, 32), classes=10, norm=True, init=None, width=96):
    """All-CNN of Achille et al. 2018 (after Springenberg et al. 2014): nine convolutions, the mean
    of the last one is the logits.

    Widths 96 96 192 192 192 192 192 192 ``classes`` (``width`` and twice it), stride 2 in the third
    and sixth, the last two 1x1; biases throughout. The last convolution gives plain logits (some
    public code puts BatchNorm and ReLU on it). 1,621,354 parameters with BatchNorm.
    """
    layers, inputs = [], _input(shape, classes, width=width)
    widths = (width,) * 2 + (2 * width,) * 6
    strides, kernels = (1, 1, 2, 1, 1, 2, 1, 1), (3,) * 7 + (1,)
    for width, stride, kernel in zip(widths, strides, kernels):
        layers += _conv(inputs, width, stride, kernel, norm)
        inputs = width
    layers += [nn.Conv2d(inputs, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _finished(layers, init)


def vgg(shape=(3, 32, 32), classes=10, depth=16, norm=True, init=None):
    """VGG-11 or VGG-16 for 32x32 images (Simonyan & Zisserman 2015): the convolutions, five
    max-pools, one Linear layer.

    VGG-16 is a net of "Revisiting", Appendix B.1."""
    plans = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
    if depth not in plans:
        raise ValueError(f"depth must be one of {sorted(plans)}, got {depth}")
    layers, inputs = [], _input(shape, classes)
    for width, repeats in zip((64, 128, 256, 512, 512), plans[depth]):
        for _ in range(repeats):
            layers += _conv(inputs, width, norm=norm)
            inputs = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return _finished(layers, init)


class BasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)), F two 3x3 convolutions with BatchNorm; the shortcut is a 1x1
    convolution where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        first = _conv(inputs, outputs, stride, bias=False)
        self.residual = nn.Sequential(
            *first, nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet(shape=(3, 32, 32), classes=10, repeats=(1, 1, 1), widths=(8, 16, 32), init=None):
    """ResNet of basic blocks with a CIFAR stem (one 3x3 convolution, no max-pool); ``repeats``
    blocks of each of ``widths``.

    The default is the small net of the quick scale."""
    channels = _input(shape, classes)
    check_whole(1, **{f"width {i}": width for i, width in enumerate(widths)})
    layers, inputs = _conv(channels, widths[0], bias=False), widths[0]
    for stage, (count, width) in enumerate(zip(repeats, widths)):
        for block in range(count):
            layers.append(BasicBlock(inputs, width, stride=2 if stage > 0 and block == 0 else 1))
            inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return _finished(layers, init)


def resnet18(shape=(3, 32, 32), classes=10, width=64, init=None):
    """ResNet-18, 11,173,962 parameters at width 64; width 16 is the "ResNet18" of
    Ash & Adams (701,466).

    A net of "Revisiting", Appendix B.1."""
    return resnet(shape, classes, (2, 2, 2, 2), [width * 2**i for i in range(4)], init)


def resnet10(shape=(3, 32, 32), classes=10, width=64, init=None):
    """ResNet-10: one basic block per stage.

    The ResNet of "learning phases", Fig. 2, Fig. 4 and Fig. 6."""
    return resnet(shape, classes, (1, 1, 1, 1), [width * 2**i for i in range(4)], init)


def resnet32x4(shape=(3, 32, 32), classes=100, init=None):
    """ResNet-32 of He et al.'s CIFAR family (6n + 2, n = 5), four times as wide: the net of the
    sparse-training paper.

    The net of the sparse paper, Appendix B.1."""
    return resnet(shape, classes, (5, 5, 5), (64, 128, 256), init)


def parameter_count(model):
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters())
