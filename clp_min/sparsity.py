"""Sparse nets: global magnitude masks, the events that bring them into a run, and the straight line
between two nets.

Of a dense solution Sol-D: ``prune`` leaves Init-F; ``prune_and_redraw`` Init-S, a new draw under
the same mask; ``prune_and_rewind`` Init-T, the dense net's own first weights under it (lottery).
"""

import copy
from functools import partial

import torch
from torch import nn

from clp_min.checks import check_real
from clp_min.schedule import new_training_run, redraw, restart_learning_rate
from clp_min.train import apply_masks, batch_statistics, fresh_model


def prunable_weights(model):
    """Parameter name -> weight (detached) of every Conv2d and Linear layer; a shared one once."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    own = {id(layer.weight) for layer in layers}
    return {name: p.detach() for name, p in model.named_parameters() if id(p) in own}


def magnitude_masks(model, sparsity, exclude=()):
    """Parameter name -> boolean mask (True = kept): of all N weights of Conv2d and Linear layers
    the round(sparsity N) smallest in absolute value are pruned, wherever they are ("Generalization
    and memorization", Section 2 and Fig. 1).

    exclude: names of parameters, or of modules with all that is in them, that are left whole and
    not counted in N. Ties are cut in the order of the parameters. ValueError: sparsity outside
    [0, 1), no such weights, a name in ``exclude`` that covers none.
    """
    _check_sparsity(sparsity)
    weights = prunable_weights(model)
    for part in exclude:
        covered = [name for name in weights if f"{name}.".startswith(f"{part}.")]
        if not covered:
            raise ValueError(f"exclude: {part!r} covers no weight of a Conv2d or Linear layer")
        for name in covered:
            del weights[name]
    if not weights:
        raise ValueError("the model has no weight of a Conv2d or Linear layer left to prune")
    sizes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    pruned = sizes.argsort(stable=True)[: round(sparsity * len(sizes))]
    kept = torch.ones_like(sizes, dtype=torch.bool).index_fill(0, pruned, False)
    parts = kept.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weights[name]) for name, part in zip(weights, parts)}


def _check_sparsity(sparsity):
    check_real(0, sparsity=sparsity)
    if sparsity >= 1:
        raise ValueError(f"sparsity must lie in [0, 1), got {sparsity}")


def prune(sparsity, exclude=()):
    """Event: prune the weights as they are by ``magnitude_masks``; the masks stay in the state,
    pruned weights at 0. Optimizer and learning rate start anew.

    Sol-D to Init-F in Fig. 2 of the sparse paper."""
    _check_sparsity(sparsity)
    return partial(_prune, sparsity, exclude)


def _prune(sparsity, exclude, setup, state):
    state.masks = magnitude_masks(state.model, sparsity, exclude)
    apply_masks(state.model, state.masks)
    new_training_run(setup, state)


def redraw_under_mask(setup, state):
    """Event: a newly initialised net (its draw depends on the epoch) under the masks of the state;
    optimizer and learning rate start anew. ValueError: there are none.

    Init-F to Init-S in Fig. 2 of the sparse paper."""
    if state.masks is None:
        raise ValueError("redraw_under_mask needs masks: prune comes before it")
    redraw(setup, state)
    restart_learning_rate(setup, state)


def prune_and_redraw(sparsity, exclude=()):
    """Event: ``prune``, then ``redraw_under_mask``. Its draw depends on seed and epoch, so it is
    the same one at every sparsity.

    Sol-D to Init-S in Fig. 2 of the sparse paper."""
    _check_sparsity(sparsity)
    return partial(_prune_and_redraw, sparsity, exclude)


def _prune_and_redraw(sparsity, exclude, setup, state):
    _prune(sparsity, exclude, setup, state)
    redraw_under_mask(setup, state)


def prune_and_rewind(sparsity, exclude=()):
    """Event: ``prune``, then the weights and buffers that the run began from, under the mask
    (Frankle & Carbin 2019; Sol-T of the sparse paper).

    The lottery of the sparse paper, Section 2, footnote 2."""
    _check_sparsity(sparsity)
    return partial(_prune_and_rewind, sparsity, exclude)


def _prune_and_rewind(sparsity, exclude, setup, state):
    _prune(sparsity, exclude, setup, state)
    state.model.load_state_dict(fresh_model(setup, state.seed, "init").state_dict())
    apply_masks(state.model, state.masks)


def share_kept(model, masks):
    """Share of all weights of Conv2d and Linear layers that the masks keep, of those that they do
    not cover too."""
    total = sum(weight.numel() for weight in prunable_weights(model).values())
    return 1 - sum(int((~mask).sum()) for mask in masks.values()) / total


def interpolated(model, start, end, alpha, x=None):
    """A copy of ``model`` in eval mode with (1 - alpha) start + alpha end for parameters and
    buffers (two state_dicts; whole numbers are start's).

    Between two nets running statistics belong to neither: with x (n, ...) the BatchNorm buffers are
    re-estimated on it (``batch_statistics``).

    The path of the sparse paper, Section 4.2.1 and Fig. 8(a)."""
    check_real(alpha=alpha)
    own = copy.deepcopy(model).eval()
    mixed = {
        name: torch.lerp(value, end[name], alpha) if value.is_floating_point() else value
        for name, value in start.items()
    }
    own.load_state_dict(mixed)
    return own if x is None else batch_statistics(own, x)
