"""Measurements on disk: a log that survives a kill, its reading side in NumPy, whole files."""

import json
import math
from pathlib import Path

import numpy as np

from clp_min.disk import whole_file


class Log:
    """Measurements keyed by (seed, schedule name, point), appended to a file as they come.

    The same key again overwrites: a sweep that was killed yields some points twice, and the log
    comes out the same. A cut last line is dropped.
    """

    def __init__(self, path=None):
        self.path = None if path is None else Path(path)
        self.points = {}
        if self.path is not None and self.path.exists():
            self.read(self.path)

    def read(self, path):
        """Merge another log (or this one's own file)."""
        # what follows the last newline was cut
        for line in Path(path).read_bytes().split(b"\n")[:-1]:
            try:
                seed, name, point, values = json.loads(line)
                self.points.setdefault((seed, name), {}).setdefault(point, {}).update(values)
            except (ValueError, TypeError):  # damaged: what it held is measured again
                continue

    def add(self, seed, names, point, **values):
        """Note ``values`` at ``point`` (an epoch or a step) of every schedule in ``names``.

        A value is a number, a file's name, or a list of numbers of one shape at all points.
        """
        lines = ""
        values = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        for name in map(str, names):
            self.points.setdefault((seed, name), {}).setdefault(point, {}).update(values)
            lines += json.dumps([seed, name, point, values]) + "\n"
        if self.path is not None:
            try:
                with open(self.path, "a") as file:
                    file.write("\n" + lines)  # a kill may have torn the line before
            except OSError as error:
                raise OSError(f"{self.path} cannot be written ({error.strerror})") from None

    def series(self, seed, name, key):
        """(points, values) of one measurement along one schedule, in order."""
        points = self.points.get((seed, str(name)), {})
        chosen = sorted(p for p in points if key in points[p])
        return chosen, [points[p][key] for p in chosen]

    def rows(self):
        """[seed, schedule, point, quantity, value] of everything measured, in order."""
        found = [[*key, point, quantity, value] for key, points in self.points.items()
                 for point, values in points.items() for quantity, value in values.items()
                 if not key[1].startswith("unit ")]
        return sorted(found, key=lambda row: row[:4])


class Results:
    """What a log holds, as arrays with the seeds first: a paired difference is a minus sign.

    A measurement that is a list adds its own axes at the end. ValueError: a seed lacks what another
    has, or nothing of the kind was measured.
    """

    def __init__(self, log, seeds):
        self.log, self.seeds = log, list(seeds)

    def points(self, key, name):
        """The points (epochs or steps) at which ``key`` was measured
        along the schedule ``name``."""
        own = [self.log.series(seed, name, key)[0] for seed in self.seeds]
        if not own[0] or any(points != own[0] for points in own):
            raise ValueError(f"{key!r} of {name!r} was not measured alike for all {len(own)} seeds")
        return own[0]

    def values(self, key, name):
        """(seeds, points) of one measurement along one schedule."""
        self.points(key, name)
        return np.array([self.log.series(seed, name, key)[1] for seed in self.seeds], dtype=float)

    def curve(self, key, name, low=-math.inf, high=math.inf):
        """(points, values (seeds, points)), from point ``low`` to point ``high``."""
        points = np.array(self.points(key, name))
        chosen = (points >= low) & (points <= high)
        return points[chosen].tolist(), self.values(key, name)[:, chosen]

    def at(self, key, name, points):
        """The measurement at one point -> (seeds,), or at several -> (seeds, points)."""
        places = {point: i for i, point in enumerate(self.points(key, name))}
        missing = [p for p in np.atleast_1d(points).tolist() if p not in places]
        if missing:
            raise ValueError(f"{key!r} of {name!r} was not measured at {missing[0]}")
        chosen = [places[p] for p in np.atleast_1d(points).tolist()]
        return self.values(key, name)[:, chosen if np.ndim(points) else chosen[0]]

    def final(self, key, names):
        """The last measurement along one schedule -> (seeds,), or along
        several -> (seeds, names)."""
        if isinstance(names, str):
            return self.values(key, names)[:, -1]
        return np.stack([self.final(key, name) for name in names], 1)


def write_atomically(path, content):
    """Write text or bytes under a temporary name, then rename."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content if isinstance(content, bytes) else bytes(content, "utf-8"))


def write_json(path, content):
    """Write ``content`` as JSON with one array per line; a number that is
    not finite becomes null."""
    write_atomically(path, _lines(_plain(content)) + "\n")


def _plain(value):
    """NumPy to built-in types, nan and infinities to None, keys to strings."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(value, indent=0):
    """JSON text: dictionaries and nested lists indented, a list of numbers or
    strings on one line."""
    inner, outer = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and value:
        rows = [f"{json.dumps(k)}: {_lines(v, indent + 1)}" for k, v in value.items()]
        return "{" + inner + ("," + inner).join(rows) + outer + "}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        rows = [_lines(v, indent + 1) for v in value]
        return "[" + inner + ("," + inner).join(rows) + outer + "]"
    return json.dumps(value, allow_nan=False)
