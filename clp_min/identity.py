"""What a thing is, as text that comes out the same in another process: how a checkpoint knows whose
it is."""

import hashlib
import types
from dataclasses import fields, is_dataclass
from functools import partial

import torch
from torch import nn


def tensor_digest(*tensors):
    """SHA-256 of shapes, types and values, in hexadecimal; values are copied to the CPU once."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        if tensor.device.type != "meta":
            values = tensor.detach().cpu().contiguous()
            digest.update(values.view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()


def identity_of(value, closures):
    """The text of a value: numbers and strings as they are, tensors and nets by digest, functions
    by module, qualified name and fixed arguments, objects by type and attributes.

    A function made inside another one is known by its name alone where ``closures`` is True.
    ValueError where it is not: two of one name cannot be told apart.
    """

    def inner(one):
        return identity_of(one, closures)

    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return repr(value)
    if torch.is_tensor(value):
        return tensor_digest(value.reshape(-1) if value.dim() == 0 else value)
    if isinstance(value, partial):
        return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inner(k)}: {inner(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(inner, value)) + "]"
    if isinstance(value, types.MethodType):
        return f"{inner(value.__self__)}.{value.__name__}"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        name = f"{value.__module__}.{value.__qualname__}"
        if not closures and ("<locals>" in name or "<lambda>" in name):
            raise ValueError(f"{name} has no name of its own")
        return name
    kind = inner(type(value))
    if isinstance(value, nn.Module):
        return f"{kind}{inner(value.state_dict())}"
    if is_dataclass(value):
        return f"{kind}{inner({f.name: getattr(value, f.name) for f in fields(value)})}"
    return f"{kind}{inner(vars(value)) if hasattr(value, '__dict__') else ''}"
