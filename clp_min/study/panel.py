"""A panel: what it claims, the effects that decide, what is drawn; and the one
rule of the verdict."""

import math
from dataclasses import dataclass, field

import numpy as np

from clp_min.study.record import mean_and_error

KINDS = ("line", "bar", "image")
STYLES = ("line", "dashed", "points")


def verdict(effects, gate=True):
    """The rule: a word for one effect, or for several that must hold together.

    reproduced      every mean is larger than ``least`` and than 3 standard errors; where ``within``
                    is set, mean ± 3 standard errors lies inside ± within
    reversed        every mean is as far on the other side
    not reproduced  anything else, or reproduced with a ``gate`` that fails
    no verdict      fewer than 3 seeds
    """
    words = set()
    for effect in effects:
        if effect.n < 3:
            return "no verdict (fewer than 3 seeds)"
        error = 3 * max(effect.error, effect.resolution)
        bar = max(effect.least, error)
        if effect.within is not None:
            shown = abs(effect.mean) + error <= effect.within
            words.add("reproduced" if shown else "not reproduced")
        else:
            words.add(
                "reproduced" if effect.mean > bar else "reversed" if effect.mean < -bar else ""
            )
    word = words.pop() if len(words) == 1 else ""
    return "not reproduced" if not word or word == "reproduced" and not gate else word


@dataclass(frozen=True, eq=False)
class Effect:
    """One number per seed, ``values`` (seeds,), paired and signed so that the
    paper claims it positive.

    unit        what the number is, in words that can follow it: "points of accuracy lost"
    least       the smallest mean that counts
    within      for a claimed absence: the mean must lie in ± within, errors included
    resolution  the standard error counts as at least this (places on a grid)
    """

    unit: str
    values: np.ndarray
    least: float = 0.0
    within: float | None = None
    resolution: float = 0.0

    def __post_init__(self):
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"effect {self.unit!r} needs one number per seed, got {values.shape}")
        object.__setattr__(self, "values", values)

    @property
    def n(self):
        return len(self.values)

    @property
    def mean(self):
        return mean_and_error(self.values)[0]

    @property
    def error(self):
        """Standard error of the mean."""
        return mean_and_error(self.values)[1]

    @property
    def verdict(self):
        return verdict([self])

    def headline(self):
        """What a results file keeps of it first."""
        return {"mean": self.mean, "standard_error": self.error, "n": self.n, "unit": self.unit}

    def __str__(self):
        digits = 2  # two of the error's digits, if it is small
        if 0 < self.error < 0.1:
            digits = min(1 - math.floor(math.log10(self.error)), 4)
        error = f" ± {self.error:.{digits}f}" if self.n > 1 else ""
        return f"{self.mean:.{digits}f}{error} {self.unit}"


@dataclass(frozen=True, eq=False)
class Curve:
    """One curve: ``x`` (points,) numbers or names, ``values`` (seeds, points); one row if exact."""

    label: str
    x: list
    values: np.ndarray
    style: str = "line"

    def __post_init__(self):
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self.x) or self.style not in STYLES:
            raise ValueError(
                f"curve {self.label!r} needs (seeds, {len(self.x)}) values and a style of"
                f" {', '.join(STYLES)}; got {values.shape}, {self.style!r}"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "x", [v.item() if hasattr(v, "item") else v for v in self.x])


def exact_curves(x, curves):
    """Curves without repetitions: label -> values (points,)."""
    return [Curve(label, x, [values]) for label, values in curves.items()]


@dataclass(frozen=True, eq=False)
class Axes:
    """One pair of axes. ``spans``: stretches of x that are shaded; ``figure``: drawn in a figure of
    its own with the other axes of that name."""

    y: str
    curves: list
    x: str = "epoch"
    log: bool = False
    log_x: bool = False
    spans: list = ()
    kind: str = "line"
    figure: str = ""

    def __post_init__(self):
        if self.kind not in KINDS or not self.curves:
            raise ValueError(f"axes {self.y!r} need curves and a kind of {', '.join(KINDS)}")

    def lines(self):
        """How many curves are not dots on another one."""
        return sum(curve.style != "points" for curve in self.curves)


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel function returns.

    claim      the paper's claim in words
    effects    all must hold (see ``verdict``)
    gate       a control without which they show nothing
    finding    what was found, in a sentence; by default the effects, joined
    headline   the effect that stands for the panel; by default the first
    caption    settings that the figure should name
    statement  for panels on theory, instead of a verdict on effects: a word of the claims ledger,
               given if ``agrees`` over at least ``repetitions`` repetitions; else "disagrees"
    The rest says where it was measured; ``Study`` fills it in.
    """

    claim: str
    effects: list = ()
    axes: list = ()
    gate: bool = True
    finding: str = ""
    headline: Effect | None = None
    caption: str = ""
    statement: str = ""
    agrees: bool = True
    repetitions: int = 3
    # ---- where it was measured
    name: str = ""
    data: str = ""
    variant: str = ""
    scale: str = ""
    seeds: list = field(default_factory=list)
    earlier: str = ""  # the verdict of a results file that was written before effects were kept

    def __post_init__(self):
        labels = [axes.y for axes in self.axes]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two axes of {self.name or self.claim!r} have the same label")
        crowded = [axes.y for axes in self.axes if axes.kind == "line" and axes.lines() > 6]
        if crowded and not self.earlier:
            raise ValueError(f"axes {crowded[0]!r} hold more than six curves: nobody can read them")

    @property
    def verdict(self):
        if self.earlier:
            return self.earlier
        if not self.statement:
            return verdict(self.effects, self.gate)
        if self.scale == "smoke" or len(self.seeds) < self.repetitions:
            return "no verdict (smoke scale or too few repetitions)"
        return self.statement if self.agrees else "disagrees"

    def to_dict(self):
        """The panel as a results file holds it; ``from_dict`` makes of it what is drawn."""
        headline = self.headline or self.effects[0]
        effects = [
            {"unit": e.unit, **e.headline(), "least": e.least, "within": e.within}
            | {"resolution": e.resolution, "verdict": e.verdict, "values": e.values}
            for e in self.effects
        ]
        settings = ("x", "y", "log", "log_x", "spans", "kind", "figure")
        return {
            "panel": self.name,
            "claim": self.claim,
            "verdict": self.verdict,
            "finding": self.finding or "; ".join(map(str, self.effects)),
            "headline": headline.headline(),
            **{k: getattr(self, k) for k in ("data", "variant", "scale", "seeds", "caption")},
            "statement": {k: getattr(self, k) for k in ("statement", "agrees", "repetitions")},
            "gate": bool(self.gate),
            "effects": effects,
            "axes": [{key: getattr(axes, key) for key in settings} for axes in self.axes],
            "series": [
                {"y": axes.y, "label": c.label, "style": c.style, "x": c.x, "values": c.values}
                for axes in self.axes
                for c in axes.curves
            ],
        }

    @staticmethod
    def from_dict(result):
        """The panel that a results file describes, ready to be drawn."""
        curves = {}
        for one in result["series"]:
            values = [_numbers(row) for row in one["values"]]
            style = one.get("style", "points" if one.get("points") else "line")
            curves.setdefault(one["y"], []).append(Curve(one["label"], one["x"], values, style))
        names = ("claim", "finding", "data", "variant", "scale", "seeds", "gate", "caption")
        plain = {name: result[name] for name in names if name in result}
        if "axes" not in result:
            return Panel(
                name=result["panel"], axes=_earlier_axes(result, curves), earlier=result["verdict"],
                **plain,
            )
        keys = ("unit", "values", "least", "within", "resolution")
        effects = [
            Effect(**{k: e[k] for k in keys} | {"values": _numbers(e["values"])})
            for e in result["effects"]
        ]
        axes = [Axes(curves=curves[one["y"]], **one) for one in result["axes"]]
        return Panel(
            name=result["panel"], effects=effects, axes=axes, **result["statement"], **plain
        )


def _numbers(values):
    """A row of a results file, with nan for what is missing."""
    return [math.nan if v is None else v for v in values]


def _earlier_axes(result, curves):
    """The axes of a results file that kept them in "figure", by y label."""
    figure, x = result["figure"], {}
    for one in result["series"]:
        x.setdefault(one["y"], one.get("x_label", figure.get("x", "")))
    return [
        Axes(
            y=y, curves=curves[y], x=x[y], log=y in figure.get("log", ()),
            log_x=y in figure.get("log_x", ()), spans=figure.get("spans", ()),
            kind=figure.get("kind", "line"),
        )
        for y in curves
    ]


def least(effects):
    """The effect with the smallest mean."""
    return min(effects, key=lambda effect: effect.mean)


def log_ratio(a, b):
    """log(a / b) of positive measurements, safe at 0."""
    return np.log(np.maximum(a, 1e-300) / np.maximum(b, 1e-300))


def leave_one_out_peaks(rows):
    """For each seed's curve (rows: seeds x points), where the mean of the OTHER seeds is highest.

    A seed's own highest value lies above its neighbours by chance alone; a place chosen by the
    others does not. One seed alone uses its own.
    """
    rows = np.asarray(rows, dtype=float)
    alone = len(rows) == 1
    return [
        int(rows[0].argmax() if alone else np.delete(rows, i, 0).mean(0).argmax())
        for i in range(len(rows))
    ]


def peak(rows):
    """Curves (seeds, points) -> (place of the highest mean, rises (seeds,), falls (seeds,)).

    Each seed's rise from its first value and fall to its last one are measured at the place that
    the other seeds choose.
    """
    rows = np.asarray(rows, dtype=float)
    places = leave_one_out_peaks(rows)
    highest = rows[np.arange(len(rows)), places]
    return int(rows.mean(0).argmax()), highest - rows[:, 0], highest - rows[:, -1]


def first_near_largest(rows):
    """Place of the first mean within one standard error of the largest mean (seeds, points).

    The noisier the curves, the earlier it comes.
    """
    columns = [mean_and_error(column)[:2] for column in np.asarray(rows, dtype=float).T]
    largest, error = max(columns)
    bar = largest - (0.0 if math.isnan(error) else error)
    return next(i for i, (mean, _) in enumerate(columns) if mean >= bar)


def saturation(curve):
    """Place of a curve's first value within 5 % of its largest."""
    largest = max(curve)
    return next(i for i, value in enumerate(curve) if value >= largest - 0.05 * abs(largest))
