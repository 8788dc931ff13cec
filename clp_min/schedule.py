"""A run is a schedule: a list of phases. ``sweep`` trains several schedules and trains
their shared beginnings once.

    schedules = {d: [Phase(d, deficit=blur), Phase(40)] for d in (0, 5, 10, 20, 40)}
    for epoch, state, names in sweep(setup, schedules, seed=0):
        log.add(seed, names, epoch, accuracy=accuracy(state.model, *data.test))

Schedules that begin alike form a tree. The sweep walks it depth first and forks the state where
they part. The randomness of an epoch depends on (seed, epoch) alone, so each schedule ends in
exactly the weights it would have reached alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from clp_min.train import (
    fresh_model, fresh_optimizer, fresh_state, load_checkpoint, save_checkpoint, shrink_perturb,
    state_from_dict, train_epoch,
)


@dataclass(frozen=True, eq=False)
class Phase:
    """Some epochs of training; fields left as None fall back to Setup. Phases of 0 epochs are
    passed over, event and all.

    epochs         how many; the cap if there is ``until``
    deficit        (x, y, generator) -> (x, y): the training set as it is seen; asked once per
                   epoch; the test set never passes here
    lr             a number or a function of the epochs since the learning rate's last (re)start
    subset         (m,) indices of the training examples in use
    select         (model, x, y, n, generator) -> n indices: which of ``pool`` make a batch
    loss           (model, x, y) -> scalar          clip   largest gradient norm; math.inf for none
    augment        (x, generator) -> x; augment.none for none
    event          (setup, state): changes the state in place at the start of the phase
    until          (state) -> bool, asked after every epoch: True ends the phase
    """

    epochs: int
    deficit: Callable | None = None
    lr: float | Callable | None = None
    weight_decay: float | None = None
    augment: Callable | None = None
    subset: torch.Tensor | None = None
    select: Callable | None = None
    pool: int = 0
    loss: Callable | None = None
    clip: float | None = None
    event: Callable | None = None
    until: Callable | None = None

    def __post_init__(self):
        if not isinstance(self.epochs, int) or self.epochs < 0:
            raise ValueError(f"epochs must be a whole number >= 0, got {self.epochs!r}")


def restart_learning_rate(setup, state):
    """Event: the learning rate's schedule starts again at its epoch 0."""
    state.lr_start = state.epoch


def restart_optimizer(setup, state):
    """Event: momentum and the like are forgotten."""
    state.optimizer = fresh_optimizer(setup, state.model)


def new_training_run(setup, state):
    """Event: fresh optimizer, and the learning rate's schedule from its start."""
    restart_optimizer(setup, state)
    restart_learning_rate(setup, state)


def exponential(lr, decay):
    """Learning rate lr * decay^epoch."""
    return lambda epoch: lr * decay**epoch


def redraw(setup, state):
    """Event: a newly initialised net (its draw depends on the epoch) and a fresh optimizer."""
    state.model = fresh_model(setup, state.seed, state.epoch, "redraw")
    restart_optimizer(setup, state)


def shrink_and_perturb(shrink, perturb):
    """Event: train.shrink_perturb towards a newly initialised net, and a fresh optimizer
    (Ash & Adams 2020)."""

    def event(setup, state):
        shrink_perturb(
            state.model, fresh_model(setup, state.seed, state.epoch, "redraw"), shrink, perturb
        )
        restart_optimizer(setup, state)

    return event


def _settings(phase):
    """What makes two phases train alike: every field but the length; functions
    and tensors by identity."""
    values = [getattr(phase, f.name) for f in fields(phase) if f.name not in ("epochs", "event")]
    return tuple(v if isinstance(v, (int, float, type(None))) else id(v) for v in values)


def _part(schedules, cursors):
    """Group names by what they do next. cursors: name -> (phase, epochs done in it). -> list of
    {name: cursor}, finished ones left out.

    The smallest group comes last (it is trained next), so that few states wait at a time.
    """
    groups = {}
    for name, (index, done) in cursors.items():
        phases = schedules[name]
        while index < len(phases) and done >= phases[index].epochs:
            index, done = index + 1, 0
        if index < len(phases):
            event = id(phases[index].event) if done == 0 and phases[index].event else None
            groups.setdefault((_settings(phases[index]), event), {})[name] = (index, done)
    return sorted(groups.values(), key=len, reverse=True)


def phase_at(phases, epoch):
    """The phase that trains the epoch after ``epoch`` epochs (the last one's at the end)."""
    for phase in phases:
        if epoch < phase.epochs:
            return phase
        epoch -= phase.epochs
    return phases[-1]


def distinct_epochs(schedules):
    """Number of epochs that ``sweep`` trains for these schedules (phases with
    ``until`` at their cap)."""
    total, stack = 0, [{name: (0, 0) for name in schedules}]
    while stack:
        for group in _part(schedules, stack.pop()):
            total += 1
            stack.append({name: (index, done + 1) for name, (index, done) in group.items()})
    return total


def branches(schedules):
    """The schedules in groups that share no epoch: what parts before the first one. One that
    trains nothing is in the first group."""
    start = {name: (0, 0) for name in schedules}
    groups = [list(group) for group in _part(schedules, start)] or [[]]
    groups[0] += [name for name in schedules if not any(name in group for group in groups)]
    return [{name: schedules[name] for name in schedules if name in group} for group in groups]


def sweep(setup, schedules, seed, at=None, checkpoint=None, save_every=20.0):
    """Train all ``schedules`` (name -> list of Phase) from one initial state; yield (epoch, state,
    names) to be measured.

    names are the schedules that pass through this point. Yielded are the initial state (epoch 0),
    the state after every event (``state.event`` is True) and after every epoch; with ``at``, a set
    of numbers of steps, (step, state, names) at those steps instead (0 is the initial state). The
    model is in eval mode; whoever measures must leave weights and optimizer as they are.
    checkpoint: a file from which a killed sweep goes on, written every ``save_every`` seconds;
    points since then are yielded again.
    """
    stack = _waiting(setup, schedules, seed, checkpoint)
    if stack is None:
        stack = [(fresh_state(setup, seed), {name: (0, 0) for name in schedules})]
        if at is None or 0 in at:
            yield 0, stack[0][0], list(schedules)
    last_save = time.monotonic()
    while stack:
        state, cursors = stack.pop()
        groups = _part(schedules, cursors)
        stack += [(state.fork(), group) for group in groups[:-1]]
        if not groups:
            continue
        # the phase that this group of schedules goes on with
        group = groups[-1]
        index, done = next(iter(group.values()))
        phase = state.phase = schedules[next(iter(group))][index]
        if phase.event and done == 0:
            phase.event(setup, state)
            state.model.eval()
            state.event = True
            if at is None:
                yield state.epoch, state, list(group)
        # one epoch
        for _ in train_epoch(setup, phase, state):
            if at is not None and state.step in at:
                yield state.step, state, list(group)
        if at is None:
            yield state.epoch, state, list(group)
        over = phase.until is not None and phase.until(state)
        stack.append(
            (state, {name: (i + 1, 0) if over else (i, k + 1) for name, (i, k) in group.items()})
        )
        if checkpoint and time.monotonic() - last_save > save_every:
            _save(checkpoint, schedules, seed, stack)
            last_save = time.monotonic()
    if checkpoint:
        _save(checkpoint, schedules, seed, stack)


def _waiting(setup, schedules, seed, checkpoint):
    """The stack of (state, cursors) of a killed sweep; None if there is none."""
    saved = load_checkpoint(checkpoint, "cpu") if checkpoint else None
    if saved is None:
        return None
    if saved["schedules"] != [str(name) for name in schedules] or saved["seed"] != seed:
        raise ValueError(
            f"{checkpoint} belongs to other schedules or another seed: remove it to start again"
        )
    stack = []
    for state, cursors in saved["stack"]:
        own = {name: cursors[str(name)] for name in schedules if str(name) in cursors}
        stack.append((state_from_dict(setup, state), own))
    return stack


def _save(checkpoint, schedules, seed, stack):
    rows = []
    for state, cursors in stack:
        rows.append((state.to_dict(), {str(name): cursor for name, cursor in cursors.items()}))
    names = [str(name) for name in schedules]
    save_checkpoint(checkpoint, {"schedules": names, "seed": seed, "stack": rows})
