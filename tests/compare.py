"""Tolerances, each named once, and a comparison that shows index, both values and their ratio (a
forgotten 1/N shows as N)."""

import numpy as np
import torch

EXACT = 1e-10  # an identity, in float64
AUTODIFF = 1e-7  # a trajectory
FD = 1e-5  # finite differences
ORDER = 0.1  # log-log slope
MC = 5.0  # |z| of a Monte-Carlo mean, n fixed
SEED = 0  # of Monte-Carlo tests: pytest --seed


def assert_close(actual, expected, rtol, atol=0.0):
    """|actual - expected| <= atol + rtol * |expected|, for each entry on its own scale; entries
    below a thousandth of the largest are compared on that one's, for sums that cancel."""
    actual, expected = (
        np.asarray(v.detach().numpy() if torch.is_tensor(v) else v, dtype=np.float64)
        for v in (actual, expected)
    )
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if actual.size == 0:
        return
    error = np.abs(actual - expected)
    size = np.abs(expected)
    bound = atol + rtol * np.maximum(size, size.max() / 1000)
    if not (error <= bound).all():
        i = np.unravel_index(np.nan_to_num(error, nan=np.inf).argmax(), error.shape)
        ratio = actual[i] / expected[i] if expected[i] else np.inf
        raise AssertionError(
            f"at {i}: {actual[i]!r}, expected {expected[i]!r}, ratio {ratio:.6g}, difference"
            f" {error[i]:.3g} > {bound[i]:.3g}"
        )


def draws(*key):
    """A NumPy generator of this run's seed."""
    return np.random.default_rng((SEED, *key))


def assert_mean(samples, expected, detects):
    """The mean of the samples (n,) is ``expected`` within MC standard errors, and a mean that is
    off by ``detects`` would be seen: with 97 % probability, so two standard errors more."""
    samples = np.asarray(samples, dtype=np.float64)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert (MC + 2) * error < detects, f"sees {(MC + 2) * error:.3g}, not {detects:.3g}"
    z = (samples.mean() - expected) / error
    assert abs(z) < MC, (
        f"mean {samples.mean():.6g} of n = {len(samples)}, expected {expected:.6g}, ratio"
        f" {samples.mean() / expected:.4g}, z = {z:.2f}"
    )
