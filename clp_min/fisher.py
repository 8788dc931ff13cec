"""Trace of the Fisher information matrix, and norms of per-example gradients, without ever forming a parameter gradient.

    Tr F = E_x E_{y ~ p(y|x)} |grad_theta log p(y|x)|^2                  (Achille et al. 2018; "Revisiting ...", Eq. 1)

The gradient of log p(y|x) in the logits is e_y - p, so Tr F(x) = sum_k |J' b_k|^2 for any b_k with sum_k b_k b_k' = diag(p) - pp',
where J = d logits / d theta. One forward pass keeps each layer's input a; one backward pass per b gives the gradients delta of the
layers' outputs; and the squared norm of one example's gradient follows from a and delta alone: |a|^2 |delta|^2 for a Linear layer.
The order matters: square per example, then average. The square of the averaged gradient is another, smaller number.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class FisherTrace:
    """Tr F as mean over examples: ``total``; ``per_layer`` by module name (weight and bias together); ``per_example`` (n,)."""

    total: float
    per_layer: dict
    per_example: torch.Tensor


def fisher_trace(model, x, labels="expected", masks=None, generator=None, batch_size=None):
    """Trace of the Fisher information of ``model`` on inputs x (n, ...), mean over the n examples -> FisherTrace.

    labels  "expected"       the exact expectation over y ~ p(y|x), in classes - 1 backward passes
            "sampled"        one label y ~ p(y|x) per example: unbiased, one pass; hopeless once p is confident, because the rare
                             label that carries the trace is almost never drawn
            "signs"          random signs in the eigenbasis of diag(p) - pp': unbiased, one pass, low variance (Hutchinson 1989)
            (n,) int tensor  these labels: the *empirical* Fisher, another quantity, which vanishes when the labels are fitted
    masks   parameter name -> boolean mask; only kept (True) weights count.
    generator  for "sampled" and "signs"; None uses torch's global one.
    batch_size  examples at a time; None takes 32 for convolutions (their intermediate results stay in the cache), else 1024.
    ValueError: a layer type without a rule, a layer or parameter used twice, BatchNorm or Dropout in training mode.
    """
    if torch.is_tensor(labels):
        _check_labels(labels, x)
    batch_size = batch_size or (32 if any(isinstance(m, nn.Conv2d) for m in model.modules()) else 1024)
    parts = [
        per_example_fisher(
            model, x[i : i + batch_size], labels[i : i + batch_size] if torch.is_tensor(labels) else labels, masks, generator
        )
        for i in range(0, len(x), batch_size)
    ]
    if not parts:
        raise ValueError("x holds no examples")
    layers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    per_example = sum(layers.values())
    return FisherTrace(float(per_example.double().mean()), {k: float(v.double().mean()) for k, v in layers.items()}, per_example)


def per_example_fisher(model, x, labels="expected", masks=None, generator=None):
    """The tensors behind ``fisher_trace``, for one batch: module name -> (n,) squared norms. Only the eigenvalues ("expected", "signs") and the
    check of given labels make the device wait."""
    if torch.is_tensor(labels):
        _check_labels(labels, x)
    with torch.enable_grad():
        logits, layers = _forward(model, x)
    return _squared_norms(logits, layers, _cotangents(logits.detach(), labels, generator), masks or {}, model)


def per_example_gradient_norms(model, x, y, masks=None):
    """Squared norms (n,) of each example's cross-entropy gradient |grad_theta (-log p(y_i|x_i))|^2; x (n, ...), y (n,) integers.

    Exact. Only one batch's layer inputs and output gradients are alive at once. Errors as ``fisher_trace``.
    """
    return sum(per_example_fisher(model, x, y, masks).values())


def _check_labels(labels, x):
    if labels.shape != (len(x),) or labels.is_floating_point():
        raise ValueError(f"labels must be ({len(x)},) integers, got {tuple(labels.shape)} {labels.dtype}")


def _cotangents(logits, labels, generator):
    """The vectors b (n, classes) of the backward passes; computed in float64: diag(p) - pp' cancels when p is confident."""
    p = logits.double().softmax(1)
    if torch.is_tensor(labels) or isinstance(labels, str) and labels == "sampled":
        y = labels.long() if torch.is_tensor(labels) else torch.multinomial(p, 1, generator=generator)[:, 0]
        if torch.is_tensor(labels) and y.device.type != "meta" and not 0 <= int(y.min()) <= int(y.max()) < p.shape[1]:
            raise ValueError(f"labels must lie in 0..{p.shape[1] - 1}, got {int(y.min())}..{int(y.max())}")
        return [(p - F.one_hot(y, p.shape[1])).to(logits.dtype)]
    if labels not in ("expected", "signs"):
        raise ValueError(f'labels must be "expected", "sampled", "signs" or an integer tensor, got {labels!r}')
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    columns = (vectors * values.clamp(min=0).sqrt()[:, None, :])[:, :, 1:]  # the first is the null direction (1, ..., 1)
    if labels == "expected":
        return list(columns.to(logits.dtype).unbind(2))
    signs = torch.randint(2, (len(p), columns.shape[2], 1), device=p.device, generator=generator) * 2.0 - 1.0
    return [(columns @ signs.to(p.dtype))[:, :, 0].to(logits.dtype)]


def _forward(model, x):
    """Logits, and for every layer with parameters its name, module, input and the place of its output in the autograd graph."""
    layers, handles, seen = [], [], {}
    for name, module in model.named_modules():
        own = [n for n, p in module.named_parameters(recurse=False) if p is not None]
        _check(name, module, own)
        for parameter in own:
            if seen.setdefault(id(module._parameters[parameter]), (name, parameter)) != (name, parameter):
                raise ValueError(f"parameter {name}.{parameter} is shared with another layer: the Fisher trace needs each used once")
        if own:
            handles.append(module.register_forward_hook(lambda m, inputs, output, name=name: _keep(layers, name, m, inputs, output)))
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    called = {name for name, *_ in layers}
    unused = [name for name, module in model.named_modules() if name not in called and any(True for _ in module.parameters(recurse=False))]
    if unused:
        raise ValueError(
            f"layer {unused[0]!r} was not called: are its weights used some other way (F.linear …)? then there is no rule for it"
        )
    if logits.dim() != 2:
        raise ValueError(f"the model must return logits (n, classes), got {tuple(logits.shape)}")
    return logits, layers


def _keep(layers, name, module, inputs, output):
    if any(module is other for _, other, _, _, _ in layers):
        raise ValueError(f"layer {name!r} is used twice in one forward pass: the Fisher trace needs each used once")
    if not output.requires_grad:  # frozen parameters: start the graph here
        output = output.detach().requires_grad_()
        edge, output = torch.autograd.graph.get_gradient_edge(output), output.clone()
    else:  # an edge, not the tensor: an in-place ReLU would turn the tensor into something else
        edge = torch.autograd.graph.get_gradient_edge(output)
    layers.append((name, module, inputs[0].detach(), inputs[0]._version, edge))
    return output


def _check(name, module, own):
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if isinstance(module, norms) and (module.training or not module.track_running_stats):
        raise ValueError(
            f"BatchNorm layer {name!r} uses batch statistics: call model.eval() first, or examples have no gradient of their own"
        )
    dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    if isinstance(module, dropouts) and module.training and module.p > 0:
        raise ValueError(f"Dropout layer {name!r} is in training mode: call model.eval() first")
    known = (nn.Linear, nn.Conv2d, nn.LayerNorm, *norms)
    if own and not hasattr(module, "squared_gradient_norms") and not (type(module) in known and set(own) <= {"weight", "bias"}):
        raise ValueError(
            f"no rule for layer {name!r} ({type(module).__name__} with {own}): Linear, Conv2d, BatchNorm, LayerNorm are covered;"
            " give other modules a method squared_gradient_norms(input, output_gradient) -> (n,)"
        )


def _squared_norms(logits, layers, cotangents, masks, model):
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, mask in masks.items():
        if name not in shapes or mask.shape != shapes[name]:
            raise ValueError(f"mask {name!r} of shape {tuple(mask.shape)} fits no parameter; parameters: {', '.join(shapes)}")
    totals = {name: logits.new_zeros(len(logits)) for name, *_ in layers}
    rules = {}
    for k, cotangent in enumerate(cotangents):
        last = k == len(cotangents) - 1
        deltas = torch.autograd.grad(logits, [edge for *_, edge in layers], cotangent, retain_graph=not last, allow_unused=True)
        for (name, module, a, version, _), delta in zip(layers, deltas):
            if delta is None:
                continue
            if a._version != version:
                raise ValueError(f"the input of layer {name!r} was changed in place after the layer had used it")
            rule = rules.get(name) or _rule(name, module, a, masks)
            if not last:
                rules[name] = rule  # patches and Gram matrices of the input serve every pass
            totals[name] = totals[name] + rule(delta)
    return totals


def _rule(name, module, a, masks):
    """delta -> (n,) squared norms of the gradients of this layer's parameters, for its input a."""
    prefix = name + "." if name else ""
    weight_mask, bias_mask = masks.get(prefix + "weight"), masks.get(prefix + "bias")
    if hasattr(module, "squared_gradient_norms"):
        if any(prefix + parameter in masks for parameter, _ in module.named_parameters(recurse=False)):
            raise ValueError(f"layer {name!r} has a rule of its own, which knows no masks")
        return lambda delta: module.squared_gradient_norms(a, delta)
    if isinstance(module, nn.Linear):
        weight = _linear(a, weight_mask)
        return lambda delta: weight(delta) + _bias(module, delta.flatten(1, -2).sum(1) if delta.dim() > 2 else delta, bias_mask)
    if isinstance(module, nn.Conv2d):
        weight = _convolution(module, a, weight_mask)
        return lambda delta: weight(delta) + _bias(module, delta.flatten(2).sum(2), bias_mask)
    if isinstance(module, nn.LayerNorm):
        return _layer_norm(module, a, weight_mask, bias_mask)
    return _batch_norm(module, a, weight_mask, bias_mask)


def _squares(gradient, mask):
    """(n, ...) -> (n,): sum of squares, over the kept entries if there is a mask."""
    return torch.linalg.vector_norm((gradient if mask is None else gradient * mask).flatten(1), dim=1).square()


def _bias(module, gradient, mask):
    return _squares(gradient, mask) if module.bias is not None else 0.0


def _batch_norm(module, a, weight_mask, bias_mask):
    """y = weight * (a - mean) / sqrt(var + eps) + bias with fixed statistics: sums over the positions, one entry per channel."""
    if module.weight is None:
        return lambda delta: 0.0
    mean, scale = module.running_mean, (module.running_var + module.eps).rsqrt()
    positions = a.flatten(2) if a.dim() > 2 else a[:, :, None]

    def rule(delta):
        delta = delta.flatten(2) if delta.dim() > 2 else delta[:, :, None]
        bias = delta.sum(2)
        weight = (torch.einsum("nct,nct->nc", delta, positions) - mean * bias) * scale  # sum over t of delta (a - mean) / sd
        return _squares(weight, weight_mask) + _bias(module, bias, bias_mask)

    return rule


def _layer_norm(module, a, weight_mask, bias_mask):
    """y = weight * normalised + bias: sums over the positions before the normalised shape."""
    if module.weight is None:
        return lambda delta: 0.0
    normalised = F.layer_norm(a, module.normalized_shape, eps=module.eps)
    positions = tuple(range(1, a.dim() - len(module.normalized_shape)))

    def rule(delta):
        weight, bias = (t.sum(positions) if positions else t for t in (delta * normalised, delta))
        return _squares(weight, weight_mask) + _bias(module, bias, bias_mask)

    return rule


def _linear(a, mask):
    """Linear layer: the gradient is delta a' (a sum of such over positions, for sequences)."""
    if a.dim() > 2:
        rule = _matrix([a.flatten(1, -2)], None if mask is None else [mask])
        return lambda delta: rule(delta.flatten(1, -2))
    if mask is None:
        squares = a.square().sum(1)
        return lambda delta: squares * delta.square().sum(1)
    squares, kept = a.square(), mask.to(a.dtype)
    return lambda delta: ((delta.square() @ kept) * squares).sum(1)


def _convolution(module, a, mask):
    """Convolution = for each place in the kernel, a Linear layer on the input shifted to it, position by position; per group."""
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(
            f"convolutions with padding_mode {module.padding_mode!r} and padding {module.padding!r} have no rule; use zeros and numbers"
        )
    n, groups, (kh, kw), (sh, sw), (dh, dw) = len(a), module.groups, module.kernel_size, module.stride, module.dilation
    (ph, pw) = module.padding
    height, width = (a.shape[2] + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (a.shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    padded = a.new_zeros(n, a.shape[2] + 2 * ph, a.shape[3] + 2 * pw, a.shape[1])  # (n, h, w, c): a position's channels lie together
    padded[:, ph : ph + a.shape[2], pw : pw + a.shape[3]] = a.permute(0, 2, 3, 1)
    places = [(i, j) for i in range(kh) for j in range(kw)]
    window = a.new_empty(n, height, width, a.shape[1])  # one buffer for all places: fresh memory costs more than the copy

    def grouped(t):  # (n, positions, channels) -> (n groups, positions, channels / groups)
        return t if groups == 1 else t.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)

    def shifted(i, j):
        i, j = i * dh, j * dw
        window.copy_(padded[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw])
        return grouped(window.flatten(1, 2))

    masks = None
    if mask is not None:
        masks = [mask[:, :, i, j] if groups == 1 else mask[:, :, i, j].unflatten(0, (groups, -1)).repeat(n, 1, 1) for i, j in places]
    rule = _matrix([partial(shifted, i, j) for i, j in places], masks)
    return lambda delta: rule(grouped(delta.flatten(2).transpose(1, 2))).view(n, groups).sum(1)


def _matrix(inputs, masks):
    """delta (m, t, q) -> (m,): the sum over ``inputs`` a (m, t, p) (or functions that make one) of |sum_t delta_t a_t'|^2.

    Either the gradients themselves (q x p each), or the sum of the inputs' Gram matrices (t x t) against that of delta: the cheaper.
    """

    def made(one):
        return one() if callable(one) else one

    t, p = made(inputs[0]).shape[1:]
    gram = []

    def rule(delta):
        q = delta.shape[2]
        if masks is not None or t * (p * len(inputs) + q) > p * q * len(inputs):
            transposed = delta.transpose(1, 2).contiguous()
            return sum(_squares(transposed @ made(one), masks and masks[k]) for k, one in enumerate(inputs))
        if not gram:
            gram.append(sum(a @ a.transpose(1, 2) for a in map(made, inputs)))
        return torch.linalg.vecdot(gram[0].flatten(1), (delta @ delta.transpose(1, 2)).flatten(1))

    return rule
