"""Where does the damage stop growing? ("Revisiting critical learning periods", section 5.)

The paper: the duration of the initial deficit at which the impairment turns is the epoch at which
training converges on the deficit's data, no boundary of a critical period. Blur for d epochs, then
the same number of sharp epochs; beside it the training loss on blurred images.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from clp_min.deficits import images
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import saturation, untrained
from clp_min.train import accuracy

import revisiting


@dataclass(frozen=True)
class Config(revisiting.Config):
    durations: tuple = (0, 10, 20, 30, 40, 50, 60, 80, 120)  # epochs of blur; not stated; ours
    recovery: int = 160  # sharp epochs after it; not stated; ours


CONFIGS = revisiting.configs(
    Config,
    quick=dict(durations=(0, 10, 20, 40, 60, 80, 120, 160, 240), recovery=20),
    smoke=dict(durations=(0, 1, 2), recovery=2),
)
SHARES = (0.2, 0.05, 0.01)  # of log(classes): converged below it; the middle one decides


def revisiting_turning_point(study):
    """Impairment against the duration of the deficit, and the training loss on blurred data.

    Turning point: a seed's first duration within 5 % of its largest impairment. Convergence: its
    first epoch with a training loss below 5 % of log(classes). Effects: log2(turning point /
    convergence), within 1: they agree to a factor of two; points lost to the longest deficit, least
    5; log2(longest / turning point), least .25: the turn lies inside the grid. Control: training on
    blurred images converges in every seed. Scope: one learning rate and blur; both places may share
    another cause.
    """
    c, results = study.config, study.results
    correct = results.final("accuracy", [f"blur {d}" for d in c.durations])
    lost = correct[:, :1] - correct  # (seeds, durations)
    turns = np.maximum([c.durations[saturation(row)] for row in lost], 1)
    loss = Curve("longest deficit", *results.curve("loss", f"blur {c.durations[-1]}"))
    reached = {share: convergence(loss, share * math.log(study.classes)) for share in SHARES}
    ratio = np.log2(turns / np.maximum(reached[SHARES[1]], 1))
    together = Effect("log2 (turning / convergence)", ratio, within=1.0, step=0.5)
    rule = dict(least=revisiting.DAMAGE, step=study.step())
    largest = Effect("points of accuracy lost", lost[:, -1], **rule)
    before_end = np.log2(c.durations[-1] / turns)
    inside = Effect("log2 (longest / turning)", before_end, least=0.25, step=0.5)
    converged = np.isfinite(reached[SHARES[1]]).all()
    gate = "" if converged else "training on blurred images does not converge"
    mean = {share: epochs.mean() for share, epochs in reached.items()}
    at = ", ".join(f"{epoch:.0f} ({100 * share:g} %)" for share, epoch in mean.items())
    spent = Curve("blurred, then sharp", c.durations, lost)
    return Panel(
        claim="the damage stops growing when training on blurred images has converged",
        effects=[together, largest, inside], headline=together if converged else largest,
        gate=gate or untrained(correct[:, 0], study.classes),
        finding=f"{largest} to the longest; the damage stops growing at {turns.mean():.0f} blurred"
        f" epochs, their training loss falls below a share of log(classes) at {at}; {together}",
        axes=[
            Axes("accuracy lost (points)", [spent], x="blurred epochs at the start"),
            Axes("training loss on blurred images (nats)", [loss], log=True),
        ],
        caption=f"{c.recovery} sharp epochs after every blur",
    )


def convergence(loss, bar):
    """(seeds,): first epoch with a loss below ``bar``; nan if there is none."""
    below = loss.values < bar
    first = np.array(loss.x)[below.argmax(1)].astype(float)
    return np.where(below.any(1), first, math.nan)


PANELS = [revisiting_turning_point]


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c, blur = study.config, images(study.config.blur)
    schedules = {f"blur {d}": [Phase(d, blur), Phase(c.recovery)] for d in c.durations}
    ends, longest = {d + c.recovery for d in c.durations}, c.durations[-1]
    prepare = partial(revisiting.prepare, net="vgg")
    for run, epoch, state, names in study.sweep(prepare, schedules):
        if epoch in ends:
            correct = accuracy(state.model, *run.data.test)
            study.log.add(run.seed, names, epoch, accuracy=correct)
        if 0 < epoch <= longest and f"blur {longest}" in names:
            study.log.add(run.seed, names, epoch, loss=state.loss)
    study.finish()


if __name__ == "__main__":
    command_line(main)
