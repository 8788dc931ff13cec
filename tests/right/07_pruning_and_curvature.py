"""Sort all weights; multiply the Hessian by random signs with autograd twice."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


def magnitude_masks(model, sparsity, exclude=()):
    if not 0 <= sparsity < 1:
        raise ValueError("sparsity must lie in [0, 1)")
    weights, covered, seen = {}, set(), []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if any(module.weight is other for other in seen):
                continue  # tied to one that is there
            seen.append(module.weight)
            weight = f"{name}.weight" if name else "weight"
            inside = {part for part in exclude if f"{weight}.".startswith(f"{part}.")}
            covered |= inside
            if not inside:
                weights[weight] = module.weight.detach()
    if covered < set(exclude) or not weights:
        raise ValueError("exclude covers no weight, or there is none to prune")
    places = [(abs(v), i) for i, v in enumerate(
        v for weight in weights.values() for v in weight.flatten().tolist()
    )]
    pruned = {i for _, i in sorted(places)[: round(sparsity * len(places))]}
    masks, start = {}, 0
    for name, weight in weights.items():
        kept = [start + i not in pruned for i in range(weight.numel())]
        masks[name], start = torch.tensor(kept).view(weight.shape), start + weight.numel()
    return masks


def hessian_trace(
    model, x, y, probes, generator=None, masks=None, method="hutchinson", batch_size=None
):
    if probes < 2:
        raise ValueError("probes must be 2 or more")
    parameters = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]
    found = []
    for _ in range(probes):
        signs = [
            2.0 * torch.randint(2, p.shape, generator=generator).to(p.dtype) - 1
            for p in parameters
        ]
        if masks is not None:
            signs = [s * masks[n] if n in masks else s for s, n in zip(signs, names)]
        gradients = torch.autograd.grad(cross_entropy(model(x), y), parameters, create_graph=True)
        product = sum((g * s).sum() for g, s in zip(gradients, signs))
        seconds = torch.autograd.grad(product, parameters, materialize_grads=True)
        found.append(float(sum((h * s).sum() for h, s in zip(seconds, signs))))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std() / len(found) ** 0.5)
