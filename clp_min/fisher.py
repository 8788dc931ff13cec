"""Trace of the Fisher information matrix, and norms of per-example gradients, without ever forming
a parameter gradient.

    Tr F = E_x E_{y ~ p(y|x)} |grad_theta log p(y|x)|^2    (Achille et al.; "Revisiting ...", Eq. 1)

The gradient of log p(y|x) in the logits is e_y - p, so Tr F(x) = sum_k |J' b_k|^2 for any b_k
with sum_k b_k b_k' = diag(p) - pp', where J = d logits / d theta. One forward pass keeps each
layer's input a; one backward pass per b gives the gradients delta of the layers' outputs; and the
squared norm of one example's gradient follows from a and delta alone: |a|^2 |delta|^2 for a
Linear layer. The order matters: square per example, then average. The square of the averaged
gradient is another, smaller number.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from clp_min.layer_rules import check_layer, layer_rule


@dataclass(frozen=True)
class FisherTrace:
    """Tr F as mean over examples: ``total``; ``per_layer`` by module name (weight and bias
    together); ``per_example`` (n,)."""

    total: float
    per_layer: dict
    per_example: torch.Tensor


def fisher_trace(model, x, labels="expected", masks=None, generator=None, batch_size=None):
    """Trace of the Fisher information of ``model`` on inputs x (n, ...), mean over the
    n examples -> FisherTrace.

    labels  "expected"       the exact expectation over y ~ p(y|x), in classes - 1 backward passes
            "sampled"        one label y ~ p(y|x) per example: unbiased, one pass; useless once p is
                             confident: the rare label that carries the trace is almost never drawn
            "signs"          random signs in the eigenbasis of diag(p) - pp': unbiased, one pass,
                             low variance (Hutchinson 1989)
            (n,) int tensor  these labels: the *empirical* Fisher, another quantity, which vanishes
                             when the labels are fitted
    masks       parameter name -> boolean mask; only kept (True) weights count
    generator   for "sampled" and "signs"; None uses torch's global one
    batch_size  examples at a time; None takes 32 for convolutions (their intermediate results stay
                in the cache), else 1024
    ValueError: a layer type without a rule, a layer or parameter used twice, BatchNorm or Dropout
    in training mode.
    """
    if torch.is_tensor(labels):
        _check_labels(labels, x)
    batch_size = batch_size or (
        32 if any(isinstance(m, nn.Conv2d) for m in model.modules()) else 1024
    )
    parts = [
        per_example_fisher(
            model, x[i : i + batch_size],
            labels[i : i + batch_size] if torch.is_tensor(labels) else labels, masks, generator,
        )
        for i in range(0, len(x), batch_size)
    ]
    if not parts:
        raise ValueError("x holds no examples")
    layers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    per_example = sum(layers.values())
    return FisherTrace(
        float(per_example.double().mean()),
        {k: float(v.double().mean()) for k, v in layers.items()}, per_example,
    )


def by_weight_layer(per_layer, model):
    """``FisherTrace.per_layer`` as a list, BatchNorm's part added to the weights before it."""
    matrices = {name.removesuffix(".weight") for name, p in model.named_parameters() if p.dim() > 1}
    sums = []
    for name, value in per_layer.items():
        if name in matrices:
            sums.append(0.0)
        sums[-1] += value
    return sums


def per_example_fisher(model, x, labels="expected", masks=None, generator=None):
    """The tensors behind ``fisher_trace``, for one batch: module name -> (n,) squared norms. Only
    the eigenvalues ("expected", "signs") and the check of given labels make the device wait."""
    if torch.is_tensor(labels):
        _check_labels(labels, x)
    with torch.enable_grad():
        logits, layers = _forward(model, x)
    return _squared_norms(
        logits, layers, _cotangents(logits.detach(), labels, generator), masks or {}, model
    )


def per_example_gradient_norms(model, x, y, masks=None):
    """Squared norms (n,) of each example's cross-entropy gradient |grad_theta (-log p(y_i|x_i))|^2;
    x (n, ...), y (n,) integers.

    Exact. Only one batch's layer inputs and output gradients are alive at
    once. Errors as ``fisher_trace``.
    """
    return sum(per_example_fisher(model, x, y, masks).values())


def _check_labels(labels, x):
    if labels.shape != (len(x),) or labels.is_floating_point():
        raise ValueError(
            f"labels must be ({len(x)},) integers, got {tuple(labels.shape)} {labels.dtype}"
        )


def _cotangents(logits, labels, generator):
    """The vectors b (n, classes) of the backward passes; computed in float64: diag(p) - pp'
    cancels when p is confident."""
    p = logits.double().softmax(1)
    if torch.is_tensor(labels) or isinstance(labels, str) and labels == "sampled":
        given = torch.is_tensor(labels)
        y = labels.long() if given else torch.multinomial(p, 1, generator=generator)[:, 0]
        checked = given and y.device.type != "meta"
        if checked and not 0 <= int(y.min()) <= int(y.max()) < p.shape[1]:
            raise ValueError(
                f"labels must lie in 0..{p.shape[1] - 1}, got {int(y.min())}..{int(y.max())}"
            )
        return [(p - F.one_hot(y, p.shape[1])).to(logits.dtype)]
    if labels not in ("expected", "signs"):
        raise ValueError(
            f'labels must be "expected", "sampled", "signs" or an integer tensor, got {labels!r}'
        )
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    columns = vectors * values.clamp(min=0).sqrt()[:, None, :]
    columns = columns[:, :, 1:]  # the first is the null direction (1, ..., 1)
    if labels == "expected":
        return list(columns.to(logits.dtype).unbind(2))
    shape = len(p), columns.shape[2], 1
    signs = torch.randint(2, shape, device=p.device, generator=generator) * 2.0 - 1.0
    return [(columns @ signs.to(p.dtype))[:, :, 0].to(logits.dtype)]


def _forward(model, x):
    """Logits, and for every layer with parameters its name, module, input and the place of its
    output in the autograd graph."""
    layers, handles, seen = [], [], {}
    for name, module in model.named_modules():
        own = [n for n, p in module.named_parameters(recurse=False) if p is not None]
        check_layer(name, module, own)
        for parameter in own:
            place = name, parameter
            if seen.setdefault(id(module._parameters[parameter]), place) != place:
                raise ValueError(
                    f"parameter {name}.{parameter} is shared with another layer: the Fisher trace"
                    " needs each used once"
                )
        if own:
            handles.append(
                module.register_forward_hook(
                    lambda m, inputs, output, name=name: _keep(layers, name, m, inputs, output)
                )
            )
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    called = {name for name, *_ in layers}
    unused = [
        name
        for name, module in model.named_modules()
        if name not in called and any(True for _ in module.parameters(recurse=False))
    ]
    if unused:
        raise ValueError(
            f"layer {unused[0]!r} was not called: are its weights used some other way (F.linear"
            " …)? then there is no rule for it"
        )
    if logits.dim() != 2:
        raise ValueError(f"the model must return logits (n, classes), got {tuple(logits.shape)}")
    return logits, layers


def _keep(layers, name, module, inputs, output):
    if any(module is other for _, other, _, _, _ in layers):
        raise ValueError(
            f"layer {name!r} is used twice in one forward pass: the Fisher trace needs each used"
            " once"
        )
    if not output.requires_grad:  # frozen parameters: start the graph here
        output = output.detach().requires_grad_()
        edge, output = torch.autograd.graph.get_gradient_edge(output), output.clone()
    else:  # an edge, not the tensor: an in-place ReLU would turn the tensor into something else
        edge = torch.autograd.graph.get_gradient_edge(output)
    layers.append((name, module, inputs[0].detach(), inputs[0]._version, edge))
    return output


def _squared_norms(logits, layers, cotangents, masks, model):
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, mask in masks.items():
        if name not in shapes or mask.shape != shapes[name]:
            raise ValueError(
                f"mask {name!r} of shape {tuple(mask.shape)} fits no parameter; parameters:"
                f" {', '.join(shapes)}"
            )
    totals = {name: logits.new_zeros(len(logits)) for name, *_ in layers}
    rules = {}
    for k, cotangent in enumerate(cotangents):
        last = k == len(cotangents) - 1
        deltas = torch.autograd.grad(
            logits, [edge for *_, edge in layers], cotangent, retain_graph=not last,
            allow_unused=True,
        )
        for (name, module, a, version, _), delta in zip(layers, deltas):
            if delta is None:
                continue
            if a._version != version:
                raise ValueError(
                    f"the input of layer {name!r} was changed in place after the layer had used it"
                )
            rule = rules.get(name) or layer_rule(name, module, a, masks)
            if not last:
                rules[name] = rule  # patches and Gram matrices of the input serve every pass
            totals[name] = totals[name] + rule(delta)
    return totals
