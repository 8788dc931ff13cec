"""Keeps |w| > the k-th smallest of what is left, so one weight too many is pruned: caught by
test_magnitude_masks__prune_the_smallest_exactly_and_globally."""

import torch

from clp_min import sparsity as ours


def magnitude_masks(model, sparsity, exclude=()):
    masks = ours.magnitude_masks(model, sparsity, exclude)
    parameters = dict(model.named_parameters())
    kept = torch.cat([parameters[n].detach().abs()[m] for n, m in masks.items()])
    return {n: m & (parameters[n].detach().abs() > kept.min()) for n, m in masks.items()}
