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

from clp_min.checks import check_finite, check_real, check_tensors, check_whole

READINGS = ("joint", "per_logit", "pooled", "per_class", "label")


def binned_mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    """Binned information of outputs t (N, C) ("Revisiting", Section 3.2 and Appendix B.2.2) -> bits
    (float). ``bins`` equal intervals [low, .), the last one closed.

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
    states, classes = bins + 2, np.arange(t.shape[1])
    if reading == "pooled":
        return entropy(np.bincount(cells[kept])) - _row_entropy(cells, kept)
    if reading == "per_class":
        kept = kept & (y[:, None] == classes)
        if y.min() < 0 or y.max() >= len(classes) or not kept.any():
            raise ValueError(
                f"labels must name outputs, 0..{len(classes) - 1}, with a value in [{low}, {high}];"
                f" got {y.min()}..{y.max()}"
            )
    if reading in ("per_logit", "per_class"):
        counts = np.bincount((cells + classes * states)[kept], minlength=len(classes) * states)
        rows = counts.reshape(len(classes), states)
        return float(np.mean([entropy(row) for row in rows if row.sum()]))
    rows = kept.all(1)
    if not rows.any():
        raise ValueError(f"no example has all its outputs in [{low}, {high}]")
    codes, size = _packed((cells if rows.all() else cells[rows]).T, [states] * len(classes))
    joint = entropy(np.unique(codes, return_counts=True)[1])
    if reading == "joint":
        return joint
    labels = y[rows] - y.min()
    if labels.max() >= len(y):  # far apart
        labels = np.unique(labels, return_inverse=True)[1]
    together, _ = _packed([codes, labels], [size, int(labels.max()) + 1])
    both = entropy(np.unique(together, return_counts=True)[1])
    return joint + entropy(np.bincount(labels)) - both


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
    check_finite(t=t)
    return t.numpy(), y


def _on_host(values):
    """A tensor on the CPU of numbers as they come. ValueError: they are none."""
    if torch.is_tensor(values) and not values.is_complex():
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
    return tuple(binned_mutual_information(t, "label", own, **settings) for own in (y, shuffled))


def entropy(counts):
    """Plug-in entropy in bits of counts (K,).

    H of "Revisiting", Section 3.2."""
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
    with np.errstate(over="ignore"):  # of values far outside
        place = (t - low) * (bins / (high - low))
    np.clip(place, -0.5, bins + 0.5, out=place)
    cells = np.floor(place).astype(np.int32) + 1  # int64 takes five times as long
    # a quotient this near to an edge may be rounded across it: look the edge up
    rounding = 8 * np.finfo(float).eps * bins * (1 + max(abs(low), abs(high)) / (high - low))
    place -= np.rint(place)
    near = np.abs(place, out=place) <= rounding
    if near.any():
        edges = np.linspace(low, high, bins + 1)
        cells[near] = np.searchsorted(edges, t[near], side="right") - (t[near] == high)
    if outside == "clip":
        np.clip(cells, 1, bins, out=cells)
    kept = (t >= low) & (t <= high) if outside == "drop" else np.ones(t.shape, dtype=bool)
    return cells, kept


def _row_entropy(cells, kept):
    """Mean over examples of the entropy of their own row of cells: where m_j of a row's n cells are
    like cell j, the mean over j of log2(n / m_j). By pairs of columns, which need no sort."""
    columns = np.ascontiguousarray(np.where(kept, cells, -1).T)
    alike = np.ones(columns.shape, dtype=np.int32)
    for j in range(len(columns)):
        for i in range(j):
            same = columns[i] == columns[j]
            alike[i] += same
            alike[j] += same
    n, kept = kept.sum(1), kept.T
    shares = np.where(kept, np.log2(np.maximum(n, 1) / alike), 0.0).sum(0) / np.maximum(n, 1)
    return float(shares.sum() / (n > 0).sum())


def _packed(columns, sizes):
    """One number for each row of the columns, column i of numbers in 0..sizes[i] - 1, equal for
    equal rows, and how many there may be; renumbered before 63 bits are full."""
    codes, size = columns[0].astype(np.int64), sizes[0]
    for column, own in zip(columns[1:], sizes[1:]):
        if size > 2**62 // own:
            codes, size = np.unique(codes, return_inverse=True)[1], len(codes)
        codes, size = codes * own + column, size * own
    return codes, size
