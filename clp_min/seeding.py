"""All randomness comes from keys: the same key gives the same numbers, whatever was drawn before.

This is what makes a forked run equal, bit for bit, the run trained alone (clp_min.schedule).
"""

import hashlib
from contextlib import contextmanager

import torch


def derive_seed(*key):
    """A 63-bit seed that depends on every part of ``key`` (ints, strings …):
    equal keys, equal seeds; NumPy's numbers count as Python's."""
    key = tuple(part.item() if hasattr(part, "item") else part for part in key)
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1


def generator(device, *key):
    """A torch.Generator on ``device`` seeded by ``key``: the only place that makes one.

    The meta device holds no numbers and has no generators: there the answer is None,
    which torch's samplers accept.
    """
    if torch.device(device).type == "meta":
        return None
    return torch.Generator(device).manual_seed(derive_seed(*key))


@contextmanager
def global_seed(*key):
    """Seed torch's global generators by ``key`` for the block (module initialisation) and restore
    the CPU generator after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*key))
        # torch.manual_seed would keep a traceback of every call until CUDA starts
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(derive_seed(*key))
        yield
