"""Deficits: what is done to the training data for a while (Achille et al. 2018). Images in, images
out; labels in, labels out.

All functions take batches, work on the device of their input and leave it unchanged. ``images``,
``labels`` and ``fixed_labels`` turn one into the ``deficit`` of a ``schedule.Phase``, which is
applied to the training set alone: nothing here ever sees a test set.
"""

from functools import partial

import torch
import torch.nn.functional as F

from clp_min.checks import check_labels, check_real, check_tensors, check_whole

CHUNK = 4096  # images that a deficit works on at once: a blurred CIFAR-10 needs one copy, not four


def images(function, **settings):
    """The phase deficit (x, y, generator) -> (function(x, **settings), y)."""
    return partial(_of_images, partial(function, **settings))


def _of_images(function, x, y, generator):
    return torch.cat([function(part) for part in x.split(CHUNK)]), y


def labels(function, *arguments, **settings):
    """The phase deficit (x, y, generator) -> (x, function(y, *arguments, **settings)), for
    functions that draw nothing (``permute_labels``)."""
    return partial(_of_labels, function, arguments, settings)


def _of_labels(function, arguments, settings, x, y, generator):
    return x, function(y, *arguments, **settings)


def fixed_labels(y_given):
    """The phase deficit under which the training set has these labels (n,), drawn once: those of
    ``label_noise`` or ``random_labels``."""
    check_tensors(y_given=(y_given, "int n"))
    return partial(_given_labels, y_given)


def _given_labels(y_given, x, y, generator):
    return x, y_given


def noise_images(x, y, generator):
    """Phase deficit: every image is replaced by white noise N(0, 1), drawn anew each epoch, under
    its true label.

    Standardised images have mean 0 and variance 1 too. Achille et al.'s "sensory deprivation", of
    which they give no distribution: N(0, 1) is ours; a replication draws from [0, 1].
    """
    check_tensors(x=(x, "n ..."), y=(y, "int n"))
    return torch.randn(x.shape, device=x.device, dtype=x.dtype, generator=generator), y


def gaussian_blur(x, kernel_size=7, sigma=3.0):
    """Gaussian blur, separable, reflect padding. (n, c, h, w) -> (n, c, h, w).

    The weights exp(-i^2 / 2 sigma^2), i = -(k-1)/2 .. (k-1)/2, are normalised to sum 1. Default 7
    and 3: the "heavy Gaussian blur" of "Revisiting critical learning periods", Appendix B.1; with
    sigma 3 seven taps are nearly a box. ValueError: an even kernel, sigma <= 0, or a kernel whose
    half width reaches the size of the image.
    """
    check_tensors(x=(x, "n c h w"))
    check_whole(1, kernel_size=kernel_size)
    check_real(above=0, sigma=sigma)
    half = kernel_size // 2
    if kernel_size % 2 != 1:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if half >= min(x.shape[-2:]):
        raise ValueError(
            f"kernel_size {kernel_size} needs images larger than {half}, got {tuple(x.shape[-2:])}"
        )
    taps = torch.exp(
        -torch.arange(-half, half + 1, device=x.device, dtype=x.dtype).square() / (2 * sigma**2)
    )
    taps = taps / taps.sum()

    def matrix(size):
        """(size, size): row i holds pixel i's weights, those beyond the edge folded back."""
        whole = torch.eye(size, device=x.device, dtype=x.dtype)[None]
        padded = F.pad(whole, (half, half), mode="reflect")
        return F.conv1d(padded.transpose(0, 1), taps.view(1, 1, -1)).squeeze(1).T

    return matrix(x.shape[2]) @ x @ matrix(x.shape[3]).T


def downsample_blur(x, size=8, antialias=False):
    """Down to ``size`` x ``size`` pixels and back, both bilinear: Achille et al.'s blur is 32 -> 8
    -> 32. (n, c, h, w) -> (n, c, h, w).

    antialias=False interpolates between four neighbours and ignores the rest, which leaves aliases;
    True averages over the area, as PIL's resize does. The two differ, and the paper does not say
    which it used.
    """
    check_tensors(x=(x, "n c h w"))
    check_whole(1, min(x.shape[-2:]), size=size)
    small = F.interpolate(
        x, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias
    )
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def pooled_blur(x, size=4):
    """Mean over a ``size`` x ``size`` grid of cells, then bilinear back. (n, c, h, w) -> (n, c,
    h, w). The blur of the small real sets."""
    check_tensors(x=(x, "n c h w"))
    check_whole(1, min(x.shape[-2:]), size=size)
    return F.interpolate(
        F.adaptive_avg_pool2d(x, size), size=x.shape[-2:], mode="bilinear", align_corners=False
    )


def vertical_flip(x):
    """Every image upside down (Achille et al. 2018). (n, c, h, w) -> (n, c, h, w)."""
    check_tensors(x=(x, "n c h w"))
    return x.flip(-2)


def permute_labels(y, permutation):
    """Relabel the classes: y -> permutation[y]; ``permutation`` (classes,) holds every class once
    (Achille et al. 2018). (n,) -> (n,).

    ValueError: not a permutation, or a label outside it.
    """
    check_tensors(y=(y, "int n"))
    permutation = torch.as_tensor(permutation, device=y.device)
    check_tensors(permutation=(permutation, "int classes"))
    every = torch.arange(len(permutation), device=y.device)
    if y.device.type != "meta" and not torch.equal(permutation.sort().values, every):
        raise ValueError(
            f"permutation must hold each class 0..{len(every) - 1} once, got {permutation.tolist()}"
        )
    check_labels(y, len(permutation))
    return permutation[y].to(y.dtype)


def random_labels(y, generator):
    """The labels shuffled over the examples: no label has to do with its image, the class
    frequencies are kept. (n,) -> (n,)."""
    check_tensors(y=(y, "int n"))
    return y[torch.randperm(len(y), device=y.device, generator=generator)]


def label_noise(y, fraction, classes, generator):
    """Redraw exactly round(fraction * n) labels uniformly over all ``classes`` -> (labels (n,),
    mask (n,) of the redrawn).

    The draw may give the old label again, so about fraction * (1 - 1/classes) of the labels really
    change. ValueError: fraction outside [0, 1], a label outside 0..classes - 1.

    The noise of the sparse paper's Fig. 6, of 30 % there."""
    check_tensors(y=(y, "int n"))
    check_real(0, 1, fraction=fraction)
    check_whole(1, classes=classes)
    check_labels(y, classes)
    order = torch.randperm(len(y), device=y.device, generator=generator)
    redrawn = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    redrawn[order[: round(fraction * len(y))]] = True
    drawn = torch.randint(classes, (len(y),), device=y.device, generator=generator, dtype=y.dtype)
    return torch.where(redrawn, drawn, y), redrawn
