"""Mutual information of a network's outputs by binning, in bits ("Revisiting critical learning
periods", Appendix B.2.2).

The network is deterministic and its inputs are distinct, so I(X;T) = H(T) and everything depends on
what T is: the paper does not decide between the readings below, nor what becomes of logits outside
[-1, 1]. Two traps stand in every figure: H(T) cannot exceed log2 N for N examples, and it changes
with the scale of the logits alone, so that growing logits look like "memorise, then forget".
"""

import math

import numpy as np
import torch

from clp_min.checks import check_real, check_tensors, check_whole

READINGS = ("joint", "per_logit", "pooled", "per_class", "label")


def binned_mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    """Binned information of outputs t (N, C) -> bits (float). ``bins`` equal intervals [low, .),
    the last one closed.

    reading  "joint"      H(T), T the cell of the whole vector: <= log2 N, and as good as equal to
                          it for ten logits
             "per_logit"  mean over c of H(T_c): <= log2 bins
             "pooled"     H(pool) - mean H(row): the paper's contingency table, a row per example,
                          its C logits the counts
             "per_class"  mean over c of H(T_c | y = c): "for each class"
             "label"      I(T;Y) of the joint cell; to be shown beside its value for shuffled labels
                          (``label_information``)
    outside  "clip" into the end bins, "extend" by one bin on each side, "drop" the value ("joint",
             "label": the example)
    Plug-in entropies: too low by about (K - 1) / (2 N ln 2) bits, K occupied cells
    (``plug_in_bias``). y (N,) for the last two readings.
    ValueError: unknown reading or rule, missing or ill-shaped y, t not (N, C), nothing left after
    "drop".
    """
    t, y = _checked(t, reading, y, bins)
    cells, kept = _cells(t, bins, low, high, outside)
    if not kept.any():
        raise ValueError(f"no value lies in [{low}, {high}]")
    states = bins + 2
    if reading == "per_logit":
        return _mean_entropy(
            _counts(cells, kept, np.arange(t.shape[1])[None, :], t.shape[1], states)
        )
    if reading == "per_class":
        own = y[:, None] == np.arange(t.shape[1])[None, :]
        if not (kept & own).any():
            raise ValueError(
                f"no label names one of the {t.shape[1]} outputs with a value in [{low}, {high}]"
            )
        return _mean_entropy(
            _counts(cells, kept & own, np.arange(t.shape[1])[None, :], t.shape[1], states)
        )
    if reading == "pooled":
        return entropy(np.bincount(cells[kept])) - _row_entropy(cells, kept, states)
    rows = kept.all(1)
    if not rows.any():
        raise ValueError(f"no example has all its outputs in [{low}, {high}]")
    codes = _codes(cells[rows], states)
    joint = entropy(np.bincount(codes))
    if reading == "joint":
        return joint
    _, labels = np.unique(y[rows], return_inverse=True)
    together = np.unique(codes * (labels.max() + 1) + labels, return_counts=True)[1]
    return joint + entropy(np.bincount(labels)) - entropy(together)


def _checked(t, reading, y, bins):
    """t (N, C) float64 and y (N,), as NumPy arrays; y None where the reading needs none."""
    t = _on_host(t).to(torch.float64)
    check_tensors(t=(t, "N C"))
    check_whole(1, 10_000_000, bins=bins)
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
    if reading in ("per_class", "label"):
        if y is None:
            raise ValueError(f"reading {reading!r} needs y with {len(t)} labels, got none")
        y = _on_host(y)
        y = y if y.is_floating_point() else y.long()
        check_tensors(t=(t, "N C"), y=(y, "int N"))
        y = y.numpy()
    t = t.numpy()
    if not np.isfinite(t).all():
        raise ValueError("t holds values that are not finite")
    return t, y


def _on_host(values):
    """A tensor on the CPU of numbers as they come. ValueError: they are none."""
    if torch.is_tensor(values):
        return values.detach().cpu()
    values = np.asarray(values)
    if values.dtype.kind not in "iufb":
        raise ValueError(f"numbers are needed, got an array of {values.dtype}")
    return torch.from_numpy(np.ascontiguousarray(values))


def label_information(t, y, generator, **settings):
    """(I(T;Y), its value for labels shuffled by ``generator``) of the joint code, bits: what the
    second has is bias, not knowledge.

    With ten logits and 30 bins nearly every example has a cell of its own, and shuffled labels
    score as well as true ones.
    """
    check_tensors(y=(y, "int N"))
    shuffled = y[torch.randperm(len(y), device=y.device, generator=generator)]
    return binned_mutual_information(t, "label", y, **settings), binned_mutual_information(
        t, "label", shuffled, **settings
    )


def entropy(counts):
    """Plug-in entropy in bits of counts (K,)."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def plug_in_bias(cells, examples):
    """First-order bias in bits of a plug-in entropy with that many occupied cells: -(K - 1) / (2
    N ln 2) (Miller 1955)."""
    check_whole(1, cells=cells, examples=examples)
    return -(cells - 1) / (2 * examples * math.log(2))


def _cells(t, bins, low, high, outside):
    """Cell numbers (N, C) in 0..bins + 1 (0 and bins + 1: outside) and which of them count."""
    if outside not in ("clip", "extend", "drop"):
        raise ValueError(f'outside must be "clip", "extend" or "drop", got {outside!r}')
    check_real(low=low, high=high)
    if not low < high:
        raise ValueError(f"low must lie below high, got {low} and {high}")
    edges = np.linspace(low, high, bins + 1)
    cells = np.clip(np.floor((t - low) * (bins / (high - low))), 0, bins - 1).astype(np.int64)
    cells -= t < edges[cells]  # rounding of the quotient at an exact edge; also what lies below
    cells += (t >= edges[cells + 1]) & (cells >= 0)
    cells = np.where(t == high, bins - 1, cells) + 1
    kept = np.ones(t.shape, dtype=bool)
    if outside == "clip":
        cells = np.clip(cells, 1, bins)
    elif outside == "drop":
        kept = (t >= low) & (t <= high)
    return cells, kept


def _counts(cells, kept, group, groups, states):
    return np.bincount((cells + group * states)[kept], minlength=groups * states).reshape(
        groups, states
    )


def _mean_entropy(counts):
    return float(np.mean([entropy(row) for row in counts if row.sum()]))


def _row_entropy(cells, kept, states):
    """Mean over examples of the entropy of their own row of cells; one sort for all."""
    row = np.broadcast_to(np.arange(len(cells))[:, None], cells.shape)[kept]
    keys, counts = np.unique(row * states + cells[kept], return_counts=True)
    sizes = np.bincount(row, minlength=len(cells))[keys // states]
    p = counts / sizes
    return float(-(p * np.log2(p)).sum() / kept.any(1).sum())


def _codes(cells, states):
    """One number per row, equal for equal rows; packed into 63 bits as far as
    they go, then renumbered."""
    codes, size = np.zeros(len(cells), dtype=np.int64), 1
    for column in cells.T:
        if size > 2**62 // states:
            codes, size = np.unique(codes, return_inverse=True)[1], len(codes)
        codes, size = codes * states + column, size * states
    return np.unique(codes, return_inverse=True)[1]
