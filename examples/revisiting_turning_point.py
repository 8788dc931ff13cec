"""Where does the damage stop growing? ("Revisiting critical learning periods", section 5.)

The paper: the duration of the initial deficit at which the impairment turns is the epoch at which training converges on the deficit's data,
no boundary of a critical period. Blur for d epochs, then the same number of sharp epochs; beside it the training loss on blurred images.
"""

import math
from dataclasses import replace

import common
import revisiting
import running
import verdicts
from clp_min.deficits import images
from clp_min.record import headline
from clp_min.schedule import Phase
from clp_min.train import accuracy

# the turn of a curve is noisy: more seeds than the other scripts
CONFIGS = {key: replace(config, seeds=6) if key[1] == "quick" else config for key, config in revisiting.CONFIGS.items()}
SHARES = (0.2, 0.05, 0.01)  # of log(classes), under which the training loss counts as converged; the middle one decides


def convergence(run, seed, share):
    """First epoch whose mean training loss on blurred data is below ``share`` of log(classes); nan if there is none."""
    epochs, losses = run.log.series(seed, f"blur {run.config.turning_durations[-1]}", "loss")
    return next((e for e, loss in zip(epochs, losses) if loss < share * math.log(run.classes)), math.nan)


def revisiting_turning_point(run):
    """Impairment against the duration of the deficit, and the training loss on blurred data.

    Turning point: a seed's first duration within 5 % of its largest impairment. Convergence: its first epoch with training loss < 5 % of
    log(classes). Verdict: "reproduced" if the impairment is > 5 points and > 3 standard errors where the other seeds' is largest, every
    seed's turning point lies inside the grid, and log2(turning point / convergence) is within ±1, its three standard errors included,
    over >= 3 seeds: they agree to a factor of two.
    """
    durations, log = run.config.turning_durations, run.log
    lost = [[log.last(s, "blur 0", "accuracy") - log.last(s, f"blur {d}", "accuracy") for d in durations] for s in run.seeds]
    turns = [durations[i] for i in map(verdicts.saturation, lost)]
    reached = {share: [convergence(run, s, share) for s in run.seeds] for share in SHARES}
    effect = headline([math.log2(max(t, 1) / e) for t, e in zip(turns, reached[SHARES[1]])], "log2 (turning / convergence)")
    largest = headline(verdicts.peak(lost)[1], "points of accuracy lost")
    inside = all(0 < t < durations[-1] for t in turns)
    near = abs(effect["mean"]) + 3 * effect["standard_error"] < 1
    verdict = verdicts.verdict(largest, least=5.0)
    epochs, losses = zip(*(log.series(s, f"blur {durations[-1]}", "loss") for s in run.seeds))
    at = ", ".join(
        f"{100 * share:g} % of log(classes) " + (f"at {sum(e) / len(e):.0f}" if math.isfinite(sum(e)) else "not in every seed")
        for share, e in reached.items()
    )
    converged = math.isfinite(effect["mean"])
    return {
        "claim": "the damage stops growing when training on blurred images has converged",
        "headline": effect if converged else largest,
        "verdict": verdict if verdict != "reproduced" or inside and near else "not reproduced",
        "finding": f"the loss of accuracy ({verdicts.say(largest)} at most) turns at {sum(turns) / len(turns):.0f} blurred epochs;"
        f" epoch at which the blurred training loss falls under {at}"
        + (f"; {verdicts.say(effect)} for {100 * SHARES[1]:g} %" if converged else "; no verdict on where without convergence"),
        "series": [
            {"label": "blurred, then sharp", "x": durations, "y": "accuracy lost (points)", "values": lost},
            {
                "label": f"blurred for {durations[-1]} epochs",
                "x": epochs[0],
                "y": "training loss on blurred images (nats)",
                "values": losses,
            },
        ],
        "figure": {"x": "blurred epochs at the start", "log": ["training loss on blurred images (nats)"]},
    }


PANELS = [revisiting_turning_point]


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, CONFIGS, argv)
    config, blur = run.config, images(run.config.blur)
    plan = {f"blur {d}": [Phase(d, blur), Phase(config.recovery)] for d in config.turning_durations}
    ends, longest = {d + config.recovery for d in config.turning_durations}, config.turning_durations[-1]
    dataset = revisiting.prepare(run, 0)
    run.classes = dataset.classes
    running.announce(run, {"vgg": (revisiting.make_setup(run, dataset, config.vgg, config.lr), plan)})
    for seed, label, schedules in running.units(run):
        dataset = revisiting.prepare(run, seed)
        setup = revisiting.make_setup(run, dataset, config.vgg, config.lr)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            values = {"accuracy": accuracy(state.model, *dataset.test)} if epoch in ends else {}
            if 0 < epoch <= longest and f"blur {longest}" in names:
                values["loss"] = state.loss
            run.log.add(seed, names, epoch, **values)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
