"""Effective gradient along training ("Revisiting critical learning periods", sections 4.3, 4.4 and B.3).

fig3: normal training of VGG, ResNet and DeiT; fig4: with a deficit; fig6 to 8: other optimizers. The paper projects on the vector to the
mean of the ten snapshots with the best test accuracy; beside it stands what that replaces, the projection on the full gradient. Snapshots
go to disk, so that memory stays bounded, and are measured when the run is over. Findings 4 to 6 are rows of their own.
"""

from functools import partial

import common
import revisiting
import torch
import running
import verdicts
from clp_min.deficits import images
from clp_min.gradients import effective_gradient, flat_parameters, full_gradient, optimum
from clp_min.models import parameter_count
from clp_min.record import headline
from clp_min.schedule import Phase, distinct_epochs
from clp_min.seeding import generator
from clp_min.train import accuracy, fresh_model, load_checkpoint, save_checkpoint
from clp_min.transformer import hard_distillation

MEASURES = {  # key -> label; norms are means over the batches of an epoch
    "stochastic": "stochastic gradient",
    "effective": "effective gradient (to the optimum)",
    "on_full": "projected on the full gradient",
    "full": "full gradient",
}


def _epochs(run, name):
    return run.log.series(run.seeds[0], name, "effective")[0]


def _values(run, name, key):
    return [run.log.series(s, name, key)[1] for s in run.seeds]


def _accumulated(rows):
    """Running sums as a share of the total, per seed."""
    shares = []
    for row in rows:
        total = torch.tensor(row, dtype=torch.float64).cumsum(0)
        shares.append((total / total[-1]).tolist())
    return shares


def _series(run, name):
    x = _epochs(run, name)
    series = [{"label": label, "x": x, "y": "norm", "values": _values(run, name, key)} for key, label in MEASURES.items()]
    for key, label in (("effective", "effective, to the optimum"), ("on_full", "on the full gradient")):
        series.append({"label": label, "x": x, "y": "accumulated, share of its end", "values": _accumulated(_values(run, name, key))})
    return series + [{"label": "optimum's direction and descent", "x": x, "y": "cosine", "values": _values(run, name, "cosine")}]


def _decline(run, name, key="effective"):
    """log(mean over the first quarter of the epochs / mean over the last quarter) of a norm."""
    quarter = max(len(_epochs(run, name)) // 4, 1)
    return headline(
        [verdicts.log_ratio(sum(row[:quarter]), sum(row[-quarter:])) for row in _values(run, name, key)],
        "log (first quarter / last quarter)",
    )


def _normal_panel(run, names, claim):
    """What fig3 and fig6 to 8 share."""
    effects = {name: _decline(run, name) for name in names}
    early = {
        name: headline([row[max(len(row) // 4, 1) - 1] for row in _accumulated(_values(run, name, "effective"))], "") for name in names
    }
    series = [
        one | {"label": f"{name}: {one['label']}" if len(names) > 1 else one["label"]}
        for name in names
        for one in _series(run, name)
        if len(names) == 1 or "full gradient" not in one["label"]
    ]
    said = "; ".join(
        f"{name}: {verdicts.say(effects[name])}, {100 * early[name]['mean']:.0f} % of the sum in the first quarter" for name in names
    )
    return {
        "claim": claim,
        "headline": min(effects.values(), key=lambda e: e["mean"]),
        "verdict": verdicts.joint_verdict(list(effects.values())),
        "finding": said,
        "series": series,
        "figure": {"x": "epoch", "log": ["norm"]},
    }


def revisiting_fig3(run):
    """Normal training, SGD. Verdict: "reproduced" if for VGG, ResNet and DeiT the effective gradient's mean norm over the first quarter of
    the
    epochs exceeds that over the last quarter, in logarithms, by > 3 standard errors over >= 3 seeds."""
    return _normal_panel(run, ["vgg normal", "resnet normal", "deit normal"], "the effective gradient declines in normal training")


def revisiting_fig6(run):
    """SGD with momentum 0.9. Rule of fig3."""
    return _normal_panel(run, ["momentum normal"], "the effective gradient declines under momentum")


def revisiting_fig7(run):
    """SGD with Nesterov's momentum. Rule of fig3."""
    return _normal_panel(run, ["nesterov normal"], "the effective gradient declines under Nesterov's momentum")


def revisiting_fig8(run):
    """Adam. Rule of fig3."""
    return _normal_panel(run, ["adam normal"], "the effective gradient declines under Adam")


def _lost(run, name):
    return [run.log.last(s, "vgg normal", "accuracy") - run.log.last(s, name, "accuracy") for s in run.seeds]


def _shortness(run, name, start, length):
    """The effective gradient over ``length`` epochs from ``start`` on, paired by seed, in logarithms (positive: shorter), against normal training:
    [its mean norm against that of as many epochs at the start, its share of the stochastic gradient against that at the same epochs].

    The first alone would also hold for any net that has trained for a while.
    """
    then, first, share = slice(start, start + length), [], []
    keys = [_values(run, which, key) for which in ("vgg normal", name) for key in ("effective", "stochastic")]
    for normal, normal_stochastic, row, stochastic in zip(*keys):
        first.append(verdicts.log_ratio(sum(normal[:length]), sum(row[then])))
        share.append(verdicts.log_ratio(sum(normal[then]) / sum(normal_stochastic[then]), sum(row[then]) / sum(stochastic[then])))
    return [
        headline(first, "log (start of normal training / then)"),
        headline(share, "log (share of the stochastic gradient, normal / deficit)"),
    ]


def _early_deficit_panel(run, length):
    name = f"vgg deficit 0-{length}"
    lost, short = headline(_lost(run, name), "points of accuracy lost"), _shortness(run, name, length, length)
    return {
        "claim": f"{length} initial deficit epochs damage, and the effective gradient stays short after them",
        "headline": lost,
        "verdict": verdicts.joint_verdict([lost, *short]),
        "finding": f"{verdicts.say(lost)} at equal total epochs; effective gradient in the {length} epochs after the deficit:"
        f" {'; '.join(map(verdicts.say, short))}",
        "series": _series(run, name),
        "figure": {"x": "epoch", "log": ["norm"], "spans": [[0, length]]},
    }


def revisiting_fig4a(run):
    """Deficit in the first quarter of the epochs, equal total epochs.

    Verdict: "reproduced" if accuracy is lost, and after the deficit the effective gradient is shorter than at the start of normal training,
    and a smaller share of the stochastic gradient than in normal training at the same epochs, each by > 3 standard errors, >= 3 seeds.
    """
    return _early_deficit_panel(run, run.config.long_deficit)


def revisiting_fig4b(run):
    """Deficit in the first eighth of the epochs. Rule of fig4a."""
    return _early_deficit_panel(run, run.config.short_deficit)


def revisiting_fig4c(run):
    """Deficit in the second quarter.

    Verdict: "reproduced" if fig4a's deficit of the same length costs accuracy, this one less than half as much, and the effective gradient in
    the window passes fig4a's two tests, each by > 3 standard errors over >= 3 seeds.
    """
    start, end = run.config.late_window
    name, early = f"vgg deficit {start}-{end}", f"vgg deficit 0-{run.config.long_deficit}"
    lost = headline(_lost(run, name), "points of accuracy lost")
    lost_early = headline(_lost(run, early), "points lost to the early one")
    spared = headline([a / 2 - b for a, b in zip(_lost(run, early), _lost(run, name))], "points (early / 2 - this)")
    short = _shortness(run, name, start, end - start)
    return {
        "claim": "a later deficit does little, and the effective gradient is short while it lasts",
        "headline": lost,
        "verdict": verdicts.joint_verdict([lost_early, spared, *short]),
        "finding": "; ".join(map(verdicts.say, [lost, lost_early, spared, *short])),
        "series": _series(run, name),
        "figure": {"x": "epoch", "log": ["norm"], "spans": [[start, end]]},
    }


def revisiting_finding4(run):
    """Finding 4 and its yardstick: does the decline also hold for the projection on the full gradient (Definition 1), and is the paper's
    direction that of descent?

    Verdict: "reproduced" if, for all three nets, the projection on the full gradient declines (rule of fig3) and the cosine between the
    vector to the optimum and the negative full gradient, mean over epochs, is > 0.1 and > 3 standard errors above 0 over >= 3 seeds. (A
    cosine of .01 would be certain and say nothing.)
    """
    names = ["vgg normal", "resnet normal", "deit normal"]
    declines = {name: _decline(run, name, "on_full") for name in names}
    cosines = {name: headline([sum(row) / len(row) for row in _values(run, name, "cosine")], "") for name in names}
    said = "; ".join(
        f"{n}: {verdicts.say(declines[n])}, cosine {cosines[n]['mean']:.2f} ± {cosines[n]['standard_error']:.2f}" for n in names
    )
    series = [
        {"label": n, "x": _epochs(run, n), "y": y, "values": _values(run, n, key)}
        for n in names
        for key, y in (("on_full", "norm of the projection on the full gradient"), ("cosine", "cosine of optimum's direction and descent"))
    ]
    verdict = verdicts.joint_verdict(list(declines.values()))
    verdict = verdict if verdict == verdicts.joint_verdict(list(cosines.values()), least=0.1) else "not reproduced"
    return {
        "claim": "the projection on the full gradient declines too, and the optimum lies in the direction of descent",
        "headline": min(declines.values(), key=lambda e: e["mean"]),
        "verdict": verdict,
        "finding": said,
        "series": series,
        "figure": {"x": "epoch", "log": ["norm of the projection on the full gradient"]},
    }


def _findings_bar(run, claim, names, effects, verdict):
    """Accuracy lost in several schedules as bars."""
    rows = [_lost(run, name) for name in names]
    return {
        "claim": claim,
        "headline": effects[0],
        "verdict": verdict,
        "finding": "; ".join(map(verdicts.say, effects)),
        "series": [
            {
                "label": "drop",
                "x": [n.removeprefix("vgg ") for n in names],
                "y": "accuracy lost (points)",
                "values": [list(v) for v in zip(*rows)],
            }
        ],
        "figure": {"x": "schedule", "kind": "bar"},
    }


def revisiting_finding5(run):
    """Finding 5: effective gradients stay deteriorated after an early deficit, which impairs. Verdict: all effects of fig4a and fig4b."""
    config, effects = run.config, []
    names = [f"vgg deficit 0-{d}" for d in (config.short_deficit, config.long_deficit)]
    for name, length in zip(names, (config.short_deficit, config.long_deficit)):
        effects += [headline(_lost(run, name), f"points lost to {length} epochs"), *_shortness(run, name, length, length)]
    return _findings_bar(
        run,
        "after an early deficit the effective gradient does not recover, and accuracy is lost",
        names,
        effects,
        verdicts.joint_verdict(effects),
    )


def revisiting_finding6(run):
    """Finding 6: a deficit after the critical period leaves no permanent impairment.

    Verdict: "reproduced" if the early deficit of the same length costs accuracy and the late one less than a quarter as much (early/4 - late),
    each by > 3 standard errors over >= 3 seeds.
    """
    start, end = run.config.late_window
    early, late = f"vgg deficit 0-{run.config.long_deficit}", f"vgg deficit {start}-{end}"
    effect = headline([a / 4 - b for a, b in zip(_lost(run, early), _lost(run, late))], "points (early / 4 - late)")
    early_loss, late_loss = headline(_lost(run, early), "points lost early"), headline(_lost(run, late), "points lost late")
    claim, verdict = "a deficit after the critical period leaves no lasting damage", verdicts.joint_verdict([early_loss, effect])
    return _findings_bar(run, claim, [early, late], [effect, early_loss, late_loss], verdict)


PANELS = [
    revisiting_fig3,
    revisiting_fig4a,
    revisiting_fig4b,
    revisiting_fig4c,
    revisiting_fig6,
    revisiting_fig7,
    revisiting_fig8,
    revisiting_finding4,
    revisiting_finding5,
    revisiting_finding6,
]


def sweeps(run):
    """label -> (net, learning rate, optimizer, name -> phases) of every sweep of a seed."""
    config, blur = run.config, images(run.config.blur)

    def window(start, end):
        return [Phase(start), Phase(end - start, blur), Phase(config.epochs - end)]

    normal, sgd = {"normal": [Phase(config.epochs)]}, torch.optim.SGD
    windows = (0, config.long_deficit), (0, config.short_deficit), config.late_window
    found = {"vgg": (config.vgg, config.lr, sgd, normal | {f"deficit {a}-{b}": window(a, b) for a, b in windows})}
    if run.wants(revisiting_fig3, revisiting_finding4):
        found["resnet"] = config.resnet, config.lr, sgd, normal
        found["deit"] = config.deit, config.deit_lr, sgd, {"normal": [Phase(config.deit_epochs)]}
    if run.wants(revisiting_fig6):
        found["momentum"] = config.vgg, config.momentum_lr, partial(sgd, momentum=0.9), normal
    if run.wants(revisiting_fig7):
        found["nesterov"] = config.vgg, config.momentum_lr, partial(sgd, momentum=0.9, nesterov=True), normal
    if run.wants(revisiting_fig8):
        found["adam"] = config.vgg, config.adam_lr, torch.optim.Adam, normal
    return found


def phase_at(phases, epoch):
    """The phase that trains the epoch after ``epoch`` epochs (the last one's at the end)."""
    for phase in phases:
        if epoch < phase.epochs:
            return phase
        epoch -= phase.epochs
    return phases[-1]


def measure(run, seed, setup, model, phases, epoch, direction):
    """Norms at one snapshot, on the data of the next epoch's phase: means over ``batches`` batches, and the full gradient's.

    Gradients of the mean cross-entropy in eval mode, without augmentation or distillation: the training step's own differ by those.
    """
    phase, g = phase_at(phases, epoch), generator(setup.x.device, seed, epoch, "batches")
    x, y = (setup.x, setup.y) if phase.deficit is None else phase.deficit(setup.x, setup.y, g)
    batches = torch.randperm(len(x), device=x.device, generator=g).split(setup.batch_size)[: run.config.batches]
    gradients = [full_gradient(model, x[b], y[b]) for b in batches]
    if sum(map(len, batches)) == len(x):  # together they are the training set
        full = sum(gradient * (len(b) / len(x)) for gradient, b in zip(gradients, batches))
    else:
        full = full_gradient(model, x, y)
    values = {"stochastic": 0.0, "effective": 0.0, "on_full": 0.0, "full": float(full.norm())}
    for gradient in gradients:
        norms = (gradient, effective_gradient(gradient, direction), effective_gradient(gradient, full))
        for key, vector in zip(values, norms):
            values[key] += float(vector.norm()) / len(gradients)
    return values | {"cosine": -float(torch.nn.functional.cosine_similarity(direction, full, dim=0))}


def measure_schedule(run, seed, setup, name, phases):
    """Second stage: the optimum of a finished schedule's best snapshots, then every snapshot against it. Once: the snapshots are removed
    after it."""
    model = fresh_model(setup, seed, "init")
    if run.log.series(seed, name, "measured")[0]:
        return
    epochs, files = run.log.series(seed, name, "snapshot")

    def weights(file):
        model.load_state_dict(torch.load(run.work / file, map_location=setup.x.device, weights_only=True))
        return flat_parameters(model)

    accuracies = [run.log.at(seed, name, epoch, "accuracy") for epoch in epochs]
    best = sorted(range(len(epochs)), key=lambda i: (-accuracies[i], i))[: run.config.top]
    goal = optimum([weights(files[i]) for i in best], [accuracies[i] for i in best], run.config.top)
    for epoch, file in list(zip(epochs, files))[:-1]:
        direction = goal - weights(file)
        run.log.add(seed, [name], epoch, **measure(run, seed, setup, model, phases, epoch, direction))
    run.log.add(seed, [name], 0, measured=1)


def taught(run, seed, dataset):
    """DeiT's loss. Its teacher is the VGG at the end of normal training: trained here, to the same weights, so that no unit waits for
    another."""
    setup = revisiting.make_setup(run, dataset, run.config.vgg, run.config.lr)
    teacher, file = fresh_model(setup, seed, "init"), run.work / f"teacher-seed{seed}.pt"
    if load_checkpoint(file) is None:
        for epoch, state, _ in running.trained(run, seed, "teacher", setup, {"normal": [Phase(run.config.epochs)]}):
            if epoch == run.config.epochs:
                save_checkpoint(file, state.model.state_dict())
    teacher.load_state_dict(load_checkpoint(file, setup.x.device))
    return hard_distillation(teacher)


def main(argv=None):
    run = common.start(__file__, __doc__, PANELS, revisiting.CONFIGS, argv)
    plans = sweeps(run)
    dataset = revisiting.prepare(run, 0)
    jobs = {label: (revisiting.make_setup(run, dataset, net, lr), plan) for label, (net, lr, _, plan) in plans.items()}
    snapshots = max(distinct_epochs(plan) * parameter_count(setup.model()) * 4 / 1e9 for setup, plan in jobs.values())
    teacher = revisiting.make_setup(run, dataset, run.config.vgg, run.config.lr), run.config.epochs
    running.announce(run, jobs, disk=snapshots, before={"deit": teacher})  # snapshots of one unit at a time
    for seed, label, schedules in running.units(run):
        dataset, (net, lr, optimizer, _) = revisiting.prepare(run, seed), plans[label]
        distillation = {"loss": taught(run, seed, dataset)} if label == "deit" else {}
        setup = revisiting.make_setup(run, dataset, net, lr, optimizer, **distillation)
        for epoch, state, names in running.trained(run, seed, label, setup, schedules):
            file = f"{label}-seed{seed}-{names[0]}-{epoch}.snapshot"
            torch.save(state.model.state_dict(), run.work / file)
            names = [f"{label} {name}" for name in names]
            run.log.add(seed, names, epoch, accuracy=accuracy(state.model, *dataset.test), snapshot=file)
        for name, phases in schedules.items():
            measure_schedule(run, seed, setup, f"{label} {name}", phases)
        for name in schedules:
            for file in run.log.series(seed, f"{label} {name}", "snapshot")[1]:
                (run.work / file).unlink(missing_ok=True)
    common.finish(run)


if __name__ == "__main__":
    common.call(main)
