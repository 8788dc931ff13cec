"""What a thing is, as text that comes out the same in another process: how a checkpoint knows whose
it is."""

import hashlib
import types
from functools import partial

import numpy as np
import torch
from torch import nn


def tensor_digest(*tensors):
    """SHA-256 of shapes, types and values, in hexadecimal; values are copied to the CPU once."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        if tensor.device.type != "meta":
            values = tensor.detach().cpu().contiguous().flatten()
            digest.update(values.view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()


def identity_of(value, closures):
    """The text of a value: numbers and strings as they are, tensors and nets by digest, functions
    by module, qualified name and fixed arguments, objects by type and attributes.

    A function made inside another one is known by its name alone where ``closures`` is True.
    ValueError where it is not, or of an object that does not show what it holds: two of one name
    cannot be told apart.
    """

    def inner(one):
        return identity_of(one, closures)

    if isinstance(value, (type(None), bool, int, float, str, bytes, range, torch.dtype)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if torch.is_tensor(value):
        return tensor_digest(value)
    if isinstance(value, partial):
        return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inner(k)}: {inner(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(inner, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if isinstance(value, (types.MethodType, types.BuiltinFunctionType)):
        owner = getattr(value, "__self__", None)
        own = "" if owner is None or isinstance(owner, types.ModuleType) else inner(owner)
        return f"{own}.{getattr(value, '__module__', '')}.{value.__qualname__}"
    if isinstance(value, (types.FunctionType, type)):
        name = f"{value.__module__}.{value.__qualname__}"
        unnamed = "<locals>" in name or "<lambda>" in name or getattr(value, "__closure__", None)
        if unnamed and not closures:
            raise ValueError(f"{name} has no name of its own")
        defaults = getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None)
        return name + ("" if isinstance(value, type) else inner(defaults))
    kind = inner(type(value))
    if isinstance(value, nn.Module):
        return f"{kind} {value!r} {inner(value.state_dict())}"
    if not hasattr(value, "__dict__"):
        raise ValueError(f"{kind} does not show what it holds")
    return f"{kind}{inner(vars(value))}"
