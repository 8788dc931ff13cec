"""Augmentation of whole batches on the device: (n, c, h, w) -> (n, c, h, w). Every draw comes
from the given generator."""

import math

import torch
import torch.nn.functional as F

from clp_min.checks import check_real, check_tensors, check_whole


def random_crop(x, generator, padding=4):
    """Translate each image by up to ``padding`` pixels either way; what moves in is 0, the mean
    colour of standardised data.

    "Trap of feature diversity", Appendix A.1, which does not say by how much."""
    check_tensors(x=(x, "any n c h w"))
    check_whole(padding=padding)
    n, _, h, w = x.shape
    padded = F.pad(x, (padding,) * 4)
    offset = torch.randint(2 * padding + 1, (2, n, 1), device=x.device, generator=generator)
    rows = offset[0] + torch.arange(h, device=x.device)  # (n, h)
    columns = offset[1] + torch.arange(w, device=x.device)  # (n, w)
    image = torch.arange(n, device=x.device)[:, None, None]
    # (n, h, w, c) -> (n, c, h, w)
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(x, generator):
    """Mirror each image left to right with probability 1/2.

    "Revisiting", Appendix B.1; "Trap of feature diversity", Appendix A.1."""
    check_tensors(x=(x, "any n c h w"))
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def random_affine(x, generator, degrees=15.0, translate=0.1, scale=0.1):
    """Rotate by up to ±degrees, translate by up to ±translate of the image, scale by 1 ± scale;
    bilinear, zeros move in.

    "Revisiting", Appendix B.1, which prints no ranges: these are ours."""
    check_tensors(x=(x, "n c h w"))
    check_real(degrees=degrees, translate=translate, scale=scale)
    draw = 2 * torch.rand(4, len(x), device=x.device, generator=generator) - 1
    angle, zoom = draw[0] * math.radians(degrees), 1 + scale * draw[1]
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # the grid runs over [-1, 1], so a shift by a fraction of the image is twice that number, and a
    # turn of an image that is not square mixes two units
    long = x.shape[2] / x.shape[3]
    matrix = torch.stack(
        [cos, -sin * long, 2 * translate * draw[2], sin / long, cos, 2 * translate * draw[3]], 1
    ).view(-1, 2, 3)
    return F.grid_sample(
        x, F.affine_grid(matrix.to(x.dtype), x.shape, align_corners=False), align_corners=False
    )


def crop_and_flip(x, generator):
    """Translation by up to 4 pixels, then a random mirror: the augmentation of Achille et al.
    and of most CIFAR training.

    Of "Trap of feature diversity" too, Appendix A.1."""
    return random_flip(random_crop(x, generator), generator)


def none(x, generator):
    """No augmentation (for a phase that turns the set-up's off)."""
    return x


def flip_and_affine(x, generator):
    """``random_flip``, then ``random_affine``.

    The augmentation of "Revisiting", Appendix B.1."""
    return random_affine(random_flip(x, generator), generator)
