"""The double loop over examples and classes."""

import torch
from torch import nn

from clp_min.fisher import FisherTrace


def fisher_trace(
    model, x, labels="expected", masks=None, generator=None, method="rules", batch_size=None
):
    for module in model.modules():
        coupled = isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.Dropout))
        if coupled and module.training:
            raise ValueError("BatchNorm or Dropout in training mode: call model.eval() first")
    parameters = dict(model.named_parameters())
    masks, per_layer, per_example = masks or {}, {}, []
    for i, one in enumerate(x):
        log_p = model(one[None]).log_softmax(1)[0]
        p, total = log_p.detach().exp(), 0.0
        if torch.is_tensor(labels):  # the one class that counts
            p = torch.zeros_like(p).index_fill(0, labels[i : i + 1], 1.0)
        if isinstance(labels, str) and labels != "expected":  # a draw instead of the expectation
            drawn = int(torch.multinomial(p, 1, generator=generator))
            p = torch.zeros_like(p).index_fill(0, torch.tensor([drawn]), 1.0)
        for c in range(len(p)):
            gradients = torch.autograd.grad(
                log_p[c], list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for (name, _), gradient in zip(parameters.items(), gradients):
                if gradient is None:
                    continue
                kept = gradient * masks[name] if name in masks else gradient
                part = float(p[c]) * float(kept.square().sum())
                layer = name.rpartition(".")[0]
                per_layer[layer] = per_layer.get(layer, 0.0) + part / len(x)
                total += part
        per_example.append(total)
    values = torch.tensor(per_example, dtype=torch.float64)
    return FisherTrace(float(values.mean()), per_layer, values)
