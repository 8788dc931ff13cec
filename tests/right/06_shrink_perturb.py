"""One loop over parameters, one over buffers."""

import torch


@torch.no_grad()
def shrink_perturb(model, fresh, shrink, perturb):
    theirs = dict(fresh.named_parameters())
    if set(theirs) != {name for name, _ in model.named_parameters()}:
        raise ValueError("the nets have other parameters")
    for name, parameter in model.named_parameters():
        parameter.copy_(shrink * parameter + perturb * theirs[name])
    buffers = dict(fresh.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
