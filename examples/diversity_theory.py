"""The common direction in closed form ("Trap of feature diversity in the learning of MLPs", Lemmas
1 and 2, Theorems 1 and 2), and the two phases by hand.

Theorem 1 takes a step apart, exactly if W is that of before the step; Theorem 2's product is
positive under a condition on V, eps and delta that "sigma_max(eps) small" does not give; random
weights make it positive in three quarters of cases. A small NumPy net shows that the size of the
first weights decides whether there is a first phase. See theory/common_direction.py.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np

from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from clp_min.study.panel import exact_curves
from theory.common_direction import (
    gaussian_clusters, null_frequency, relu_net_pass, theorem1_parts, theorem2_holds,
    theorem2_product, two_phases,
)


@dataclass(frozen=True)
class Config:
    """Sizes are ours: the paper has no numbers for its theory."""

    seeds: int = 10
    sizes: tuple = (24, 32, 32, 32, 32, 32, 32, 32, 32, 8)  # nine layers
    variances: tuple = (2.0, 1.0, 0.5)  # of the first weights, times 1 / inputs; PyTorch's is 1/3
    lr: float = 0.03
    steps: int = 3000
    layer: int = 3
    draws: int = 4000  # of Theorem 2's product, for each shape
    shapes: tuple = ((32, 4), (32, 8), (16, 16), (8, 32), (4, 32))
    sigmas: tuple = (0.024, 0.1, 0.3)  # sigma_max(eps) / |V|


SMOKE = dict(seeds=2, sizes=(6, 8, 8, 8, 4), steps=20, draws=50, layer=2)
CONFIGS = scales(Config, {"closed_form": {}}, SMOKE, ["closed_form"])


def diversity_theory(study):
    """Theorems 1 and 2 on random nets, and the two phases for three sizes of the first weights.

    "holds as corrected" if in every seed Theorem 1's parts sum to the step with W of before it (to
    1e-12 of its size) and not with W of after it (1e-4), Theorem 2's product has the sign of the
    exact condition in all draws, its frequency lies within 5 standard errors of the closed form,
    and a small sigma_max(eps) leaves negative products; else "disagrees". The phases are printed.
    """
    c = study.config
    residuals, rows = zip(*(theorem1_residuals(c, seed) for seed in study.seeds)), []
    before, after = map(np.array, residuals)  # (seeds, layers) each
    frequencies, right = zip(*(theorem2_frequencies(c, seed) for seed in study.seeds))
    frequencies, exact = np.array(frequencies), np.array([null_frequency(*s) for s in c.shapes])
    error = np.sqrt(exact * (1 - exact) / (c.draws * len(study.seeds)))
    angles, products = small_sigma(c)
    phases = {v: [simulated(c, seed, v) for seed in study.seeds] for v in c.variances}
    close = np.abs(frequencies.mean(0) - exact) < 5 * error
    agrees = before.max() < 1e-12 and after.min() > 1e-4 and all(right) and close.all()
    agrees = agrees and all(min(values) < 0 for values in products.values())
    # what is drawn
    layers, names = list(range(1, before.shape[1] + 1)), [f"{h} x {d}" for h, d in c.shapes]
    shown = np.unique(np.concatenate([[0], np.geomspace(1, c.steps, 150).astype(int)]))
    x = np.maximum(shown, 0.5)
    labels = {v: f"variance {v:g} / inputs" for v in c.variances}
    curves = [
        [Curve(labels[v], x, [row[i][shown] for row in phases[v]]) for v in c.variances]
        for i in (0, 1)
    ]
    switches = {v: [switch(loss, c.sizes[-1]) for loss, _ in phases[v]] for v in c.variances}
    for v, places in switches.items():
        risen = [cos[s] - cos[0] for s, (_, cos) in zip(places, phases[v])]
        rows.append(f"{labels[v]}: first phase {np.mean(places):.0f} steps,"
                    f" {Effect('cosine risen', risen)}")
    return Panel(
        claim="a step is the sum of Theorem 1's parts, and Theorem 2 needs an exact condition",
        headline=Effect("share of positive products, 16 x 16", frequencies[:, 2]),
        statement="holds as corrected", agrees=bool(agrees),
        finding=f"Theorem 1 is off by {before.max():.1e} of the step with W of before it, by"
        f" {after.min():.1e} or more with W of after it; positive products"
        f" {frequencies.mean(0).min():.3f} to {frequencies.mean(0).max():.3f} of cases, closed form"
        f" {exact.min():.3f} to {exact.max():.3f}; " + "; ".join(rows),
        axes=[
            Axes("Theorem 1: what is left, of the step", [
                Curve("W of before the step", layers, np.maximum(before, 1e-17)),
                Curve("W of after it", layers, after),
            ], x="layer", log=True),
            Axes("share of positive products", [
                Curve("random weights", names, frequencies), Curve("closed form", names, [exact]),
            ], x="W is h x d", kind="bar"),
            Axes("loss (nats)", curves[0], x="step", log_x=True, figure="phases"),
            Axes("features of different classes (mean cosine)", curves[1], x="step", log_x=True,
                 figure="phases"),
            Axes("Theorem 2's product", exact_curves(angles, {
                f"sigma_max(eps) = {s:g} |V|": values for s, values in products.items()
            }), x="|cos(C, delta)|", log_x=True, figure="condition"),
        ],
        caption=f"layers {', '.join(map(str, c.sizes))}, rate {c.lr}, features of layer {c.layer}",
    )


def random_net(c, rng, variance=2.0):
    """Weights of deviation sqrt(variance / inputs)."""
    return [
        np.sqrt(variance / d) * rng.normal(size=(h, d)) for d, h in zip(c.sizes, c.sizes[1:])
    ]


def theorem1_residuals(c, seed):
    """(with W_{l+1} of before the step, of after it), each (layers,): the largest entry of what
    Theorem 1's parts leave of a step, over that of the step."""
    rng = np.random.default_rng(seed)
    weights, x, found = random_net(c, rng), rng.normal(size=c.sizes[0]), []
    features, deltas, _ = relu_net_pass(weights, x, 0)
    for layer in range(len(weights) - 1):
        direction, row = rng.normal(size=len(weights[layer + 1])), []
        change = -c.lr * np.outer(deltas[layer + 1], features[layer + 1])
        for w_next in (weights[layer + 1], weights[layer + 1] + change):
            primary, others, step = theorem1_parts(weights, layer, direction, x, 0, c.lr, w_next)
            row.append(np.abs(primary + others.sum(0) - step).max() / np.abs(step).max())
        found.append(row)
    return np.array(found).T


def theorem2_frequencies(c, seed):
    """(share of positive products for each shape, whether the exact condition said each sign)."""
    rng, shares, right = np.random.default_rng(seed), [], True
    for h, d in c.shapes:
        positive = 0
        for _ in range(c.draws):
            w, (direction, delta) = rng.normal(size=(h, d)), rng.normal(size=(2, h))
            direction /= np.linalg.norm(direction)
            up = theorem2_product(w, direction, delta, np.ones(d)) >= 0
            right = right and up == theorem2_holds(w, direction, delta)
            positive += up
        shares.append(positive / c.draws)
    return shares, right


def small_sigma(c):
    """(|cos(C, delta)|, sigma -> Theorem 2's product) for W = C V' + sigma u V', |V| = 1: eps acts
    against V as soon as C'delta is small."""
    angles, (first, second) = np.geomspace(1e-3, 0.99, 60), np.eye(4)[:2]
    products = {}
    for sigma in c.sigmas:
        w = np.outer(first + sigma * second, np.eye(3)[0])
        deltas = [a * first - np.sqrt(1 - a**2) * second for a in angles]
        products[sigma] = [theorem2_product(w, first, delta, np.ones(3)) for delta in deltas]
    return angles, products


def simulated(c, seed, variance):
    """(loss, cosine) along gradient descent on clusters."""
    rng = np.random.default_rng(seed)
    x, labels = gaussian_clusters(rng, c.sizes[-1], d=c.sizes[0])
    return two_phases(random_net(c, rng, variance), x, labels, c.lr, c.steps, c.layer)


def switch(loss, classes):
    """The first step at which the loss is under .95 ln(classes); the last if it never is."""
    under = loss < 0.95 * np.log(classes)
    return int(under.argmax()) if under.any() else len(loss) - 1


PANELS = [diversity_theory]


def main(argv=None):
    Study(__file__, PANELS, CONFIGS, argv).finish()


if __name__ == "__main__":
    command_line(main)
