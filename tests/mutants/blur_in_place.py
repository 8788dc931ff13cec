"""Writes the blurred images over the stored ones, so that they stay blurred for good: caught by
test_gaussian_blur__is_differentiable_and_leaves_its_input."""

from clp_min import deficits


def gaussian_blur(x, kernel_size=7, sigma=3.0):
    blurred = deficits.gaussian_blur(x, kernel_size, sigma)
    x.data.copy_(blurred.data)
    return blurred
