"""Two regimes of sparse training from scratch ("Generalization and memorization in sparse neural
networks", Figures 1 and 4, Table 2).

Over a range of sparsities the finetuned net (Sol-F) and the one trained from scratch under the same
mask (Sol-S) are compared: accuracy, loss, entropy (fig1a to 1c), trace of Fisher information and
Hessian, Jacobian norm (table2), density of the Hessian's spectrum (fig4). Two things that the draft
left for later: the lottery ticket (sparse_lottery), and on which examples the two solutions
disagree (sparse_disagreement).
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from clp_min.curvature import (
    entropies, hessian_spectrum, hessian_trace, jacobian_norm, prediction_entropy, spectral_density,
)
from clp_min.fisher import fisher_trace
from clp_min.seeding import generator
from clp_min.sparsity import share_kept
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio, rank_correlation
from clp_min.train import evaluate_both, fresh_model, predict

import sparse


@dataclass(frozen=True)
class Config(sparse.Config):
    sparsities: tuple = (0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98)
    table: tuple = (0.8, 0.82, 0.84, 0.86, 0.88, 0.9)  # Table 2
    # ---- estimators; ours
    trace_products: int = 60  # products with the Hessian for its trace
    lanczos_steps: int = 64
    hessian_batch: int | None = 64  # examples at a time: the graph takes 34 MB an image
    starts: int = 2
    grid: tuple = (-2.0, 60.0, 311)  # of the spectrum: from, to, points
    width: float = 0.2  # of the Gaussian that stands for one eigenvalue


ROWS = dict(sparsities=(0.5, 0.7, 0.8, 0.85, 0.9, 0.94, 0.96, 0.98), hessian_batch=None,
            table=(0.7, 0.75, 0.8, 0.82, 0.85, 0.9), grid=(-1.0, 15.0, 321), width=0.1)
CONFIGS = sparse.configs(
    Config, shapes=ROWS, cifar10=ROWS,
    smoke=dict(
        sparsities=(0.5, 0.85, 0.96), table=(0.5, 0.85), trace_products=6, lanczos_steps=4,
        starts=1,
    ),
)
SPARSITY = dict(x="share of pruned weights (last layer apart)")


def fig1_panel(study, claim, keys, effects, more=""):
    """What the three parts of Figure 1 share: curves over sparsity."""
    all_of_them = study.config.sparsities
    axes = [
        Axes(y, sparse.over_sparsities(study, key, all_of_them, dense=True), **SPARSITY)
        for key, y in keys.items()
    ]
    finding = "; ".join(map(str, effects)) + more
    return Panel(claim, effects, axes, sparse.dense_gate(study), finding)


def gaps(study, keys, sign, rules):
    """Effects (key, sparsity, unit, rule) of S - F, times ``sign``."""
    made = []
    for key, sparsity, rule in rules:
        finetuned, scratch = sparse.pair(study, key, sparsity)
        unit = f"{keys[key]}, {'F - S' if sign < 0 else 'S - F'} at {sparsity}"
        made.append(Effect(unit, sign * (scratch - finetuned), **rule))
    return made


def sparse_fig1a(study):
    """Accuracy of Sol-F and Sol-S against sparsity.

    Effects, points that F is ahead of S: at the sparsity ``generalisation`` of the settings, on
    test images, least 1, and on training images within 1; at ``optimisation`` on both, least 5.
    Scope: one-shot magnitude masks of a dense net trained as long; this set and net.
    """
    c = study.config
    keys = {"accuracy": "points of test accuracy", "train_accuracy": "points of training accuracy"}
    grain = study.step(part="used")
    point = dict(least=sparse.POINT, step=study.step())
    effects = gaps(study, keys, -1, [
        ("accuracy", c.generalisation, point),
        ("train_accuracy", c.generalisation, dict(within=sparse.POINT, step=grain)),
        ("train_accuracy", c.optimisation, dict(least=sparse.DAMAGE, step=grain)),
        ("accuracy", c.optimisation, dict(least=sparse.DAMAGE, step=study.step())),
    ])
    labels = {"accuracy": "test accuracy (%)", "train_accuracy": "training accuracy (%)"}
    claim = "a test gap alone at moderate sparsity, a training gap too at high sparsity"
    return fig1_panel(study, claim, labels, effects, opening(study))


def opening(study):
    """From which sparsity on the training gap is more than a point on the mean, and what is left of
    all weights, the last layer's too, where the regimes are tested."""
    found = [sparse.pair(study, "train_accuracy", s) for s in study.config.sparsities]
    wide = [(f - s).mean() > sparse.POINT for f, s in found]
    first = next((i for i in range(len(wide)) if all(wide[i:])), None)
    where = study.config.sparsities[first] if first is not None else "no sparsity"
    kept = [
        f"{100 * study.results.final('share_kept', f'scratch {s}').mean():.1f} % at {s}"
        for s in (study.config.generalisation, study.config.optimisation)
    ]
    left = " and ".join(kept)
    return f"; the training gap is above 1 point from {where} on; of all weights are left {left}"


def sparse_fig1b(study):
    """Loss of Sol-F and Sol-S against sparsity.

    Effects, nats that S is above F: at ``generalisation`` on test images, least .01, and on
    training images within .1; at ``optimisation`` on both, least .1. Scope as fig1a.
    """
    c, keys = study.config, {"loss": "nats of test loss", "train_loss": "nats of training loss"}
    effects = gaps(study, keys, 1, [
        ("loss", c.generalisation, dict(least=sparse.NATS)),
        ("train_loss", c.generalisation, dict(within=sparse.TENTH)),
        ("train_loss", c.optimisation, dict(least=sparse.TENTH)),
        ("loss", c.optimisation, dict(least=sparse.TENTH)),
    ])
    labels = {"loss": "test loss (nats)", "train_loss": "training loss (nats)"}
    claim = "a test loss gap alone at moderate sparsity, a training loss gap too at high sparsity"
    return fig1_panel(study, claim, labels, effects)


def sparse_fig1c(study):
    """Entropy of the predictions on training images against sparsity.

    Effects, nats that S is above F: at ``generalisation`` least .01, at ``optimisation`` least .1,
    and how much more there than at the former, least .1. Scope as fig1a.
    """
    c, keys = study.config, {"entropy": "nats of entropy"}
    effects = gaps(study, keys, 1, [
        ("entropy", c.generalisation, dict(least=sparse.NATS)),
        ("entropy", c.optimisation, dict(least=sparse.TENTH)),
    ])
    more = effects[1].values - effects[0].values
    effects.append(Effect("nats more at the higher sparsity", more, least=sparse.TENTH))
    claim = "Sol-S is less confident, much less in the optimisation regime"
    return fig1_panel(study, claim, {"entropy": "entropy on training images (nats)"}, effects)


COLUMNS = {
    "fisher": "Tr F", "hessian": "Tr H", "jacobian": "squared Jacobian norm (logits)",
    "entropy": "entropy (nats)",
}
BESIDE = {
    "jacobian_probabilities": "squared Jacobian norm (probabilities)",
    "fisher_median": "median of Tr F(x)", "entropy_median": "median entropy (nats)",
}


def sparse_table2(study):
    """Fisher trace, Hessian trace, Jacobian norm and entropy of F and S at six sparsities.

    Effects: for each column and each of the six sparsities log (S / F), paired by seed, least .1
    (10 %). Tr F and Tr H are of the same kept weights, training images and mode; their ratio is
    printed beside the paper's own. The paper's "Jacobian" does not say of what: the logits decide
    here (its code's regulariser uses them), the probabilities stand beside. Scope as fig1a.
    """
    c, said = study.config, []

    def logs(key):
        pairs = [sparse.pair(study, key, s) for s in c.table]
        return np.stack([log_ratio(scratch, finetuned) for finetuned, scratch in pairs], 1)

    effects = []
    for key, label in (COLUMNS | BESIDE).items():
        cells, unit = logs(key), f"log (S / F) of {label}"
        alone = [
            Effect(f"{unit} at {sparsity}", column, least=sparse.TENTH)
            for sparsity, column in zip(c.table, cells.T)
        ]
        above = sum(one.mean - one.reach() > 0 for one in alone)
        said.append(f"{Effect(unit, cells.mean(1))}, above 0 in {above} of {len(alone)} sparsities")
        effects += alone if key in COLUMNS else []
    for arm in ("finetuned", "scratch"):
        traces = [study.results.final(k, [f"{arm} {s}" for s in c.table]) for k in
                  ("fisher", "hessian")]
        ratio = (traces[0] / traces[1]).mean(0)
        said.append(f"Tr F / Tr H of {arm} {ratio.min():.2f} to {ratio.max():.2f}")
    said.append("in the paper's own table 1.66 to 2.63 and 1.93 to 4.01, where it claims 1")
    axes = [
        Axes(label, sparse.over_sparsities(study, key, c.table), **SPARSITY,
             figure="" if key in COLUMNS else "beside")
        for key, label in (COLUMNS | BESIDE).items()
    ]
    return Panel(
        claim="Sol-S has the larger Fisher trace, Hessian trace, Jacobian norm and entropy",
        effects=effects, axes=axes, gate=sparse.dense_gate(study), finding="; ".join(said),
        printed="at 0.90, F against S: Tr F 635 and 2,898, Tr H 292 and 722, Jacobian 41 and 57,"
        " entropy 0.05 and 0.08",
    )


def sparse_fig4(study):
    """Density of the Hessian's spectrum of F and S, kept weights, at ``generalisation``.

    Effect: log (S / F) of the largest eigenvalue, least .1: "sharper". Lanczos with full
    re-orthogonalisation; each Ritz value is drawn as a Gaussian, densities under 1e-6 as 1e-6.
    Scope as fig1a.
    """
    c, results, curves, tops = study.config, study.results, [], []
    grid = np.linspace(*c.grid[:2], int(c.grid[2]))
    for arm in ("finetuned", "scratch"):
        name = f"{arm} {c.generalisation}"
        curves.append(Curve(sparse.NAMES[arm], grid, np.maximum(
            results.final("density", name), 1e-6)))
        tops.append(results.final("top", name))
    ranks = list(range(1, tops[0].shape[1] + 1))
    largest = [Curve(sparse.NAMES[a], ranks, v) for a, v in zip(("finetuned", "scratch"), tops)]
    ratio = log_ratio(tops[1][:, 0], tops[0][:, 0])
    effect = Effect("log (S / F) of the largest eigenvalue", ratio, least=sparse.TENTH)
    axes = [
        Axes("density of eigenvalues", curves, x="eigenvalue", log=True),
        Axes("eigenvalue", largest, x="rank from the top"),
    ]
    claim = f"Sol-S lies in a sharper minimum than Sol-F at {c.generalisation}"
    return Panel(claim, [effect], axes, sparse.dense_gate(study))


def sparse_lottery(study):
    """Sol-T: the dense net's first weights under the mask (footnote 2: planned; "the barrier
    between Sol-F and Sol-T").

    Effects: points of test accuracy that F is ahead of T at ``generalisation`` and at
    ``optimisation``, least 1 each. T against S is printed. Scope as fig1a; magnitude masks of the
    last epoch, weights rewound to the very first.
    """
    c, effects, said = study.config, [], []
    for sparsity in (c.generalisation, c.optimisation):
        names = [f"{arm} {sparsity}" for arm in ("finetuned", "lottery", "scratch")]
        finetuned, ticket, scratch = study.results.final("accuracy", names).T
        rule = dict(least=sparse.POINT, step=study.step())
        effects.append(Effect(f"points, F - T at {sparsity}", finetuned - ticket, **rule))
        said += [str(effects[-1]), str(Effect(f"points, T - S at {sparsity}", ticket - scratch))]
    curves = sparse.over_sparsities(study, "accuracy", c.sparsities, list(sparse.ARMS), True)
    return Panel(
        claim="a lottery ticket too stays behind the finetuned net", effects=effects,
        axes=[Axes("test accuracy (%)", curves, **SPARSITY)], gate=sparse.dense_gate(study),
        finding="; ".join(said),
    )


SCORES = ["Tr F(x)", "loss", "entropy", "- margin"]


def sparse_disagreement(study):
    """Where F and S disagree on test images, and the Fisher trace of the image under S (the draft's
    TODO; stands for its placeholder Figure 5). At ``generalisation``.

    Effects: area under the ROC curve of Tr F(x) for disagreement, less a half, least .05; over
    classes the rank correlation of the share of disagreements with the mean Tr F(x), least .1. The
    areas of loss, entropy and margin stand beside: Tr F(x) is nearly a function of the
    probabilities, and proves nothing that they do not. Scope as fig1a.
    """
    name, results = f"scratch {study.config.generalisation}", study.results
    areas, by_class = results.final("areas", name), results.final("class_correlation", name)
    effects = [
        Effect("of area above a half, Tr F(x)", areas[:, 0] - 0.5, least=0.05),
        Effect("rank correlation over classes", by_class, least=0.1),
    ]
    share = Effect("of test images", results.final("disagreement", name))
    others = ", ".join(f"{key} {areas[:, i].mean():.3f}" for i, key in enumerate(SCORES))
    axes = [
        Axes("area under the ROC curve", [Curve("disagreement", SCORES, areas)], x="", kind="bar"),
        Axes("rank correlation", [Curve("Tr F and disagreement", ["classes"], by_class[:, None])],
             x="", kind="bar"),
    ]
    return Panel(
        claim="Sol-F and Sol-S disagree on images with a large Fisher trace", effects=effects,
        axes=axes, gate=sparse.dense_gate(study),
        finding=f"{effects[0]}, {effects[1]}; they disagree on {share}; areas: {others}",
    )


PANELS = [
    sparse_fig1a, sparse_fig1b, sparse_fig1c, sparse_table2, sparse_fig4, sparse_lottery,
    sparse_disagreement,
]


# ---- what is measured


def measure(study, run, state, name):
    """Everything about one final net -> values for the log."""
    c, (x, y) = study.config, run.data.train
    sparsity = 0.0 if name == "dense" else float(name.split()[1])
    logits = predict(state.model, x)
    values = evaluate_both(state.model, run.data) | dict(
        entropy=prediction_entropy(logits), entropy_median=float(entropies(logits).median())
    )
    if state.masks is not None:
        values["share_kept"] = share_kept(state.model, state.masks)
    draw = generator(x.device, run.seed, name, "curvature")
    some = x[: c.fisher_examples], y[: c.fisher_examples]
    if sparsity in c.table and "lottery" not in name and study.wants(sparse_table2):
        trace = fisher_trace(state.model, some[0], c.labels, state.masks, draw)
        hessian, error = hessian_trace(
            state.model, *some, c.trace_products, draw, state.masks, "hutch++", c.hessian_batch
        )
        values |= dict(
            fisher=trace.total, fisher_median=float(trace.per_example.median()), hessian=hessian,
            hessian_error=error, jacobian=jacobian_norm(state.model, some[0]),
            jacobian_probabilities=jacobian_norm(state.model, some[0], "probabilities"),
        )
    if sparsity == c.generalisation and "lottery" not in name and study.wants(sparse_fig4):
        found = hessian_spectrum(
            state.model, *some, c.lanczos_steps, c.starts, draw, state.masks, c.hessian_batch
        )
        grid = torch.linspace(*c.grid[:2], int(c.grid[2]), dtype=torch.float64)
        density = spectral_density(*found, grid, c.width)
        top = found[0].mean(0).flip(0)[: min(10, c.lanczos_steps)]
        values |= dict(density=density.tolist(), top=top.tolist())
    return values


def compare(study, unit):
    """Second stage of a unit: disagreement of its finetuned and scratch nets on test images."""
    c, (x, y) = study.config, unit.data.test
    name, logits = f"scratch {c.generalisation}", {}
    if study.log.series(unit.seed, name, "disagreement")[0]:
        return
    model = fresh_model(unit.setup, unit.seed, "init")
    for arm in ("finetuned", "scratch"):
        kept = study.kept(unit.seed, arm)
        model.load_state_dict(kept["model"])
        logits[arm] = predict(model, x)
    apart = logits["finetuned"].argmax(1) != logits["scratch"].argmax(1)
    draw = generator(x.device, unit.seed, "disagreement")
    fisher = fisher_trace(model, x, c.labels, kept["masks"], draw).per_example
    scratch = logits["scratch"]
    loss = F.cross_entropy(scratch, y, reduction="none")
    two = scratch.softmax(1).topk(2, 1).values
    areas = [area(v, apart) for v in (fisher, loss, entropies(scratch), two[:, 1] - two[:, 0])]
    classes = [y == k for k in range(unit.data.classes) if bool((y == k).any())]
    rates = np.array([[float(apart[own].double().mean()) for own in classes]])
    means = torch.stack([fisher[own].mean() for own in classes]).argsort().tolist()
    study.log.add(
        unit.seed, [name], c.dense_epochs + c.sparse_epochs, areas=areas,
        disagreement=float(apart.double().mean()),
        class_correlation=float(rank_correlation(rates[:, means])[0]),
    )


def area(scores, positive):
    """Area under the ROC curve: how often a positive example scores above another; 1/2 if there
    are none of a kind."""
    up, down = scores[positive].double(), scores[~positive].double()
    if not len(up) or not len(down):
        return 0.5
    return float((up[:, None] > down).double().mean() + (up[:, None] == down).double().mean() / 2)


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    last = sparse.last_layer(sparse.prepare(study, study.seeds[0])[1])
    arms = [a for a in sparse.ARMS if a != "lottery" or study.wants(sparse_lottery)]
    sparsities = sorted({*c.sparsities, *c.table})
    for unit in study.units(sparse.prepare, sparse.solutions(c, last, sparsities, arms)):
        for epoch, state, names in study.work.trained(unit):
            for name in names:
                own_end = c.dense_epochs + (0 if name == "dense" else c.sparse_epochs)
                if epoch != own_end or state.event:
                    continue
                study.log.add(unit.seed, [name], epoch, **measure(study, unit, state, name))
                if name.endswith(f" {c.generalisation}") and study.wants(sparse_disagreement):
                    study.keep(unit.seed, name.split()[0], state)
        if study.wants(sparse_disagreement):
            compare(study, unit)
    study.finish()


if __name__ == "__main__":
    command_line(main)
