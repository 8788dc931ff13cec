"""Training: the set-up of a run, its state, one epoch, evaluation, and checkpoints."""

import copy
import math
import os
import pickle
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from clp_min.seeding import generator, global_seed


def cross_entropy(model, x, y):
    """Mean cross-entropy in nats of the logits model(x) under labels y."""
    return F.cross_entropy(model(x), y)


def hinge(model, x, y):
    """Multi-class hinge loss: mean over examples and classes of max(0, 1 + z_k - z_y)."""
    return F.multi_margin_loss(model(x), y)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run starts from and what its phases fall back on. Data x (n, ...), y (n,) lie on the
    device that trains.

    model        () -> nn.Module, freshly initialised (the run seeds torch around the call)
    optimizer    (parameters, lr=, weight_decay=) -> torch optimizer
    lr           a number, or a function of the epochs since the start (or the last restart)
    augment      (x, generator) -> x, or None          loss   (model, x, y) -> scalar
    clip         largest norm of the gradient, or None
    drop_last    leave out the last, smaller batch of an epoch
    autocast     torch.bfloat16 to compute in it, or None
    channels_last   memory format of images and weights
    """

    model: Callable
    x: torch.Tensor
    y: torch.Tensor
    lr: float | Callable = 0.05
    weight_decay: float = 0.0
    batch_size: int = 128
    optimizer: Callable = partial(torch.optim.SGD, momentum=0.9)
    augment: Callable | None = None
    loss: Callable = cross_entropy
    clip: float | None = None
    drop_last: bool = True
    autocast: torch.dtype | None = None
    channels_last: bool = False

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(
                f"x and y must have the same length, got {len(self.x)} and {len(self.y)}"
            )
        if self.y.dtype != torch.int64:
            raise ValueError(f"y must hold int64 labels, got {self.y.dtype}")
        if self.batch_size < 1 or self.drop_last and self.batch_size > len(self.x):
            raise ValueError(
                f"batch_size must lie in 1..{len(self.x)} (the number of examples), got"
                f" {self.batch_size}"
            )


@dataclass(eq=False)
class State:
    """A run at one moment: model (in eval mode between epochs), optimizer, epochs and steps done,
    epoch at which the learning rate's schedule started, mean training loss of the last epoch;
    ``event``: an event has just happened and no epoch since; ``phase``: the phase it is in."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    seed: int
    epoch: int = 0
    step: int = 0
    lr_start: int = 0
    loss: float = math.nan
    event: bool = False
    phase: object = None

    def fork(self):
        """An independent copy: weights, buffers and optimizer."""
        return replace(self, **copy.deepcopy({"model": self.model, "optimizer": self.optimizer}))

    def to_dict(self):
        numbers = {
            k: getattr(self, k) for k in ("seed", "epoch", "step", "lr_start", "loss", "event")
        }
        return {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **numbers,
        }


def fresh_model(setup, *key):
    """A new model, its initialisation a function of ``key`` alone: made on the CPU, so that
    every device starts from the same weights."""
    with global_seed(*key):
        model = setup.model()
    model = model.to(
        device=setup.x.device,
        memory_format=torch.channels_last if setup.channels_last else torch.preserve_format,
    )
    return model.eval()


def fresh_optimizer(setup, model):
    """The set-up's optimizer without any memory."""
    lr = setup.lr if isinstance(setup.lr, (int, float)) else setup.lr(0)
    return setup.optimizer(model.parameters(), lr=lr, weight_decay=setup.weight_decay)


def fresh_state(setup, seed):
    """The state at epoch 0 of the run with this seed."""
    model = fresh_model(setup, seed, "init")
    return State(model, fresh_optimizer(setup, model), seed)


def state_from_dict(setup, saved):
    """The state that ``State.to_dict`` described."""
    state = fresh_state(setup, saved["seed"])
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    for name in ("epoch", "step", "lr_start", "loss", "event"):
        setattr(state, name, saved[name])
    return state


def current_data(setup, state, indices):
    """(x, y) of these training examples as the state's phase shows them (blurred, if it blurs)."""
    if state.phase is None or state.phase.deficit is None:
        return setup.x[indices], setup.y[indices]
    x, y = state.phase.deficit(
        setup.x, setup.y, generator(setup.x.device, state.seed, state.epoch, "current data")
    )
    return x[indices], y[indices]


def _batches(setup, phase, order):
    """Indices of an epoch's batches, or of the pools from which they are selected."""
    chosen, device = phase.subset, setup.x.device
    if chosen is None:
        chosen = torch.arange(len(setup.x), device=device)
    shuffled = chosen[torch.randperm(len(chosen), device=device, generator=order)]
    pool = setup.batch_size if phase.select is None else max(phase.pool, setup.batch_size)
    batches = [b for b in shuffled.split(pool) if len(b) == pool or not setup.drop_last]
    if not batches:
        raise ValueError(f"batch_size {pool} is larger than the phase's {len(chosen)} examples")
    return batches


def train_epoch(setup, phase, state):
    """One epoch under ``phase`` (what it leaves None is the set-up's), changing ``state``; a
    generator that yields after every step.

    Order, augmentation and deficit draw from generators that depend on (seed, epoch) alone. The
    loop never waits for the device: the loss is read once, at the end. ArithmeticError: the
    loss is not finite.
    """

    def chosen(name):
        value = getattr(phase, name)
        return getattr(setup, name) if value is None else value

    # settings and randomness
    device, keys = setup.x.device, ("order", "augment", "deficit", "select")
    draws = {key: generator(device, state.seed, state.epoch, key) for key in keys}
    lr, augment, loss_function, clip = (
        chosen("lr"), chosen("augment"), chosen("loss"), chosen("clip"),
    )
    for group in state.optimizer.param_groups:
        group["lr"] = lr if isinstance(lr, (int, float)) else lr(state.epoch - state.lr_start)
        group["weight_decay"] = chosen("weight_decay")
    # data as the phase shows them
    x, y = setup.x, setup.y
    if phase.deficit is not None:
        x, y = phase.deficit(x, y, draws["deficit"])
    batches = _batches(setup, phase, draws["order"])
    # steps
    total = torch.zeros((), device=device)
    for number, batch in enumerate(batches):
        xb, yb = x[batch], y[batch]
        if phase.select is not None:
            kept = phase.select(state.model, xb, yb, setup.batch_size, draws["select"])
            xb, yb = xb[kept], yb[kept]
        if augment is not None:
            xb = augment(xb, draws["augment"])
        state.model.train()
        settings = loss_function, clip, setup.autocast, setup.channels_last
        # for models that draw from torch's global generator
        with global_seed(state.seed, state.epoch, number, "dropout"):
            total += training_step(state.model, state.optimizer, xb, yb, *settings)
        state.model.eval()
        state.step += 1
        yield
    state.epoch += 1
    state.event = False
    if device.type != "meta":
        state.loss = float(total) / len(batches)
        if not math.isfinite(state.loss):
            raise ArithmeticError(
                f"the training loss is {state.loss} in epoch {state.epoch} (seed {state.seed}):"
                " lower the learning rate or set clip"
            )


def training_step(
    model, optimizer, x, y, loss_function=cross_entropy, clip=None, autocast=None,
    channels_last=False,
):
    """One optimisation step on one batch -> the loss before it (a tensor; nothing
    waits for the device)."""
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with nullcontext() if autocast is None else torch.autocast(x.device.type, dtype=autocast):
        loss = loss_function(model, x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def predict(model, x, batch_size=1000):
    """Logits (n, classes) of ``model`` on x (n, ...), in the mode it is in, without a graph."""
    return torch.cat([model(part) for part in x.split(batch_size)])


@torch.no_grad()
def evaluate(model, x, y, batch_size=1000):
    """(accuracy in percent, mean cross-entropy in nats) of ``model`` in eval mode on x (n, ...),
    y (n,); the mode is put back."""
    training = model.training
    model.eval()
    correct, loss = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
    for xb, yb in zip(x.split(batch_size), y.split(batch_size)):
        logits = model(xb)
        correct += (logits.argmax(1) == yb).sum()
        loss += F.cross_entropy(logits, yb, reduction="sum")
    model.train(training)
    return 100 * float(correct) / len(x), float(loss) / len(x)


def accuracy(model, x, y, batch_size=1000):
    """Accuracy in percent of ``model`` in eval mode on x (n, ...), y (n,)."""
    return evaluate(model, x, y, batch_size)[0]


@torch.no_grad()
def shrink_perturb(model, fresh, shrink, perturb):
    """In place: theta <- shrink * theta + perturb * theta_fresh for every parameter; buffers are
    copied from ``fresh``.

    Ash & Adams 2020: the noise is a newly initialised net, so each layer gets noise of its own
    scale, and BatchNorm's running statistics start anew. shrink 1, perturb 0 is a warm start (but
    for the buffers), 0 and 1 a cold one. ValueError: other parameters.
    """
    ours, others = dict(model.named_parameters()), dict(fresh.named_parameters())
    if {k: p.shape for k, p in ours.items()} != {k: p.shape for k, p in others.items()}:
        raise ValueError("model and fresh must have the same parameters")
    for name, parameter in ours.items():
        parameter.mul_(shrink).add_(others[name], alpha=perturb)
    for ours, other in zip(model.buffers(), fresh.buffers()):
        ours.copy_(other)


def save_checkpoint(path, content):
    """Write ``content`` (tensors, numbers, strings, containers) to path; the file before
    it stays as path.previous.

    Under a temporary name first, so that a kill at any moment leaves a whole file.
    """
    path = Path(path)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # a name of its own for each process
    torch.save(content, new)
    with suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".previous"))
    os.replace(new, path)


def load_checkpoint(path, map_location=None):
    """What ``save_checkpoint`` wrote last; a damaged file is passed over for the one before it;
    None if there is no whole one."""
    path = Path(path)
    for candidate in (path, path.with_name(path.name + ".previous")):
        try:
            return torch.load(candidate, map_location=map_location, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):  # missing or truncated
            continue
    return None
