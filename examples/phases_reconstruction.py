"""Accuracy and reconstruction loss at steps 0, 1, 2, 4 … ("Understanding and leveraging the
learning phases").

fig1: linear softmax regression, decoded from logits; footnote1: from softmax outputs. fig2: a
ResNet (or VGG) at layers -1, -2, -3. fig4: how a single input attribute of the last dense layer
comes to belong to a class; zeros: how many of them are 0.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from functools import partial

import numpy as np

from clp_min.reconstruction import class_histograms, class_shares, layer_features
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import untrained
from clp_min.train import accuracy, cross_entropy, hinge

import phases

LOSS = "reconstruction loss / variance"
ABOVE = "loss above that at the step of the rule, share of what the layer explains"
ALONE = "the verdict is the ResNet's alone: a small net stands for the VGG"


def phases_fig1(study):
    """Linear softmax regression: near constant, then falling, then rising.

    Effects: fall of the loss from the logits to the step ``linear_least`` (of the settings, chosen
    on other seeds) and rise after it, least .01 of the variance each; and phase (i): the share of
    the fall that an eighth of those steps brings, within .1. (A fall at a constant pace would bring
    an eighth, and looks flat on a logarithmic axis at any learning rate: a looser bound could not
    fail.) And accuracy grows throughout: points gained after ``linear_least``, while the loss
    rises, least 1. The theory says that logits never rise in the linear model of the data, so this
    decides for real inputs. Beside it logits that are not standardised, in which their size tells.
    Scope: this set and rate.
    """
    keys = {"loss": "from the logits", "loss_raw": "from logits as they are, with noise"}
    place = study.config.linear_least
    dips, found, axes = dips_of(study.results, "linear", keys, dict.fromkeys(keys, place))
    constant = early_share("the fall", axes[1].curves[0], dips["loss"][0], place, within=0.1)
    claim = "reconstruction from a linear classifier is constant at first, falls, then rises"
    grown = learned_after(study, "linear", place)
    effects, gate = [*dips["loss"], constant, grown], trained_gate(study, "linear")
    return Panel(claim, effects, axes, gate, f"{found}; {constant}; {grown}",
                 headline=dips["loss"][1])


def early_share(what, loss, fall, place, **rule):
    """Effect: the share of a curve's fall to a step (an Effect) that an eighth of the steps brings:
    phase (i)."""
    eighth = max(place // 8, 1)
    early = loss.values[:, 0] - phases.at(loss, eighth)
    share = early / np.maximum(fall.values, phases.LEAST)
    return Effect(f"of {what} by step {eighth}", share, **rule)


def learned_after(study, name, place):
    """Effect: points of accuracy gained from a step to the end."""
    accuracy = Curve(*phases.curve("accuracy", study.results, "accuracy", name))
    gained = -phases.around(accuracy, place)[1]
    return Effect(f"points of accuracy after step {place}", gained, least=phases.POINT,
                  step=study.step())


def phases_footnote1(study):
    """Footnote 1: softmax outputs follow the pattern "even more strongly" than logits.

    Effects: how much larger the fall of the loss to its least step, and the rise after it, are from
    softmax outputs than from logits (``softmax_least``, ``linear_least`` of the settings), least
    .01 of the variance each. Scope of fig1.
    """
    c = study.config
    keys = {"loss_softmax": "from the softmax outputs", "loss": "from the logits"}
    places = {"loss_softmax": c.softmax_least, "loss": c.linear_least}
    dips, found, axes = dips_of(study.results, "linear", keys, places)
    effects = [
        Effect(f"more {word} from softmax outputs", a.values - b.values, least=phases.LEAST)
        for word, a, b in zip(("fall", "rise"), dips["loss_softmax"], dips["loss"])
    ]
    said = "; ".join(map(str, effects))
    return Panel("softmax outputs follow the pattern more strongly than logits", effects, axes,
                 trained_gate(study, "linear"), f"{said}; {found}")


def phases_fig2(study):
    """ResNet (or VGG), layers -1, -2, -3; in shares of what a layer explains at its best.

    Effects: fall of the loss at layer -1 to its least step and rise after it, over 1 - that least
    loss, least .05 each; how much larger both are than those of layer -3, least .05; and how much
    less layer -3 loses of the input at its best than layer -1, least .01 of the variance ("overall
    less" towards the input); and, as in fig1, points of accuracy gained after layer -1's least
    loss, least 1. Places ``net_least`` of the settings. Beside it outputs that are not
    standardised, and how much of their fall an eighth of the steps brings (phase (i), as in fig1).
    """
    keys = {f"loss_{k}": f"layer -{k}" for k in (1, 2, 3)}
    keys["loss_raw"] = "layer -1 as it is, with noise"
    last, third = study.config.net_least
    places = {"loss_1": last, "loss_2": last, "loss_3": third, "loss_raw": last}
    dips, found, axes = dips_of(study.results, "net", keys, places)
    best = {key: phases.at(curve, places[key]) for key, curve in zip(keys, axes[1].curves)}
    relative = {
        key: Curve(curve.label, curve.x, (
            (curve.values.T - best[key]) / np.maximum(1 - best[key], phases.LEAST)
        ).T) for key, curve in zip(keys, axes[1].curves[:3])
    }
    axes.append(Axes(ABOVE, list(relative.values()), **phases.STEP))
    shares = {key: (one.values[:, 0], one.values[:, -1]) for key, one in relative.items()}
    effects = [
        Effect(f"of what layer -1 explains, {word}", one, least=phases.SHARE)
        for word, one in zip(("fall", "rise"), shares["loss_1"])
    ]
    effects += [
        Effect(f"more {word} than layer -3", a - b, least=phases.SHARE)
        for word, a, b in zip(("fall", "rise"), shares["loss_1"], shares["loss_3"])
    ]
    effects.append(Effect("of the variance lost less at layer -3", best["loss_1"] - best["loss_3"],
                          least=phases.LEAST))
    effects.append(learned_after(study, "net", last))
    what = "the fall from layer -1 as it is"
    flat = early_share(what, axes[1].curves[3], dips["loss_raw"][0], last)
    claim = "the phases are plainest at the output and fade towards the input"
    said = "; ".join(map(str, [*effects, flat]))
    return Panel(claim, effects, axes, trained_gate(study, "net"), f"{said}; {found}",
                 headline=effects[1])


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
    """Inputs of the last dense layer: distribution of single attributes within each class.

    The figure: attributes of the ResNet of the first seed, at step 0, in the middle and at the end.
    Effects, of an attribute's positive class means, mean over attributes: growth of the largest
    one's share, least .05; and, since an attribute becomes "only large for samples of one or a few
    classes", how many are at least half of the largest at the end, within 3. At paper scale for the
    VGG too; its stand-in has an input for each place of its last map, where classes may be alike.
    Scope: any trained classifier may show it.
    """
    results, found, shares, numbers = study.results, [], [], []
    nets = {"ResNet": "net", "VGG": "vgg16"}
    if study.arguments.net:
        nets = {study.arguments.net: "net"}
    for net, name in nets.items():
        shares.append(Curve(*phases.curve(net, results, "share", name)))
        numbers.append(Curve(*phases.curve(net, results, "number", name)))
        grown, last = shares[-1].values[:, -1] - shares[-1].values[:, 0], numbers[-1].values[:, -1]
        found += [
            Effect(f"of the share of the largest class ({net})", grown, least=phases.SHARE),
            Effect(f"classes for which an attribute is large ({net})", last, within=3.0),
        ]
    correct = [results.final("accuracy", name) for name in nets.values()]
    alone = study.scale != "paper" and len(nets) > 1
    judged, beside = (found[:2], ALONE) if alone else (found, "")
    places, of_one = results.points("histograms", "net"), results.values("histograms", "net")[0]
    # of_one: (steps, 3 attributes, classes, bins)
    images = [
        Axes(f"attribute {i}, step {step}", [
            Curve(f"class {k}", list(range(of_one.shape[3])), of_one[s : s + 1, i, k])
            for k in range(of_one.shape[2])
        ], x="bin of its values", kind="image", figure="histograms")
        for i in range(of_one.shape[1])
        for s, step in list(enumerate(places))[:: max(len(places) // 2, 1)]
    ]
    return Panel(
        claim="each input attribute of the last layer comes to belong to one or a few classes",
        effects=judged, gate=untrained(correct, study.classes),
        finding="; ".join(map(str, found)), caption=beside,
        axes=[Axes("share of the largest class", shares, **phases.STEP),
              Axes("classes for which an attribute is large", numbers, **phases.STEP), *images],
    )


def phases_zeros(study):
    """Sentences on fig4: of a VGG, whose last layer reads ReLUs, "the majority of outputs is 0"; of
    a ResNet, which averages them, there is "no strong peak at 0", and yet "after a few iterations"
    attributes differ between classes.

    Effects: share of exact zeros among the inputs of the last dense layer at the end, in a VGG less
    a half, least .05; in the ResNet, within .1; and how much the largest class's share of an
    attribute has grown in the ResNet by step 64, or a sixteenth of them, least .05. Scope: at quick
    scale the VGG is a small net of convolutions with BatchNorm, whose last map is read as it is, so
    that about a half of it is 0 before training.
    """
    c, results = study.config, study.results
    nets = {"VGG": "vgg16", "ResNet": "net"}
    zeros = [Curve(*phases.curve(net, results, "zeros", name)) for net, name in nets.items()]
    share = Curve(*phases.curve("ResNet", results, "share", "net"))
    vgg, resnet = (curve.values[:, -1] for curve in zeros)
    early = min(2 ** max(c.last - 4, 0), 64)
    effects = [
        Effect("of the VGG's inputs are 0, less a half", vgg - 0.5, least=phases.SHARE),
        Effect("of the ResNet's inputs are 0", resnet, within=2 * phases.SHARE),
        Effect(f"of the share of the largest class by step {early}",
               phases.at(share, early) - share.values[:, 0], least=phases.SHARE),
    ]
    correct = [results.final("accuracy", name) for name in nets.values()]
    return Panel(
        "most inputs of a VGG's last layer are 0, few of a ResNet's, and its attributes differ"
        " between classes early", effects,
        [Axes("share of zeros", zeros, **phases.STEP),
         Axes("share of the largest class", [share], **phases.STEP)],
        untrained(correct, study.classes),
    )


def histogram_steps(c):
    """Steps of fig4's histograms."""
    return [0, 2 ** (c.last // 2), 2**c.last]


PANELS = [phases_fig1, phases_footnote1, phases_fig2, phases_fig4, phases_zeros]

VGG = "a VGG instead of the ResNet (at quick scale a small one with BatchNorm)"
HINGE = "train with the multi-class hinge loss instead of the cross-entropy"
OPTIONS = [
    ("--net", dict(choices=["vgg", "vgg16"], help=VGG), "{}"),
    ("--loss", dict(choices=["hinge"], help=HINGE), "hinge"),
]


def prepare(study, seed, label):
    """(Dataset, Setup) of one net."""
    c, data = study.config, phases.load(study, seed)
    name = label if label == "vgg16" else study.arguments.net or "net"
    net, lr = (c.linear, c.linear_lr) if label == "linear" else (getattr(c, name), c.lr)
    loss = hinge if study.arguments.loss else cross_entropy
    return data, phases.prepare(study, data, net, lr, loss)


def measure(study, run, step, state):
    """What the panels ask of one net at one step."""
    (x, y), (test_x, test_y) = run.data.train, run.data.test
    model = phases.as_trained(state.model, x)
    features, test_features = (layer_features(model, images) for images in (x, test_x))
    loss = partial(phases.loss_of, study, (run.seed, step), x=x, test_x=test_x)
    values = {"accuracy": accuracy(model, test_x, test_y)}
    if run.label == "linear":
        logits, test_logits = features[-1], test_features[-1]
        values["loss"] = loss(logits, test_logits)
        values["loss_softmax"] = loss(logits.softmax(1), test_logits.softmax(1))
        values["loss_raw"] = loss(logits, test_logits, raw=True)
        return values
    values["zeros"] = float((features[-2] == 0).double().mean())
    shares = class_shares(features[-2], y, run.data.classes)
    values |= {k: float(v.nanmean()) for k, v in zip(("share", "number"), shares)}
    if run.label == "net":
        if study.wants(phases_fig2):
            values |= {f"loss_{-k}": loss(features[k], test_features[k]) for k in (-1, -2, -3)}
            values["loss_raw"] = loss(features[-1], test_features[-1], raw=True)
        if step in histogram_steps(study.config):
            found = class_histograms(features[-2][:, :3], y, run.data.classes)
            values["histograms"] = found.tolist()
    return values


def main(argv=None):
    study = Study(__file__, PANELS, phases.CONFIGS, argv, OPTIONS)
    c = study.config
    if study.arguments.net:
        study.leave_out(phases_zeros, "compares both nets: without --net")
    both = (phases_zeros,) if study.arguments.net else (phases_zeros, phases_fig4)
    wanted = {"linear": (phases_fig1, phases_footnote1), "vgg16": both,
              "net": (phases_fig2, phases_fig4, phases_zeros)}
    lasts = {"linear": c.linear_last, "net": c.last, "vgg16": c.last}
    labels = [label for label, panels in wanted.items() if study.wants(*panels)]
    _, setup = prepare(study, study.seeds[0], labels[0])
    plans = {label: {"": phases.until_step(lasts[label], setup)} for label in labels}
    for run, step, state, names in study.sweep(prepare, plans, phases.steps(max(lasts.values()))):
        study.log.add(run.seed, names, step, **measure(study, run, step, state))
    study.finish()


if __name__ == "__main__":
    command_line(main)
