"""The sums as they stand, pixel by pixel."""

import math

import torch


def reflected(i, size):
    if i < 0:
        return -i
    return 2 * (size - 1) - i if i >= size else i


def gaussian_blur(x, kernel_size=7, sigma=3.0):
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError("x must be a floating-point tensor (n, c, h, w)")
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise ValueError("kernel_size must be odd")
    if not 0 < sigma < math.inf:
        raise ValueError("sigma must be positive")
    half = kernel_size // 2
    height, width = x.shape[-2:]
    if half >= min(height, width):
        raise ValueError("the kernel is larger than the image")
    taps = range(-half, half + 1)
    weights = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i in taps for j in taps}
    total = sum(weights.values())
    rows = []
    for r in range(height):
        row = []
        for c in range(width):
            row.append(sum(
                w / total * x[:, :, reflected(r + i, height), reflected(c + j, width)]
                for (i, j), w in weights.items()
            ))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def label_noise(y, fraction, classes, generator):
    if not 0 <= fraction <= 1:
        raise ValueError("fraction must lie in [0, 1]")
    labels, redrawn = y.clone(), torch.zeros(len(y), dtype=torch.bool)
    for i in torch.randperm(len(y), generator=generator)[: round(fraction * len(y))].tolist():
        labels[i] = torch.randint(classes, (), generator=generator)
        redrawn[i] = True
    return labels, redrawn
