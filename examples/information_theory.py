"""Information measures and their traps ("Revisiting critical learning periods", Eq. 1, B.2; theory/binning.py, theory/softmax_fisher.py).

Mutual information against the scale of the logits, four readings and three edge rules, nothing learned; KL divergence against its quadratic
form; relative spread of the one-pass Fisher estimators as outputs become confident; the bell shape of the Fisher trace, which needs depth.
"""

from dataclasses import dataclass, replace

import common
import numpy as np
import torch
import verdicts
from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information, plug_in_bias
from clp_min.models import kaiming_normal, mlp
from clp_min.record import headline
from clp_min.seeding import generator, global_seed
from theory.binning import gaussian_bin_probabilities, gaussian_binned_entropy
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


QUICK = Config()
CONFIGS = {
    ("closed_form", "quick"): QUICK,
    ("closed_form", "paper"): QUICK,
    ("closed_form", "smoke"): replace(QUICK, seeds=2, examples=100, scales=(0.1, 1.0), confidence=(1.0, 12.0), draws=3),
}


def _estimator_spread(config, seed):
    """Relative standard deviation of the one-pass estimates of Tr F on 64 inputs, per factor: {estimator: [..]}, and the median of 1 - max
    p."""
    spread, doubt = {"sampled": [], "signs": []}, []
    for factor in config.confidence:
        with global_seed(seed, "spread"):
            model, x = mlp((6, 32, 32, 4), init=kaiming_normal).double().eval(), torch.randn(64, 6, dtype=torch.float64)
        with torch.no_grad():
            model[-1].weight.mul_(factor)
        exact = fisher_trace(model, x).total
        doubt.append(float((1 - model(x).detach().softmax(1).max(1).values).median()))
        for labels, values in spread.items():
            drawn = [fisher_trace(model, x, labels, generator=generator("cpu", seed, labels, i)).total for i in range(config.draws)]
            values.append(float(np.std(drawn, ddof=1)) / exact)
    return spread, doubt


def information_theory(run):
    """Verdict: "holds as corrected" if the clipped per-logit information of Gaussian logits agrees with its closed form and first-order
    bias within 5 standard errors
    at every scale, and rises and falls with the scale alone; else "disagrees"."""
    config, scales = run.config, list(run.config.scales)
    logits = [np.random.default_rng(seed).normal(size=(config.examples, config.logits)) for seed in run.seeds]
    labels = np.arange(config.examples) % config.logits
    series = []
    for outside in ("clip", "extend", "drop"):
        for reading in READINGS[:4]:
            values = []
            for t in logits:
                kept = [s for s in scales if outside != "drop" or (np.abs(s * t) <= 1).all(1).any() or reading != "joint"]
                values.append(
                    [binned_mutual_information(s * t, reading, labels, outside=outside) if s in kept else float("nan") for s in scales]
                )
            series.append(
                {
                    "label": reading.replace("_", " "),
                    "x": scales,
                    "y": f"I(X;T), bits, {outside}",
                    "x_label": "scale of the logits",
                    "values": values,
                }
            )
        exact = [gaussian_binned_entropy(s, outside=outside) for s in scales]
        series.append({"label": "closed form per logit", "x": scales, "y": f"I(X;T), bits, {outside}", "values": [exact], "points": True})
    measured = np.array(series[1]["values"]).mean(0)
    scores = []  # (measured - closed form - first-order bias) / standard error of a plug-in entropy of this many values
    for s, m in zip(scales, measured):
        q = gaussian_bin_probabilities(s)
        q = q[q > 1e-300]
        error = np.sqrt(((q * np.log2(q) ** 2).sum() - (q * np.log2(q)).sum() ** 2) / (len(run.seeds) * config.examples * config.logits))
        occupied = min(int((q * config.examples > 0.5).sum()), 30)
        scores.append(float((m - gaussian_binned_entropy(s) - plug_in_bias(occupied, config.examples)) / error))
    rises_and_falls = 0 < int(measured.argmax()) < len(scales) - 1

    rng = np.random.default_rng(0)
    x, w, e = rng.normal(size=(20, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

    def softmax(z):
        p = np.exp(z - z.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    p, sizes = softmax(x @ w.T), np.geomspace(1e-3, 1, 20)
    quadratic = e.ravel() @ softmax_fisher_matrix(x, p) @ e.ravel() / 2
    for label, forward in (("KL(p || p')", True), ("KL(p' || p)", False)):
        moved = [softmax(x @ (w + s * e).T) for s in sizes]
        ratios = [
            float((kl_divergence(p, q) if forward else kl_divergence(q, p)).mean() / (s**2 * quadratic)) for s, q in zip(sizes, moved)
        ]
        series.append(
            {
                "label": label,
                "x": sizes.tolist(),
                "y": "KL / (e'Fe / 2)",
                "x_label": "size of the change of the weights",
                "values": [ratios],
            }
        )

    spreads = [_estimator_spread(config, seed) for seed in run.seeds]
    doubt = np.median([d for _, d in spreads], 0).tolist()
    for key in ("sampled", "signs"):
        series.append(
            {
                "label": f"one pass, {key}",
                "x": doubt,
                "y": "relative sd of the estimate of Tr F",
                "x_label": "median of 1 - max p",
                "values": [s[key] for s, _ in spreads],
            }
        )

    z = np.linspace(0, 10, 101)
    one = 1 / (1 + np.exp(-z))
    for label, values in (("two layers: 2 z p (1 - p)", two_layer_fisher(z)), ("one layer: p (1 - p)", one * (1 - one))):
        series.append({"label": label, "x": z.tolist(), "y": "Tr F of a scalar net", "x_label": "logit z", "values": [values.tolist()]})
    fine = "I(X;T), bits, "
    return {
        "claim": "binned information rises and falls with the scale of the logits alone; the Fisher trace is bell-shaped only with depth",
        "headline": headline(
            [max(row) - row[-1] for row in series[1]["values"]], f"bits lost from the peak to scale {scales[-1]:g}, nothing forgotten"
        ),
        "verdict": verdicts.theory_verdict(run, np.abs(scores).max() < 5 and rises_and_falls),
        "finding": f"clipped, per logit: {measured[0]:.2f} bits at scale {scales[0]:g}, {measured.max():.2f} at {scales[int(measured.argmax())]:g}, {measured[-1]:.2f} at {scales[-1]:g}, nothing learned"
        f" (largest |z| against the closed form {np.abs(scores).max():.2f});"
        f" the joint reading is within {np.log2(config.examples) - max(np.nan_to_num(series[0]['values'][0])):.3f} bits of log2 N; at the most confident outputs a drawn label has"
        f" relative sd {np.mean([s['sampled'][-1] for s, _ in spreads]):.2g}, signs {np.mean([s['signs'][-1] for s, _ in spreads]):.2g}",
        "series": series,
        "figure": {
            "log_x": [fine + r for r in ("clip", "extend", "drop")] + ["KL / (e'Fe / 2)", "relative sd of the estimate of Tr F"],
            "log": ["relative sd of the estimate of Tr F"],
        },
    }


PANELS = [information_theory]


def main(argv=None):
    common.finish(common.start(__file__, __doc__, PANELS, CONFIGS, argv))


if __name__ == "__main__":
    common.call(main)
