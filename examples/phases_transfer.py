"""Transfer: when is a frozen network most useful for another task? ("Understanding and leveraging
the learning phases")

A linear probe reads frozen layers at steps 0, 1, 2, 4 … of training on the original task. fig6:
another data set, or classes that were held out; fig7: which colour channel is largest on average.
probe_peak: the probe peaks where reconstruction of the original data is best, and before the
classifier is. fine_tuning: all weights are trained on the other task, not a probe alone.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
import numpy as np
from torch import nn

from clp_min.reconstruction import layer_features
from clp_min.schedule import Phase, sweep
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.study.panel import untrained
from clp_min.train import accuracy, fresh_model

import phases


def phases_fig6(study):
    """ResNet (``--net vgg``: VGG), another task.

    Another data set, as in the paper: by default shapes, after training on textures; ``--to NAME``
    for real sets (Fashion-MNIST and MNIST, CIFAR-100 and CIFAR-10, both ways); ``--held-out``: the
    second half of the classes, while the first half is trained on. Effects: points that the probe
    at layer -1 gains up to the step ``probe_best`` (of the settings, chosen on other seeds) and
    loses after it, least 1 each. Scope: the steps of the settings; where the probe is best at the
    last one, nothing can be lost after.
    """
    return probe_panel(study, "transfer", other_name(study), study.config.probe_best)


def phases_fig7(study):
    """VGG (``--net resnet``: ResNet). The task "which colour channel is largest on average".

    Effects and scope of fig6, with the step ``colour_best``. Only for colour images.
    """
    task = "the dominant colour channel"
    return probe_panel(study, "channel", task, study.config.colour_best)


def probe_panel(study, task, probed, step):
    """What fig6 and fig7 share."""
    results, found = study.results, []
    labels = {"accuracy": "classifier, own task", "probe_1": "probe, layer -1"}
    labels |= {"probe_2": "probe, layer -2", "probe_3": "probe, layer -3"}
    curves = [Curve(*phases.curve(label, results, key, task)) for key, label in labels.items()]
    loss = Curve(*phases.curve("loss of the original images, layer -1", results, "loss_1", task))
    for curve in curves:
        best = f"{curve.label}: best at step {curve.x[curve.values.mean(0).argmax()]:g}"
        effects = both_ways(study, task, curve, step) if "probe" in curve.label else []
        found.append(", ".join([best, *map(str, effects)]))
    found.append(f"{loss.label}: least at step {loss.x[loss.values.mean(0).argmin()]:g}")
    effects, scale = both_ways(study, task, curves[1], step), phases.STEP
    axes = [Axes("accuracy (%)", curves, **scale), Axes("loss / variance", [loss], **scale)]
    claim, said = f"a probe of {probed} peaks before training ends", "; ".join(found)
    return Panel(claim, effects, axes, own_gate(study, task), said, headline=effects[1])


def both_ways(study, task, curve, step):
    """The two effects of a peak at a step."""
    probed = other_set(study) if task == "transfer" else None
    grain = divided(study, task) * study.step(probed)
    units = f"points gained up to step {step}", "points lost after it"
    heights = zip(units, phases.around(curve, step))
    return [Effect(unit, values, least=phases.POINT, step=grain) for unit, values in heights]


def own_gate(study, task):
    """Why the classifier shows nothing, if it does not."""
    correct = study.results.final("accuracy", task)
    return untrained(correct, study.classes / divided(study, task))


def divided(study, task):
    """Into how many parts the classes and their images are divided."""
    return 2 if task == "transfer" and study.arguments.held_out else 1


def phases_probe_peak(study):
    """The statement behind fig6: the probe's peak lies near the least reconstruction loss of the
    original images (layer -1), and "well before" the classifier's own.

    Steps are powers of two; the places are each seed's own, the first step within a point of the
    best (of the loss: within .01 of the variance; of outputs as they are, as in the paper: once
    they are standardised a random net decodes well too). Effects: doublings from the least loss to
    the probe's peak, within 2; from the probe's peak to that of the classifier's test accuracy,
    least 2; and fig6's two, without which it has no peak: where ``probe_best`` is the first or the
    last measured step, one of them is 0. Scope as fig6; a frozen probe, no fine-tuning.
    """
    results = study.results
    keys = {"probe_1": "probe", "loss_raw": "reconstruction loss", "accuracy": "classifier",
            "loss_1": "the loss from standardised outputs"}
    places, curves = zip(*(place_of(results, key, label) for key, label in keys.items()))
    effects = [
        Effect("doublings (probe's peak after the least loss)", places[0] - places[1], within=2.0,
               step=1.0),
        Effect("doublings (classifier's best after the probe's peak)", places[2] - places[0],
               least=2.0, step=1.0),
    ]
    probe = Curve(*phases.curve("probe", results, "probe_1", "transfer"))
    effects += both_ways(study, "transfer", probe, study.config.probe_best)
    y = "layer -1, as a share of the mean's range"
    return Panel(
        claim="the probe is best where the reconstruction loss is least, before the classifier is",
        effects=effects,
        axes=[Axes(y, curves, **phases.STEP)], gate=own_gate(study, "transfer"),
    )


def phases_fine_tuning(study):
    """"Pre-training of classifiers that are later fine-tuned should stop well before the
    performance is optimal for the pre-training task" (Introduction; shown with frozen nets alone).

    From every measured step on all weights, with a new last layer, are trained for ``tuning``
    epochs on the other data set; step 0 is training from scratch. Effects: doublings from the best
    step for this to that of the classifier's own test accuracy, places as in probe_peak, least 2;
    points gained up to the step ``probe_best``, where the frozen net is best (of the settings,
    chosen on other seeds), and lost after it, least 1 each. Scope: one length of fine-tuning, from
    the rate of the first training.
    """
    keys = {"accuracy_tuned": "fine-tuned, other task", "accuracy": "classifier, own task"}
    tuned, own = (place_of(study.results, key, label)[0] for key, label in keys.items())
    later = Effect("doublings (classifier's best after that for fine-tuning)", own - tuned,
                   least=2.0, step=1.0)
    curves = [Curve(*phases.curve(label, study.results, key, "transfer"))
              for key, label in keys.items()]
    effects = [later, *both_ways(study, "transfer", curves[0], study.config.probe_best)]
    claim = "a net is best for fine-tuning well before it is best at its own task"
    axes = [Axes("test accuracy (%)", curves, **phases.STEP)]
    return Panel(claim, effects, axes, own_gate(study, "transfer"), headline=effects[2],
                 caption=f"{study.config.tuning} epochs of fine-tuning")


def place_of(results, key, label):
    """((seeds,) index of the first measured step close to each seed's best, Curve)."""
    _, x, values = phases.curve(label, results, key, "transfer")
    sign, near = (-1, phases.LEAST) if "loss" in key else (1, phases.POINT)
    height = sign * values
    place = (height >= height.max(1, keepdims=True) - near).argmax(1)
    return place, Curve(label, x, share_of_range(values))


def share_of_range(values):
    """Curves (seeds, points) moved and scaled so that their mean goes from 0 to 1."""
    mean = values.mean(0)
    return (values - mean.min()) / (np.ptp(mean) or 1.0)


PANELS = [phases_fig6, phases_fig7, phases_probe_peak, phases_fine_tuning]
# the paper's
PAIRS = dict(cifar100="cifar10", cifar10="cifar100", fashion_mnist="mnist", mnist="fashion_mnist")
TO = "real data set of the probe in phases_fig6 (default: the paper's; shapes after textures)"
HELD_OUT = "probe classes that were held out in phases_fig6, not another data set"
NET = "the net (default, as in the paper: resnet for phases_fig6, vgg for phases_fig7)"
COLOUR = "shapes whose strongest channel is set by the class in 7 of 10 images (phases_fig7)"
OPTIONS = [
    ("--to", dict(choices=list(PAIRS), help=TO), "to_{}"),
    ("--held-out", dict(action="store_true", help=HELD_OUT), "held_out"),
    ("--net", dict(choices=["resnet", "vgg"], help=NET), "{}"),
    ("--class-colour", dict(action="store_true", help=COLOUR), "class_colour"),
]


def other_set(study):
    """Name of the real set of the probe in fig6; None: the study's own set."""
    if study.arguments.held_out:
        return None
    return study.arguments.to or PAIRS.get(study.data)


def other_name(study):
    """What is probed in fig6, in words."""
    return "held-out classes" if study.arguments.held_out else other_set(study) or study.data


def own_set(study, seed):
    """The set of which a task is made."""
    return phases.load(study, seed, **{"class_colour": 0.7} if study.arguments.class_colour else {})


def pair_of_tasks(study, seed, task):
    """(the set that is trained on, the set that is probed)."""
    data, name = own_set(study, seed), other_set(study)
    if task == "channel":  # of the standardised image: the three are about equally frequent
        return data, data.relabelled(3, lambda x, y: (x, x.mean((2, 3)).argmax(1)))
    if study.arguments.held_out:
        return data.halves()
    if name is None:
        return phases.load(study, seed, study.config.trained_on), data
    other = phases.load(study, seed, name)
    shapes = [tuple(one.train[0].shape[1:]) for one in (other, data)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"--to {name}: images are {shapes[0]}, those of {data.name} {shapes[1]}")
    return data, other


def prepare(study, seed, task):
    """((own task, other task), Setup)."""
    own, other = pair_of_tasks(study, seed, task)
    return (own, other), setup_of(study, task, own)


def setup_of(study, task, data):
    """How the task's net is trained on a data set."""
    default = "resnet" if task == "transfer" else "vgg"
    net = study.config.vgg if (study.arguments.net or default) == "vgg" else study.config.net
    return phases.prepare(study, data, net, study.config.lr)


def fine_tuned(study, seed, model, other):
    """Test accuracy on another set after training all weights on it, the last layer a new one; the
    rate falls to 0 within the ``tuning`` epochs, so that where it stops does not tell."""
    tuning = study.config.tuning

    def take_body(setup, state):
        # not the head that the first training began with, which the body has grown to fit
        state.model.load_state_dict(fresh_model(setup, seed, "new head").state_dict())
        head = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
        body = {k: v for k, v in model.state_dict().items() if not k.startswith(f"{head}.")}
        state.model.load_state_dict(body, strict=False)

    setup = study.asked(setup_of(study, "transfer", other))
    plan = {"": [Phase(tuning, lr=lambda t: setup.lr * (1 - t / tuning), event=take_body)]}
    *_, (_, state, _) = sweep(setup, plan, seed)
    return accuracy(phases.as_trained(state.model, setup.x), *other.test)


def measure(study, run, step, state):
    """Accuracy on both tasks, and what layer -1 keeps of the first task's images."""
    own, other = run.data
    model = phases.as_trained(state.model, own.train[0])
    features, test_features = (layer_features(model, part[0]) for part in (other.train, other.test))
    values = {"accuracy": accuracy(model, *own.test)}
    for k in features:
        parts = features[k], other.train[1], test_features[k], other.test[1]
        values[f"probe_{-k}"] = phases.probe_of(study, (run.seed, step), *parts)
    images = own.train[0], own.test[0]
    parts = [layer_features(model, part)[-1] for part in images]
    readings = {"loss_1": False, "loss_raw": True}
    for key in readings if study.wants(phases_probe_peak) else ["loss_1"]:
        values[key] = phases.loss_of(study, (run.seed, step), *parts, *images, readings[key])
    return values


def main(argv=None):
    study = Study(__file__, PANELS, phases.CONFIGS, argv, OPTIONS, other_set)
    if study.arguments.class_colour and study.data != "shapes":
        raise ValueError(f"--class-colour is for --data shapes, got {study.data}")
    if own_set(study, study.seeds[0]).train[0].shape[1] == 1:
        study.leave_out(phases_fig7, f"needs colour images, and {study.data} has none")
    wanted = {"transfer": (phases_fig6, phases_probe_peak, phases_fine_tuning),
              "channel": (phases_fig7,)}
    tasks = [task for task, panels in wanted.items() if study.wants(*panels)]
    plans = {}
    for task in tasks:
        _, setup = prepare(study, study.seeds[0], task)
        plans[task] = {"": phases.until_step(study.config.transfer_last, setup)}
    at = phases.steps(study.config.transfer_last)
    tunes, besides = study.wants(phases_fine_tuning), {}
    if tunes:
        other = pair_of_tasks(study, study.seeds[0], "transfer")[1]
        besides["transfer"] = setup_of(study, "transfer", other), study.config.tuning * len(at)
    for run, step, state, names in study.sweep(prepare, plans, at, besides):
        values = measure(study, run, step, state)
        if tunes and run.label == "transfer":
            values["accuracy_tuned"] = fine_tuned(study, run.seed, state.model, run.data[1])
            study.work.epochs_done += study.config.tuning
        study.log.add(run.seed, names, step, **values)
    study.finish()


if __name__ == "__main__":
    command_line(main)
