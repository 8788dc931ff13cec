"""Sparse nets: global magnitude masks, and the events that bring them into a run."""

from functools import partial

import torch
from torch import nn

from clp_min.schedule import new_training_run, redraw, restart_learning_rate
from clp_min.train import apply_masks


def magnitude_masks(model, sparsity, exclude=()):
    """Parameter name -> boolean mask (True = kept): of all N weights of Conv2d and Linear layers
    the round(sparsity N) smallest in absolute value are pruned, wherever they are.

    exclude: names of parameters, or of modules with all that is in them, that are left whole and
    not counted in N. Ties are cut in the order of the parameters. ValueError: sparsity outside
    [0, 1), no such weights, a name in ``exclude`` that covers none.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must lie in [0, 1), got {sparsity}")
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    kinds = {id(layer.weight) for layer in layers}
    weights = {n: p.detach() for n, p in model.named_parameters() if id(p) in kinds}
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


def prune(sparsity, exclude=()):
    """Event: prune the weights as they are by ``magnitude_masks``; the masks stay in the state,
    pruned weights at 0. Optimizer and learning rate start anew."""
    return partial(_prune, sparsity, exclude)


def _prune(sparsity, exclude, setup, state):
    state.masks = magnitude_masks(state.model, sparsity, exclude)
    apply_masks(state.model, state.masks)
    new_training_run(setup, state)


def redraw_under_mask(setup, state):
    """Event: a newly initialised net (its draw depends on the epoch) under the masks of the state;
    optimizer and learning rate start anew. ValueError: there are none."""
    if state.masks is None:
        raise ValueError("redraw_under_mask needs masks: prune comes before it")
    redraw(setup, state)
    restart_learning_rate(setup, state)
