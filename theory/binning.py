"""What binning makes of normal logits, in closed form: information that rises and falls by the
scale of the logits alone."""

import math

import numpy as np

from theory.checks import real, whole


def gaussian_bin_probabilities(scale, bins=30, low=-1.0, high=1.0, outside="clip"):
    """Probabilities of the cells for t ~ N(0, scale^2). outside: "clip" (bins,), "extend" (bins
    + 2,), "drop" (bins,), conditional on being inside.

    The intervals of "Revisiting", Appendix B.2.2."""
    real(above=0, scale=scale)
    whole(1, bins=bins)
    real(low_edge=low, high_edge=high)
    real(above=0, width=high - low)
    edges = np.linspace(low, high, bins + 1)
    cdf = np.array([0.5 * math.erfc(-edge / (scale * math.sqrt(2))) for edge in edges])
    inner = np.diff(cdf)
    if outside == "drop":
        real(above=0, probability_inside=inner.sum())
        return inner / inner.sum()
    if outside == "extend":
        return np.concatenate([[cdf[0]], inner, [1 - cdf[-1]]])
    if outside != "clip":
        raise ValueError(f'outside must be "clip", "extend" or "drop", got {outside!r}')
    inner[0] += cdf[0]
    inner[-1] += 1 - cdf[-1]
    return inner


def gaussian_binned_entropy(scale, bins=30, low=-1.0, high=1.0, outside="clip"):
    """H(T) in bits of binned t ~ N(0, scale^2): the limit of the "per_logit" reading. With
    clipping it peaks at 4.81269 (scale .5871) and falls to 1 bit as the scale grows; with "drop"
    it only rises.

    "Revisiting", Appendix B.2.2, for normal logits."""
    p = gaussian_bin_probabilities(scale, bins, low, high, outside)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def gaussian_plug_in_error(scale, examples, bins=30):
    """Standard error in bits of the plug-in entropy of that many clipped values t ~ N(0, scale^2):
    sqrt((sum q log^2 q - (sum q log q)^2) / n)."""
    whole(1, examples=examples)
    q = gaussian_bin_probabilities(scale, bins)
    q = q[q > 1e-300]
    return math.sqrt(((q * np.log2(q) ** 2).sum() - (q * np.log2(q)).sum() ** 2) / examples)


def binary_channel_information(error):
    """I(X;Y) in bits of a fair bit that is flipped with probability ``error``: 1 - H_2(error).

    A case of the I(X;Y) of "Revisiting", Section 3.2, that is known exactly."""
    real(0, 1, error=error)
    return (
        1.0
        if error in (0, 1)
        else 1 + error * math.log2(error) + (1 - error) * math.log2(1 - error)
    )
