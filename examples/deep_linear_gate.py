"""A critical period in closed form: two pathways of a deep linear network, one gated early,
in the middle, late.

The scalar equations of each mode (theory/deep_linear.py) beside gradient descent on whole weight
matrices in PyTorch, on the eight-item hierarchy (Kleinman, Achille & Soatto, "Critical learning
periods emerge even in deep linear networks", 2023).
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from theory.deep_linear import HIERARCHY_STRENGTHS, gated_pathways


@dataclass(frozen=True)
class Config:
    """Constants of the 2023 paper's public code."""

    seeds: int = 3  # each seed draws other singular directions; the equations do not know them
    depth: int = 2
    start: float = 0.01
    dt: float = 0.01
    duration: float = 1000.0
    gates: tuple = ((0, 0), (0, 150), (400, 550), (750, 900))
    every: float = 50.0  # measured


SMOKE = dict(seeds=1, duration=30.0, gates=((0, 0), (0, 15), (20, 25)), every=5.0)
CONFIGS = scales(Config, {"hierarchy": dict(dt=0.05)}, SMOKE, ["hierarchy"])


def descend(config, gate, seed):
    """Gradient descent on both pathways' matrices; K of the strongest mode, (2, measured times)."""
    rng = np.random.default_rng(seed)
    left, right = (torch.from_numpy(np.linalg.qr(rng.normal(size=(n, 8)))[0]) for n in (15, 8))
    target = left @ torch.diag(torch.from_numpy(HIERARCHY_STRENGTHS)) @ right.T
    # balanced weights along the singular directions
    size = config.start ** (1 / config.depth)
    middle = [torch.eye(8, dtype=torch.float64)] * (config.depth - 2)
    paths = [
        [(size * matrix).clone().requires_grad_() for matrix in [right.T, *middle, left]]
        for _ in range(2)
    ]
    optimizer = torch.optim.SGD([matrix for path in paths for matrix in path], lr=config.dt)

    # plain gradient descent; while b is gated its matrices have no gradient
    measured = []
    every = round(config.every / config.dt)
    for t in range(round(config.duration / config.dt) + 1):
        a, b = (reduce(lambda total, matrix: matrix @ total, path) for path in paths)
        if t % every == 0:
            measured.append([float(left[:, 0] @ k.detach() @ right[:, 0]) for k in (a, b)])
        optimizer.zero_grad()
        ((target - a - b).square().sum() / 2).backward()
        if round(gate[0] / config.dt) <= t < round(gate[1] / config.dt):
            for matrix in paths[1]:
                matrix.grad = None
        optimizer.step()
    return np.array(measured).T


def deep_linear_gate(study):
    """"holds" if torch and the equations agree to 1e-6 of S at every measured time and, at the
    end, only the early gate leaves pathway b below half of its ungated share."""
    c, strength = study.config, float(HIERARCHY_STRENGTHS[0])
    labels = {g: f"b gated {g[0]}-{g[1]}" if g[1] else "no gate" for g in c.gates}
    times = np.arange(0, c.duration + c.every / 2, c.every)
    at = np.round(times / c.dt).astype(int)
    paths, gaps, exact_end, drawn_end = {"a": [], "b": []}, [], [], []
    for gate, label in labels.items():
        pathways = gated_pathways(HIERARCHY_STRENGTHS, c.depth, gate, c.duration, c.dt, c.start)
        exact = np.array([k[:, 0] for k in pathways])  # (2, steps), strongest mode
        drawn = np.array([descend(c, gate, seed) for seed in study.seeds])  # (seeds, 2, times)
        gaps.append(np.abs(drawn - exact[:, at]).max((1, 2)) / strength)
        exact_end.append(exact[1, -1])
        drawn_end.append(drawn[:, 1, -1])
        shown = np.unique(np.linspace(0, exact.shape[1] - 1, 300).astype(int))
        for i, path in enumerate("ab"):
            paths[path].append(Curve(label, shown * c.dt, [exact[i, shown]]))
            paths[path].append(Curve(f"{label}, torch", times, drawn[:, i], "points"))
    # gates: none, early, and later ones
    (ungated, early, *later), worst = exact_end, np.max(gaps, axis=0)
    names, share = list(labels.values()), 100 / ungated
    bars = [Curve("equations", names, [share * np.array(exact_end)])]
    bars.append(Curve("gradient descent", names, share * np.transpose(drawn_end)))
    ends = ", ".join(f"{name} {v:.4f}" for name, v in zip(names, exact_end))
    return Panel(
        claim="a pathway gated early never recovers; gated later it loses nothing",
        headline=Effect("largest |torch - equations| / S", worst), statement="holds",
        agrees=bool(worst.max() < 1e-6 and early < ungated / 2 < min(later)),
        finding=f"final K of pathway b: {ends}; torch and equations differ by {worst.max():.1e} S"
        " at most",
        axes=[
            Axes("K of b, % of its ungated K", bars, "while b does not learn", kind="bar"),
            Axes("K of pathway a, strongest mode", paths["a"], x="time", figure="paths"),
            Axes("K of pathway b, strongest mode", paths["b"], x="time", figure="paths"),
        ],
        caption=f"depth {c.depth}, eight-item hierarchy, {c.duration:g} units of time",
    )


PANELS = [deep_linear_gate]


def main(argv=None):
    Study(__file__, PANELS, CONFIGS, argv).finish()


if __name__ == "__main__":
    command_line(main)
