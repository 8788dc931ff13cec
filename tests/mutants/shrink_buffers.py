"""Shrinks and perturbs BatchNorm's running statistics too: caught by
test_shrink_perturb__takes_the_buffers_of_the_fresh_net."""

import torch


@torch.no_grad()
def shrink_perturb(model, fresh, shrink, perturb):
    if [p.shape for p in model.parameters()] != [p.shape for p in fresh.parameters()]:
        raise ValueError("model and fresh must have the same parameters")
    for ours, other in zip(model.state_dict().values(), fresh.state_dict().values()):
        ours.copy_(shrink * ours + perturb * other)
