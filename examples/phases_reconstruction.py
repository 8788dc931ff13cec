"""Accuracy and reconstruction loss at steps 0, 1, 2, 4 … ("Understanding and leveraging the
learning phases").

fig1: linear softmax regression, decoded from logits and from softmax outputs. fig2: a ResNet (or
VGG) at layers -1, -2, -3. fig4: how a single input attribute of the last dense layer comes to
belong to a class.
"""

from functools import partial

from clp_min.reconstruction import class_shares, layer_features
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import untrained
from clp_min.train import accuracy, cross_entropy, hinge

import phases

LOSS = "reconstruction loss / variance"


def phases_fig1(study):
    """Linear softmax regression.

    Effects: fall of the loss from the logits to the step ``linear_least`` (of the settings, chosen
    on other seeds) and rise after it, least .01 of the variance each. The theory says that logits
    never rise in the linear model of the data, so this decides for real inputs; softmax outputs
    stand beside them. Scope: the near-constant phase (i) is not tested.
    """
    keys = {"loss": "from the logits", "loss_softmax": "from the softmax outputs"}
    place = study.config.linear_least
    dips, found, axes = dips_of(study.results, "linear", keys, dict.fromkeys(keys, place))
    claim = "reconstruction from a linear classifier falls, then rises"
    gate = trained_gate(study, "linear")
    return Panel(claim, dips["loss"], axes, gate, found, headline=dips["loss"][1])


def phases_fig2(study):
    """ResNet (or VGG), layers -1, -2, -3.

    Effects: fig1's at layer -1, and how much larger its fall and its rise are than those of layer
    -3, least .01 of the variance each; places ``net_least`` of the settings. Scope: shares of the
    whole variance, not of what a layer explains.
    """
    keys = {f"loss_{k}": f"layer -{k}" for k in (1, 2, 3)}
    last, third = study.config.net_least
    places = {"loss_1": last, "loss_2": last, "loss_3": third}
    dips, found, axes = dips_of(study.results, "net", keys, places)
    fades = [
        Effect(f"more {word} than layer -3", a.values - b.values, least=phases.LEAST)
        for word, a, b in zip(("fall", "rise"), dips["loss_1"], dips["loss_3"])
    ]
    claim = "the phases are plainest at the output and fade towards the input"
    effects, gate = dips["loss_1"] + fades, trained_gate(study, "net")
    return Panel(claim, effects, axes, gate, found, headline=effects[1])


def trained_gate(study, name):
    """Why a classifier shows nothing, if it does not."""
    return untrained(study.results.final("accuracy", name), study.classes)


def dips_of(results, name, keys, places):
    """Loss curves with their fall to a step and their rise from it -> ({key: [fall, rise]}, what
    was found, axes)."""
    dips, words, curves = {}, [], []
    for key, label in keys.items():
        curve = Curve(*phases.curve(label, results, key, name))
        heights = phases.around(curve, places[key])
        units = f"fall to step {places[key]}", "rise after it"
        dips[key] = [Effect(u, -values, least=phases.LEAST) for u, values in zip(units, heights)]
        least = curve.x[curve.values.mean(0).argmin()]
        words.append(f"{label}: least at step {least:g}, {dips[key][0]}, {dips[key][1]}")
        curves.append(curve)
    correct = [Curve(*phases.curve("classifier", results, "accuracy", name))]
    axes = [Axes("test accuracy (%)", correct, **phases.STEP), Axes(LOSS, curves, **phases.STEP)]
    return dips, "; ".join(words), axes


def phases_fig4(study):
    """Inputs of the last dense layer: how much of each attribute belongs to one class.

    Share of each attribute's positive class means that belongs to its largest class (1/classes: to
    all alike), mean over attributes. Effect: growth of the share from step 0 to the end, least .05.
    Scope: any trained classifier may show it.
    """
    results = study.results
    share = Curve(*phases.curve("mean over attributes", results, "share", "net"))
    more = share.values[:, -1] - share.values[:, 0]
    grown = Effect("of the share of the largest class", more, least=0.05)
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
        effects=[grown], gate=trained_gate(study, "net"),
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
