"""The main job: a critical learning period in one command (Achille et al. 2018).

A network is trained on blurred images for a while, then on sharp ones for the same number of epochs whatever came before. If the blur
stays long enough, accuracy does not recover. Controls: an all-sharp run of the same total length (achille_matched) and a learning rate
that starts again when the blur ends (achille_restart). achille_fisher follows the trace of the Fisher information.
"""

import math

import achille
import common
import torch
import running
import verdicts
from clp_min.deficits import images
from clp_min.fisher import fisher_trace
from clp_min.plot import contact_sheet
from clp_min.record import headline
from clp_min.schedule import Phase, restart_learning_rate
from clp_min.seeding import generator
from clp_min.train import accuracy, current_data


def achille_blur(run):
    """Final test accuracy against the epoch at which the blur is removed; the same number of sharp epochs follows.

    Verdict: the drop of the longest deficit, paired by seed, against no deficit: "reproduced" if > 5 points and > 3 standard errors over
    >= 3 seeds and no shorter deficit costs more than the next longer one (means).
    """
    config = run.config
    names = [f"blur {d}" for d in config.removals]
    lost = achille.drops(run, names, "blur 0")
    effect = headline(lost[names[-1]], "points of accuracy lost")
    means = [headline(lost[name], "")["mean"] for name in names]
    verdict = verdicts.verdict(effect, 5.0)
    if verdict == "reproduced" and any(b < a for a, b in zip(means, means[1:])):
        verdict = "not reproduced"
    values = [[run.log.last(seed, name, "accuracy") for name in names] for seed in run.seeds]
    control = headline([row[0] for row in values], "%")
    return {
        "claim": "blur that is removed late leaves a permanent loss of accuracy",
        "headline": effect,
        "verdict": verdict,
        "finding": f"{config.removals[-1]} blurred epochs cost {verdicts.say(effect)} after {config.clean} sharp epochs each"
        f" (undamaged: {verdicts.say(control)})",
        "series": [
            {"label": f"{config.clean} sharp epochs after the blur", "x": config.removals, "y": "final test accuracy (%)", "values": values}
        ],
        "figure": {"x": "epoch at which the blur is removed"},
    }


def achille_matched(run):
    """achille_blur against an all-sharp run of the same TOTAL number of epochs: over-fitting alone lowers accuracy too.

    Verdict: the rule of achille_blur (> 5 points, > 3 standard errors, >= 3 seeds) for the longest deficit's drop against that run.
    """
    config, log = run.config, run.log
    blurred = [[log.last(s, f"blur {d}", "accuracy") for d in config.removals] for s in run.seeds]
    matched = [[log.at(s, "matched", d + config.clean, "accuracy") for d in config.removals] for s in run.seeds]
    effect = headline([m[-1] - b[-1] for m, b in zip(matched, blurred)], "points of accuracy lost")
    return {
        "claim": "the loss is not that of longer training",
        "headline": effect,
        "verdict": verdicts.verdict(effect, 5.0),
        "finding": f"{config.removals[-1]} blurred epochs cost {verdicts.say(effect)} against as many sharp ones",
        "series": [
            {"label": "blurred, then sharp", "x": config.removals, "y": "final test accuracy (%)", "values": blurred},
            {"label": "all sharp, same total epochs", "x": config.removals, "y": "final test accuracy (%)", "values": matched},
        ],
        "figure": {"x": "epoch at which the blur is removed"},
    }


def achille_restart(run):
    """The published learning rate decays every epoch, through the deficit too: how much of the damage is the low rate that is left?

    Drop of the longest deficit against no deficit, with the decay going on, and with the rate restarted when the blur ends.
    Verdict: "reproduced" (damage beyond the learning rate) if the restarted drop is > 3 standard errors over >= 3 seeds.
    """
    config, log = run.config, run.log
    series = []
    for label, key in (("decay goes on", "decay"), ("rate restarted at the end of the blur", "restart")):
        names = [f"{key if d else 'decay'} {d}" for d in config.restart_removals]
        values = [[log.last(s, name, "accuracy") for name in names] for s in run.seeds]
        series.append({"label": label, "x": config.restart_removals, "y": "final test accuracy (%)", "values": values})
    going_on, restarted = (headline([row[0] - row[-1] for row in one["values"]], "points of accuracy lost") for one in series)
    return {
        "claim": f"damage remains when the decayed learning rate (x{config.restart_decay} per epoch) is restarted",
        "headline": restarted,
        "verdict": verdicts.verdict(restarted),
        "finding": f"{config.restart_removals[-1]} blurred epochs cost {verdicts.say(going_on)} with the decay going on and {verdicts.say(restarted)} with the rate restarted",
        "series": series,
        "figure": {"x": "epoch at which the blur is removed"},
    }


def achille_fisher(run):
    """Trace of the Fisher information per epoch, on the data the net is being trained on (random signs: unbiased, low variance).

    Verdict: "reproduced" if, in logarithms and paired by seed, the normal run's trace at its peak (epoch >= 1, chosen for each seed on the
    other seeds) is above its first epoch's and above its last epoch's, and the trace after the longest deficit and its sharp epochs is above
    the normal run's after as many sharp epochs, each by > 3 standard errors over >= 3 seeds. The untrained net's trace stands beside it.
    """
    config, log = run.config, run.log
    series, logs = [], {}
    for d in config.fisher_removals:
        points = log.series(run.seeds[0], f"blur {d}", "fisher")[0]
        values = [log.series(s, f"blur {d}", "fisher")[1] for s in run.seeds]
        series.append({"label": "no deficit" if d == 0 else f"blurred until epoch {d}", "x": points, "y": "Tr F", "values": values})
        logs[d] = [[math.log(max(v, 1e-30)) for v in row] for row in values]
    first, trained_rows = series[0]["x"].index(1), [row[1:] for row in logs[0]]
    peaks = [row[place] for row, place in zip(trained_rows, verdicts.leave_one_out_peaks(trained_rows))]
    rise = headline([peak - row[first] for peak, row in zip(peaks, logs[0])], "log")
    fall = headline([peak - row[-1] for peak, row in zip(peaks, logs[0])], "log")
    untrained = headline([peak - row[0] for peak, row in zip(peaks, logs[0])], "log")
    longest = config.fisher_removals[-1]
    raised = headline([a[-1] - b[-1] for a, b in zip(logs[longest], logs[0])], "log ratio of final Tr F, deficit / none")
    ratios = {
        name: f"{math.exp(e['mean']):.2g} (log {e['mean']:.2f} ± {e['standard_error']:.2f})"
        for name, e in (("rise", rise), ("fall", fall), ("raised", raised), ("untrained", untrained))
    }
    return {
        "claim": "the Fisher trace rises, then falls, and stays higher after a deficit",
        "headline": raised,
        "verdict": verdicts.joint_verdict([rise, fall, raised]),
        "finding": f"normal training: peak / first epoch = {ratios['rise']}, peak / last = {ratios['fall']}, peak / untrained net ="
        f" {ratios['untrained']}; after {longest} blurred epochs the final trace is {ratios['raised']} times the normal one",
        "series": series,
        "figure": {"x": "epoch", "log": ["Tr F"], "spans": [[0, d] for d in config.fisher_removals if d]},
    }


PANELS = [achille_blur, achille_matched, achille_restart, achille_fisher]


def all_schedules(run):
    """name -> phases. All runs begin from the same weights; shared beginnings are trained once."""
    config, blur = run.config, images(run.config.blur)
    plan = {}
    if run.wants(achille_blur, achille_matched, achille_fisher):
        plan = {f"blur {d}": [Phase(d, blur), Phase(config.clean)] for d in config.removals}
        plan["matched"] = [Phase(max(config.removals) + config.clean)]
    if run.wants(achille_restart):
        rate = None if config.decay < 1 else achille.exponential(config.lr, config.restart_decay)  # None: the set-up decays anyway
        for d in config.restart_removals:
            plan[f"decay {d}"] = [Phase(d, blur, lr=rate), Phase(config.clean, lr=rate)]
            if d:
                plan[f"restart {d}"] = [Phase(d, blur, lr=rate), Phase(config.clean, lr=rate, event=restart_learning_rate)]
    return plan


def draw_data(run, dataset):
    """OUT/DATA.png: two training images of each class, sharp and blurred."""
    x, y = dataset.train
    chosen = torch.cat([(y == c).nonzero()[:2, 0] for c in range(dataset.classes)])[:20]
    rows = [("sharp", x[chosen].cpu().numpy()), ("blurred", run.config.blur(x[chosen]).cpu().numpy())]
    run.arguments.out.mkdir(parents=True, exist_ok=True)
    kind = "synthetic, " if run.arguments.data in common.SYNTHETIC else ""
    title = f"{run.arguments.data} ({kind}{x.shape[2]}x{x.shape[3]} pixels): two images of each class"
    contact_sheet(rows, run.arguments.out / f"{run.arguments.data}.png", title)


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, achille.CONFIGS, argv, achille.OPTIONS)
    config, plan = run.config, all_schedules(run)
    ends = {d + config.clean for d in config.removals + config.restart_removals}
    followed = {f"blur {d}" for d in config.fisher_removals}
    data, setup = achille.prepare(run, 0)
    running.announce(run, {"run": (setup, plan)})
    draw_data(run, data)
    for seed, label, schedules in running.units(run):
        data, setup = achille.prepare(run, seed)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            if epoch in ends:
                run.log.add(seed, names, epoch, accuracy=accuracy(state.model, *data.test))
            if run.wants(achille_fisher) and followed & set(names) and (epoch <= 10 or epoch % config.measure_every == 0 or epoch in ends):
                x, _ = current_data(setup, state, slice(config.fisher_examples))
                trace = fisher_trace(state.model, x, "signs", generator=generator(x.device, seed, epoch, "fisher"))
                run.log.add(seed, followed & set(names), epoch, fisher=trace.total)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
