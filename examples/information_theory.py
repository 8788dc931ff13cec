"""Information measures and their traps ("Revisiting critical learning periods", Eq. 1, B.2).

Mutual information against the scale of the logits, four readings and three edge rules, nothing
learned (theory/binning.py); KL divergence against its quadratic form; relative spread of the
one-pass Fisher estimators as outputs become confident; the bell shape of the Fisher trace, which
needs depth (theory/softmax_fisher.py).
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np
import torch

from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information, plug_in_bias
from clp_min.models import kaiming_normal, mlp
from clp_min.seeding import generator, global_seed
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from clp_min.study.panel import exact_curves
from clp_min.train import predict
from theory.binning import (
    gaussian_bin_probabilities, gaussian_binned_entropy, gaussian_plug_in_error,
)
from theory.softmax_fisher import kl_divergence, softmax_fisher_matrix, two_layer_fisher


@dataclass(frozen=True)
class Config:
    """Ours throughout."""

    seeds: int = 3
    examples: int = 2000
    logits: int = 10
    scales: tuple = tuple(np.geomspace(0.02, 50, 18).round(4).tolist())
    confidence: tuple = (1.0, 4.0, 12.0, 25.0, 40.0)  # factor on the last layer's weights
    draws: int = 40


SMOKE = dict(seeds=2, examples=100, scales=(0.1, 1.0), confidence=(1.0, 12.0), draws=3)
CONFIGS = scales(Config, {"closed_form": {}}, SMOKE, ["closed_form"])


def information_theory(study):
    """Binned information of Gaussian logits, the Fisher trace of a scalar net, and two estimators.

    "holds as corrected" if the clipped per-logit information of Gaussian logits agrees with its
    closed form and first-order bias within 5 standard errors at every scale, and rises and falls
    with the scale alone; else "disagrees".
    """
    c = study.config
    clipped, extended, dropped = (binned(study, rule) for rule in ("clip", "extend", "drop"))
    joint, per_logit = clipped[0].values, clipped[1].values
    scores, mean = standard_scores(study, per_logit), per_logit.mean(0)
    spread = estimator_spread(study)
    lost = per_logit.max(1) - per_logit[:, -1]
    sampled, signs = (curve.values[:, -1].mean() for curve in spread)
    scale = dict(x="scale of the logits", log_x=True)
    other = dict(log_x=True, figure="estimators")
    return Panel(
        claim="binned information rises and falls with the scale of the logits alone; the Fisher"
        " trace is bell-shaped only with depth",
        headline=Effect("bits lost from the peak to the largest scale, nothing forgotten", lost),
        statement="holds as corrected",
        agrees=np.abs(scores).max() < 5 and 0 < int(mean.argmax()) < len(c.scales) - 1,
        finding=f"clipped, per logit: {mean[0]:.2f} bits at the smallest scale, {mean.max():.2f}"
        f" at {c.scales[mean.argmax()]:g}, {mean[-1]:.2f} at the largest (largest |z| against the"
        f" closed form {np.abs(scores).max():.2f}); the joint reading comes within"
        f" {np.log2(c.examples) - joint[0].max():.3f} bits of log2 N; at the most confident"
        f" outputs a drawn label has relative sd {sampled:.2g}, signs {signs:.2g}",
        axes=[
            Axes("I(X;T), bits, outside values clipped", clipped, **scale),
            Axes("Tr F of a scalar net", scalar_nets(), x="logit z"),
            Axes("I(X;T), bits, outer bins added", extended, **scale, figure="edges"),
            Axes("I(X;T), bits, outside values dropped", dropped, **scale, figure="edges"),
            Axes("KL / (e'Fe / 2)", kl_against_quadratic(), "change of the weights", **other),
            Axes("relative sd of estimates of Tr F", spread, "median of 1 - max p", True, **other),
        ],
        caption=f"N = {c.examples} examples, {c.logits} Gaussian logits; dots: closed form",
    )


def binned(study, outside):
    """Four readings against the scale under one edge rule, and the closed form of "per_logit"."""
    c = study.config
    drawn = [np.random.default_rng(s).normal(size=(c.examples, c.logits)) for s in study.seeds]
    labels = np.arange(c.examples) % c.logits

    def measure(t, reading):
        if outside == "drop" and reading == "joint" and not (np.abs(t) <= 1).all(1).any():
            return np.nan  # no example has all its logits inside
        return binned_mutual_information(t, reading, labels, outside=outside)

    curves = []
    for reading in READINGS[:4]:
        values = [[measure(s * t, reading) for s in c.scales] for t in drawn]
        curves.append(Curve(reading.replace("_", " "), c.scales, values))
    exact = [gaussian_binned_entropy(s, outside=outside) for s in c.scales]
    curves.insert(2, Curve("closed form per logit", c.scales, [exact], "points"))
    return curves


def standard_scores(study, per_logit):
    """(scales,): (measured - closed form - first-order bias) / standard error
    of a plug-in entropy."""
    c, scores = study.config, []
    n = len(study.seeds) * c.examples * c.logits
    for scale, measured in zip(c.scales, per_logit.mean(0)):
        occupied = min(int((gaussian_bin_probabilities(scale) * c.examples > 0.5).sum()), 30)
        exact = gaussian_binned_entropy(scale) + plug_in_bias(occupied, c.examples)
        scores.append((measured - exact) / gaussian_plug_in_error(scale, n))
    return np.array(scores)


def kl_against_quadratic():
    """KL divergence in both directions against half the Fisher quadratic form, and the
    size of the step."""
    rng, sizes = np.random.default_rng(0), np.geomspace(1e-3, 1, 20)
    x, w, e = rng.normal(size=(20, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

    def softmax(z):
        p = np.exp(z - z.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    p = softmax(x @ w.T)
    moved = [softmax(x @ (w + s * e).T) for s in sizes]
    quadratic = sizes**2 * (e.ravel() @ softmax_fisher_matrix(x, p) @ e.ravel() / 2)
    forward = [kl_divergence(p, q).mean() for q in moved] / quadratic
    backward = [kl_divergence(q, p).mean() for q in moved] / quadratic
    return exact_curves(sizes, {"KL(p || p')": forward, "KL(p' || p)": backward})


def estimator_spread(study):
    """Relative sd of the one-pass estimates of Tr F on 64 inputs, as outputs become confident."""
    c = study.config
    shape = len(study.seeds), len(c.confidence)
    doubt, spread = np.empty(shape), {"sampled": np.empty(shape), "signs": np.empty(shape)}
    for i, j in np.ndindex(shape):
        seed = study.seeds[i]
        with global_seed(seed, "spread"):
            model = mlp((6,), 4, (32, 32), init=kaiming_normal).double().eval()
            x = torch.randn(64, 6, dtype=torch.float64)
        with torch.no_grad():
            model[-1].weight.mul_(c.confidence[j])
        exact, p = fisher_trace(model, x).total, predict(model, x).softmax(1)
        doubt[i, j] = (1 - p.max(1).values).median()
        for labels, values in spread.items():
            draws = [generator("cpu", seed, labels, k) for k in range(c.draws)]
            drawn = [fisher_trace(model, x, labels, generator=g).total for g in draws]
            values[i, j] = np.std(drawn, ddof=1) / exact
    x = np.median(doubt, 0)
    return [Curve(f"one pass, {labels}", x, values) for labels, values in spread.items()]


def scalar_nets():
    """Tr F against the logit of the smallest nets."""
    z = np.linspace(0, 10, 101)
    p = 1 / (1 + np.exp(-z))
    one, two = p * (1 - p), two_layer_fisher(z)
    return exact_curves(z, {"two layers: 2 z p (1 - p)": two, "one layer: p (1 - p)": one})


PANELS = [information_theory]


def main(argv=None):
    Study(__file__, PANELS, CONFIGS, argv).finish()


if __name__ == "__main__":
    command_line(main)
