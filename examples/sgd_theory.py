"""The theory of SGD behind "Revisiting critical learning periods": exact
curves with Monte-Carlo points.

Theorem 1 says the Fisher trace vanishes, Theorem 2 that the effective gradient does. E|gradient|^2
of the true, the stochastic and the effective gradient for a constant rate, for steps 1/(t+1), and
for noise that vanishes with the error (theory/sgd.py); the floor of the true gradient against the
rate; the Fisher trace on separable data and with label noise, and its rate beside the gradient's
(theory/softmax_fisher.py).
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from clp_min.study.panel import exact_curves
from theory.sgd import gradient_floor, interpolating_moments, printed_floor, quadratic_moments
from theory.softmax_fisher import label_noise_limit, separable_quantities
from theory.softmax_phases import simulate


@dataclass(frozen=True)
class Config:
    """Nothing here is the paper's: it has no numbers for its theory."""

    seeds: int = 10  # independent batches of chains
    chains: int = 2000  # a batch
    dim: int = 10  # |grad_0|^2 = 4, total noise variance 1, curvature 1
    lr: float = 0.2
    steps: int = 60
    checked: tuple = (0, 1, 5, 20, 60)
    interpolating_lr: float = 0.05
    phases: tuple = (10, 100, 4, 0.05)  # l, d, k, learning rate of the separable data
    long: int = 20_000


CONFIGS = scales(Config, {"closed_form": {}}, dict(seeds=2, chains=200, long=500), ["closed_form"])
DECREASING = "steps 1/(t+1)"


def chains(c, e, rates, gradient, seed):
    """SGD chains from the errors e (chains, dim), the gradient at e drawn by ``gradient`` (e, rng).

    -> (checked, 3): squared norms of the true gradient e, of the drawn one g, and of g projected on
    e, means over the chains.
    """
    rng, norms = np.random.default_rng(seed), []
    for t in range(c.steps + 1):
        g = gradient(e, rng)
        if t in c.checked:
            true, along = (e**2).sum(1), (g * e).sum(1)
            norms.append([true.mean(), (g**2).sum(1).mean(), (along**2 / true).mean()])
        e = e - rates[t] * g
    return norms


def additive_noise(e, rng):
    """|e|^2 / 2 with noise of total variance 1."""
    return e + rng.normal(size=e.shape) / np.sqrt(e.shape[1])


def one_example(e, rng):
    """Least squares that can be fitted: the gradient of one example is x x'e."""
    x = rng.normal(size=e.shape)
    return x * (x * e).sum(1, keepdims=True)


def sgd_theory(study):
    """The three gradients near a minimum: exact against drawn.

    "holds as corrected" if every Monte-Carlo mean (n batches of chains) lies within 5 standard
    errors of the exact curve, else "disagrees".
    """
    c, axes, scores = study.config, [], []
    for label, (exact, draw) in cases(c).items():
        drawn = np.array([draw(seed) for seed in study.seeds])
        curves = []  # drawn: (seeds, checked, 3)
        for i, kind in enumerate(("true", "stochastic", "effective")):
            curves.append(Curve(kind, range(c.steps + 1), [exact[i]]))
            curves.append(Curve(f"{kind}, drawn", c.checked, drawn[:, :, i], "points"))
            scores += standard_scores(drawn[:, :, i], exact[i][list(c.checked)])
        figure, log = "" if label == DECREASING else "moments", "constant" not in label
        axes.append(Axes(f"squared norm, {label}", curves, x="step", log=log, figure=figure))
        if label == DECREASING:
            gap, (true, _, effective) = drawn[:, -1, 2] - drawn[:, -1, 0], exact
    worst = float(np.abs(scores).max()) if scores else math.nan
    unit = f"E|effective|^2 - E|grad|^2 at step {c.steps} (exact: {1 / c.dim:g}; printed: 0)"
    return Panel(
        claim="neither the effective gradient nor the Fisher trace need vanish with the gradient"
        " (Theorems 1 and 2 as corrected)",
        headline=Effect(unit, gap), statement="holds as corrected", agrees=worst < 5, repetitions=5,
        finding=f"largest |z| of {len(scores)} Monte-Carlo means: {worst:.2f}; with {DECREASING},"
        f" at step {c.steps} E|grad|^2 = {true[-1]:.4f} but E|effective|^2 = {effective[-1]:.4f}",
        axes=axes + closed_form_axes(c),
        caption=f"dimension {c.dim}; lines exact, dots drawn",
    )


def cases(c):
    """Label -> (exact moments, Monte-Carlo chains)."""
    parts = np.ones(c.dim), np.full(c.dim, 1 / c.dim), np.full(c.dim, 2 / np.sqrt(c.dim))
    start = np.tile(parts[2], (c.chains, 1))
    rates = {f"constant rate {c.lr}": np.full(c.steps + 1, c.lr)}
    rates[DECREASING] = 1 / (np.arange(c.steps + 1) + 1)
    made = {}
    for label, lr in rates.items():
        exact = quadratic_moments(*parts, lr[:-1], c.steps)
        made[label] = exact, partial(chains, c, start, lr, additive_noise)
    exact = interpolating_moments(c.dim, 1, c.interpolating_lr, c.steps)
    unit, lr = np.eye(c.dim)[[0] * c.chains], np.full(c.steps + 1, c.interpolating_lr)
    return made | {"interpolation": (exact, partial(chains, c, unit, lr, one_example))}


def standard_scores(drawn, exact):
    """(mean of the batches - exact) / standard error, where there is any spread."""
    n = len(drawn)
    error = drawn.std(0, ddof=min(1, n - 1)) / np.sqrt(n)
    spread = error > 1e-9
    return ((drawn.mean(0) - exact)[spread] / error[spread]).tolist()


def closed_form_axes(c):
    """The Fisher trace of separable data, its rate beside the gradient's; the gradient's floor."""
    l, d, k, lr = c.phases
    t = np.unique(np.geomspace(1, c.long, 60).astype(int))
    moments = separable_quantities(simulate(l, d, k, lr, c.long), l, d, k)
    trace, empirical, squared = (q[t] for q in moments)
    noise = [label_noise_limit(10, 0.1)] * len(t)
    vanishing = {"separable data": trace, "limit with 10 % label noise, one-hot inputs": noise}
    rates = {"Tr F": trace, "Tr F of the true labels": empirical, "|grad|^2": squared}
    both = dict(x="step", log=True, log_x=True)
    x = np.linspace(0.05, 1.9, 60)  # learning rates
    true, printed = (floor(x, 1.0, 1.0) for floor in (gradient_floor, printed_floor))
    floors = {"true: M lr s^2 / (2 - M lr)": true, "printed: M lr s^2": printed}
    limit = "limit of E|grad|^2 (M = s^2 = 1)"
    return [
        Axes(limit, exact_curves(x, floors), x="learning rate", figure="rates"),
        Axes("Tr F", exact_curves(t, vanishing), **both),
        Axes("separable data: 1/t against 1/t^2", exact_curves(t, rates), **both, figure="rates"),
    ]


PANELS = [sgd_theory]


def main(argv=None):
    Study(__file__, PANELS, CONFIGS, argv).finish()


if __name__ == "__main__":
    command_line(main)
