"""The three phases of a linear softmax in closed form ("Understanding and leveraging
the learning phases", 3).

Reconstruction error of the inputs from the outputs: flat, down, up. The paper's logits never show
the rise, its softmax outputs do, and the flat phase needs a decoder of finite precision (noise
tau). See theory/softmax_phases.py.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np

from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from clp_min.study.panel import exact_curves
from theory.softmax_phases import (
    approximate_loss, fitted_losses, full_matrix, input_variance, logit_loss, noisy_output_loss,
    optimal_line, optimal_loss, output_ratio, outputs, second_minimum, simulate, single_logit_loss,
    stage_boundaries,
)


@dataclass(frozen=True)
class Config:
    """l classes, d attributes, strong features k times the weak; the paper has no
    numbers for its theory."""

    seeds: int = 10  # of the random start
    l: int = 10
    d: int = 100
    k: int = 4
    lr: float = 0.002
    steps: int = 20_000
    noises: tuple = (0.0, 0.01, 0.03, 0.1)
    random_lr: float = 0.01
    random_times: tuple = (0, 4, 16, 64, 256, 1024)
    classes: tuple = (4, 10, 30, 100, 300, 1000)


SMOKE = dict(seeds=2, steps=300, random_times=(0, 4))
CONFIGS = scales(Config, {"closed_form": {}}, SMOKE, ["closed_form"])
STEPS = dict(x="step (0 is drawn at 1/2)", log_x=True)
NOISE = 0.03  # of the decoder in the rule


def softmax_theory(study):
    """Reconstruction from outputs and from logits along the exact trajectory.

    "holds as corrected" if with decoder noise .03 the loss from the outputs stays within 5 % of Var
    x for the first steps, falls below a tenth of it and rises again with one turn, while from the
    logits it never rises, for the same noise; else "disagrees".
    """
    c = study.config
    l, k, delta = c.l, c.k, simulate(c.l, c.d, c.k, c.lr, c.steps)
    t = np.unique(np.concatenate([[0], np.geomspace(1, c.steps, 120).astype(int)]))
    noisy = {tau: noisy_output_loss(delta[t], l, k, tau) for tau in c.noises}
    shown, logits, variance = noisy[NOISE], logit_loss(delta[t], l, k, NOISE), input_variance(l, k)
    random = random_start_curves(study)
    start = Effect("R from all outputs at a random start", random[0].values[:, 0])
    # what was found
    early = shown[t == 4][0]
    flat_then_down = early > 0.95 * variance and shown.min() < 0.1 * variance
    up = shown[-1] > 2 * shown.min() and turns(shown) == 1
    ends = [int((delta < boundary).sum()) for boundary in stage_boundaries(l, k)]
    # what is drawn
    x, grid = np.maximum(t, 0.5), np.geomspace(0.01, 30, 100)
    against = {
        f"output q_c, noise {NOISE}": shown, f"all logits, noise {NOISE}": logits,
        "own logit, no noise": single_logit_loss(delta[t], l, k),
    }
    noises = {f"decoder noise {tau}": values for tau, values in noisy.items()}
    stages = {
        "Delta = f - g": delta[t], "q of weak examples": outputs(delta[t], l, 1),
        "q of strong examples": outputs(delta[t], l, k),
        "rho = u_k / u_1": output_ratio(delta[t], l, k),
    }
    decoders = {
        "optimal decoder": optimal_loss(grid, l, k),
        "line through two points (Eq. 14)": approximate_loss(grid, l, k),
        "twice the optimum": 2 * optimal_loss(grid, l, k),
    }
    both = dict(log=True, log_x=True)
    return Panel(
        claim="reconstruction from softmax outputs is flat, falls and rises; from all logits it"
        " only falls",
        headline=start, statement="holds as corrected",
        agrees=bool(flat_then_down and up and (np.diff(logits) < 0).all()),
        finding=f"noise {NOISE}: R = {shown[0]:.3f} at step 0, {early:.3f} at 4, least"
        f" {shown.min():.4f} at {t[shown.argmin()]}, {shown[-1]:.3f} at {c.steps}; logits never"
        f" rise; stages end at steps {ends[0]} and {ends[1]}; {start}, of Var x = {variance:.4f}:"
        " the drop from R(0) belongs to the deterministic start",
        axes=[
            Axes("R: outputs against logits", exact_curves(x, against), **STEPS, log=True),
            Axes("R from the output q_c", exact_curves(x, noises), **STEPS, log=True),
            Axes("Delta and outputs", exact_curves(x, stages), **STEPS, figure="stages"),
            Axes("R of decoders", exact_curves(grid, decoders), "Delta", **both, figure="stages"),
            Axes("R at other sizes", class_curves(c), "classes", **both, figure="checks"),
            Axes("R with a random start", random, **STEPS, log=True, figure="checks"),
        ],
        caption=f"l = {l}, d = {c.d}, k = {k}, rate {c.lr}; R: mean squared error of an attribute",
    )


def turns(values):
    """How often the slope changes its sign."""
    slope = np.sign(np.diff(values))
    slope = slope[slope != 0]
    return int((slope[1:] != slope[:-1]).sum())


def class_curves(c):
    """Start, bump, least and limit of R for other numbers of classes."""
    grid, k, sizes = np.geomspace(1e-3, 20, 4000), c.k, np.array(c.classes)
    bump = [optimal_loss(grid[grid < second_minimum(l, k)], l, k).max() for l in sizes]
    start, least = [input_variance(l, k) for l in sizes], (k - 1) ** 2 / (4 * sizes**2)
    values = {"R(0) = Var x": start, "bump": bump, "least": least, "limit": least * sizes}
    return exact_curves(sizes, values)


def random_start_curves(study):
    """R_opt by least squares with weights drawn from N(0, 1/d), beside the deterministic start."""
    c, rows = study.config, []
    run = c.l, c.d, c.k, c.random_lr, max(c.random_times)
    for seed in study.seeds:
        w0 = np.random.default_rng(seed).normal(size=(c.l, c.d)) / np.sqrt(c.d)
        weights = full_matrix(*run, w0)
        rows.append([fitted_losses(weights[t], c.k) for t in c.random_times])
    from_all, from_own = np.moveaxis(rows, 2, 0)  # (seeds, times) each
    x, exact = np.maximum(c.random_times, 0.5), simulate(*run)[list(c.random_times)]
    return [
        Curve("random start, from all q", x, from_all),
        Curve("random start, from q_c", x, from_own),
        Curve("deterministic start", x, [optimal_loss(exact, c.l, c.k)]),
    ]


def phases_fig5(study):
    """The stages: outputs q against the attribute to be reconstructed, with the optimal line.

    The paper has the error fall in stage 1. "fails as printed" if it is larger at the end of stage
    1 than early in it, larger again at the end of stage 2, and largest late; else "disagrees". (The
    fall is at the first step, from Var x.)
    """
    c, axes, errors = study.config, [], []
    first, second = stage_boundaries(c.l, c.k)
    ends = {"end of stage 1": first, "end of stage 2": second}
    moments = {"early": 0.1, **ends, "late": 12.0}
    for when, delta in moments.items():
        q, x, decoded, error = optimal_line(delta, c.l, c.k)
        two = [q.argmin(), q.argmax()]
        fit = Curve("optimal line", q[two], [decoded[two]])
        dots = Curve("examples (x = 0, 0, 1, k)", q, [x], "points")
        label = f"output q at Delta = {delta:.2f} (line: R = {error:.3f})"
        axes.append(Axes(f"attribute, {when}", [fit, dots], x=label))
        errors.append(error)
    return Panel(
        claim="the error falls in stage 1 and rises in stage 2, as strong and weak examples part"
        " and meet",
        headline=Effect("R at the end of stage 2 (exact)", errors[2:3]),
        statement="fails as printed",
        agrees=errors[0] < errors[1] < errors[2] < errors[3] < input_variance(c.l, c.k),
        finding="R = " + ", ".join(f"{e:.4f} ({when})" for e, when in zip(errors, moments)),
        axes=axes, caption=f"l = {c.l}, k = {c.k}; line: the optimal decoder, R its error",
    )


PANELS = [softmax_theory, phases_fig5]


def main(argv=None):
    Study(__file__, PANELS, CONFIGS, argv).finish()


if __name__ == "__main__":
    command_line(main)
