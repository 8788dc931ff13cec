"""Results on disk: a log of measurements that survives a kill, statistics with their standard errors, files that are never half written."""

import json
import math
import os
from pathlib import Path

import numpy as np


class Log:
    """Measurements keyed by (seed, schedule name, point), appended to a file as they come; the same key again overwrites.

    A sweep that was killed yields some points twice: the log comes out the same. A cut last line is dropped.
    """

    def __init__(self, path=None):
        self.path = None if path is None else Path(path)
        self.points = {}
        if self.path is not None and self.path.exists():
            self.read(self.path)

    def read(self, path):
        """Take in what another log holds (or this one's own file)."""
        for line in Path(path).read_bytes().split(b"\n")[:-1]:  # what follows the last newline was cut
            try:
                seed, name, point, values = json.loads(line)
            except ValueError:
                continue
            self.points.setdefault((seed, name), {}).setdefault(point, {}).update(values)

    def add(self, seed, names, point, **values):
        """Note ``values`` (numbers, or dictionaries of numbers) at ``point`` (an epoch or a step) of every schedule in ``names``."""
        lines = ""
        for name in map(str, names):
            self.points.setdefault((seed, name), {}).setdefault(point, {}).update(values)
            lines += json.dumps([seed, name, point, values]) + "\n"
        if self.path is not None:
            torn = self.path.exists() and self.path.stat().st_size > 0 and not self._whole()
            with open(self.path, "a") as file:
                file.write("\n" * torn + lines)

    def _whole(self):
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def series(self, seed, name, key):
        """(points, values) of one measurement along one schedule, in order."""
        points = self.points.get((seed, str(name)), {})
        chosen = sorted(p for p in points if key in points[p])
        return chosen, [points[p][key] for p in chosen]

    def at(self, seed, name, point, key):
        """One measurement. KeyError if it was not made."""
        return self.points[seed, str(name)][point][key]

    def last(self, seed, name, key):
        """The measurement at the last point at which it was made."""
        return self.series(seed, name, key)[1][-1]


def mean_and_error(values):
    """(mean, standard error of the mean, n) over seeds; the error is sd / sqrt(n) with n - 1 in the sd, nan for n = 1."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan, n


def headline(values, unit):
    """The mean, standard error and n of one number per seed, as results files keep them."""
    mean, error, n = mean_and_error(values)
    return {"mean": mean, "standard_error": error, "n": n, "unit": unit}


def write_atomically(path, content):
    """Write text or bytes under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # a name of its own for each process
    (new.write_bytes if isinstance(content, bytes) else new.write_text)(content)
    os.replace(new, path)


def write_json(path, content):
    """Write ``content`` as JSON that any reader takes: a number that is not finite becomes null."""

    def clean(value):
        if isinstance(value, dict):
            return {str(k): clean(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value.item() if isinstance(value, np.generic) else value

    write_atomically(path, json.dumps(clean(content), indent=1, allow_nan=False) + "\n")
