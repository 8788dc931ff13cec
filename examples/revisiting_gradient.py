"""Effective gradient along training ("Revisiting critical learning periods", sections
4.3, 4.4 and B.3).

fig3: normal training of VGG, ResNet and DeiT; fig4: with a deficit; fig6 to 8: other optimizers.
At quick scale these nets meet label noise, so that the stochastic gradient has noise to end at.
The paper projects on the vector to the mean of the ten snapshots with the best test accuracy; the
projection on the full gradient, which that replaces, is shown next to it. Snapshots go to disk, so
that memory stays bounded, and are measured when a unit's training is over. Findings 4 to 6 are rows
of their own; optimum_direction checks the approximation.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from clp_min.deficits import images, random_labels
from clp_min.gradients import flat_parameters, gradient_norms, optimum
from clp_min.models import parameter_count
from clp_min.schedule import Phase, distinct_epochs, phase_at
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import least, log_ratio, untrained
from clp_min.train import accuracy, batch_statistics, fresh_model
from clp_min.transformer import hard_distillation

import revisiting


@dataclass(frozen=True)
class Config(revisiting.Config):
    # ---- optimisation
    deit_lr: float = 0.05
    adam_lr: float = 0.001  # not stated; ours
    momentum_lr: float = 0.01  # "unless otherwise specified"; Nesterov's .9, and DeiT's rate: ours
    # ---- lengths and deficits
    epochs: int = 200  # of the VGG, with deficits and without
    other_epochs: int = 200  # of the other nets and optimizers, and of DeiT's teacher
    deit_epochs: int = 100
    redrawn: float = 0.0  # share of the labels redrawn each epoch in fig3, fig6 to 8; ours
    long_deficit: int = 50  # of a VGG: the net of fig4 is not stated; ours
    short_deficit: int = 25
    late_window: tuple = (50, 100)
    late_epochs: int = 200  # of the runs that a late deficit is judged by
    # ---- measuring
    every: int = 1  # epochs between two snapshots of the VGG's long runs
    batches: int = 8  # per epoch, whose gradients are projected; ours
    top: int = 10  # snapshots that make the optimum; at quick scale of 30 to 160, not of 200


CONFIGS = revisiting.configs(
    Config,
    quick=dict(
        deit_lr=0.2, adam_lr=0.002, momentum_lr=0.05, epochs=240, other_epochs=160, deit_epochs=160,
        long_deficit=120, short_deficit=104, late_window=(40, 60), late_epochs=160, every=8,
    ),
    smoke=dict(
        epochs=8, other_epochs=4, deit_epochs=4, redrawn=0.1, long_deficit=4, short_deficit=2,
        late_window=(2, 4), late_epochs=6, batches=2, top=2, every=1,
    ),
)
NORMAL = "vgg normal"
HALVED = float(np.log(2))  # a norm that falls so much within the deficit; ours
PRINTED_LATE = "0.17 points lost"
PRINTED = "4.92 points lost to 25 epochs", "5.78 points lost to 50 epochs"
PROJECTED = "norm of the projection on the full gradient"
COSINE = "cosine of optimum's direction and descent"


def revisiting_fig3(study):
    """Normal training, SGD: the stochastic gradient converges to its noise, the effective one
    approaches zero.

    Effects for VGG, ResNet and DeiT, logs of the first quarter of the epochs over the last, least
    .1 (10 %) each: of the effective gradient's mean norm; and of its share of the stochastic one's
    (any run that fits its training set passes the first). Scope: quick scale has no augmentation,
    so that both end near 0; ``--set redrawn=0.1`` draws a tenth of the labels anew every epoch.
    """
    return decline_panel(study, under(study.config, "sgd"), "in normal training")


def revisiting_fig6(study):
    """SGD with momentum 0.9. Rule and nets of fig3."""
    return decline_panel(study, under(study.config, "momentum"), "under momentum")


def revisiting_fig7(study):
    """SGD with Nesterov's momentum. Rule and nets of fig3."""
    return decline_panel(study, under(study.config, "nesterov"), "under Nesterov's momentum")


def revisiting_fig8(study):
    """Adam. Rule and nets of fig3."""
    return decline_panel(study, under(study.config, "adam"), "under Adam")


def under(c, optimizer):
    """Names of the three nets' normal runs under an optimizer; the VGG's long one where it is the
    same run."""
    same = optimizer == "sgd" and not c.redrawn and c.epochs == c.other_epochs
    names = [f"{net} {optimizer} normal" for net in ("vgg", "resnet", "deit")]
    return [NORMAL, *names[1:]] if same else names


def decline_panel(study, names, when):
    """What fig3 and fig6 to 8 share."""
    declines = [decline(study.results, name, "effective") for name in names]
    shares = [decline(study.results, name, "effective", "stochastic") for name in names]
    axes = gradient_axes(study.results, names)
    claim = f"the effective gradient declines {when}, more than the stochastic one"
    return Panel(claim, declines + shares, axes, normal_gate(study, names),
                 headline=least(declines))


def decline(results, name, key, over=None):
    """Effect: log (mean over the first quarter of the epochs / over the last quarter) of a norm, or
    of one as a share of another."""
    values, unit = quarters(results, name, key), f"log (first quarter / last quarter), {name}"
    if over:
        values, unit = values / quarters(results, name, over), unit + ", share of the stochastic"
    return Effect(unit, log_ratio(values[:, 0], values[:, 1]), least=revisiting.TENTH)


def quarters(results, name, key):
    """(seeds, 2): sums of a norm over the first and over the last quarter of the epochs."""
    values = results.values(key, name)
    quarter = max(values.shape[1] // 4, 1)
    return np.stack([values[:, :quarter].sum(1), values[:, -quarter:].sum(1)], 1)


def normal_gate(study, names=(NORMAL,)):
    """Why normal training shows nothing, if it does not."""
    return untrained([study.results.final("accuracy", name) for name in names], study.classes)


def revisiting_fig4a(study):
    """VGG, a long deficit at the start; against normal training of the same length.

    Effects: points lost, least 1; within the deficit, log of the effective gradient's mean norm in
    its first quarter over that in its last, least log 2: it "rapidly decreases and converges"; and
    in as many epochs after the deficit as it lasted, in logarithms, least .1 each: how much shorter
    it is than at the start of normal training, and how much smaller a share of the stochastic one
    than there. "The tallest green bar": log of the stochastic gradient's largest in
    the fifth of the deficit's length after it, over its largest at all other snapshots, least .1.
    Scope: shorter than at the start is not "converged to 0".
    """
    return early_deficit(study, study.config.long_deficit)


def revisiting_fig4b(study):
    """VGG, a shorter one, that just converges on the deficit's data. Rule of fig4a."""
    return early_deficit(study, study.config.short_deficit)


def early_deficit(study, length):
    """What fig4a and fig4b share."""
    name, results = f"vgg deficit 0-{length}", study.results
    return Panel(
        claim=f"{length} initial deficit epochs damage, and the effective gradient, short at their"
        " end, stays short after them",
        effects=[lost(study, name), falls(results, name, 0, length),
                 *shortness(results, name, length, length), tallest(results, name, length)],
        gate=normal_gate(study), printed=PRINTED[length == study.config.long_deficit],
        axes=gradient_axes(results, [name, NORMAL], spans=[[0, length]]),
    )


def tallest(results, name, length):
    """Effect: how much taller the stochastic gradient is just after the deficit than elsewhere."""
    epochs, norms = results.curve("stochastic", name)
    just = (np.array(epochs) >= length) & (np.array(epochs) < length + max(length // 5, 1))
    return Effect("log (stochastic gradient just after the deficit / elsewhere)",
                  log_ratio(norms[:, just].max(1), norms[:, ~just].max(1)), least=revisiting.TENTH)


def revisiting_fig4c(study):
    """VGG, a deficit after the critical period; against one of the same length at the start.

    Effects: finding6's three; in the window, fig4a's fall and its two logarithms; its onset, log of
    the stochastic gradient's mean norm in the window's first quarter over that in as many epochs
    before it, least log 2 ("sharply increased"); and the window's share of the epochs minus its
    share of the accumulated effective gradient, least .05 ("slight increase"). Scope: where the ten
    best snapshots lie before the window, as at quick scale, the "optimum" is the net before it, and
    within it the gradient is projected on the way back.
    """
    c, results = study.config, study.results
    start, end = c.late_window
    normal, early, late = late_runs(c)
    part = max((end - start) // 4, 1)
    parts = [mean_norm(results, "stochastic", late, at, part) for at in (start, start - part)]
    onset = Effect("log (stochastic gradient, onset / before)", log_ratio(*parts),
                   least=HALVED)
    inside = results.curve("effective", late, start, end - 1)[1].sum(1)
    share = inside / results.values("effective", late).sum(1)
    slight = Effect("share of the epochs - of the accumulated gradient",
                    (end - start) / c.late_epochs - share, least=0.05)
    fall = falls(results, late, start, end - start)
    short = shortness(results, late, start, end - start)
    effects = [*spares(study), fall, *short, onset, slight]
    axes = gradient_axes(results, [late, normal], spans=[[start, end]])
    return Panel(
        claim="a later deficit does little, its stochastic gradient jumps, and the effective one"
        " is short while it lasts",
        effects=effects, headline=lost(study, late), gate=normal_gate(study, [normal]),
        axes=[*axes, lost_axes(study, [early, late])], printed=PRINTED_LATE,
    )


def late_runs(c):
    """Names of a normal run, of one with an early deficit, and of one with a late deficit of the
    same length; of the VGG's long runs where they have that many epochs."""
    start, end = c.late_window
    label = "vgg" if c.late_epochs == c.epochs else "vgg late"
    windows = f"deficit 0-{end - start}", f"deficit {start}-{end}"
    return [f"{label} {word}" for word in ("normal", *windows)]


def spares(study):
    """Effects: a quarter of the points lost to the early deficit minus those lost to the late one,
    the points lost to the former, and to the latter."""
    _, early, late = late_runs(study.config)
    loss = lost(study, early, "points lost to " + early[early.index("deficit"):])
    few = Effect("points lost to the late one", lost(study, late).values, within=revisiting.POINT,
                 step=study.step())
    rule = dict(least=revisiting.POINT / 4, step=study.step() / 4)
    return [Effect("points (early / 4 - late)", loss.values / 4 - few.values, **rule), loss, few]


def normal_of(name):
    """Name of the normal run beside a run with a deficit."""
    return name.partition(" deficit")[0] + " normal"


def lost(study, name, unit="points of accuracy lost"):
    """Effect: accuracy lost to a schedule, against normal training of the same length."""
    normal, other = (study.results.final("accuracy", one) for one in (normal_of(name), name))
    return Effect(unit, normal - other, least=revisiting.POINT, step=study.step())


def mean_norm(results, key, name, start, length):
    """(seeds,): mean of a norm over the snapshots from epoch ``start`` on, for ``length``
    epochs."""
    return results.curve(key, name, start, start + length - 1)[1].mean(1)


def falls(results, name, start, length):
    """Effect: how much the effective gradient falls within a deficit."""
    part = max(length // 4, 1)
    parts = [mean_norm(results, "effective", name, start + at, part) for at in (0, length - part)]
    unit = f"log (first quarter of the deficit / last), {length} epochs"
    return Effect(unit, log_ratio(*parts), least=HALVED)


def shortness(results, name, start, length):
    """Effects: how short the effective gradient is over ``length`` epochs from
    ``start`` on, in logs.

    Its mean norm, and its share of the stochastic gradient, against those of as many epochs at the
    start of normal training, which learns too. The first alone would also hold for any net that
    has trained for a while.
    """
    first, then = (
        [mean_norm(results, key, run, at, length) for key in ("effective", "stochastic")]
        for run, at in ((normal_of(name), 0), (name, start))
    )
    shares = log_ratio(first[0] / first[1], then[0] / then[1])
    units = "start of normal training / then", "share of the stochastic gradient, start / then"
    pairs = zip(units, (log_ratio(first[0], then[0]), shares))
    return [Effect(f"log ({unit})", values, least=revisiting.TENTH) for unit, values in pairs]


def revisiting_finding4(study):
    """Finding 4: the effective gradient is large at the beginning, and vanishes.

    Effects for all three nets: fig3's two; and the share of the accumulated effective gradient that
    the first quarter of the epochs brings, less a half, least .05 ("a rapid increase initially,
    followed by a plateau"). Scope as fig3.
    """
    results, nets = study.results, under(study.config, "sgd")
    effects = [decline(results, name, "effective") for name in nets]
    effects += [decline(results, name, "effective", "stochastic") for name in nets]
    for name in nets:
        total = accumulated(results.values("effective", name))
        early = total[:, max(total.shape[1] // 4, 1) - 1]
        effects.append(Effect(f"of the whole in the first quarter, less .5, {name}", early - 0.5,
                              least=0.05))
    return Panel(
        "the effective gradient is large in the first epochs and vanishes after them", effects,
        gradient_axes(results, nets), normal_gate(study, nets), headline=least(effects[:3]),
    )


def revisiting_optimum_direction(study):
    """A check of the paper's approximation, not a finding of it: is the vector to the mean of the
    ten best snapshots a direction of descent, and does the projection on the full gradient
    (Definition 1) decline too?

    Effects for all three nets: cosine between that vector and the negative full gradient, mean over
    the epochs before the first of the ten best, after which it points backwards by construction,
    least .1 (.01 would be certain and say nothing); and decline of the projection, as fig3. Scope
    of fig3: with ``redrawn`` the full gradient is that of one draw of the labels.
    """
    results, nets = study.results, under(study.config, "sgd")
    declines = [decline(results, name, "on_full") for name in nets]
    means = [before_the_best(results, name) for name in nets]
    cosines = [Effect(f"cosine, {name}", mean, least=0.1) for name, mean in zip(nets, means)]
    curves = [[Curve(n, *results.curve(key, n)) for n in nets] for key in ("on_full", "cosine")]
    return Panel(
        claim="the way to the optimum is one of descent, and the projection on the full gradient"
        " declines",
        effects=cosines + declines, headline=least(cosines), gate=normal_gate(study, nets),
        axes=[
            Axes(PROJECTED, curves[0], log=True), Axes(COSINE, curves[1]),
            Axes("mean cosine before the best snapshots", [
                Curve("mean", [name.split()[0] for name in nets], np.stack(means, 1))
            ], x="", kind="bar"),
        ],
    )


def before_the_best(results, name):
    """(seeds,): mean cosine over the epochs before the first of a seed's best snapshots."""
    epochs, cosines = results.curve("cosine", name)
    first = np.maximum(results.final("first_best", name), epochs[0] + 1)
    inside = np.array(epochs) < first[:, None]
    return (cosines * inside).sum(1) / inside.sum(1)


def revisiting_finding5(study):
    """Finding 5: effective gradients stay deteriorated after an early deficit, which impairs.

    Effects: all of fig4a and fig4b. Scope of fig4a.
    """
    results, effects, curves = study.results, [], []
    lengths = study.config.short_deficit, study.config.long_deficit
    names = [f"vgg deficit 0-{length}" for length in lengths]
    for name, length in zip(names, lengths):
        short = shortness(results, name, length, length)
        effects.append(lost(study, name, f"points lost to {length} epochs"))
        effects.append(falls(results, name, 0, length))
        more = [*short, tallest(results, name, length)]
        effects += [replace(e, unit=f"{e.unit}, {length} epochs") for e in more]
        values = np.stack([effect.values for effect in short], 1)
        curves.append(Curve(f"{length} epochs", ["start / then", "share"], values))
    shorter = Axes("log, normal / deficit (positive: shorter)", curves, "", kind="bar")
    norms = [Curve(name.removeprefix("vgg "), *results.curve("effective", name)) for name in names]
    claim = "after an early deficit the effective gradient does not recover, and accuracy is lost"
    drawn = Axes("norm of the effective gradient", norms, log=True)
    axes = [lost_axes(study, names), shorter, drawn]
    return Panel(claim, effects, axes, normal_gate(study), printed="; ".join(PRINTED))


def revisiting_finding6(study):
    """Finding 6: a deficit after the critical period leaves no permanent impairment.

    Effects: a quarter of the points lost to an early deficit of the same length minus those lost
    to the late one, least .25; the points of the former, least 1, and of the latter, within 1.
    Scope: the settings' window, which begins when normal training has converged.
    """
    normal, *deficits = late_runs(study.config)
    return Panel(
        "a deficit after the critical period leaves no lasting damage", spares(study),
        [lost_axes(study, deficits)], normal_gate(study, [normal]), printed=PRINTED_LATE,
    )


# ---- what is drawn


def lost_axes(study, names):
    """Accuracy lost in several schedules, as bars."""
    values = np.stack([lost(study, name).values for name in names], 1)
    labels = [name[name.index("deficit"):] for name in names]
    return Axes("accuracy lost (points)", [Curve("drop", labels, values)], x="schedule", kind="bar")


def gradient_axes(results, names, spans=()):
    """Norms, accumulated norms, cosine and accuracy; of two schedules the normal one dashed."""

    def curves(**keys):
        made = []
        for name in names:
            style = "dashed" if name.endswith("normal") and len(names) == 2 else "line"
            schedule = name.removeprefix("vgg ").removeprefix("late ")
            run = ("", schedule, name.removesuffix(" normal"))[len(names) - 1]
            for key, label in keys.items():
                x, values = results.curve(key.removesuffix("_sum"), name)
                values = accumulated(values) if key.endswith("_sum") else values
                words = ": ".join(word for word in (run, label) if word)
                made.append(Curve(words, x, values, style))
        return made

    norms = dict(stochastic="stochastic", effective="effective")
    sums = dict(effective_sum="to the optimum", on_full_sum="on the full gradient")
    full = dict(on_full="projected on the full gradient", full="full gradient")
    return [
        Axes("norm of the gradient", curves(**norms), log=True, spans=spans),
        Axes("accumulated, share of its end", curves(**sums), spans=spans),
        Axes(COSINE, curves(cosine=""), spans=spans),
        Axes("test accuracy (%)", curves(accuracy=""), spans=spans),
        Axes(PROJECTED, curves(**full), log=True, spans=spans, figure="full_gradient"),
    ]


def accumulated(values):
    """Running sums (seeds, epochs) as a share of the total."""
    total = values.cumsum(1)
    return total / total[:, -1:]


PANELS = [
    revisiting_fig3, revisiting_fig4a, revisiting_fig4b, revisiting_fig4c, revisiting_fig6,
    revisiting_fig7, revisiting_fig8, revisiting_finding4, revisiting_optimum_direction,
    revisiting_finding5, revisiting_finding6,
]

# the panels that need the three nets under an optimizer
OPTIMIZERS = dict(
    sgd=(revisiting_fig3, revisiting_finding4, revisiting_optimum_direction),
    momentum=(revisiting_fig6,), nesterov=(revisiting_fig7,), adam=(revisiting_fig8,),
)

# ---- what is trained


def schedules(study):
    """label -> (name -> phases) of every sweep of a seed."""
    c, blur = study.config, images(study.config.blur)

    def runs(epochs, *windows):
        deficits = {
            f"deficit {a}-{b}": [Phase(a), Phase(b - a, blur), Phase(epochs - b)]
            for a, b in windows
        }
        return {"normal": [Phase(epochs)]} | deficits

    (start, end), late = c.late_window, (revisiting_fig4c, revisiting_finding6)
    noise = partial(redrawn_labels, c.redrawn) if c.redrawn else None
    plans = {}
    if study.wants(revisiting_fig4a, revisiting_fig4b, revisiting_finding5):
        plans["vgg"] = runs(c.epochs, (0, c.long_deficit), (0, c.short_deficit))
    if study.wants(*late):
        label = late_runs(c)[0].removesuffix(" normal")
        made = runs(c.late_epochs, (0, end - start), (start, end))
        plans[label] = plans.get(label, {}) | made
    for optimizer, panels in OPTIMIZERS.items():
        for name in under(c, optimizer) if study.wants(*panels) else ():
            label = name.removesuffix(" normal")
            length = c.deit_epochs if label.startswith("deit") else c.other_epochs
            plans[label] = plans.get(label, {}) | {"normal": [Phase(length, noise)]}
    return plans


def redrawn_labels(fraction, x, y, generator):
    """Phase deficit: about this share of the labels, anew each epoch, is that of another example,
    drawn at random."""
    noisy = torch.rand(len(y), device=y.device, generator=generator) < fraction
    return x, torch.where(noisy, random_labels(y, generator), y)


def prepare(study, seed, label):
    """(Dataset, Setup) of one sweep; DeiT's teacher is added when it is trained."""
    c, sgd, (net, *other) = study.config, torch.optim.SGD, label.split()
    optimizers = {
        "momentum": (c.momentum_lr, partial(sgd, momentum=0.9)),
        "nesterov": (c.momentum_lr, partial(sgd, momentum=0.9, nesterov=True)),
        "adam": (c.adam_lr, torch.optim.Adam),
    }
    own = (c.deit_lr if net == "deit" else c.lr, sgd)
    return revisiting.prepare(study, seed, net, *optimizers.get(" ".join(other), own))


def distillation_loss(study, unit):
    """DeiT's loss, from a teacher: the VGG after ``other_epochs`` on true labels, as a VGG of the
    study has it at that epoch; trained here, so that units stay independent."""
    data, setup = revisiting.prepare(study, unit.seed, "vgg")
    setup = study.asked(setup)
    name, epochs = f"{unit.label} teacher", study.config.other_epochs
    teacher, plan = fresh_model(setup, unit.seed, "init"), {"normal": [Phase(epochs)]}
    taught = replace(unit, label=name, schedules=plan, data=data, setup=setup)
    for epoch, state, _ in study.work.trained(taught):
        if epoch == epochs:
            study.keep(unit.seed, name, state)
    teacher.load_state_dict(study.kept(unit.seed, name)["model"])
    return hard_distillation(teacher)


# ---- what is measured


def measure(study, unit, model, phases, epoch, direction):
    """Norms at one snapshot, on the data of the next epoch's phase, over ``batches`` batches.

    Gradients of the mean cross-entropy, with the batch statistics of these batches, without
    augmentation or distillation: the training step's own differ by those.
    """
    setup, phase = unit.setup, phase_at(phases, epoch)
    g = generator(setup.x.device, unit.seed, epoch, "batches")
    x, y = (setup.x, setup.y) if phase.deficit is None else phase.deficit(setup.x, setup.y, g)
    order = torch.randperm(len(x), device=x.device, generator=g)
    batches = order.split(setup.batch_size)[: study.config.batches]
    model = batch_statistics(model, x[torch.cat(batches)])  # running ones lag behind at first
    return gradient_norms(model, x, y, batches, direction)


def measure_schedule(study, unit, schedule):
    """Second stage: the optimum of a schedule's best snapshots, then all snapshots against it.
    Once: the snapshots are dropped after it."""
    log, name, top = study.log, unit.name(schedule), study.config.top
    if log.series(unit.seed, name, "measured")[0]:
        return
    model = fresh_model(unit.setup, unit.seed, "init")
    epochs, snapshots = log.series(unit.seed, name, "snapshot")
    correct = log.series(unit.seed, name, "accuracy")[1]

    def weights(snapshot):
        model.load_state_dict(study.kept(unit.seed, snapshot)["model"])
        return flat_parameters(model)

    best = sorted(range(len(epochs)), key=lambda i: (-correct[i], i))[:top]
    log.add(unit.seed, [name], 0, first_best=epochs[min(best)])
    goal = optimum([weights(snapshots[i]) for i in best], [correct[i] for i in best], top)
    for epoch, snapshot in list(zip(epochs, snapshots))[:-1]:
        direction = goal - weights(snapshot)  # the model now holds the snapshot's weights
        values = measure(study, unit, model, unit.schedules[schedule], epoch, direction)
        log.add(unit.seed, [name], epoch, **values)
    log.add(unit.seed, [name], 0, measured=1)


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, plans = study.config, schedules(study)
    # what it costs: snapshots of one unit at a time, and DeiT's teacher
    setups = {label: prepare(study, study.seeds[0], label)[1] for label in plans}
    sizes = {label: parameter_count(setup.model()) * 4 / 1e9 for label, setup in setups.items()}
    disk = max(distinct_epochs(plan) * sizes[label] for label, plan in plans.items())
    teacher = prepare(study, study.seeds[0], "vgg")[1], c.other_epochs
    taught = {label: teacher for label in plans if label.startswith("deit")}
    for unit in study.units(prepare, plans, disk, taught):
        if unit.label in taught:
            loss = distillation_loss(study, unit)
            unit = replace(unit, setup=replace(unit.setup, loss=loss))
        # first stage: train, keep snapshots
        for epoch, state, names in study.work.trained(unit):
            if unit.label == "vgg" and epoch % c.every and epoch < c.epochs:
                continue
            snapshot, correct = f"{names[0]} {epoch}", accuracy(state.model, *unit.data.test)
            study.keep(unit.seed, snapshot, state)
            study.log.add(unit.seed, names, epoch, accuracy=correct, snapshot=snapshot)
        # second stage: measure them
        for schedule in unit.schedules:
            measure_schedule(study, unit, schedule)
        for schedule in unit.schedules:  # they may share snapshots
            for snapshot in study.log.series(unit.seed, unit.name(schedule), "snapshot")[1]:
                study.drop(unit.seed, snapshot)
    study.finish()


if __name__ == "__main__":
    command_line(main)
