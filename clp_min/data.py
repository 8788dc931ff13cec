"""A data set as two pairs of tensors, and the named real sets (read by ``clp_min.files``).

``load`` looks in the folder it is given, or in the environment variable CLP_DATA; it downloads only
when asked to. Tiny ImageNet's pixels are kept in its folder (.decoded-*) once they have been
decoded. The synthetic sets are in ``clp_min.synthetic``.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clp_min.checks import check_tensors, check_whole
from clp_min.files import PUBLISHED, SETS, NotFound, download_set


@dataclass(frozen=True, eq=False)
class Dataset:
    """``train`` and ``test`` are pairs (x, y): x (n, channels, height, width) or (n, d), y (n,)
    int64 in 0..classes - 1."""

    name: str
    classes: int
    train: tuple
    test: tuple

    @staticmethod
    def from_arrays(name, classes, train, test):
        """From NumPy pairs; images of bytes become floats in [0, 1]. ValueError: shapes, types or
        labels that are none of such a set."""

        def tensors(part, pair):
            x, y = np.asarray(pair[0]), np.asarray(pair[1])
            _check_arrays(f"{name}, {part} set", classes, x, y)
            x, y = torch.tensor(np.ascontiguousarray(x)), torch.tensor(y.astype(np.int64))
            return (x.float().div_(255) if x.dtype == torch.uint8 else x), y

        return Dataset(name, classes, tensors("training", train), tensors("test", test))

    def to(self, device):
        """The same set on ``device``."""
        return self._changed(lambda x, y: (x.to(device), y.to(device)))

    def _changed(self, change):
        """The set that ``change`` (x, y) -> (x, y) makes of both parts."""
        return replace(self, train=change(*self.train), test=change(*self.test))

    def standardised(self, floor=0.01):
        """Mean 0 and variance 1 per channel (per set for vectors), by the training images; a
        deviation below ``floor`` counts as it."""
        x = self.train[0]
        dims = (0, 2, 3) if x.dim() == 4 else tuple(range(x.dim()))
        mean, sd = x.mean(dims, keepdim=True), x.std(dims, keepdim=True).clamp(min=floor)
        return self._changed(lambda x, y: ((x - mean) / sd, y))

    def subset(self, n, *key):
        """``n`` training examples, the classes as balanced as their
        numbers allow (see ``stratified``)."""
        chosen = stratified(self.train[1], n, *key)
        return replace(self, train=(self.train[0][chosen], self.train[1][chosen]))

    def resized(self, size):
        """Images of size x size: means over cells (32 -> 16: of 2x2 pixels), bilinear if larger."""

        def changed(x, y):
            if size <= x.shape[2]:
                return F.adaptive_avg_pool2d(x, size), y
            return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False), y

        return self._changed(changed)

    def relabelled(self, classes, change):
        """The set that ``change`` (x, y) -> (x, y) makes of both parts, with so many classes."""
        return replace(self._changed(change), classes=classes)

    def halves(self):
        """(the set of the first half of the classes, the second half's with labels from 0)."""
        half = self.classes // 2

        def part(low, high):
            def chosen(x, y):
                kept = (y >= low) & (y < high)
                return x[kept], y[kept] - low

            return self.relabelled(high - low, chosen)

        return part(0, half), part(half, self.classes)


def _check_arrays(where, classes, x, y):
    """ValueError: not images or vectors with one label each in 0..classes - 1."""
    if x.ndim not in (2, 4) or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise ValueError(
            f"{where}: needs images (n, channels, height, width) or vectors (n, d) and labels (n,),"
            f" n > 0; got {x.shape} and {y.shape}"
        )
    if x.dtype not in (np.uint8, np.float32, np.float64) or y.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: images must be bytes or floats, labels whole, got {x.dtype} and {y.dtype}"
        )
    if not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"{where}: labels must lie in 0..{classes - 1}, got {y.min()}..{y.max()}")


def missing(dataset):
    """What a named real set lacks of its published size, in words; "" if nothing."""
    *published, _, _ = PUBLISHED[dataset.name]
    parts = []
    for (_, y), size, part in zip((dataset.train, dataset.test), published, ("training", "test")):
        absent = dataset.classes - len(y.unique())
        classes = f" ({absent} of {dataset.classes} classes have none)" * bool(absent)
        if len(y) != size or absent:
            parts.append(f"{len(y):,} of {size:,} {part} images{classes}")
    return ", ".join(parts)


def stratified(y, n, *key):
    """Indices (n,) of a random subset with the class shares of y (n,), rounded; depends on
    ``key`` alone. ValueError: n > len(y)."""
    check_tensors(y=(y, "int n"))
    check_whole(1, len(y), **{"train size": n})
    rng = np.random.default_rng(
        int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little")
    )
    labels = y.cpu().numpy()
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))  # each example's place among its class, as a share of the class
    for c in np.unique(labels):
        members = order[labels[order] == c]
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return torch.from_numpy(rng.permutation(np.argsort(place, kind="stable")[:n])).to(y.device)


def load(name, data_dir=None, download=False):
    """The named set -> Dataset, floats in [0, 1], not standardised. Names: the keys of SETS;
    tiny_imagenet50 is fifty of its classes.

    data_dir (else CLP_DATA) may be laid out as torchvision does (MNIST/raw, cifar-10-batches-py)
    or plainly (mnist, cifar10/…); idx files may be gzipped. Of two such folders the one with more
    examples is taken. download: fetch the published files into data_dir if they are missing,
    damaged or fewer. ValueError: unknown name; NotFound, which is one: no such files (the paths
    tried are listed); a file that is missing, damaged or repeated.

    tiny_imagenet50: the classes that "Trap of feature diversity" lists in Appendix A.3."""
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SETS)}")
    root = data_dir or os.environ.get("CLP_DATA")
    if not root:
        raise NotFound(
            f"{name} needs a folder: give --data-dir or set CLP_DATA (and --download to fetch it)"
        )
    try:
        found = _largest(name, Path(root))
        if not download or not missing(found):
            return found
    except NotFound:
        if not download:
            raise
    except ValueError as error:
        if not download:
            raise ValueError(f"{error}; --download fetches the whole set") from None
    download_set(name, Path(root))
    return _largest(name, Path(root))


def _largest(name, root):
    """The set of the folder with most examples. ValueError: there is none that can be read."""
    classes, folders, reader = SETS[name]
    tried, sets, errors = [root / folder for folder in folders], [], []
    for folder in filter(Path.is_dir, tried):
        try:
            sets.append(Dataset.from_arrays(name, classes, *reader(folder)))
        except ValueError as error:
            errors.append(error)
        if sets and not missing(sets[-1]):
            return sets[-1]
    if sets:
        return max(sets, key=lambda one: len(one.train[0]) + len(one.test[0]))
    if errors:
        raise errors[0]
    raise NotFound(
        f"{name} not found; tried {' and '.join(map(str, tried))}; --download fetches it"
    )
