"""Accuracy and reconstruction loss at steps 0, 1, 2, 4 … ("Understanding and leveraging the
learning phases").

fig1: linear softmax regression, decoded from logits and from softmax outputs. fig2: a ResNet (or
VGG) at layers -1, -2, -3. fig4: how a single input attribute of the last dense layer comes to
belong to a class.
"""

from functools import partial

from clp_min.reconstruction import class_shares, layer_features
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import peak
from clp_min.train import accuracy, cross_entropy, hinge

import phases

LOSS = "reconstruction loss / variance"


def phases_fig1(study):
    """Linear softmax regression.

    Reproduced if the loss from the logits falls and rises again, each by > .01 of the variance;
    the place of the least loss is chosen for each seed on the others. The theory says that
    logits never rise in the linear model of the data, so this decides for real inputs; softmax
    outputs stand beside them.
    """
    keys = {"loss": "from the logits", "loss_softmax": "from the softmax outputs"}
    dips, found, axes = dips_of(study.results, "linear", keys)
    claim = "reconstruction from a linear classifier falls, then rises"
    return Panel(claim, dips["loss"], axes, headline=dips["loss"][1], finding=found)


def phases_fig2(study):
    """ResNet (or VGG), layers -1, -2, -3.

    Reproduced if fig1's rule holds at layer -1, and fall and rise are both smaller
    at layer -3 (means).
    """
    keys = {f"loss_{k}": f"layer -{k}" for k in (1, 2, 3)}
    dips, found, axes = dips_of(study.results, "net", keys)
    fades = all(third.mean < first.mean for first, third in zip(dips["loss_1"], dips["loss_3"]))
    claim = "the phases are plainest at the output and fade towards the input"
    return Panel(claim, dips["loss_1"], axes, fades, found, headline=dips["loss_1"][1])


def dips_of(results, name, keys):
    """Loss curves with their fall and rise -> ({key: [fall, rise]}, what was found, axes)."""
    dips, words, curves = {}, [], []
    for key, label in keys.items():
        curve = Curve(*phases.curve(label, results, key, name))
        best, *heights = peak(-curve.values)
        units = "fall to the least loss", "rise after it"
        dips[key] = [Effect(unit, values, least=0.01) for unit, values in zip(units, heights)]
        words.append(f"{label}: least at step {curve.x[best]:g}, {dips[key][0]}, {dips[key][1]}")
        curves.append(curve)
    correct = [Curve(*phases.curve("classifier", results, "accuracy", name))]
    axes = [Axes("test accuracy (%)", correct, **phases.STEP), Axes(LOSS, curves, **phases.STEP)]
    return dips, "; ".join(words), axes


def phases_fig4(study):
    """Inputs of the last dense layer: how much of each attribute belongs to one class.

    Share of each attribute's positive class means that belongs to its largest class (1/classes: to
    all alike), mean over attributes. Reproduced if the share grows from step 0 to the end.
    """
    results = study.results
    share = Curve(*phases.curve("mean over attributes", results, "share", "net"))
    grown = Effect("of the share of the largest class", share.values[:, -1] - share.values[:, 0])
    means = results.values("classes", "net")[:1]  # (first seed, steps, 3 attributes, classes)
    images = [
        Axes(
            f"class means of attribute {i}, seed {study.seeds[0]}",
            [Curve(f"class {k}", share.x, means[:, :, i, k]) for k in range(means.shape[3])],
            x="step", kind="image",
        )
        for i in range(means.shape[2])
    ]
    return Panel(
        claim="each input attribute of the last layer comes to belong to one or a few classes",
        effects=[grown],
        finding=f"share of the largest class: {share.values[:, 0].mean():.3f} at the start, grown"
        f" by {grown}",
        axes=[Axes("share of the largest class", [share], **phases.STEP), *images],
    )


PANELS = [phases_fig1, phases_fig2, phases_fig4]


VGG = "a VGG (VGG-11; at quick scale a small one with BatchNorm) instead of the ResNet"
HINGE = "train with the multi-class hinge loss instead of the cross-entropy"
OPTIONS = [
    ("--net", dict(choices=["vgg"], help=VGG), "vgg"),
    ("--loss", dict(choices=["hinge"], help=HINGE), "hinge"),
]


def prepare(study, seed, label):
    """(Dataset, Setup) of one net."""
    c, data = study.config, phases.load(study, seed)
    net = c.vgg if study.arguments.net else c.net
    net, lr = (c.linear, c.linear_lr) if label == "linear" else (net, c.lr)
    loss = hinge if study.arguments.loss else cross_entropy
    return data, phases.prepare(study, data, net, lr, loss)


def main(argv=None):
    study = Study(__file__, PANELS, phases.CONFIGS, argv, OPTIONS)
    wanted = {"linear": (phases_fig1,), "net": (phases_fig2, phases_fig4)}
    labels = [label for label, panels in wanted.items() if study.wants(*panels)]
    _, setup = prepare(study, study.seeds[0], labels[0])
    schedule = {"": phases.until_last_step(study.config, setup)}
    at = phases.steps(study.config)
    for run, step, state, names in study.sweep(prepare, {label: schedule for label in labels}, at):
        (x, y), (test_x, test_y) = run.data.train, run.data.test
        features, test_features = (layer_features(state.model, images) for images in (x, test_x))
        loss = partial(phases.loss_of, study, (run.seed, step), x=x, test_x=test_x)
        values = {"accuracy": accuracy(state.model, test_x, test_y)}
        if run.label == "linear":
            logits, test_logits = features[-1], test_features[-1]
            values["loss"] = loss(logits, test_logits)
            values["loss_softmax"] = loss(logits.softmax(1), test_logits.softmax(1))
        else:
            values |= {f"loss_{-k}": loss(features[k], test_features[k]) for k in (-1, -2, -3)}
            share, means = class_shares(features[-2], y, run.data.classes)
            mean = float(share[~share.isnan()].mean())
            values |= {"share": mean, "classes": means[:3].tolist()}
        study.log.add(run.seed, names, step, **values)
    study.finish()


if __name__ == "__main__":
    command_line(main)
