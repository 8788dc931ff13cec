"""Clips by the norm of all gradients, pruned weights' too: caught by
test_training_step__clip_does_not_count_pruned_gradients."""

import torch
from torch import nn

from clp_min import train


def training_step(
    model, optimizer, x, y, loss_function=train.cross_entropy, clip=None, autocast=None,
    channels_last=False, masks=None, tf32=False,
):
    optimizer.zero_grad(set_to_none=True)
    loss = loss_function(model, x, y)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if masks and name in masks and p.grad is not None:
                p.grad.mul_(masks[name])
    optimizer.step()
    train.apply_masks(model, masks or {})
    return loss.detach()
