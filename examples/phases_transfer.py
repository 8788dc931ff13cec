"""Transfer: when is a frozen network most useful for another task? ("Understanding and leveraging the learning phases", improved transfer
learning.)

A linear probe reads frozen layers at steps 0, 1, 2, 4 … of training on the original task. fig6: classes that were held out (the paper:
another data set); fig7: which colour channel is largest on average. The paper's claim: the probe peaks well before the classifier does.
"""

import common
import phases
import running
import verdicts
from clp_min.data import Dataset
from clp_min.reconstruction import layer_features, linear_probe, reconstruction_loss
from clp_min.record import headline
from clp_min.train import accuracy


def _panel(run, task, claim):
    log, seeds = run.log, run.seeds
    steps = log.series(seeds[0], task, "accuracy")[0]
    x, series, words, effects = [max(s, 0.5) for s in steps], [], [], {}
    for key, label, y in (
        ("accuracy", "classifier, own task", "accuracy (%)"),
        ("probe_1", "probe, layer -1", "accuracy (%)"),
        ("probe_2", "probe, layer -2", "accuracy (%)"),
        ("probe_3", "probe, layer -3", "accuracy (%)"),
        ("loss_1", "layer -1", "reconstruction loss / variance"),
    ):
        rows = [log.series(s, task, key)[1] for s in seeds]
        series.append({"label": label, "x": x, "y": y, "values": rows})
        if key.startswith("probe"):
            best, gained, lost = phases.turning(rows, sign=-1.0)
            effects[key] = headline(gained, "points gained to the peak"), headline(lost, "points lost after it")
            words.append(f"{label}: peak at step {steps[best]}, {verdicts.say(effects[key][0])}, {verdicts.say(effects[key][1])}")
    best = phases.turning([log.series(s, task, "accuracy")[1] for s in seeds], sign=-1.0)[0]
    least = phases.turning([log.series(s, task, "loss_1")[1] for s in seeds])[0]
    words.append(f"the classifier peaks at step {steps[best]}, the reconstruction loss of layer -1 is least at {steps[least]}")
    return {
        "claim": claim,
        "headline": effects["probe_1"][1],
        "verdict": verdicts.joint_verdict(effects["probe_1"]),
        "finding": "; ".join(words),
        "series": series,
        "figure": {"x": "step (0 is drawn at 1/2)", "log_x": ["accuracy (%)", "reconstruction loss / variance"]},
    }


def phases_fig6(run):
    """Held-out classes: train on the first half of the classes, probe the second half (the paper: CIFAR-100 to CIFAR-10 and the like).

    Verdict: "reproduced" if the probe at layer -1 gains to its peak and loses after it, each by > 3 standard errors over >= 3 seeds. The
    peak's step is chosen on the mean test curve over seeds, which flatters its height, not the steps before and after.
    """
    return _panel(run, "classes", "a probe of held-out classes peaks before training ends")


def phases_fig7(run):
    """The task "which colour channel is largest on average". Rule of fig6. Only for colour images."""
    return _panel(run, "channel", "a probe of the dominant colour channel peaks before training ends")


PANELS = [phases_fig6, phases_fig7]


def halves(dataset):
    """(the set of the first half of the classes, the set of the second half with labels from 0)."""
    half = dataset.classes // 2

    def part(pair, low, high):
        chosen = (pair[1] >= low) & (pair[1] < high)
        return pair[0][chosen], pair[1][chosen] - low

    return [
        Dataset(dataset.name, high - low, part(dataset.train, low, high), part(dataset.test, low, high))
        for low, high in ((0, half), (half, dataset.classes))
    ]


def largest_channel(dataset):
    """The same images labelled by the channel with the largest mean (of the standardised image, so that the three are about equally
    frequent)."""
    return Dataset(dataset.name, dataset.train[0].shape[1], *((x, x.mean((2, 3)).argmax(1)) for x, _ in (dataset.train, dataset.test)))


def pairs(dataset, task):
    return halves(dataset) if task == "classes" else (dataset, largest_channel(dataset))


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, phases.CONFIGS, argv)
    config, dataset, at = run.config, phases.prepare(run, 0), phases.steps(run.config)
    if dataset.train[0].shape[1] == 1 and phases_fig7 in run.panels:
        print("phases_fig7 needs colour images: left out")
        run.panels.remove(phases_fig7)
    tasks = ["classes"] * run.wants(phases_fig6) + ["channel"] * run.wants(phases_fig7)
    jobs = {task: phases.make_job(config, pairs(dataset, task)[0], config.net, config.lr) for task in tasks}
    running.announce(run, jobs)
    for seed, task, schedules in running.units(run):
        own, other = pairs(phases.prepare(run, seed), task)
        setup, _ = phases.make_job(config, own, config.net, config.lr)
        for step, state, _ in running.trained(run, seed, task, setup, schedules, at):
            features, test_features = (layer_features(state.model, pair[0]) for pair in (other.train, other.test))
            values = {f"probe_{-k}": float(linear_probe(features[k], other.train[1], test_features[k], other.test[1])) for k in features}
            values["loss_1"] = float(reconstruction_loss(features[-1], other.train[0], test_features[-1], other.test[0]))
            run.log.add(seed, [task], step, accuracy=accuracy(state.model, *own.test), **values)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
