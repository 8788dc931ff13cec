"""Entropies from dictionaries of counts."""

import math
from bisect import bisect_right
from collections import Counter

import numpy as np
import torch


def entropy(items):
    counts = Counter(items)
    n = sum(counts.values())
    return -sum(k / n * math.log2(k / n) for k in counts.values())


def cell(value, edges, outside):
    """Number of the cell of one value; None if it is dropped."""
    bins, low, high = len(edges) - 1, edges[0], edges[-1]
    if value < low or value > high:
        if outside == "drop":
            return None
        if outside == "extend":
            return -1 if value < low else bins
        return 0 if value < low else bins - 1
    return min(bisect_right(edges, value) - 1, bins - 1)


def binned_mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    if reading not in ("joint", "per_logit", "pooled", "per_class", "label"):
        raise ValueError(f"unknown reading {reading!r}")
    if outside not in ("clip", "extend", "drop"):
        raise ValueError(f"unknown rule {outside!r}")
    t = torch.as_tensor(t)
    if t.dim() != 2 or not t.isfinite().all():
        raise ValueError("t must be (N, C), all of it finite")
    if bins < 1 or not low < high:
        raise ValueError("there must be a bin, and low must lie below high")
    if reading in ("per_class", "label") and (y is None or len(y) != len(t)):
        raise ValueError("this reading needs a label y for each row")
    edges = np.linspace(low, high, bins + 1).tolist()
    cells = [[cell(value, edges, outside) for value in row] for row in t.tolist()]
    if all(c is None for row in cells for c in row):
        raise ValueError("no value is left")
    if reading in ("joint", "label") and all(None in row for row in cells):
        raise ValueError("no example is left")
    columns = list(zip(*cells))
    if reading == "per_logit":
        parts = [entropy(c for c in column if c is not None) for column in columns]
        return sum(parts) / len(parts)
    if reading == "per_class":
        own = [
            [c for c, label in zip(column, y.tolist()) if label == k and c is not None]
            for k, column in enumerate(columns)
        ]
        parts = [entropy(one) for one in own if one]
        return sum(parts) / len(parts)
    if reading == "pooled":
        parts = [[c for c in row if c is not None] for row in cells]
        parts = [row for row in parts if row]
        pool = entropy(c for row in parts for c in row)
        return pool - sum(map(entropy, parts)) / len(parts)
    kept = [(tuple(row), i) for i, row in enumerate(cells) if None not in row]
    joint = entropy(row for row, _ in kept)
    if reading == "joint":
        return joint
    labels = [int(y[i]) for _, i in kept]
    return joint + entropy(labels) - entropy([(row, y_) for (row, _), y_ in zip(kept, labels)])
