"""Accuracy and reconstruction loss at steps 0, 1, 2, 4 … ("Understanding and leveraging the learning phases", empirical analysis).

fig1: linear softmax regression, decoded from logits and from softmax outputs. fig2: a ResNet (or VGG) at layers -1, -2, -3. fig4: how a single input
attribute of the last dense layer comes to belong to a class.
"""

import common
import phases
import torch
import running
import verdicts
from clp_min.reconstruction import layer_features
from clp_min.record import headline
from clp_min.train import accuracy, cross_entropy

FALL, RISE = "fall to the least loss", "rise after it"


def _curve(run, name, key):
    points = run.log.series(run.seeds[0], name, key)[0]
    return [max(p, 0.5) for p in points], [run.log.series(s, name, key)[1] for s in run.seeds]


def _phases(run, name, keys, claim):
    """Loss curves of several layers with their fall and rise, for fig1 and fig2: (result, effects by key)."""
    x, correct = _curve(run, name, "accuracy")
    series, effects, words = [{"label": "classifier", "x": x, "y": "test accuracy (%)", "values": correct}], {}, []
    for key, label in keys.items():
        x, rows = _curve(run, name, key)
        best, fall, rise = verdicts.peak([[-v for v in row] for row in rows])
        effects[key] = headline(fall, FALL), headline(rise, RISE)
        steps = run.log.series(run.seeds[0], name, key)[0]
        words.append(
            f"{label}: {headline([r[0] for r in rows], '')['mean']:.3f}, least at step {steps[best]}, fall {verdicts.say(effects[key][0])}, rise {verdicts.say(effects[key][1])}"
        )
        series.append({"label": label, "x": x, "y": "reconstruction loss / variance", "values": rows})
    return {
        "claim": claim,
        "finding": "; ".join(words),
        "series": series,
        "figure": {"x": "step (0 is drawn at 1/2)", "log_x": ["test accuracy (%)", "reconstruction loss / variance"]},
    }, effects


def phases_fig1(run):
    """Linear softmax regression. Verdict: "reproduced" if the loss from the logits falls and rises again, each by > .01 of the variance and
    > 3 standard errors over >= 3 seeds; the place of the least loss is chosen for each seed on the others.

    The theory says that logits never rise in the linear model of the data, so this decides for real inputs; softmax outputs beside them.
    """
    result, effects = _phases(
        run,
        "linear",
        {"loss": "from the logits", "loss_softmax": "from the softmax outputs"},
        "reconstruction from a linear classifier falls, then rises",
    )
    return result | {"headline": effects["loss"][1], "verdict": verdicts.joint_verdict(effects["loss"], least=0.01)}


def phases_fig2(run):
    """ResNet (or VGG), layers -1, -2, -3. Verdict: "reproduced" if fig1's rule holds at layer -1, and fall and rise are both smaller at layer
    -3 (means)."""
    result, effects = _phases(
        run, "net", {f"loss_{k}": f"layer -{k}" for k in (1, 2, 3)}, "the phases are plainest at the output and fade towards the input"
    )
    verdict = verdicts.joint_verdict(effects["loss_1"], least=0.01)
    fades = all(third["mean"] < first["mean"] for first, third in zip(effects["loss_1"], effects["loss_3"]))
    return result | {"headline": effects["loss_1"][1], "verdict": verdict if verdict != "reproduced" or fades else "not reproduced"}


def phases_fig4(run):
    """Inputs of the last dense layer: share of each attribute's positive class means that belongs to its largest class (1/classes: to all
    alike), mean over attributes.

    Verdict: "reproduced" if the share grows from step 0 to the end by > 3 standard errors over >= 3 seeds.
    """
    x, rows = _curve(run, "net", "share")
    grown = headline([row[-1] - row[0] for row in rows], "of the share of the largest class")
    series = [{"label": "mean over attributes", "x": x, "y": "share of the largest class", "values": rows}]
    for c in range(3):
        for k in range(len(run.log.at(run.seeds[0], "net", 0, "classes")[c])):
            values = [[run.log.at(s, "net", p, "classes")[c][k] for p in run.log.series(s, "net", "classes")[0]] for s in run.seeds[:1]]
            series.append({"label": f"class {k}", "x": x, "y": f"class means of attribute {c} (seed 0)", "values": values})
    axes = list(dict.fromkeys(one["y"] for one in series))
    return {
        "claim": "each input attribute of the last layer comes to belong to one or a few classes",
        "headline": grown,
        "verdict": verdicts.verdict(grown),
        "finding": f"share of the largest class: {headline([r[0] for r in rows], '')['mean']:.3f} at the start, grown by {verdicts.say(grown)}",
        "series": series,
        "figure": {"x": "step (0 is drawn at 1/2)", "log_x": axes},
    }


PANELS = [phases_fig1, phases_fig2, phases_fig4]


def class_shares(features, y, classes):
    """(mean over attributes of the largest class's share of the class means, class means of the first three attributes)."""
    means = torch.stack([features[y == c].mean(0) for c in range(classes)]).clamp(min=0)  # (classes, attributes)
    shares = means.max(0).values / means.sum(0).clamp(min=1e-12)
    active = means.sum(0) > 1e-12
    return float(shares[active].mean()), means[:, :3].T.tolist()


OPTIONS = [
    ("--net", dict(choices=["vgg"], help="a VGG (VGG-11; at quick scale a small one with BatchNorm) instead of the ResNet"), "vgg"),
    ("--loss", dict(choices=["hinge"], help="train with the multi-class hinge loss instead of the cross-entropy"), "hinge"),
]


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, phases.CONFIGS, argv, OPTIONS)
    config, loss = run.config, phases.hinge if run.arguments.loss else cross_entropy
    dataset, at = phases.prepare(run, 0), phases.steps(run.config)
    nets = {"linear": (config.linear, config.linear_lr)} if run.wants(phases_fig1) else {}
    nets |= {"net": (config.vgg if run.arguments.net else config.net, config.lr)} if run.wants(phases_fig2, phases_fig4) else {}
    running.announce(run, {label: phases.make_job(config, dataset, *net, loss) for label, net in nets.items()})
    for seed, label, schedules in running.units(run):
        dataset = phases.prepare(run, seed)
        (x, y), (test_x, test_y) = dataset.train, dataset.test
        setup, _ = phases.make_job(config, dataset, *nets[label], loss)
        for step, state, _ in running.trained(run, seed, label, setup, schedules, at):
            features, test_features = layer_features(state.model, x), layer_features(state.model, test_x)
            values = {"accuracy": accuracy(state.model, test_x, test_y)}
            if label == "linear":
                values["loss"] = phases.loss_of(run, seed, step, features[-1], x, test_features[-1], test_x)
                values["loss_softmax"] = phases.loss_of(run, seed, step, features[-1].softmax(1), x, test_features[-1].softmax(1), test_x)
            else:
                values |= {f"loss_{-k}": phases.loss_of(run, seed, step, features[k], x, test_features[k], test_x) for k in (-1, -2, -3)}
                values["share"], values["classes"] = class_shares(features[-2], y, dataset.classes)
            run.log.add(seed, [label], step, **values)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
