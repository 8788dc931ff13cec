"""Measures with BatchNorm in training mode: examples lean on each other: caught by
test_fisher_trace__rejects_batchnorm_and_dropout_in_training_mode."""

import torch

from clp_min.fisher import FisherTrace


def fisher_trace(model, x, labels="expected", masks=None, generator=None, batch_size=None):
    model.train()
    p, total = model(x).softmax(1).detach(), 0.0
    for i in range(len(x)):
        for c in range(p.shape[1]):
            model.zero_grad()
            model(x).log_softmax(1)[i, c].backward()
            total += (
                float(p[i, c])
                * sum(q.grad.square().sum().item() for q in model.parameters())
                / len(x)
            )
    return FisherTrace(total, {"all": total}, torch.full((len(x),), total))
