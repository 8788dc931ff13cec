"""Averages the gradients over the batch before squaring them: caught by
test_fisher_trace__equals_double_loop."""

import torch

from clp_min.fisher import FisherTrace


def fisher_trace(model, x, labels="expected", masks=None, generator=None, batch_size=None):
    p = model(x).softmax(1).detach()
    total = 0.0
    for c in range(p.shape[1]):
        model.zero_grad()
        (p[:, c].sqrt() * model(x).log_softmax(1)[:, c]).mean().backward()
        total += sum(q.grad.square().sum().item() for q in model.parameters())
    return FisherTrace(total, {"all": total}, torch.full((len(x),), total))
