"""Squared norms of per-example gradients, one rule for each layer type, from a layer's input a and
the gradient delta of its output.

|a|^2 |delta|^2 for a Linear layer; sums over positions for the others. Masks (True = kept) live
here: a pruned weight does not count.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def check_layer(name, module, own):
    """ValueError if per-example gradients of the layer have no rule, or do not exist."""
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        raise ValueError(
            f"BatchNorm layer {name!r} uses batch statistics: call model.eval() first, or examples"
            " have no gradient of their own"
        )
    if isinstance(module, _DropoutNd) and module.training and module.p > 0:
        raise ValueError(f"Dropout layer {name!r} is in training mode: call model.eval() first")
    known = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)
    covered = type(module) in known and set(own) <= {"weight", "bias"}
    if own and not covered and not hasattr(module, "squared_gradient_norms"):
        raise ValueError(
            f"no rule for layer {name!r} ({type(module).__name__} with {own}): Linear, Conv2d,"
            " BatchNorm, LayerNorm are covered; give other modules a method"
            ' squared_gradient_norms(input, output_gradient) -> (n,), or use method="autograd"'
        )


def check_modes(model):
    """ValueError: a layer couples or perturbs examples (BatchNorm or Dropout in training mode)."""
    for name, module in model.named_modules():
        check_layer(name, module, [])


def check_masks(model, masks):
    """ValueError: one of the masks (parameter name -> mask) is no boolean mask of a parameter."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, mask in masks.items():
        fits = torch.is_tensor(mask) and name in shapes and mask.shape == shapes[name]
        if not fits or mask.dtype != torch.bool:
            said = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise ValueError(
                f"mask {name!r} ({said}) is no boolean mask of one of {', '.join(shapes)}"
            )


def layer_rule(name, module, a, masks):
    """delta -> (n,) squared norms of the gradients of this layer's parameters, for its input a."""
    prefix = name + "." if name else ""
    weight_mask, bias_mask = masks.get(prefix + "weight"), masks.get(prefix + "bias")
    if hasattr(module, "squared_gradient_norms"):
        if any(prefix + own in masks for own, _ in module.named_parameters(recurse=False)):
            raise ValueError(f"layer {name!r} has a rule of its own, which knows no masks")
        return lambda delta: module.squared_gradient_norms(a, delta)
    if isinstance(module, nn.Linear):
        weight = _linear(a, weight_mask)

        def linear(delta):
            summed = delta.flatten(1, -2).sum(1) if delta.dim() > 2 else delta
            return weight(delta) + _bias(module, summed, bias_mask)

        return linear
    if isinstance(module, nn.Conv2d):
        weight = _convolution(module, a, weight_mask)
        return lambda delta: weight(delta) + _bias(module, delta.flatten(2).sum(2), bias_mask)
    if isinstance(module, nn.LayerNorm):
        return _layer_norm(module, a, weight_mask, bias_mask)
    return _batch_norm(module, a, weight_mask, bias_mask)


def _squares(gradient, mask):
    """(n, ...) -> (n,): sum of squares, over the kept entries if there is a mask."""
    kept = gradient if mask is None else gradient * mask
    return torch.linalg.vector_norm(kept.flatten(1), dim=1).square()


def _bias(module, gradient, mask):
    return _squares(gradient, mask) if module.bias is not None else 0.0


def _batch_norm(module, a, weight_mask, bias_mask):
    """y = weight * (a - mean) / sqrt(var + eps) + bias with fixed statistics: sums over the
    positions, one entry per channel."""
    if module.weight is None:
        return lambda delta: 0.0
    mean, scale = module.running_mean, (module.running_var + module.eps).rsqrt()
    positions = a.flatten(2) if a.dim() > 2 else a[:, :, None]

    def rule(delta):
        delta = delta.flatten(2) if delta.dim() > 2 else delta[:, :, None]
        bias = delta.sum(2)
        # sum over t of delta (a - mean) / sd
        weight = (torch.einsum("nct,nct->nc", delta, positions) - mean * bias) * scale
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
    """Convolution = for each place in the kernel, a Linear layer on the input shifted to it,
    position by position; per group."""
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(
            f"convolutions with padding_mode {module.padding_mode!r} and padding"
            f' {module.padding!r} have no rule; use zeros and numbers, or method="autograd"'
        )
    n, groups, (ph, pw) = len(a), module.groups, module.padding
    (kh, kw), (sh, sw), (dh, dw) = module.kernel_size, module.stride, module.dilation
    if groups == 1 and module.in_channels * kh * kw <= 64:  # one product, not one for each place
        return _patches(module, a, mask)
    height = (a.shape[2] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (a.shape[3] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    # (n, h, w, c): a position's channels lie together
    padded = a.new_zeros(n, a.shape[2] + 2 * ph, a.shape[3] + 2 * pw, a.shape[1])
    padded[:, ph : ph + a.shape[2], pw : pw + a.shape[3]] = a.permute(0, 2, 3, 1)
    places = [(i, j) for i in range(kh) for j in range(kw)]
    # one buffer for all places: fresh memory costs more than the copy
    window = a.new_empty(n, height, width, a.shape[1])

    def grouped(t):  # (n, positions, channels) -> (n groups, positions, channels / groups)
        return t if groups == 1 else t.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)

    def shifted(i, j):
        i, j = i * dh, j * dw
        window.copy_(
            padded[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw]
        )
        return grouped(window.flatten(1, 2))

    masks = None if mask is None else [mask[:, :, i, j] for i, j in places]
    if masks and groups > 1:
        masks = [own.unflatten(0, (groups, -1)).repeat(n, 1, 1) for own in masks]
    rule = _matrix([partial(shifted, i, j) for i, j in places], masks)
    return lambda delta: rule(grouped(delta.flatten(2).transpose(1, 2))).view(n, groups).sum(1)


def _patches(module, a, mask):
    """A convolution of few channels: one Linear layer on the patches of its input."""
    settings = module.dilation, module.padding, module.stride
    patches = F.unfold(a, module.kernel_size, *settings).transpose(1, 2)  # (n, positions, c kh kw)
    rule = _matrix([patches], None if mask is None else [mask.flatten(1)])
    return lambda delta: rule(delta.flatten(2).transpose(1, 2))


def _matrix(inputs, masks):
    """delta (m, t, q) -> (m,): the sum over ``inputs`` a (m, t, p) (or functions that make one) of
    |sum_t delta_t a_t'|^2.

    Either the gradients themselves (q x p each), or the sum of the inputs' Gram matrices (t x t)
    against that of delta: the cheaper.
    """

    def made(one):
        return one() if callable(one) else one

    t, p = made(inputs[0]).shape[1:]
    gram = []

    def rule(delta):
        q = delta.shape[2]
        if masks is not None or t * (p * len(inputs) + q) > p * q * len(inputs):
            transposed = delta.transpose(1, 2).contiguous()
            return sum(
                _squares(transposed @ made(one), masks and masks[k]) for k, one in enumerate(inputs)
            )
        if not gram:
            gram.append(sum(a @ a.transpose(1, 2) for a in map(made, inputs)))
        return torch.linalg.vecdot(gram[0].flatten(1), (delta @ delta.transpose(1, 2)).flatten(1))

    return rule
