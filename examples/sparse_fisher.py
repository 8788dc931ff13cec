"""The trace of the Fisher information along sparse training ("Generalization and memorization in
sparse neural networks", Figures 3, 11, 12 and Table 1).

fig3: a fully connected net on synthetic data with two classes; fig11, fig12: a convolutional net.
In the generalisation regime Sol-S's trace is said to rise, then to fall and to end above Sol-F's;
in the optimisation regime to rise and hardly to fall. table1: training error beside those trends.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from clp_min import models
from clp_min.fisher import fisher_trace
from clp_min.schedule import step_decay
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import log_ratio
from clp_min.train import accuracy, batch_statistics

import sparse


@dataclass(frozen=True)
class Config(sparse.Config):
    # ---- fig11, fig12
    moderate: tuple = (0.8, 0.84, 0.9)  # "from 0.80 to 0.90"
    high: tuple = (0.92, 0.96)  # "from 0.92 to 0.96"
    middle: int = 50  # sparse epoch of a large trace of Sol-S; ours: a fifth of the run
    # ---- fig3: data not published; ours a teacher net's. The net is the authors' (older text)
    small_net: Callable = partial(
        models.mlp, hidden=(64, 32, 32, 18, 18, 6, 6), init=models.kaiming_normal
    )
    small_lr: float = 0.001
    small_momentum: float = 0.0
    small_batch: int = 12
    small_epochs: tuple = (1000, 2000)  # dense, sparse
    small_milestones: tuple = (500, 1000, 1500)
    small_moderate: tuple = (0.8,)  # not stated; ours
    small_high: tuple = (0.95,)  # not stated; ours
    small_middle: int = 400  # ours: a fifth of the run
    measure_every: int = 5  # epochs, besides the first ten; ours


ROWS = dict(
    dense_epochs=20, sparse_epochs=30, dense_milestones=(10, 15), sparse_milestones=(15, 22),
    moderate=(0.5, 0.7), high=(0.9, 0.95), middle=12,  # seeds 0 and 1
    small_net=partial(models.mlp, hidden=(128, 128), init=models.kaiming_normal), small_lr=0.05,
    small_momentum=0.9, small_batch=100, small_epochs=(100, 100), small_milestones=(50, 75),
    small_middle=20, measure_every=2, fisher_examples=500, labels="signs",
)
GENERATOR = (("noise", 0.25), ("amplitude", (0.5, 1.0)))
CONFIGS = sparse.configs(
    Config, shapes=ROWS | dict(net=sparse.CNN, generator=GENERATOR),
    cifar10=ROWS | dict(net=sparse.CNN),
    smoke=dict(
        moderate=(0.5,), high=(0.9,), middle=1, small_epochs=(2, 2), small_milestones=(1,),
        small_middle=1, measure_every=1,
    ),
)


def trends(study, label, sparsities, regime, place):
    """The effects of a regime for the runs of one net, at each sparsity."""
    made, rule = [], dict(least=sparse.TENTH)
    for sparsity in sparsities:
        epochs, trace = track(study, label, f"scratch {sparsity}")
        _, other = track(study, label, f"finetuned {sparsity}")
        there, where = trace[:, epochs.index(place)], f"S at {sparsity}"
        rise = log_ratio(there, trace[:, 0])
        fall, kept = log_ratio(there, trace[:, -1]), log_ratio(trace[:, -1], there)
        above = log_ratio(trace[:, -1], other[:, -1])
        made.append(Effect(f"log (epoch {place} / start), {where}", rise, **rule))
        unit = f"log (epoch {place} / last), {where}"
        if regime == "generalisation":
            made.append(Effect(unit, fall, **rule))
            made.append(Effect(f"log (S / F) at the end, {sparsity}", above, **rule))
        else:
            made.append(sparse.hardly_falls(f"epoch {place}", kept, where))
    return made


def track(study, label, name, key="fisher"):
    """(epochs since the sparse net's start, values) of a run of one net."""
    return sparse.along(study, key, f"{label} {name}", dense_epochs(study.config, label))


def dense_epochs(c, label):
    return c.small_epochs[0] if label == "teacher" else c.dense_epochs


def trace_axes(study, label, sparsities):
    """Tr F along both arms, one pair of axes for each sparsity."""
    return [
        Axes(f"Tr F, sparsity {s}", [
            Curve(sparse.NAMES[arm], *track(study, label, f"{arm} {s}"))
            for arm in ("finetuned", "scratch")
        ], log=True)
        for s in sparsities
    ]


def gate(study, label):
    """Why nothing follows from a dense net that has not learned, if it has not: the teacher's two
    classes ask for 75 %."""
    if label == "net":
        return sparse.dense_gate(study, "net dense")
    mean = study.results.at("accuracy", "teacher dense", study.config.small_epochs[0]).mean()
    return "" if mean >= 75 else f"the undamaged net reaches {mean:.0f} %, less than 75 %"


def sparse_fig3(study):
    """Tr F along training, synthetic data of two classes, fully connected net, both regimes.

    Effects in logarithms, for Sol-S. Generalisation regime: the trace at the epoch ``small_middle``
    (of the settings, seeds 0 to 3) above that of the start and of the last epoch, and at the end
    above Sol-F's, least .1 each. Optimisation regime: above the start, least .1; "hardly decreases"
    from there to the end, by less than .1. Scope: the set shows the dynamics; it has no test gap.
    """
    c, place = study.config, study.config.small_middle
    effects = [
        *trends(study, "teacher", c.small_moderate, "generalisation", place),
        *trends(study, "teacher", c.small_high, "optimisation", place),
    ]
    axes = trace_axes(study, "teacher", [*c.small_moderate, *c.small_high])
    claim = "Sol-S's trace rises and falls at moderate sparsity, rises and stays at high sparsity"
    return Panel(claim, effects, axes, gate(study, "teacher"), caption="data of a teacher net")


def sparse_fig11(study):
    """Tr F along training of the convolutional net, generalisation regime.

    Effects: fig3's of that regime at each sparsity of ``moderate``, epoch ``middle``. BatchNorm has
    the statistics of the measured images at every epoch, since running ones lag behind in the
    first. Scope: this set and net; the mean over examples can be carried by few.
    """
    claim = "Sol-S's trace rises, then falls, and ends above Sol-F's (moderate sparsity)"
    return net_panel(study, claim, study.config.moderate, "generalisation")


def sparse_fig12(study):
    """Tr F along training of the convolutional net, optimisation regime.

    Effects: fig3's of that regime at each sparsity of ``high``, epoch ``middle``. Scope as fig11.
    """
    claim = "Sol-S's trace rises and hardly falls (high sparsity)"
    return net_panel(study, claim, study.config.high, "optimisation")


def net_panel(study, claim, sparsities, regime):
    """What fig11 and fig12 share."""
    effects = trends(study, "net", sparsities, regime, study.config.middle)
    return Panel(claim, effects, trace_axes(study, "net", sparsities), gate(study, "net"))


def sparse_table1(study):
    """Training error beside the trend of Tr F, from the runs of fig3, fig11 and fig12.

    Effects: points of training accuracy that Sol-S is behind Sol-F at the end: within 1 at the
    highest moderate sparsity ("near optimal"), least 1 at the highest of the high ones
    ("suboptimal"); and the fall of Sol-S's trace of those figures, least .1 and less than .1. For
    both nets. Scope as fig11; "reasons for the gap" are no measurement.
    """
    c, effects, axes = study.config, [], []
    rows = [
        ("teacher", c.small_moderate[-1], c.small_high[-1], c.small_middle),
        ("net", c.moderate[-1], c.high[-1], c.middle),
    ]
    for label, moderate, high, place in rows:
        lost = []
        for sparsity in (moderate, high):
            behind = track(study, label, f"finetuned {sparsity}", "train_accuracy")[1][:, -1]
            behind = behind - track(study, label, f"scratch {sparsity}", "train_accuracy")[1][:, -1]
            lost.append(behind)
        unit = f"points of training accuracy, F - S at {{}} ({label})"
        effects.append(Effect(unit.format(moderate), lost[0], within=sparse.POINT))
        effects.append(trends(study, label, [moderate], "generalisation", place)[1])
        effects.append(Effect(unit.format(high), lost[1], least=sparse.POINT))
        effects.append(trends(study, label, [high], "optimisation", place)[1])
        for arm in ("finetuned", "scratch"):
            axes.append(Axes(f"training accuracy (%), {label}, {sparse.NAMES[arm]}", [
                Curve(f"sparsity {s}", *track(study, label, f"{arm} {s}", "train_accuracy"))
                for s in (moderate, high)
            ]))
        axes.append(Axes(f"Tr F, {label}, Sol-S", [
            Curve(f"sparsity {s}", *track(study, label, f"scratch {s}")) for s in (moderate, high)
        ], log=True))
    return Panel(
        claim="near-optimal training error where the trace falls, suboptimal where it hardly does",
        effects=effects, axes=axes, gate=gate(study, "teacher") or gate(study, "net"),
    )


PANELS = [sparse_fig3, sparse_fig11, sparse_fig12, sparse_table1]


def prepare(study, seed, label):
    """(Dataset, Setup) of the net on the study's data, or of the small one on the teacher's."""
    c = study.config
    if label == "net":
        return sparse.prepare(study, seed)
    data = study.load_data(seed, "teacher").standardised().to(study.device)
    lr = step_decay(c.small_lr, c.factor, c.small_milestones)
    return data, sparse.setup_of(
        c, data, c.small_net, lr=lr, batch_size=c.small_batch, augment=None, weight_decay=0.0,
        optimizer=sparse.sgd(c.small_momentum),
    )


def plans(study):
    """label -> schedules."""
    c, made = study.config, {}
    if study.wants(sparse_fig3, sparse_table1):
        dense, later = c.small_epochs
        last = sparse.last_layer(prepare(study, study.seeds[0], "teacher")[1])
        made["teacher"] = sparse.solutions(
            c, last, [*c.small_moderate, *c.small_high], epochs=(dense, later),
            rates=(c.small_lr, c.small_milestones),
        )
    if study.wants(sparse_fig11, sparse_fig12, sparse_table1):
        last = sparse.last_layer(prepare(study, study.seeds[0], "net")[1])
        made["net"] = sparse.solutions(c, last, [*c.moderate, *c.high])
    return made


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    for run, epoch, state, names in study.sweep(prepare, plans(study)):
        start = dense_epochs(c, run.label)
        if epoch < start or (epoch > start + 10 and epoch % c.measure_every):
            continue
        x, y = (part[: c.fisher_examples] for part in run.data.train)
        draw = generator(x.device, run.seed, epoch, "fisher")
        model = batch_statistics(state.model, x)  # at all epochs alike: running ones lag behind
        trace = fisher_trace(model, x, c.labels, state.masks, draw)
        study.log.add(
            run.seed, names, epoch, fisher=trace.total, median=float(trace.per_example.median()),
            accuracy=accuracy(model, *run.data.test),
            train_accuracy=accuracy(model, *run.data.train),
        )
    study.finish()


if __name__ == "__main__":
    command_line(main)
