"""Can the choice of examples, or a penalty, close the gap of Sol-S? ("Generalization and
memorization in sparse neural networks", section 4, Algorithms 1 to 3)

Every step draws a pool of its own; an algorithm takes its batch from it by the Fisher trace of each
example (random signs, one backward pass; kept weights only). Controls: uniform choice from the same
pools, with as many updates; and uniform training with as many forward passes ("longer").
hardest_first and bilevel are the text's own proposals; the regularizer adds the Fisher trace to the
loss in the first epochs, with either sign.
"""

import clp_min.interrupt  # noqa: F401 (first: for Ctrl-C during the imports)
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from clp_min import models
from clp_min.fisher import fisher_trace
from clp_min.schedule import Phase, step_decay, sweep
from clp_min.seeding import generator
from clp_min.selection import (
    bilevel, by_fisher, fisher_penalty, hardest_first, reducible, select_highest, select_lowest,
    uniform,
)
from clp_min.sparsity import prune_and_redraw
from clp_min.study import Axes, Curve, Effect, Panel, Study, command_line
from clp_min.train import accuracy

import sparse


@dataclass(frozen=True)
class Config(sparse.Config):
    # ---- none of these is stated; all ours
    pool: int = 3  # batches in a pool
    first: float = 0.2  # share of the epochs in which Algorithm 1 and hardest_first choose
    holdout: float = 0.2  # share of the training set for Algorithm 3's small net
    small_net: Callable = partial(models.small_cnn, norm=True, init=models.kaiming_normal)
    early: float = 0.1  # share of the epochs with the penalty
    strengths: tuple = (0.001, 0.01, 0.1)
    strength: float = 0.01  # the one that the rule reads
    clip: float = 2.0  # of the gradient while the penalty acts: it is not bounded below


SMALL = partial(models.mlp, hidden=(32,), init=models.kaiming_normal)
ROWS = dict(generalisation=0.85, optimisation=0.94, labels="signs")
CONFIGS = sparse.configs(
    Config, shapes=ROWS | dict(small_net=SMALL), cifar10=ROWS | dict(small_net=SMALL),
    smoke=dict(strengths=(0.01,)),
)
CONTROLS = {"uniform": "uniform, same pools", "longer": "uniform, 4 x the epochs"}


def gain_panel(study, claim, name, label, control="uniform"):
    """What the algorithms share: test accuracy against the control at two sparsities."""
    c, effects, points = study.config, [], [study.config.generalisation, study.config.optimisation]
    for sparsity in points:
        ours, other = study.results.final("accuracy", [f"{name} {sparsity}",
                                                       f"{control} {sparsity}"]).T
        unit = f"points gained over uniform choice at {sparsity}"
        effects.append(Effect(unit, ours - other, least=sparse.POINT, step=study.step()))
    runs = {name: label, control: CONTROLS["uniform"], "longer": CONTROLS["longer"]}
    axes = [
        Axes(y, [
            Curve(said, list(map(str, points)),
                  study.results.final(key, [f"{run} {s}" for s in points]))
            for run, said in runs.items()
        ], x="sparsity", kind="bar")
        for key, y in (("accuracy", "test accuracy (%)"), ("train_accuracy", "training acc. (%)"))
    ]
    scored = study.results.final("scored", f"{name} {points[0]}").mean()
    finding = "; ".join(map(str, effects)) + f"; {scored:,.0f} examples passed through its pools"
    return Panel(claim, effects, axes, sparse.dense_gate(study), finding,
                 caption=f"pools of {c.pool} batches")


def sparse_alg1(study):
    """Algorithm 1: lowest Fisher trace first, then uniform.

    Effects: points of test accuracy of Sol-S over uniform choice from the same pools with as many
    updates, at ``generalisation`` and at ``optimisation``, least 1 each (paired by seed). Scope:
    this set, net and pool; the share of the epochs is ours.
    """
    return gain_panel(study, "training on low Fisher traces first improves Sol-S", "lowest first",
                      "Algorithm 1")


def sparse_alg2(study):
    """Algorithm 2: highest Fisher trace throughout. Effects and scope of alg1."""
    return gain_panel(study, "training on high Fisher traces improves Sol-S", "highest",
                      "Algorithm 2")


def sparse_alg3(study):
    """Algorithm 3: highest trace less that under a small net trained on a holdout set.

    Effects and scope of alg1; its control too goes without the holdout set.
    """
    return gain_panel(study, "training on reducible Fisher traces improves Sol-S", "reducible",
                      "Algorithm 3", "uniform rest")


def sparse_hardest_first(study):
    """Section 4.2.1: hardest to memorise first, then gradually easier. Effects and scope of
    alg1."""
    return gain_panel(study, "hardest examples first, then easier ones, improve Sol-S",
                      "hardest first", "hardest first")


def sparse_bilevel(study):
    """Section 4.2.2: by loss, then by Fisher trace. Effects and scope of alg1."""
    return gain_panel(study, "choosing by loss, then by Fisher trace, improves Sol-S", "bilevel",
                      "loss, then trace")


def sparse_regularizer(study):
    """Section 4.1: Fisher trace in the loss during the first epochs.

    Effects: points of test accuracy that the negative penalty ("encourage memorization") of the
    setting ``strength`` gains over none (gradient clipped alike), at ``generalisation`` and at
    ``optimisation``, least 1 each. The positive one ("flatter") and the other strengths are
    printed. Scope as alg1.
    """
    c, results, effects, axes, said = study.config, study.results, [], [], []
    for sparsity in (c.generalisation, c.optimisation):
        without = results.final("accuracy", f"clipped {sparsity}")
        curves = []
        for sign, word in ((-1, "negative"), (1, "positive")):
            names = [f"penalty {sign * s} {sparsity}" for s in c.strengths]
            gained = results.final("accuracy", names) - without[:, None]
            curves.append(Curve(word, list(map(str, c.strengths)), gained))
            for s, values in zip(c.strengths, gained.T):
                unit = f"points gained, penalty {sign * s:g} at {sparsity}"
                decides = sign < 0 and s == c.strength
                rule = dict(least=sparse.POINT, step=study.step()) if decides else {}
                said.append(Effect(unit, values, **rule))
                effects += [said[-1]] * decides
        axes.append(Axes(f"points gained at sparsity {sparsity}", curves, x="strength", kind="bar"))
    return Panel("a negative Fisher penalty in the first epochs improves Sol-S", effects, axes,
                 sparse.dense_gate(study), "; ".join(map(str, said)))


PANELS = [
    sparse_alg1, sparse_alg2, sparse_alg3, sparse_hardest_first, sparse_bilevel, sparse_regularizer,
]


# ---- runs


def schedules(study, setup, rest=None, scores=None):
    """name -> phases. rest, scores: indices outside the holdout set, and every training example's
    trace under the small net; they are a seed's own."""
    c, n = study.config, len(setup.x)
    last = tuple(sparse.last_layer(setup))
    rest = torch.arange(round((1 - c.holdout) * n), device=setup.x.device) if rest is None else rest
    scores = setup.x.new_zeros(n) if scores is None else scores
    size, first = c.pool * setup.batch_size, max(round(c.first * c.sparse_epochs), 1)
    early = max(round(c.early * c.sparse_epochs), 1)
    steps = n // setup.batch_size
    falling = hardest_first(c.dense_epochs * steps, first * steps, c.labels)
    lr = step_decay(c.lr, c.factor, c.sparse_milestones)
    passes = c.pool + 1  # of a step that scores its pool, against one of plain training
    slow = step_decay(c.lr, c.factor, tuple(passes * m for m in c.sparse_milestones))
    plan, dense = {"dense": [Phase(c.dense_epochs)]}, Phase(c.dense_epochs)

    def run(event, *parts, lr=lr):
        """Phases of (epochs, settings); the event is at the start of the first."""
        made = [Phase(epochs, lr=lr, **own) for epochs, own in parts]
        return [dense, replace(made[0], event=event), *made[1:]]

    for sparsity in (c.generalisation, c.optimisation):
        event, whole = prune_and_redraw(sparsity, last), c.sparse_epochs
        chosen = partial(dict, pool=size)
        low, high = (by_fisher(one, c.labels) for one in (select_lowest, select_highest))
        made = {
            "uniform": [(whole, chosen(select=uniform))],
            "lowest first": [(first, chosen(select=low)),
                             (whole - first, chosen(select=uniform))],
            "highest": [(whole, chosen(select=high))],
            "reducible": [(whole, chosen(select=reducible(scores, c.labels), subset=rest))],
            "uniform rest": [(whole, chosen(select=uniform, subset=rest))],
            "hardest first": [(first, chosen(select=falling)),
                              (whole - first, chosen(select=uniform))],
            "bilevel": [(whole, chosen(select=bilevel(c.labels)))],
            "clipped": [(early, dict(clip=c.clip)), (whole - early, {})],
        }
        for strength in [sign * s for s in c.strengths for sign in (-1, 1)]:
            penalty = dict(loss=fisher_penalty(strength), clip=c.clip)
            made[f"penalty {strength}"] = [(early, penalty), (whole - early, {})]
        plan |= {f"{name} {sparsity}": run(event, *parts) for name, parts in made.items()}
        plan[f"longer {sparsity}"] = run(event, (passes * whole, {}), lr=slow)
    return plan if study.wants(sparse_regularizer) else {
        name: phases for name, phases in plan.items() if name.split()[0] not in
        ("penalty", "clipped")
    }


def holdout(study, seed, setup):
    """(indices outside the holdout set, Tr F of every training example under a small net trained on
    the holdout set)."""
    c, n, device = study.config, len(setup.x), setup.x.device
    order = torch.randperm(n, generator=generator("cpu", seed, "holdout")).to(device)
    rest, held = order.split([n - round(c.holdout * n), round(c.holdout * n)])
    for _, state, _ in sweep(small(study, setup, held), {"small": [Phase(c.dense_epochs)]}, seed):
        pass
    study.work.epochs_done += c.dense_epochs
    draw = generator(device, seed, "holdout scores")
    return rest, fisher_trace(state.model, setup.x, c.labels, None, draw).per_example


def small(study, setup, held):
    """Setup of the small net on the holdout set."""
    x, y = setup.x[held], setup.y[held]
    net = partial(study.config.small_net, x.shape[1:], study.classes)
    return replace(setup, x=x, y=y, model=net, batch_size=min(setup.batch_size, len(x)))


def main(argv=None):
    study = Study(__file__, PANELS, CONFIGS, argv)
    log, setup = study.log, sparse.prepare(study, study.seeds[0])[1]
    held = torch.arange(round(study.config.holdout * len(setup.x)), device=setup.x.device)
    besides = {"": (small(study, setup, held), study.config.dense_epochs)}
    for unit in study.units(sparse.prepare, schedules(study, setup), besides=besides):
        own = schedules(study, unit.setup, *holdout(study, unit.seed, unit.setup))
        unit = replace(unit, schedules={name: own[name] for name in unit.schedules})
        lengths = {name: sum(phase.epochs for phase in own[name]) for name in own}
        for epoch, state, names in study.work.trained(unit):
            final = [name for name in names if lengths[name] == epoch and not state.event]
            if final:
                log.add(
                    unit.seed, final, epoch, accuracy=accuracy(state.model, *unit.data.test),
                    train_accuracy=accuracy(state.model, *unit.data.train), scored=state.scored,
                )
    study.finish()


if __name__ == "__main__":
    command_line(main)
