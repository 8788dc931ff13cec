"""A critical period in closed form: two pathways of a deep linear network, one gated early, in the middle, late (theory/deep_linear.py).

The scalar equations of each mode beside gradient descent on whole weight matrices in PyTorch, on the eight-item hierarchy
(Kleinman, Achille & Soatto, "Critical learning periods emerge even in deep linear networks", 2023).
"""

from dataclasses import dataclass, replace

import common
import numpy as np
import torch
import verdicts
from clp_min.record import headline
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


QUICK = Config()
CONFIGS = {
    ("hierarchy", "quick"): replace(QUICK, dt=0.05),
    ("hierarchy", "paper"): QUICK,
    ("hierarchy", "smoke"): replace(QUICK, seeds=1, dt=0.05, duration=30.0, gates=((0, 0), (0, 15), (20, 25)), every=5.0),
}


def descend(config, gate, seed):
    """Gradient descent on the matrices of both pathways; K of the strongest mode at the measured times, (2, points)."""
    rng = np.random.default_rng(seed)
    strengths = torch.from_numpy(HIERARCHY_STRENGTHS)
    left, right = (torch.from_numpy(np.linalg.qr(rng.normal(size=(n, 8)))[0]) for n in (15, 8))
    target, size = left @ torch.diag(strengths) @ right.T, config.start ** (1 / config.depth)
    paths = [
        [(size * m).clone().requires_grad_() for m in [right.T] + [torch.eye(8, dtype=torch.float64)] * (config.depth - 2) + [left]]
        for _ in range(2)
    ]
    optimizer, found = torch.optim.SGD([m for path in paths for m in path], lr=config.dt), []

    def product(path):
        total = path[0]
        for matrix in path[1:]:
            total = matrix @ total
        return total

    steps, every = round(config.duration / config.dt), round(config.every / config.dt)
    for t in range(steps + 1):
        a, b = product(paths[0]), product(paths[1])
        if t % every == 0:
            found.append([float(left[:, 0] @ k.detach() @ right[:, 0]) for k in (a, b)])
        optimizer.zero_grad()
        ((target - a - b).square().sum() / 2).backward()
        if round(gate[0] / config.dt) <= t < round(gate[1] / config.dt):
            for matrix in paths[1]:
                matrix.grad = None
        optimizer.step()
    return np.array(found).T


def deep_linear_gate(run):
    """Verdict: "holds" if torch and the equations agree to 1e-6 of S at every measured time and, at the end, only the early gate leaves
    pathway b below half of its ungated share."""
    config, series, gaps, ends = run.config, [], [], {}
    strength = float(HIERARCHY_STRENGTHS[0])
    times = np.arange(0, config.duration + config.every / 2, config.every)
    for gate in config.gates:
        label = "no gate" if gate == (0, 0) else f"b gated {gate[0]}-{gate[1]}"
        exact = np.array(
            [k[:, 0] for k in gated_pathways(HIERARCHY_STRENGTHS, config.depth, gate, config.duration, config.dt, config.start)]
        )
        index = np.round(times / config.dt).astype(int)
        drawn = np.array([descend(config, gate, seed) for seed in run.seeds])  # (seeds, 2, points)
        gaps.append([float(np.abs(row - exact[:, index]).max()) / strength for row in drawn])  # (gates, seeds)
        ends[gate] = exact[1, -1]
        shown = np.unique(np.linspace(0, exact.shape[1] - 1, 300).astype(int))
        for i, path in enumerate("ab"):
            series.append(
                {
                    "label": f"{label}",
                    "x": (shown * config.dt).tolist(),
                    "y": f"K of pathway {path}, strongest mode",
                    "x_label": "time",
                    "values": [exact[i, shown].tolist()],
                }
            )
            series.append(
                {
                    "label": f"{label}, torch",
                    "x": times.tolist(),
                    "y": f"K of pathway {path}, strongest mode",
                    "values": drawn[:, i].tolist(),
                    "points": True,
                }
            )
    early, others = ends[config.gates[1]], [v for g, v in ends.items() if g != config.gates[1]]
    worst = [max(column) for column in zip(*gaps)]  # per seed
    holds = max(worst) < 1e-6 and early < ends[(0, 0)] / 2 and min(others) > ends[(0, 0)] / 2
    return {
        "claim": "a pathway gated early never recovers; gated later it loses nothing",
        "headline": headline(worst, "largest |torch - equations| / S"),
        "verdict": verdicts.theory_verdict(run, holds, "holds"),
        "finding": "final K of pathway b: "
        + ", ".join(f"{'no gate' if g == (0, 0) else f'gated {g[0]}-{g[1]}'} {v:.4f}" for g, v in ends.items())
        + f"; torch and equations differ by {max(worst):.1e} S at most",
        "series": series,
        "figure": {},
    }


PANELS = [deep_linear_gate]


def main(argv=None):
    common.finish(common.start(__file__, __doc__, PANELS, CONFIGS, argv))


if __name__ == "__main__":
    common.call(main)
