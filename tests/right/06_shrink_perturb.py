"""One loop over parameters, one over buffers."""

import torch


@torch.no_grad()
def shrink_perturb(model, fresh, shrink, perturb):
    theirs = dict(fresh.named_parameters())
    sizes = [{name: p.shape for name, p in net.named_parameters()} for net in (model, fresh)]
    if sizes[0] != sizes[1]:
        raise ValueError("the nets have other parameters")
    for name, parameter in model.named_parameters():
        parameter.copy_(shrink * parameter + perturb * theirs[name])
    buffers = dict(fresh.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
