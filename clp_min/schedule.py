"""A run is a schedule: a list of phases. ``sweep`` trains several schedules and trains
their shared beginnings once.

    schedules = {d: [Phase(d, deficit=blur), Phase(40)] for d in (0, 5, 10, 20, 40)}
    for epoch, state, names in sweep(setup, schedules, seed=0):
        log.add(seed, names, epoch, accuracy=accuracy(state.model, *data.test))

Schedules that begin alike form a tree. The sweep walks it depth first and forks the state where
they part. The randomness of an epoch depends on (seed, epoch) alone, so each schedule ends in
exactly the weights it would have reached alone.
"""

import copy
import dis
import hashlib
import inspect
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch

from clp_min.checks import check_functions, check_real, check_tensors, check_whole
from clp_min.identity import identity_of, tensor_digest
from clp_min.train import (
    apply_masks, check_training, fresh_model, fresh_optimizer, fresh_state, load_checkpoint,
    save_checkpoint, shrink_perturb, state_from_dict, train_epoch,
)


@dataclass(frozen=True, eq=False)
class Phase:
    """Some epochs of training; fields left as None fall back to Setup. Phases of 0 epochs are
    passed over, event and all.

    epochs         how many; the cap if there is ``until``
    deficit        (x, y, generator) -> (x, y): the training set as it is seen; asked once per
                   epoch; the test set never passes here
    lr             a number or a function of the epochs since the learning rate's last (re)start
    batch_size     examples in a step
    subset         (m,) indices of the training examples in use (a boolean mask is refused)
    select         (model, x, y, n, generator, indices, step) -> n places in x: which of the
                   ``pool`` x, y, the data set's examples ``indices``, make this step's batch; it
                   must not remember
    loss           (model, x, y) -> scalar          clip   largest gradient norm; math.inf for none
    augment        (x, generator) -> x; augment.none for none
    event          (setup, state): changes the state in place at the start of the phase
    until          (state) -> bool, asked after every epoch: True ends the phase. A rule that
                   remembers is an object with __call__ (state): each schedule has a copy of its
                   own, which is forked and saved with the state
    """

    epochs: int
    deficit: Callable | None = None
    lr: float | Callable | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    augment: Callable | None = None
    subset: torch.Tensor | None = None
    select: Callable | None = None
    pool: int = 0
    loss: Callable | None = None
    clip: float | None = None
    event: Callable | None = None
    until: Callable | None = None

    def __post_init__(self):
        check_whole(epochs=self.epochs, pool=self.pool)
        check_training(self)
        if self.batch_size is not None:
            check_whole(1, batch_size=self.batch_size)
        given = {key: getattr(self, key) for key in ("deficit", "select", "loss", "event")}
        check_functions(**{key: value for key, value in given.items() if value is not None})
        if self.pool and self.select is None:
            raise ValueError("pool needs select: which of its examples make the batch")
        if self.subset is not None:  # of a mask: mask.nonzero()[:, 0]
            check_tensors(subset=(self.subset, "int m"))
        if self.until is not None and not _own_memory(self.until):
            raise ValueError(
                "until may remember where schedules would share it: make it an object with"
                " __call__ and attributes, or a function without lists or counters outside it"
            )


def _own_memory(rule):
    """Whether a stop rule remembers nothing, or in its own attributes alone."""
    if not isinstance(rule, types.FunctionType):
        methods = types.MethodType, types.BuiltinFunctionType, partial, type
        return callable(rule) and hasattr(rule, "__dict__") and not isinstance(rule, methods)
    outside = [*inspect.getclosurevars(rule).nonlocals.values(), *(rule.__defaults__ or ())]
    outside += (rule.__kwdefaults__ or {}).values()
    counts = any(
        step.opname in ("STORE_DEREF", "STORE_GLOBAL")
        and step.argval not in rule.__code__.co_cellvars
        for step in dis.get_instructions(rule)
    )
    return not counts and not any(isinstance(one, (list, dict, set, bytearray)) for one in outside)


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
    check_real(0, lr=lr, decay=decay)
    return partial(_exponential, lr, decay)


def _exponential(lr, decay, epoch):
    return lr * decay**epoch


def step_decay(lr, factor, milestones):
    """Learning rate lr * factor^k after k of the epochs ``milestones``.

    The schedule of the sparse paper, Appendix B.1 and Fig. 6."""
    check_real(0, lr=lr, factor=factor)
    return partial(_step_decay, lr, factor, milestones)


def _step_decay(lr, factor, milestones, epoch):
    return lr * factor ** sum(epoch >= one for one in milestones)


def redraw(setup, state):
    """Event: a newly initialised net (its draw depends on the epoch), under the state's masks if it
    has some, and a fresh optimizer."""
    state.model = fresh_model(setup, state.seed, state.epoch, "redraw")
    apply_masks(state.model, state.masks or {})
    restart_optimizer(setup, state)


def shrink_and_perturb(shrink, perturb):
    """Event: train.shrink_perturb towards a newly initialised net, and a fresh optimizer
    (Ash & Adams 2020)."""
    check_real(shrink=shrink, perturb=perturb)
    return partial(_shrink_and_perturb, shrink, perturb)


def _shrink_and_perturb(shrink, perturb, setup, state):
    fresh = fresh_model(setup, state.seed, state.epoch, "redraw")
    shrink_perturb(state.model, fresh, shrink, perturb)
    apply_masks(state.model, state.masks or {})
    restart_optimizer(setup, state)


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
            anew = phases[index].until is not None and done == 0  # its rule is made
            groups.setdefault((_settings(phases[index]), event, anew), {})[name] = (index, done)
    return sorted(groups.values(), key=len, reverse=True)


def phase_at(phases, epoch):
    """The phase that trains the epoch after ``epoch`` epochs (the last one's at the end)."""
    for phase in phases:
        if epoch < phase.epochs:
            return phase
        epoch -= phase.epochs
    return phases[-1]


def distinct_epochs(schedules, cost=None):
    """Number of epochs that ``sweep`` trains for these schedules (phases with ``until`` at their
    cap); or what they cost, with ``cost`` a function of a phase: that of one of its epochs."""
    total, stack = 0, [{name: (0, 0) for name in schedules}]
    while stack:
        for group in _part(schedules, stack.pop()):
            name, (index, _) = next(iter(group.items()))
            total += 1 if cost is None else cost(schedules[name][index])
            stack.append({name: (index, done + 1) for name, (index, done) in group.items()})
    return total


def branches(schedules):
    """The schedules in groups that share no epoch: what parts before the first one. One that
    trains nothing is in the first group."""
    start = {name: (0, 0) for name in schedules}
    groups = [list(group) for group in _part(schedules, start)] or [[]]
    groups[0] += [name for name in schedules if not any(name in group for group in groups)]
    return [{name: schedules[name] for name in schedules if name in group} for group in groups]


def sweep(
    setup, schedules, seed, at=None, checkpoint=None, save_every=20.0, key=None, measured=None,
    stop=None,
):
    """Train all ``schedules`` (name -> list of Phase) from one initial state; yield (epoch, state,
    names) to be measured. names are the schedules that pass through this point.
    Yielded are the initial state (epoch 0), the state after every event (``state.event`` is True)
    and after every epoch; with ``at``, a set of numbers of steps, (step, state, names) at those
    instead (0 is the initial state). The model is in eval mode; whoever measures must leave weights
    and optimizer as they are.
    checkpoint: a file from which a killed sweep goes on, written every ``save_every`` seconds (or
    as many times as long as writing takes); points since then are yielded again. One of another
    seed, schedule, set-up or data is refused.
    key: text that stands for functions without a name of their own (lambdas, closures)
    measured: () -> texts, what is on record; a checkpoint that knows more is passed over
    stop: () -> bool, asked after every epoch: save and end here
    """
    _check_schedules(setup, schedules, at)
    owner = _owner(setup, schedules, seed, at, key) if checkpoint else None
    record = measured or list
    stack = _waiting(setup, schedules, checkpoint, owner, record)
    if stack is None:
        stack = [(fresh_state(setup, seed), {name: (0, 0) for name in schedules})]
        if at is None or 0 in at:
            yield 0, stack[0][0], list(schedules)
    last_save, wait = time.monotonic(), save_every
    while stack:
        state, cursors = stack.pop()
        groups = _part(schedules, cursors)
        stack += [(state.fork(), group) for group in groups[:-1]]
        if not groups:
            continue
        group = groups[-1]  # the phase that it goes on with
        index, done = next(iter(group.values()))
        phase = state.phase = schedules[next(iter(group))][index]
        if done == 0:
            state.rule = copy.deepcopy(phase.until)
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
        over = state.rule is not None and state.rule(state)
        later = {name: (i + 1, 0) if over else (i, k + 1) for name, (i, k) in group.items()}
        stack.append((state, later))
        if stop is not None and stop():
            break
        if checkpoint and (began := time.monotonic()) - last_save > wait:
            _save(checkpoint, owner, stack, record())
            last_save, wait = time.monotonic(), save_every * max(time.monotonic() - began, 1.0)
    if checkpoint:
        _save(checkpoint, owner, stack, record())


def _check_schedules(setup, schedules, at):
    """ValueError: none, no lists of phases, names that are one as text, indices outside the data,
    points that no run has."""
    if not isinstance(schedules, dict):
        schedules = {}
    lists = [own if isinstance(own, (list, tuple)) else [None] for own in schedules.values()]
    phases = [phase for own in lists for phase in own]
    if not schedules or not all(isinstance(phase, Phase) for phase in phases):
        raise ValueError("schedules must be a dictionary, name -> list of Phase, not empty")
    if len({str(name) for name in schedules}) < len(schedules):
        raise ValueError(f"two schedules have the same name: {list(schedules)}")
    n = len(setup.x)
    if at is not None:
        for step in at or [None]:
            check_whole(**{"each step in at": step})
        most = max(sum(_steps(setup, phase) for phase in own) for own in lists)
        if min(at) > most:
            raise ValueError(f"at names no step before {min(at)}, the longest schedule has {most}")
    for subset in {id(phase.subset): phase.subset for phase in phases}.values():
        if subset is None or subset.device.type == "meta":
            continue
        if not len(subset) or int(subset.min()) < 0 or int(subset.max()) >= n:
            raise ValueError(f"subset must hold indices in 0..{n - 1}, at least one")


def _steps(setup, phase):
    """Steps of a phase, at most."""
    n = len(setup.x) if phase.subset is None else len(phase.subset)
    size = setup.batch_size if phase.batch_size is None else phase.batch_size
    return phase.epochs * (n // size if setup.drop_last else -(-n // size))


def _owner(setup, schedules, seed, at, key):
    """What a checkpoint must agree in to be gone on with: name of the part -> digest."""
    settings = {f.name: getattr(setup, f.name) for f in fields(setup)}
    data = settings.pop("x"), settings.pop("y")
    try:
        parts = {
            "schedules": identity_of({str(k): v for k, v in schedules.items()}, key is not None),
            "set-up": identity_of(settings, key is not None),
        }
    except ValueError as error:
        said = f"{error}: with a checkpoint, give sweep(…, key=) a text that does"
        raise ValueError(said) from None
    parts |= {"seed": str(seed), "key": str(key), "data": tensor_digest(*data)}
    parts["steps to be measured (at)"] = "" if at is None else str(sorted(at))
    return {part: hashlib.sha256(text.encode()).hexdigest() for part, text in parts.items()}


def _waiting(setup, schedules, checkpoint, owner, record):
    """The stack of (state, cursors) of a killed sweep; None if there is none."""
    saved = load_checkpoint(checkpoint, "cpu") if checkpoint else None
    if saved is None:
        return None
    if not isinstance(saved, dict) or set(saved) != {"owner", "measured", "stack"}:
        raise ValueError(f"{checkpoint} is no checkpoint of a sweep: remove it or give another")
    if not set(saved["measured"]) <= set(record()):
        return None
    other = [part for part, digest in owner.items() if saved["owner"].get(part) != digest]
    if other:
        raise ValueError(
            f"{checkpoint} belongs to other {' and other '.join(other)}: remove it to start again,"
            " or give another file"
        )
    stack = []
    for row, cursors in saved["stack"]:
        own = {name: tuple(cursors[str(name)]) for name in schedules if str(name) in cursors}
        state = state_from_dict(setup, row)
        index, done = next(iter(own.values()))
        memory, state.rule = state.rule, None
        if done and schedules[next(iter(own))][index].until is not None:  # it is in that phase
            state.rule = copy.deepcopy(schedules[next(iter(own))][index].until)
            getattr(state.rule, "__dict__", {}).update(memory)
        stack.append((state, own))
    return stack


def _save(checkpoint, owner, stack, measured):
    rows = []
    for state, cursors in stack:
        rows.append((state.to_dict(), {str(name): cursor for name, cursor in cursors.items()}))
    save_checkpoint(checkpoint, {"owner": owner, "measured": measured, "stack": rows})
