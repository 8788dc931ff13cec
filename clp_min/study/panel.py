"""A panel: what it claims, the effects that decide, what is drawn; and the one
rule of the verdict."""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

KINDS = ("line", "bar", "image")
STYLES = ("line", "dashed", "points")
DECIDED = ("reproduced", "reversed", "not reproduced")
CONFIDENCE = 0.99  # one-sided, of every bound
FEWEST, FEWEST_OF_MANY = 5, 8  # seeds for a verdict; for one on more than two effects
FIRST_SEED = 10


def standard_seeds(n):
    """The n seeds of a verdict: 10, 11, …; 0 to 9 are for looking, and for choosing places."""
    return list(range(FIRST_SEED, FIRST_SEED + n))


@lru_cache
def t_quantile(p, degrees):
    """Quantile p > 1/2 of Student's t, to a relative 1e-6 or better.

    With t = sqrt(degrees) tan(a) the density in a is in proportion to cos(a)^(degrees - 1), which
    is summed by the trapezoid rule.
    """
    angle = np.linspace(0, np.pi / 2, 40_001)
    density = np.cos(angle) ** (degrees - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(np.interp(2 * p - 1, mass / mass[-1], angle))


def verdict(effects, gate="", seeds=None, scale="", n=None, factor=1.0):
    """The rule: one word for effects that must all hold.

    Each effect gets a word from its interval (``Effect.word``). All reproduced: "reproduced". The
    first, which is the claim itself, reversed: "reversed". Any refuted, that is reversed or not
    reproduced: "not reproduced". Else "undecided".
    "no verdict (reason)": fewer than 5 seeds, or than 8 for more than two effects; seeds other than
    10, 11 and so on; smoke scale; ``gate``, why the panel's own control failed; or a value that is
    not finite.

    n, factor: the word if there were n seeds of the same mean and deviation, or if every least size
    and bound were factor times as large.
    """
    fewest = FEWEST if len(effects) <= 2 else FEWEST_OF_MANY
    given = min(effect.n for effect in effects) if n is None else n
    reasons = [
        ("smoke scale", scale == "smoke"),
        (f"fewer than {fewest} seeds", given < fewest),
        ("seeds other than 10, 11, …", seeds and list(seeds) != standard_seeds(len(seeds))),
        (gate, bool(gate)),
        ("a value is not finite", not all(np.isfinite(e.values).all() for e in effects)),
    ]
    for reason, holds in reasons:
        if holds:
            return f"no verdict ({reason})"
    words = [effect.word(len(effects), n, factor) for effect in effects]
    if set(words) == {"reproduced"}:
        return "reproduced"
    if words[0] == "reversed":
        return "reversed"
    return "not reproduced" if {"reversed", "not reproduced"} & set(words) else "undecided"


@dataclass(frozen=True, eq=False)
class Effect:
    """One number per seed, ``values`` (seeds,), paired and signed so that the
    paper claims it positive.

    unit    what the number is, in words that can follow it: "points of accuracy lost"
    least   the smallest mean that counts, > 0, for a reason that the panel gives
    within  instead of it, for a claimed absence: the mean must lie in ± within
    step    of one seed's value: 100 / test images for an accuracy, 1 for a whole number
    """

    unit: str
    values: np.ndarray
    least: float | None = None
    within: float | None = None
    step: float = 0.0

    def __post_init__(self):
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"effect {self.unit!r} needs one number per seed, got {values.shape}")
        for name, bound in (("least", self.least), ("within", self.within)):
            if bound is not None and not bound > 0:
                raise ValueError(f"effect {self.unit!r}: {name} must be > 0, got {bound}")
        object.__setattr__(self, "values", values)

    @property
    def n(self):
        return len(self.values)

    @property
    def mean(self):
        return float(self.values.mean())

    @property
    def error(self):
        """Standard error of the mean: sd / sqrt(n), n - 1 in the sd; nan for n = 1."""
        return float(self.values.std(ddof=1) / math.sqrt(self.n)) if self.n > 1 else math.nan

    def reach(self, refuting=None, n=None):
        """Half width of the interval: t standard errors, each at least that of values rounded to
        ``step``; refuting: Bonferroni's quantile for so many effects."""
        n = n or self.n
        if n < 2 or self.n < 2:
            return math.nan
        deviation = max(self.values.std(ddof=1), self.step / math.sqrt(12))
        level = 1 - (1 - CONFIDENCE) / (refuting or 1)
        return t_quantile(level, n - 1) * deviation / math.sqrt(n)

    def word(self, k=1, n=None, factor=1.0):
        """reproduced, reversed, not reproduced or undecided, as one of k effects.

        With [lo, hi] = mean ± ``reach``: reproduced if lo > least; refuted by the wider interval:
        reversed if hi < -least, not reproduced if hi < least. Under ``within``: reproduced if the
        interval lies inside, not reproduced if it lies outside.
        """
        if self.least is None and self.within is None:
            raise ValueError(f"effect {self.unit!r} decides, and has neither least nor within")
        mean, sure, wide = self.mean, self.reach(n=n), self.reach(k, n)
        if self.within is not None:
            bound = factor * self.within
            if abs(mean) + sure < bound:
                return "reproduced"
            return "not reproduced" if abs(mean) - wide > bound else "undecided"
        bound = factor * self.least
        if mean - sure > bound:
            return "reproduced"
        if mean + wide < -bound:
            return "reversed"
        return "not reproduced" if mean + wide < bound else "undecided"

    def agreeing(self):
        """How many seeds have the claimed sign, or lie within the bound."""
        inside = self.values > 0 if self.within is None else abs(self.values) < self.within
        return int(inside.sum())

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
    """One pair of axes. ``spans``: stretches of x that are shaded, and ``shaded``, what they are;
    ``figure``: drawn in a figure of its own with the other axes of that name; ``epoch``: where x is
    steps, how many an epoch has, for a second scale."""

    y: str
    curves: list
    x: str = "epoch"
    log: bool = False
    log_x: bool = False
    spans: list = ()
    kind: str = "line"
    figure: str = ""
    epoch: float = 0.0
    shaded: str = "the deficit"

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
    effects    all must hold, the first is the claim itself (see ``verdict``)
    gate       why the panel's own control failed, without which they show nothing; "": it did not
    finding    what was found, in a sentence; by default the effects, joined
    headline   the effect that stands for the panel; by default the first
    caption    settings that the figure should name
    printed    the paper's own numbers at its own scale, where it prints some
    statement  for panels on theory, instead of a verdict on effects: a word of the claims ledger,
               given if ``agrees`` over at least ``repetitions`` repetitions; else "disagrees"
    The rest says where it was measured; ``Study`` fills it in.
    """

    claim: str
    effects: list = ()
    axes: list = ()
    gate: str = ""
    finding: str = ""
    headline: Effect | None = None
    caption: str = ""
    printed: str = ""
    statement: str = ""
    agrees: bool = True
    repetitions: int = 3
    # ---- where it was measured
    name: str = ""
    data: str = ""
    variant: str = ""
    scale: str = ""
    seeds: list = field(default_factory=list)

    def __post_init__(self):
        labels = [axes.y for axes in self.axes]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two axes of {self.name or self.claim!r} have the same label")
        crowded = [axes.y for axes in self.axes if axes.kind == "line" and axes.lines() > 6]
        if crowded:
            raise ValueError(f"axes {crowded[0]!r} hold more than six curves: nobody can read them")

    @property
    def verdict(self):
        if not self.statement:
            return self.word()
        if self.scale == "smoke" or len(self.seeds) < self.repetitions:
            return "no verdict (smoke scale or too few repetitions)"
        return self.statement if self.agrees else "disagrees"

    def word(self, **changed):
        """The rule's word for the effects; as it would be with ``n`` seeds or bounds ``factor``
        times as large."""
        return verdict(self.effects, self.gate, self.seeds, self.scale, **changed)

    def seeds_to_decide(self):
        """Smallest n <= 100 at which the effects, with mean and deviation as they are, would be
        decided; None if there is none."""
        return next((n for n in range(5, 101) if self.word(n=n) in DECIDED), None)

    def details(self):
        """What the rule says beside its word: the words under half and double bounds, and the n
        that would decide."""
        if self.statement:
            return {}
        more = {"half": self.word(factor=0.5), "double": self.word(factor=2.0)}
        if self.word() == "undecided":
            more["seeds_to_decide"] = self.seeds_to_decide()
        return more

    def to_dict(self):
        """The panel as a results file holds it; ``from_dict`` makes of it what is drawn."""
        headline, k = self.headline or self.effects[0], len(self.effects)
        effects = [
            {"unit": e.unit, **e.headline(), "least": e.least, "within": e.within, "step": e.step}
            | {"verdict": e.word(k), "agreeing": e.agreeing(), "values": e.values}
            for e in self.effects
        ]
        settings = ("x", "y", "log", "log_x", "spans", "kind", "figure", "epoch", "shaded")
        return {
            "panel": self.name,
            "claim": self.claim,
            "verdict": self.verdict, **self.details(),
            "finding": self.finding or "; ".join(map(str, self.effects)),
            "headline": headline.headline(),
            **({"printed": self.printed} if self.printed else {}),
            **{k: getattr(self, k) for k in ("data", "variant", "scale", "seeds", "caption")},
            "statement": {k: getattr(self, k) for k in ("statement", "agrees", "repetitions")},
            "gate": self.gate,
            "effects": effects,
            "axes": [{key: getattr(axes, key) for key in settings} for axes in self.axes],
            "series": [
                {"y": axes.y, "label": c.label, "style": c.style, "x": c.x, "values": c.values}
                for axes in self.axes for c in axes.curves
            ],
        }

    @staticmethod
    def from_dict(result):
        """The panel that a results file describes, ready to be drawn."""
        curves = {}
        for one in result["series"]:
            curve = Curve(one["label"], one["x"], one["values"], one["style"])
            curves.setdefault(one["y"], []).append(curve)
        names = "claim finding data variant scale seeds gate caption printed".split()
        plain = {k: result[k] for k in names if k in result} | result["statement"]
        keys = ("unit", "values", "least", "within", "step")
        effects = [Effect(**{k: e[k] for k in keys}) for e in result["effects"]]
        axes = [Axes(curves=curves[one["y"]], **one) for one in result["axes"]]
        return Panel(name=result["panel"], effects=effects, axes=axes, **plain)


def would_change(word, details):
    """What would change the word, in words: other bounds, more seeds. details: ``Panel.details``,
    or a results file, which holds them."""
    said = [f"{details[key]} with {key} the bounds" for key in ("half", "double")
            if details.get(key, word) != word]
    if details.get("seeds_to_decide"):
        said.append(f"n = {details['seeds_to_decide']} would decide")
    return said


def least(effects):
    """The effect with the smallest mean."""
    return min(effects, key=lambda effect: effect.mean)


def log_ratio(a, b):
    """log(a / b) of positive measurements, safe at 0."""
    return np.log(np.maximum(a, 1e-300) / np.maximum(b, 1e-300))


def saturation(curve):
    """Place of a curve's first value within 5 % of its largest: a measurement of one seed."""
    largest = max(curve)
    return next(i for i, value in enumerate(curve) if value >= largest - 0.05 * abs(largest))


def not_worse(unit, ahead, point, step=0.0):
    """The effect of a claim that something is at most ``point`` behind: ``ahead`` (seeds,), how
    much it leads by, and two points added, so that the least size is above 0."""
    return Effect(f"{unit}, plus {2 * point:g}", ahead + 2 * point, least=point, step=step)


def rank_correlation(rows):
    """Spearman's correlation (seeds,) of each row (seeds, points) with its order; ties share."""
    rows = np.asarray(rows, dtype=float)
    ranks = np.sign(rows[:, :, None] - rows[:, None, :]).sum(2)
    order = np.arange(rows.shape[1]) - (rows.shape[1] - 1) / 2
    size = np.sqrt((ranks**2).sum(1) * (order**2).sum())
    return ranks @ order / np.maximum(size, 1e-300)


def untrained(accuracy, classes):
    """The gate of most panels: why nothing follows from a net that has learned little; "" if its
    accuracy (seeds,), percent, is twice that of guessing or more on the mean."""
    mean, bar = float(np.mean(accuracy)), 200 / classes
    return "" if mean >= bar else f"the undamaged net reaches {mean:.0f} %, less than {bar:.0f} %"
