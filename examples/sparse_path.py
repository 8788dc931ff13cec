"""The straight line from Init-S to Sol-F ("Generalization and memorization in sparse neural
networks", section 4.2.1, Figures 8 to 10).

Along (1 - alpha) Init-S + alpha Sol-F: training and test loss, with the BatchNorm buffers
interpolated and re-estimated at every alpha (fig8a); the cosine of each example's negative gradient
with the line (fig8b, 8c); the classes of the examples with the largest cosines, against a
permutation of the labels (fig9, fig10); and whether the Fisher trace tells which examples these are
(sparse_path_fisher, the draft's TODO).
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass

import numpy as np
import torch

from clp_min.fisher import fisher_trace
from clp_min.gradients import flat_parameters, gradient_cosines
from clp_min.seeding import derive_seed, generator
from clp_min.sparsity import interpolated
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import rank_correlation
from clp_min.train import accuracy, evaluate, fresh_model

import sparse


@dataclass(frozen=True)
class Config(sparse.Config):
    sparsity: float = 0.9  # not stated; ours
    alphas: tuple = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    near: float = 0.3  # "close to init", Figures 9 and 10
    far: float = 0.9  # "close to solution"
    upper: float = 0.05  # "of the upper 95 % quantile"
    permutations: int = 1000


ROWS = dict(
    net=sparse.CNN, dense_epochs=20, sparse_epochs=20, dense_milestones=(10, 15),
    sparse_milestones=(10, 15),
)
GENERATOR = (("noise", 0.25), ("amplitude", (0.5, 1.0)))
CONFIGS = sparse.configs(
    Config, shapes=ROWS | dict(generator=GENERATOR), cifar10=ROWS, smoke=dict(permutations=20)
)
LINE = dict(x="alpha (0: Init-S, 1: Sol-F)")


def path(study, key):
    """(alphas, values (seeds, alphas)) of a measurement along the line."""
    return study.results.curve(key, "line")


def at(study, key, alpha):
    """(seeds,) of a measurement at one alpha."""
    return study.results.at(key, "line", alpha)


def sparse_fig8a(study):
    """Loss along the line.

    Effects: of the ten steps between eleven alphas, those at which the loss falls less those at
    which it rises, least 9: training loss ("monotonically decreasing", the text) and test loss
    (the caption), buffers re-estimated. The same with interpolated buffers is printed. Scope: this
    set, net and sparsity; Sol-F is reached by a line that needs Sol-F.
    """
    effects, curves = [], {}
    labels = {"loss": "training loss", "test_loss": "test loss"}
    for buffers in ("re-estimated", "interpolated"):
        for key, label in labels.items():
            key = key + "_interpolated" * (buffers == "interpolated")
            x, values = path(study, key)
            curves.setdefault(label, []).append(Curve(f"buffers {buffers}", x, values))
            falls = -np.sign(np.diff(values, axis=1)).sum(1)
            rule = dict(least=9.0) if buffers == "re-estimated" else {}
            unit = f"falls less rises of ten, {label}, buffers {buffers}"
            effects.append(Effect(unit, falls, **rule))
    axes = [Axes(f"{label} (nats)", curves[label], **LINE) for label in curves]
    return Panel("the loss falls all along the line from Init-S to Sol-F", effects[:2], axes,
                 sparse.dense_gate(study), finding="; ".join(map(str, effects)))


def cosine_axes(study):
    """Quantiles of the cosines along the line, and how many are positive."""
    keys = {"cosine_high": "95 % quantile", "cosine": "mean", "cosine_low": "5 % quantile"}
    quantiles = [Curve(label, *path(study, key)) for key, label in keys.items()]
    positive = [Curve("training images", *path(study, "positive"))]
    return [
        Axes("cosine of descent with the line", quantiles, **LINE),
        Axes("positive cosines (%)", positive, **LINE),
    ]


def sparse_fig8b(study):
    """Cosines of per-example descent with the line at alpha = 0.

    Effects: their mean, within .01 ("mostly concentrated around 0"); and the share of positive ones
    less a half, in points, within 15. Scope as fig8a; in so many dimensions every cosine is small.
    """
    effects = [
        Effect("mean cosine at alpha 0", at(study, "cosine", 0.0), within=0.01),
        Effect("points of positive cosines above half", at(study, "positive", 0.0) - 50, within=15),
    ]
    return Panel("at Init-S descent is as likely along the line as against it", effects,
                 cosine_axes(study), sparse.dense_gate(study))


def sparse_fig8c(study):
    """The cosines near the solution, at the alpha ``far``.

    Effects: their mean, least .01, and the share of positive ones less a half, least 15 points.
    Scope as fig8a.
    """
    far = study.config.far
    effects = [
        Effect(f"mean cosine at alpha {far}", at(study, "cosine", far), least=0.01),
        Effect("points of positive cosines above half", at(study, "positive", far) - 50, least=15),
    ]
    return Panel("near Sol-F descent points along the line", effects, cosine_axes(study),
                 sparse.dense_gate(study))


def classes_curve(study, alpha):
    """Share of each class among the examples with the largest cosines."""
    shares = study.results.at("top_classes", "line", alpha)
    return Curve(f"alpha {alpha}", [f"{k}" for k in range(shares.shape[1])], 100 * shares)


def sparse_fig9(study):
    """Classes of the examples with the largest cosines, at the alphas ``near`` and ``far``.

    Effect: how much the two distributions differ (chi squared of the counts), in standard
    deviations above its mean over permutations of the labels, least 1. Scope as fig8a; the two sets
    of examples overlap, in the permutations too.
    """
    c = study.config
    effect = Effect("sd above chance (classes, near against far)", at(study, "differ", c.near),
                    least=1.0)
    bars = [classes_curve(study, alpha) for alpha in (c.near, c.far)]
    curve = Curve(f"against alpha {c.far}", *path(study, "differ"))
    axes = [
        Axes("share of the largest cosines (%)", bars, x="class", kind="bar"),
        Axes("difference (sd above chance)", [curve], **LINE),
    ]
    return Panel("other classes pull along the line near Init-S than near Sol-F", [effect], axes,
                 sparse.dense_gate(study))


def sparse_fig10(study):
    """Classes of the examples with the largest cosines at the alpha ``near``.

    Effect: how uneven they are (chi squared), in standard deviations above its mean over
    permutations of the labels, least 1. Printed at alpha 0 too: unevenness there is of the net's
    first weights, no property of the path. Scope as fig8a.
    """
    c = study.config
    effect = Effect("sd above chance", at(study, "uneven", c.near), least=1.0)
    first = Effect("sd above chance at alpha 0", at(study, "uneven", 0.0))
    axes = [
        Axes("share of the largest cosines (%)", [classes_curve(study, c.near)], x="class",
             kind="bar"),
        Axes("unevenness (sd above chance)", [Curve("classes", *path(study, "uneven"))], **LINE),
    ]
    return Panel("some classes pull along the line more than others", [effect], axes,
                 sparse.dense_gate(study), finding=f"{effect} at alpha {c.near}; {first}")


def sparse_path_fisher(study):
    """Does the Fisher trace of an example tell how far it pulls along the line?

    Effects: rank correlation over training images of cosine and Tr F(x), at alpha 0 and at
    ``near``, least .1 each: selecting large traces would then follow the path. Scope as fig8a.
    """
    c = study.config
    effects = [
        Effect(f"rank correlation at alpha {a}", at(study, "correlation", a), least=0.1)
        for a in (c.near, 0.0)
    ]
    curve = Curve("cosine and Tr F(x)", *path(study, "correlation"))
    return Panel("examples with a large Fisher trace pull along the line", effects,
                 [Axes("rank correlation", [curve], **LINE)], sparse.dense_gate(study))


PANELS = [sparse_fig8a, sparse_fig8b, sparse_fig8c, sparse_fig9, sparse_fig10, sparse_path_fisher]


# ---- what is measured


def walk(study, unit):
    """Second stage of a unit: everything along the line from its Init-S to its Sol-F."""
    c, (x, y) = study.config, unit.data.train
    if study.log.series(unit.seed, "line", "done")[0]:
        return
    model = fresh_model(unit.setup, unit.seed, "init")
    end, start = (study.kept(unit.seed, name) for name in ("solution", "start"))
    weights = []
    for kept in (start, end):
        model.load_state_dict(kept["model"])
        weights.append(flat_parameters(model))
    some = x[: c.fisher_examples], y[: c.fisher_examples]
    rng = np.random.default_rng(derive_seed(unit.seed, "permutations"))
    chosen = {}
    for alpha in c.alphas:
        plain = interpolated(model, start["model"], end["model"], alpha)
        own = interpolated(model, start["model"], end["model"], alpha, some[0])
        values = {}
        for net, ending in ((own, ""), (plain, "_interpolated")):
            values[f"loss{ending}"] = evaluate(net, x, y)[1]
            values[f"test_loss{ending}"] = evaluate(net, *unit.data.test)[1]
        cosines = gradient_cosines(own, *some, weights[1] - weights[0], end["masks"])
        draw = generator(x.device, unit.seed, alpha, "fisher")
        fisher = fisher_trace(own, some[0], c.labels, end["masks"], draw).per_example
        low, high = torch.quantile(cosines, cosines.new_tensor([0.05, 0.95])).tolist()
        values |= dict(
            cosine=float(cosines.mean()), cosine_low=low, cosine_high=high,
            positive=100 * float((cosines > 0).double().mean()),
            correlation=correlation(cosines.cpu().numpy(), fisher.cpu().numpy()),
        )
        chosen[alpha] = cosines.argsort(descending=True)[: round(c.upper * len(cosines))].cpu()
        study.log.add(unit.seed, ["line"], alpha, **values)
    labels = some[1].cpu().numpy()
    for alpha, one in chosen.items():
        far = chosen[c.far].numpy()
        uneven, differ = above_chance(labels, one.numpy(), far, unit.data.classes, c, rng)
        shares = np.bincount(labels[one.numpy()], minlength=unit.data.classes) / len(one)
        study.log.add(unit.seed, ["line"], alpha, uneven=uneven, differ=differ,
                      top_classes=shares.tolist())
    study.log.add(unit.seed, ["line"], c.alphas[-1], done=1)


def correlation(a, b):
    """Spearman's rank correlation of two vectors, the second without ties."""
    return float(rank_correlation(a[np.argsort(b)][None])[0])


def above_chance(labels, one, other, classes, c, rng):
    """How uneven the classes of the examples ``one`` are, and how different from those of
    ``other``: chi squared, in standard deviations above its mean over permutations of labels."""

    def statistics(labels):
        a, b = (np.bincount(labels[part], minlength=classes) for part in (one, other))
        expected = len(one) * np.bincount(labels, minlength=classes) / len(labels)
        both = np.maximum(a + b, 1)
        return ((a - expected) ** 2 / np.maximum(expected, 1e-9)).sum(), ((a - b) ** 2 / both).sum()

    chance = np.array([statistics(rng.permutation(labels)) for _ in range(c.permutations)])
    spread = np.maximum(chance.std(0, ddof=1), 1e-9)
    return ((statistics(labels) - chance.mean(0)) / spread).tolist()


MLP = "the fully connected net of sparse_regimes instead of the convolutional one; no BatchNorm"
OPTIONS = [("--net", dict(choices=["mlp"], help=MLP), "{}")]


def prepare(study, seed):
    """(Dataset, Setup) of the net asked for."""
    data, setup = sparse.prepare(study, seed)
    if study.arguments.net:
        setup = sparse.setup_of(study.config, data, sparse.SHAPES["net"])
    return data, setup


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv, OPTIONS)
    c = study.config
    last = sparse.last_layer(prepare(study, study.seeds[0])[1])
    kept = {f"scratch {c.sparsity}": "start", f"finetuned {c.sparsity}": "solution"}
    for unit in study.units(prepare, sparse.solutions(c, last, [c.sparsity])):
        for epoch, state, names in study.work.trained(unit):
            final = epoch in sparse.ends(c) and not state.event
            if final:
                correct = accuracy(state.model, *unit.data.test)
                study.log.add(unit.seed, names, epoch, accuracy=correct)
            for name in set(names) & set(kept):
                if state.event if kept[name] == "start" else final and epoch > c.dense_epochs:
                    study.keep(unit.seed, kept[name], state)
        walk(study, unit)
    study.finish()


if __name__ == "__main__":
    command_line(main)
