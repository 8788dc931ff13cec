"""Transfer: when is a frozen network most useful for another task? ("Understanding and leveraging the learning phases", improved transfer
learning.)

A linear probe reads frozen layers at steps 0, 1, 2, 4 … of training on the original task. fig6: another data set, or classes that were held
out; fig7: which colour channel is largest on average. The paper's claim: the probe peaks well before the classifier does.
"""

from dataclasses import replace

import common
import phases
import running
import verdicts
from clp_min.data import Dataset
from clp_min.reconstruction import layer_features
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
            best, gained, lost = verdicts.peak(rows)
            effects[key] = headline(gained, "points gained to the peak"), headline(lost, "points lost after it")
            words.append(f"{label}: peak at step {steps[best]}, {verdicts.say(effects[key][0])}, {verdicts.say(effects[key][1])}")
    best = verdicts.peak([log.series(s, task, "accuracy")[1] for s in seeds])[0]
    least = verdicts.peak([[-v for v in log.series(s, task, "loss_1")[1]] for s in seeds])[0]
    words.append(f"the classifier peaks at step {steps[best]}, the reconstruction loss of layer -1 is least at {steps[least]}")
    return {
        "claim": claim,
        "headline": effects["probe_1"][1],
        "verdict": verdicts.joint_verdict(effects["probe_1"], least=1.0),
        "finding": "; ".join(words),
        "series": series,
        "figure": {"x": "step (0 is drawn at 1/2)", "log_x": ["accuracy (%)", "reconstruction loss / variance"]},
    }


def phases_fig6(run):
    """ResNet (``--net vgg``: VGG). ``--to NAME``: another data set, as in the paper (Fashion-MNIST and MNIST, CIFAR-100 and CIFAR-10, both
    ways); without it, at quick scale, the second half of the classes, while the first half is trained on.

    Verdict: "reproduced" if the probe at layer -1 gains to its peak and loses after it, each by > 1 point and > 3 standard errors over >= 3
    seeds; the peak's step is chosen for each seed on the mean curve of the others.
    """
    return _panel(run, "transfer", f"a probe of {run.arguments.to or 'held-out classes'} peaks before training ends")


def phases_fig7(run):
    """VGG (``--net resnet``: ResNet). The task "which colour channel is largest on average". Rule of fig6. Only for colour images."""
    return _panel(run, "channel", "a probe of the dominant colour channel peaks before training ends")


def phases_probe_peak(run):
    """The statement behind fig6: the probe's peak lies near the least reconstruction loss (both at layer -1).

    Steps are powers of two; the places are each seed's own. Verdict: "reproduced" if fig6's rule finds a peak, and the two places are within
    two doublings of each other, three standard errors (each at least 1/4) included, over >= 3 seeds.
    """
    steps, places, series = run.log.series(run.seeds[0], "transfer", "probe_1")[0], [], []
    for key, extreme, label in (("probe_1", max, "probe"), ("loss_1", min, "reconstruction loss")):
        curves = [run.log.series(s, "transfer", key)[1] for s in run.seeds]
        places.append([row.index(extreme(row)) for row in curves])
        means = [sum(column) / len(column) for column in zip(*curves)]
        span = max(means) - min(means) or 1.0
        scaled = [[(v - min(means)) / span for v in row] for row in curves]
        series.append(
            {"label": label, "x": [max(s, 0.5) for s in steps], "y": "layer -1, as a share of the mean's range", "values": scaled}
        )
    apart = headline([a - b for a, b in zip(*places)], "doublings (probe's peak after the least loss)")
    peak, near = phases_fig6(run)["verdict"], abs(apart["mean"]) + 3 * max(apart["standard_error"], 0.25) <= 2
    said = "" if peak == "reproduced" else " (fig6's rule finds no peak: its highest point is not above both ends)"
    return {
        "claim": "the probe is best where the reconstruction loss is least",
        "headline": apart,
        "verdict": peak if near or peak.startswith("no verdict") else "not reproduced",
        "finding": f"{verdicts.say(apart)}{said}",
        "series": series,
        "figure": {"x": "step (0 is drawn at 1/2)", "log_x": [series[0]["y"]]},
    }


PANELS = [phases_fig6, phases_fig7, phases_probe_peak]
PAIRS = {"cifar100": "cifar10", "cifar10": "cifar100", "fashion_mnist": "mnist", "mnist": "fashion_mnist"}  # the paper's
OPTIONS = [
    (
        "--to",
        dict(
            choices=list(PAIRS),
            help="data set of the probe in phases_fig6 (default at paper scale: the paper's; else the other half of the classes)",
        ),
        "to_{}",
    ),
    (
        "--net",
        dict(choices=["resnet", "vgg"], help="the net (default, as in the paper: resnet for phases_fig6, vgg for phases_fig7)"),
        "{}",
    ),
    (
        "--class-colour",
        dict(action="store_true", help="shapes whose strongest channel is set by the class in 7 of 10 images (phases_fig7)"),
        "class_colour",
    ),
]


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


def pair_of_tasks(run, seed, task):
    """(the set that is trained on, the set that is probed)."""
    dataset = phases.prepare(run, seed)
    if task == "channel":
        return dataset, largest_channel(dataset)
    if run.arguments.to is None:
        return halves(dataset)
    other = phases.prepare(run, seed, run.arguments.to)
    if other.train[0].shape[1:] != dataset.train[0].shape[1:]:
        raise ValueError(
            f"--to {other.name}: its images are {tuple(other.train[0].shape[1:])}, those of {dataset.name} {tuple(dataset.train[0].shape[1:])}"
        )
    return dataset, other


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, phases.CONFIGS, argv, OPTIONS)
    arguments, at = run.arguments, phases.steps(run.config)
    if arguments.scale == "paper":
        arguments.to = arguments.to or PAIRS[arguments.data]
    if arguments.class_colour:
        if arguments.data != "shapes":
            raise ValueError(f"--class-colour is for --data shapes, got {arguments.data}")
        run.config = replace(run.config, generator=(*run.config.generator, ("class_colour", 0.7)))
    if phases.prepare(run, 0).train[0].shape[1] == 1 and phases_fig7 in run.panels:
        run.panels.remove(phases_fig7)
        if not run.panels:
            raise ValueError(f"phases_fig7 needs colour images, and {arguments.data} has none")
        print("phases_fig7 needs colour images: left out")
    given = {"resnet": run.config.net, "vgg": run.config.vgg}
    nets = {"transfer": given[arguments.net or "resnet"]} if run.wants(phases_fig6, phases_probe_peak) else {}
    nets |= {"channel": given[arguments.net or "vgg"]} if run.wants(phases_fig7) else {}
    running.announce(
        run, {task: phases.make_job(run.config, pair_of_tasks(run, 0, task)[0], net, run.config.lr) for task, net in nets.items()}
    )
    for seed, task, schedules in running.units(run):
        own, other = pair_of_tasks(run, seed, task)
        setup, _ = phases.make_job(run.config, own, nets[task], run.config.lr)
        for step, state, _ in running.trained(run, seed, task, setup, schedules, at):
            features, test_features = (layer_features(state.model, pair[0]) for pair in (other.train, other.test))
            (x, y), (test_x, test_y) = other.train, other.test
            values = {f"probe_{-k}": phases.probe_of(run, seed, step, features[k], y, test_features[k], test_y) for k in features}
            values["loss_1"] = phases.loss_of(run, seed, step, features[-1], x, test_features[-1], test_x)
            run.log.add(seed, [task], step, accuracy=accuracy(state.model, *own.test), **values)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
