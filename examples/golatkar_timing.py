"""When does regularisation matter? (Golatkar, Achille & Soatto, "Time matters in regularizing deep
networks", as the overview tells it.)

Weight decay, augmentation, or both in the first epochs only (until), from an epoch on only (after),
in one quarter only (window); always the same number of epochs in all. The published learning rate
decays, so a late window is also one at a low rate: the same with a constant rate, and with a decay
that starts anew with the window (and in its control), which alone tells the two apart. solutions:
how far apart the nets end; curvature: what their traces say.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from clp_min import models
from clp_min.augment import crop_and_flip, random_crop
from clp_min.curvature import hessian_trace
from clp_min.fisher import fisher_trace
from clp_min.gradients import flat_parameters
from clp_min.schedule import Phase, exponential, redraw, restart_learning_rate, sweep
from clp_min.seeding import generator
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line, scales
from clp_min.study.panel import log_ratio, untrained
from clp_min.train import Setup, evaluate_both, fresh_model, predict


@dataclass(frozen=True)
class Config:
    """No constant is in the text at hand: ResNet-18 on CIFAR-10; numbers are ours."""

    seeds: int = 8
    # ---- data and net
    train_size: int | None = None
    side: int | None = None
    generator: tuple = ()
    net: Callable = models.resnet18
    # ---- optimisation
    lr: float = 0.1
    decay: float = 0.97  # of the learning rate, per epoch
    constant_lr: float = 0.02  # of the second column
    momentum: float = 0.9
    batch_size: int = 128
    epochs: int = 200  # in four quarters
    # ---- regularisation
    weight_decay: float = 5e-4
    augment: Callable = crop_and_flip
    # ---- measuring
    fisher_examples: int = 1000
    trace_products: int = 60


MLP = partial(models.mlp, hidden=(256, 256), init=models.kaiming_normal)
QUICK = dict(  # seed 0: weight decay +8, augmentation +31 points when it acts throughout
    generator=(("noise", 0.25), ("amplitude", (0.5, 1.0))), net=MLP, decay=0.9, constant_lr=0.02,
    batch_size=100, epochs=60, weight_decay=0.02, augment=partial(random_crop, padding=2),
    fisher_examples=300,
)
REAL = QUICK | dict(train_size=1000, side=16, generator=())
SMOKE = dict(seeds=1, epochs=4, fisher_examples=20, trace_products=6)
CONFIGS = scales(Config, {"shapes": QUICK, "cifar10": REAL}, SMOKE, ["cifar10"])
KINDS = {"decay": "weight decay", "augment": "augmentation", "both": "both"}
TESTED = ("decay", "augment")
RATES = ("decaying", "constant", "restarted")
POINT, TENTH = 1.0, 0.1  # points of accuracy; of a logarithm


def accuracies(study, label, *names):
    """[(seeds,)] final test accuracies of runs of one kind and rate."""
    return [study.results.final("accuracy", f"{label} {name}") for name in names]


def quarters(c):
    """The epochs at which quarters begin."""
    return [i * c.epochs // 4 for i in range(4)]


def gate(study):
    """Why nothing follows where regularisation does nothing, or the net has not learned."""
    for kind in TESTED:
        none, whole = accuracies(study, f"{kind}, decaying", "none", "all")
        if found := untrained(none, study.classes):
            return found
        if (whole - none).mean() < 2 * POINT:
            return f"{KINDS[kind]} throughout gains {(whole - none).mean():.1f} points, less than 2"
    return ""


def gains(study, rate, names):
    """kind -> (seeds, names): points gained over no regularisation."""
    found = {}
    for kind in KINDS:
        none, *others = accuracies(study, f"{kind}, {rate}", "none", *names)
        found[kind] = np.stack(others, 1) - none[:, None]
    return found


def drawn(study, names, x, label):
    """One pair of axes for each rate: points gained over none."""
    return [
        Axes(f"points gained, {rate} rate", [
            Curve(KINDS[kind], x, values) for kind, values in gains(study, rate, names).items()
        ], x=label)
        for rate in RATES[:2]
    ]


def rule(study, **bound):
    return dict(step=study.step(), **bound)


def golatkar_until(study):
    """Regularised for the first t epochs, then not.

    Effects, for weight decay and for augmentation, decaying rate: points that the first half gains
    over none, least 1; first half less throughout, within 1 ("comparable" as equivalence). Scope:
    this set, net and strength; the constant rate is drawn and printed.
    """
    c, effects, said = study.config, [], []
    half = c.epochs // 2
    for rate in RATES[:2]:
        for kind in TESTED:
            none, first, whole = accuracies(
                study, f"{kind}, {rate}", "none", f"until {half}", "all"
            )
            unit = f"{KINDS[kind]}, {rate} rate"
            rows = [
                Effect(f"points of the first half, {unit}", first - none,
                       **rule(study, least=POINT)),
                Effect(f"points, first half less all, {unit}", first - whole,
                       **rule(study, within=POINT)),
            ]
            said += map(str, rows)
            effects += rows * (rate == "decaying")
    names = ["none", *(f"until {t}" for t in quarters(c)[1:]), "all"]
    axes = drawn(study, names, [*quarters(c), c.epochs], "regularised until epoch")
    claim = "regularising in the first half of training does what regularising throughout does"
    return Panel(claim, effects, axes, gate(study), "; ".join(said))


def golatkar_after(study):
    """Regularised from epoch t on: "just as poorly as if regularization were never applied".

    Effects, for weight decay and for augmentation, decaying rate: points that the second half gains
    over none, within 1 each. Scope as golatkar_until; the overview's second finding says of
    augmentation that it acts throughout (golatkar_throughout).
    """
    c, effects, said = study.config, [], []
    for rate in RATES[:2]:
        for kind in TESTED:
            none, late = accuracies(
                study, f"{kind}, {rate}", "none", f"after {c.epochs // 2}"
            )
            unit = f"points of the second half, {KINDS[kind]}, {rate} rate"
            row = Effect(unit, late - none, **rule(study, within=POINT))
            said.append(str(row))
            effects += [row] * (rate == "decaying")
    names = ["all", *(f"after {t}" for t in quarters(c)[1:]), "none"]
    axes = drawn(study, names, [*quarters(c), c.epochs], "regularised from epoch")
    return Panel("regularising in the second half alone does nothing", effects, axes, gate(study),
                 "; ".join(said))


def window_names(c):
    return [f"window {t}" for t in quarters(c)]


def golatkar_window(study):
    """Regularised in one quarter only: the effect is greatest in the first.

    Effects, decaying rate: points that the first quarter gains above each later one, weight decay
    and augmentation, least 1 each. A late window is also one at a low rate: golatkar_restarted.
    Scope as golatkar_until.
    """
    c, effects, said = study.config, [], []
    for kind, values in gains(study, "decaying", window_names(c)).items():
        for t, late in zip(quarters(c)[1:], values.T[1:]):
            if kind in TESTED:
                effects.append(Effect(f"points, first quarter less that at {t}, {KINDS[kind]}",
                                      values[:, 0] - late, **rule(study, least=POINT)))
    for kind, values in gains(study, "constant", window_names(c)).items():
        told = " ".join(f"{v:.1f}" for v in values.mean(0))
        said.append(f"constant rate, {KINDS[kind]}: {told} points by quarter")
    axes = drawn(study, window_names(c), quarters(c), "quarter that begins at epoch")
    return Panel("regularisation matters most in the first epochs", effects, axes, gate(study),
                 "; ".join([*map(str, effects), *said]))


def golatkar_restarted(study):
    """The windows again, where the decay of the rate starts anew with the window, and in its
    control: what is left is the place alone.

    Effects: points that the first quarter gains (over its own control) above each later one, weight
    decay, least 1 each; augmentation is printed. Scope as golatkar_until.
    """
    c, curves, effects, said = study.config, [], [], []
    for kind in KINDS:
        label = f"{kind}, restarted"
        with_it = accuracies(study, label, *window_names(c))
        without = accuracies(study, label, *(f"plain {t}" for t in quarters(c)))
        gained = np.stack(with_it, 1) - np.stack(without, 1)
        curves.append(Curve(KINDS[kind], quarters(c), gained))
        for t, late in zip(quarters(c)[1:], gained.T[1:]):
            unit = f"points, first quarter less that at {t}, {KINDS[kind]}"
            row = Effect(unit, gained[:, 0] - late, **rule(study, least=POINT))
            effects += [row] * (kind == "decay")
            said += [str(row)] * (kind in TESTED)
    axes = [Axes("points gained, decay restarted", curves, x="quarter that begins at epoch")]
    return Panel("weight decay matters most in the first epochs at an equal rate too", effects,
                 axes, gate(study), "; ".join(said))


def golatkar_throughout(study):
    """Finding 2: augmentation acts similarly throughout training, weight decay early.

    Effects, decaying rate: augmentation, points of the first quarter less the last, within 1;
    share of the quarters' gains that falls to the first, weight decay less augmentation, least .1.
    Scope as golatkar_until.
    """
    c = study.config
    found = gains(study, "decaying", window_names(c))
    shares = {kind: values[:, 0] / values.clip(min=0.0).sum(1).clip(min=POINT)
              for kind, values in found.items()}
    effects = [
        Effect("points, first quarter less the last, augmentation",
               found["augment"][:, 0] - found["augment"][:, -1], **rule(study, within=POINT)),
        Effect("of the gains in the first quarter, weight decay less augmentation",
               shares["decay"] - shares["augment"], least=TENTH),
    ]
    axes = drawn(study, window_names(c), quarters(c), "quarter that begins at epoch")
    return Panel("augmentation acts alike in all quarters, weight decay in the first", effects,
                 axes[:1], gate(study))


def golatkar_solutions(study):
    """"Different points of convergence", the same performance.

    Effects, weight decay, decaying rate: distance of the net regularised in the first half from the
    one regularised throughout, over that of two first draws of the latter, least .1; their
    accuracies, within 1 point. Disagreement on test images, both ways, and the constant rate are
    printed and drawn. Scope as golatkar_until.
    """
    results, rows, said = study.results, {}, []
    half = study.config.epochs // 2
    for rate in RATES[:2]:
        name = f"decay, {rate} all"
        near, far = (results.final(f"distance{end}", name) for end in ("", "_again"))
        apart, again = (results.final(f"disagreement{end}", name) for end in ("", "_again"))
        first, whole = accuracies(study, f"decay, {rate}", f"until {half}", "all")
        rows[rate] = np.stack([near / far, apart / again], 1)
        said += [
            str(Effect(f"of the distance of two draws, {rate} rate", near / far)),
            f"disagreement {100 * apart.mean():.1f} % of test images against"
            f" {100 * again.mean():.1f} % of two draws",
        ]
        if rate == "decaying":
            effects = [
                Effect("of the distance of two draws", near / far, least=TENTH),
                Effect("points, first half less all", first - whole, **rule(study, within=POINT)),
            ]
    axes = [
        Axes("over that of two first draws", [
            Curve(f"{rate} rate", ["distance", "disagreement"], values)
            for rate, values in rows.items()
        ], x="", kind="bar"),
        Axes("test accuracy (%)", [
            Curve("decaying rate", ["first half", "all"], np.stack(
                accuracies(study, "decay, decaying", f"until {half}", "all"), 1))
        ], x="weight decay", kind="bar"),
    ]
    return Panel("late regularisation changes where training ends, not how well", effects, axes,
                 gate(study), "; ".join([*said, str(effects[1])]))


def golatkar_curvature(study):
    """Regularisation "does not simply bias optimization towards final solutions that (have) low
    curvature".

    Effects, weight decay, decaying rate: log of the Hessian's trace at the end, throughout over
    none, least .1: it does not end flatter; points that it gains, least 1. The net regularised in
    the first half is printed and drawn, and the Fisher trace along the runs. Scope as
    golatkar_until; training images, eval mode.
    """
    half = study.config.epochs // 2
    names = [f"decay, decaying {name}" for name in ("none", f"until {half}", "all")]
    hessian, accuracy = (study.results.final(key, names) for key in ("hessian", "accuracy"))
    effects = [
        Effect("log (Tr H, all / none)", log_ratio(hessian[:, 2], hessian[:, 0]), least=TENTH),
        Effect("points gained", accuracy[:, 2] - accuracy[:, 0], **rule(study, least=POINT)),
    ]
    said = Effect("log (Tr H, first half / all)", log_ratio(hessian[:, 1], hessian[:, 2]))
    labels = "none", f"first {half} epochs", "all"
    axes = [
        Axes("Tr F", [Curve(label, *study.results.curve("fisher", name))
                      for label, name in zip(labels, names)], log=True),
        Axes("Tr H at the end", [Curve("weight decay", labels, hessian)], x="", kind="bar"),
        Axes("test accuracy (%)", [Curve("weight decay", labels, accuracy)], x="", kind="bar"),
    ]
    return Panel("weight decay tests better, and not by ending in a flatter place", effects, axes,
                 gate(study), "; ".join(map(str, [*effects, said])))


PANELS = [
    golatkar_until, golatkar_after, golatkar_window, golatkar_restarted, golatkar_throughout,
    golatkar_solutions, golatkar_curvature,
]


# ---- what is trained


def prepare(study, seed, label):
    """(Dataset, Setup) of one kind of regularisation and one learning rate."""
    c, data = study.config, study.prepared_data(seed, **dict(study.config.generator))
    x, y = data.train
    lr = c.constant_lr if "constant" in label else exponential(c.lr, c.decay)
    return data, Setup(
        partial(c.net, x.shape[1:], data.classes), x, y, lr=lr, batch_size=c.batch_size,
        optimizer=partial(torch.optim.SGD, momentum=c.momentum),
    )


def schedules(c, label):
    """name -> phases of one kind and rate; what begins alike is trained once."""
    kind, rate = label.split(", ")
    used = {"weight_decay": c.weight_decay} if kind != "augment" else {}
    used |= {"augment": c.augment} if kind != "decay" else {}
    whole, quarter, starts = c.epochs, c.epochs // 4, quarters(c)
    if rate == "restarted":
        made = {}
        for start in starts:
            event = restart_learning_rate if start else None
            for name, settings in (("window", used), ("plain", {})):
                made[f"{name} {start}"] = [
                    Phase(start), Phase(quarter, event=event, **settings),
                    Phase(whole - start - quarter),
                ]
        return made
    made = {"none": [Phase(whole)], "all": [Phase(whole, **used)]}
    for start in starts[1:]:
        made[f"until {start}"] = [Phase(start, **used), Phase(whole - start)]
        made[f"after {start}"] = [Phase(start), Phase(whole - start, **used)]
    for start in starts:
        made[f"window {start}"] = [
            Phase(start), Phase(quarter, **used), Phase(whole - start - quarter)
        ]
    return made


# ---- what is measured


def measure(study, run, epoch, state, names):
    """At the quarters: accuracies and, for weight decay, Fisher trace; at the end also Tr H."""
    c, (x, y) = study.config, run.data.train
    values = evaluate_both(state.model, run.data)
    if run.label == "decay, decaying" and study.wants(golatkar_curvature):
        some, draw = (x[: c.fisher_examples], y[: c.fisher_examples]), generator(
            x.device, run.seed, epoch, "curvature")
        values["fisher"] = fisher_trace(state.model, some[0], "signs", None, draw).total
        if epoch == c.epochs:
            values["hessian"] = hessian_trace(
                state.model, *some, c.trace_products, draw, method="hutch++", batch_size=500)[0]
    study.log.add(run.seed, names, epoch, **values)


def compare(study, unit):
    """Second stage: how far the net regularised in the first half, and one of another first draw
    (trained here), are from the one regularised throughout."""
    c, name = study.config, f"{unit.label} all"
    if study.log.series(unit.seed, name, "distance")[0]:
        return
    half, model, nets = f"until {c.epochs // 2}", fresh_model(unit.setup, unit.seed, "init"), {}
    for key in ("all", half):
        model.load_state_dict(study.kept(unit.seed, f"{unit.label} {key}")["model"])
        nets[key] = copy.deepcopy(model).eval()
    again = {"again": [Phase(c.epochs, weight_decay=c.weight_decay, event=redraw)]}
    for _, state, _ in sweep(unit.setup, again, unit.seed):
        nets["again"] = state.model
    study.work.epochs_done += c.epochs
    weights = {key: flat_parameters(net) for key, net in nets.items()}
    said = {key: predict(net, unit.data.test[0]).argmax(1) for key, net in nets.items()}
    values = {}
    for key, ending in ((half, ""), ("again", "_again")):
        distance = (weights[key] - weights["all"]).norm() / weights["all"].norm()
        apart = (said[key] != said["all"]).double().mean()
        values |= {f"distance{ending}": float(distance), f"disagreement{ending}": float(apart)}
    study.log.add(unit.seed, [name], c.epochs, **values)


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    c = study.config
    labels = [f"{kind}, {rate}" for kind in KINDS for rate in RATES]
    if not study.wants(golatkar_restarted):
        labels = [label for label in labels if "restarted" not in label]
    kept = {"all", f"until {c.epochs // 2}"}
    at = {*quarters(c), c.epochs}
    plans, besides = {label: schedules(c, label) for label in labels}, {}
    for label in labels if study.wants(golatkar_solutions) else ():  # see compare
        if label.startswith("decay") and kept <= set(plans[label]):
            besides[label] = prepare(study, study.seeds[0], label)[1], c.epochs, "all"
    for unit in study.units(prepare, plans, besides=besides):
        compared = unit.label in besides and kept <= set(unit.schedules)
        for epoch, state, names in study.work.trained(unit):
            if epoch in at and not state.event:
                measure(study, unit, epoch, state, names)
            if epoch == c.epochs and compared:
                for name in kept & {name.removeprefix(f"{unit.label} ") for name in names}:
                    study.keep(unit.seed, f"{unit.label} {name}", state)
        if compared:
            compare(study, unit)
    study.finish()


if __name__ == "__main__":
    command_line(main)
