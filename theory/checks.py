"""What an argument must be: a ValueError of one line with its name, what is allowed, what was
given."""

import math

import numpy as np


def whole(low=0, high=math.inf, **values):
    """Each value must be a whole number in [low, high] (not a bool)."""
    for name, value in values.items():
        is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
        if not is_whole or not low <= value <= high:
            allowed = f"from {low} on" if high == math.inf else f"in {low}..{high}"
            raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}")


def real(low=-math.inf, high=math.inf, above=-math.inf, **values):
    """Each value must hold finite numbers in [low, high], and larger than ``above``: a number or an
    array of any shape that is not empty."""
    for name, value in values.items():
        found = _numbers(name, value)
        inside = found.size and (found >= low).all() and (found <= high).all()
        if not inside or not (found > above).all():
            where = f"> {above:g}" if above > -math.inf else f"in [{low:g}, {high:g}]"
            raise ValueError(f"{name} must hold finite numbers {where}, got {value!r}")


def shaped(ndim, **values):
    """Each value must be an array of finite numbers with ``ndim`` axes, none of them empty."""
    for name, value in values.items():
        found = _numbers(name, value)
        if found.ndim != ndim or not found.size:
            raise ValueError(f"{name} must be an array with {ndim} axes, got shape {found.shape}")


def _numbers(name, value):
    try:
        found = np.asarray(value)
        found = found.astype(float) if found.dtype.kind in "iufb" else None
    except ValueError:  # rows of different lengths
        found = None
    if found is None or not np.isfinite(found).all():
        raise ValueError(f"{name} must hold finite numbers, got {value!r}")
    return found
