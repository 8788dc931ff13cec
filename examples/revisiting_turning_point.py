"""Where does the damage stop growing, and is earlier always worse? ("Revisiting critical learning
periods", section 5.)

turning_point: the duration of the initial deficit at which the impairment turns is the epoch at
which training converges on the deficit's data, no boundary of a critical period. Blur for d epochs,
then the same number of sharp ones; beside it the training loss on blurred images; two nets at two
rates, which move the convergence. section5: a window of blur at different onsets, constant rate.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import math
from dataclasses import dataclass

import numpy as np

from clp_min.deficits import images
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import not_worse, rank_correlation, saturation, untrained
from clp_min.train import accuracy

import revisiting


@dataclass(frozen=True)
class Config(revisiting.Config):
    durations: tuple = (0, 10, 20, 30, 40, 50, 60, 80, 120)  # epochs of blur; not stated; ours
    recovery: int = 160  # sharp epochs after it; not stated; ours
    faster: float = 2.0  # the second rate, over the first; ours
    # ---- section5
    window: int = 40  # epochs of blur; not stated; ours
    onsets: tuple = (0, 10, 20, 40, 80, 120)  # not stated; ours
    clean: int = 160  # sharp epochs after the window; not stated; ours


CONFIGS = revisiting.configs(
    Config,
    quick=dict(
        durations=(0, 10, 20, 30, 40, 60, 80, 120, 160, 240), recovery=20,
        window=20, onsets=(0, 2, 5, 10, 20, 40), clean=40,
    ),
    smoke=dict(durations=(0, 1, 2), recovery=2, window=1, onsets=(0, 1), clean=1),
)
NETS, RATES = ("vgg", "resnet"), ("", "faster")
SHARES = (0.2, 0.05, 0.01)  # of log(classes): converged below it; the middle one decides


def revisiting_turning_point(study):
    """Impairment against the duration of the deficit, and the training loss on blurred data; VGG
    and ResNet, each at two learning rates.

    Turning point: a seed's first duration within 5 % of its largest impairment. Convergence: its
    first epoch with a training loss below 5 % of log(classes). Effects, for each net and rate:
    log2(turning point / convergence), within 1: they agree to a factor of two; points lost to the
    longest deficit, least 5; log2(longest / turning point), least .25: the turn lies inside the
    grid. For each net: doublings by which the faster rate brings the convergence forward, and the
    turning point, least .25 each: where the one goes, the other goes. Control: training on blurred
    images converges in every seed. Scope: one blur; both places may share another cause.
    """
    c, effects, moved, said, curves, losses, faults = study.config, [], [], [], [], [], []
    for net in NETS:
        turns, converges = {}, {}
        for rate in RATES:
            label = f"{net} {rate}".strip()
            correct = study.results.final("accuracy", [f"{label} blur {d}" for d in c.durations])
            lost = correct[:, :1] - correct  # (seeds, durations)
            loss = Curve(label, *study.results.curve("loss", f"{label} blur {c.durations[-1]}"))
            curves.append(Curve(label, c.durations, lost))
            losses.append(loss)
            # both places
            turns[rate] = np.maximum([c.durations[saturation(row)] for row in lost], 1)
            reached = {s: convergence(loss, s * math.log(study.classes)) for s in SHARES}
            converges[rate] = np.maximum(reached[SHARES[1]], 1)
            effects += agreement(study, label, lost[:, -1], turns[rate], converges[rate])
            faults.append(untrained(correct[:, 0], study.classes))
            if not np.isfinite(converges[rate]).all():
                faults.append(f"training on blurred images does not converge ({label})")
            at = ", ".join(f"{e.mean():.0f} ({100 * s:g} %)" for s, e in reached.items())
            said.append(f"{label}: turns at {turns[rate].mean():.0f}, converges at {at}")
        for what, place in (("convergence", converges), ("turning point", turns)):
            unit = f"doublings by which the {what} is earlier at the faster rate, {net}"
            earlier = np.log2(place[""] / place["faster"])
            moved.append(Effect(unit, earlier, least=0.25, step=0.5 * (what == "turning point")))
    return Panel(
        claim="the damage stops growing when training on blurred images has converged",
        effects=effects + moved, gate=next(filter(None, faults), ""),
        finding="; ".join(map(str, [*said, *effects[::3], *moved])),
        axes=[
            Axes("accuracy lost (points)", curves, x="blurred epochs at the start"),
            Axes("training loss on blurred images (nats)", losses, log=True),
        ],
        caption=f"{c.recovery} sharp epochs after every blur; faster: rate x{c.faster:g}",
    )


def agreement(study, label, lost, turn, reached):
    """Effects of one net and rate: the two places agree, there is damage, the turn is inside the
    grid."""
    longest = study.config.durations[-1]
    together, inside = np.log2(turn / reached), np.log2(longest / turn)
    return [
        Effect(f"log2 (turning / convergence), {label}", together, within=1.0, step=0.5),
        Effect(f"points of accuracy lost, {label}", lost, least=revisiting.DAMAGE,
               step=study.step()),
        Effect(f"log2 (longest / turning), {label}", inside, least=0.25, step=0.5),
    ]


def revisiting_section5(study):
    """"Always more important": a window of blur costs the more the earlier it comes (VGG).

    Effects: minus the rank correlation of cost and onset, per seed, least .5; points that the first
    window costs more than the last, least 1; and each window against the next: at most a point
    less (the difference plus 2, least 1). Scope: onsets of this grid, constant rate.
    """
    c, results = study.config, study.results
    sharp = results.at("accuracy", "windows sharp", [t + c.window + c.clean for t in c.onsets])
    lost = sharp - results.final("accuracy", [f"windows window {t}" for t in c.onsets])
    rule = dict(least=revisiting.POINT, step=study.step())
    effects = [
        Effect("minus the rank correlation of cost and onset", -rank_correlation(lost), least=0.5),
        Effect("points, the first window less the last", lost[:, 0] - lost[:, -1], **rule),
    ]
    effects += [
        not_worse(f"points, onset {a} less {b}", more, revisiting.POINT, study.step())
        for a, b, more in zip(c.onsets, c.onsets[1:], -np.diff(lost, axis=1).T)
    ]
    costs = ", ".join(f"onset {t}: {Effect('points', v)}" for t, v in zip(c.onsets, lost.T))
    y = f"accuracy lost to {c.window} blurred epochs (points)"
    return Panel(
        claim="an earlier window always costs more than a later one", effects=effects,
        gate=untrained(results.final("accuracy", "windows sharp"), study.classes),
        finding=f"{effects[0]}; {effects[1]}; {costs}",
        axes=[Axes(y, [Curve("against all sharp, same total", c.onsets, lost)],
                   x="epoch at which the window begins")],
        caption=f"{c.clean} sharp epochs after every window",
    )


def convergence(loss, bar):
    """(seeds,): first epoch with a loss below ``bar``; nan if there is none."""
    below = loss.values < bar
    first = np.array(loss.x)[below.argmax(1)].astype(float)
    return np.where(below.any(1), first, math.nan)


PANELS = [revisiting_turning_point, revisiting_section5]


def prepare(study, seed, label):
    """(Dataset, Setup) of one net and rate; "windows": those of section5."""
    c, (net, *rate) = study.config, label.split()
    net = "vgg" if label == "windows" else net
    return revisiting.prepare(study, seed, net, c.lr * (c.faster if rate else 1.0))


def schedules(study):
    """label -> name -> phases; what begins alike is trained once."""
    c, blur, plans = study.config, images(study.config.blur), {}
    if study.wants(revisiting_turning_point):
        plan = {f"blur {d}": [Phase(d, blur), Phase(c.recovery)] for d in c.durations}
        plans |= {f"{net} {rate}".strip(): plan for net in NETS for rate in RATES}
    if study.wants(revisiting_section5):
        plan = {f"window {t}": [Phase(t), Phase(c.window, blur), Phase(c.clean)] for t in c.onsets}
        plans["windows"] = plan | {"sharp": [Phase(max(c.onsets) + c.window + c.clean)]}
    return plans


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, longest = study.config, study.config.durations[-1]
    turns = {d + c.recovery for d in c.durations}
    windows = {t + c.window + c.clean for t in c.onsets}
    for run, epoch, state, names in study.sweep(prepare, schedules(study)):
        if epoch in (windows if run.label == "windows" else turns):
            correct = accuracy(state.model, *run.data.test)
            study.log.add(run.seed, names, epoch, accuracy=correct)
        followed = [name for name in names if name.endswith(f"blur {longest}")]
        if 0 < epoch <= longest and followed:
            study.log.add(run.seed, followed, epoch, loss=state.loss)
    study.finish()


if __name__ == "__main__":
    command_line(main)
