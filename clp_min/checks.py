"""What an argument must be: a ValueError of one line with its name, what is allowed, what was
given. Shapes, dtypes and devices are looked at wherever a function is called; values only where it
ends on the host anyway (``check_finite``), never in a training step."""

import math
import numbers
import sys

import torch


def check_whole(low=0, high=math.inf, /, **values):
    """Each value must be a whole number in [low, high] (not a bool)."""
    for name, value in values.items():
        if not _is(numbers.Integral, value) or not low <= value <= high:
            allowed = f"from {low} on" if high == math.inf else f"in {low}..{high}"
            raise ValueError(f"{name} must be a whole number {allowed}, got {_said(value)}")


def check_real(low=-math.inf, high=math.inf, /, above=-math.inf, **values):
    """Each value must be a finite number in [low, high], and larger than ``above``."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and not value.dim() and value.device.type != "meta":
            value = float(value)
        finite = _is(numbers.Real, value) and abs(value) <= sys.float_info.max  # nan fails too
        if not finite or not low <= value <= high or value <= above:
            allowed = f" in [{low:g}, {high:g}]" if high < math.inf else f" from {low:g} on"
            allowed = "" if low == -math.inf else allowed
            allowed = f" > {above:g}" if above > -math.inf else allowed
            raise ValueError(f"{name} must be a finite number{allowed}, got {_said(value)}")


def check_functions(**values):
    """Each value must be callable."""
    for name, value in values.items():
        if not callable(value):
            raise ValueError(f"{name} must be a function, got {_said(value)}")


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _said(value):
    """A short value as it is, of a long one its kind."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def check_tensors(**values):
    """Each value is (tensor, what it must be): axes by letters, as in "n d", where equal letters
    stand for equal sizes in one call and "..." for any further axes, none of them empty; "int n"
    for int64 or int32, "label n" for int64, as the loss needs it, "any n ..." for any dtype, else
    floating point. All on one device."""
    sizes, kinds = {}, {"int": (torch.int64, torch.int32), "label": (torch.int64,), "any": ()}
    first = None
    for name, (value, form) in values.items():
        kind, axes = "float", form.split()
        if axes[0] in kinds:
            kind, axes = axes[0], axes[1:]
        article = {"int": "an int", "label": "an int64", "any": "a"}.get(kind, "a float")
        wanted = f"{name} must be {article} tensor ({', '.join(axes)})"
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{wanted}, got {type(value).__name__}")
        right = value.dtype in kinds.get(kind, ()) or kind == "any"
        right = value.is_floating_point() if kind == "float" else right
        free = axes[-1] == "..."
        named = axes[:-1] if free else axes
        fits = value.dim() >= len(named) if free else value.dim() == len(named)
        if not right or not fits or not value.numel():
            raise ValueError(f"{wanted}, not empty; got {tuple(value.shape)} {value.dtype}")
        for axis, size in zip(named, value.shape):
            if sizes.setdefault(axis, size) != size:
                given = {n: tuple(v.shape) for n, (v, _) in values.items()}
                raise ValueError(f"{wanted} with {axis} = {sizes[axis]}, got {given}")
        first = value if first is None else first
        if value.device != first.device:
            raise ValueError(f"{name} is on {value.device}, the others on {first.device}")


def check_labels(y, classes, why=""):
    """Labels must lie in 0..classes - 1. The device is waited for."""
    if y.device.type != "meta" and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"labels must lie in 0..{classes - 1}{why}, got {int(y.min())}..{int(y.max())}"
        )


def check_output(logits):
    """What a net returned must be logits (n, classes)."""
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"a net must return logits (n, classes), got {given}")


def check_logits(logits, y):
    """``check_output``, and labels y (any number) must be of the net's classes. The device is
    waited for."""
    check_output(logits)
    check_labels(y, logits.shape[1], f", as the net has {logits.shape[1]} logits")


def check_finite(**values):
    """Each tensor must hold finite numbers. The device is waited for."""
    for name, value in values.items():
        if value.device.type != "meta" and not bool(value.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")
