"""Trace of the Fisher information matrix, and norms of per-example gradients, without ever forming
a parameter gradient.

    Tr F = E_x E_{y ~ p(y|x)} |grad_theta log p(y|x)|^2    (Achille et al.; "Revisiting ...", Eq. 1)

The gradient of log p(y|x) in the logits is e_y - p, so Tr F(x) = sum_k |J' b_k|^2 for any b_k
with sum_k b_k b_k' = diag(p) - pp', where J = d logits / d theta. One forward pass keeps each
layer's input a; one backward pass per b gives the gradients delta of the layers' outputs; and the
squared norm of one example's gradient follows from a and delta alone: |a|^2 |delta|^2 for a
Linear layer. The order matters: square per example, then average. The square of the averaged
gradient is another, smaller number.

Domain: each parameter used once, by a layer with a rule, on inputs with the examples along axis 0,
in float32 or float64; nothing that mixes examples or draws. What lies outside is refused with the
layer's name; for a new model one example is compared with autograd. ``method="autograd"`` needs no
rules.
"""

import copy
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from clp_min.checks import check_labels, check_output, check_tensors, check_whole
from clp_min.layer_rules import check_layer, check_masks, check_modes, layer_rule
from clp_min.seeding import generator as seeded

CHUNK_FLOATS = 2**21  # of the first convolution's output: a chunk of examples stays in the cache
FACTOR_FLOATS = 2**22  # of the matrices that "signs" diagonalises at a time
# of the comparison of one example with autograd: what is silently wrong is off by a percent or more
TOLERANCE = {torch.float32: 0.02, torch.float64: 1e-6}
PRECISIONS = tuple(TOLERANCE)
TURNED = 128  # classes whose signs are turned into the eigenbasis: of more, the others' p are small
_CHECKED = weakref.WeakKeyDictionary()  # model -> kinds of input for which it equalled autograd


@dataclass(frozen=True)
class FisherTrace:
    """Tr F as mean over examples: ``total``; ``per_layer`` by module name (weight and bias
    together); ``per_example`` (n,)."""

    total: float
    per_layer: dict
    per_example: torch.Tensor


def fisher_trace(
    model, x, labels="expected", masks=None, generator=None, method="rules", batch_size=None
):
    """Tr F = E_x E_{y ~ p(y|x)} |grad log p(y|x)|^2 of ``model`` on inputs x (n, ...), mean over
    the n examples -> FisherTrace. ("Revisiting", Section 2.1 and Eq. 35; Achille et al. 2018.)

    labels  "expected"       the exact expectation over y ~ p(y|x), in classes - 1 backward passes
            "sampled"        one label y ~ p(y|x) per example: unbiased, one pass; useless once p is
                             confident: the rare label that carries the trace is almost never drawn
            "signs"          B V r, random signs r, B B' = diag(p) - pp' and V the eigenvectors of
                             B'B: unbiased, one pass, low variance (Hutchinson 1989), right at every
                             gap between logits
            (n,) int tensor  these labels: the *empirical* Fisher, another quantity, which vanishes
                             when the labels are fitted
    masks       parameter name -> boolean mask; only kept (True) weights count
    generator   for "sampled" and "signs"; None uses torch's global one
    method      "rules": one rule per layer type; "autograd": any module, one backward pass for
                each example and each b: slow, the same result
    batch_size  examples at a time; None takes as many as keep a convolution's intermediate results
                in the cache
    In float32 about 4 + log2(1 + g) of 24 bits are lost for logits g apart: what is left of a
    confident example's trace is exp(-g). ValueError: what the rules do not cover (see the module),
    BatchNorm or Dropout in training mode.
    """
    _check_input(model, x, labels)
    if batch_size is None:
        batch_size = 32 if method == "autograd" else _chunk(model, x)
    check_whole(1, batch_size=batch_size)
    rows = x.split(int(batch_size))
    own = [labels] * len(rows) if isinstance(labels, str) else labels.split(len(rows[0]))
    parts = [per_example_fisher(model, *one, masks, generator, method) for one in zip(rows, own)]
    layers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    per_example = sum(layers.values())
    per_layer = {name: float(values.mean()) for name, values in layers.items()}
    return FisherTrace(float(per_example.mean()), per_layer, per_example)


def _chunk(model, x):
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or x.dim() < 3:
        return 1024
    size = first.out_channels * x[0, 0].numel() // (first.stride[0] * first.stride[1])
    least = 256 if x.is_cuda else 32  # there each of many small passes waits for its launch
    return min(max(CHUNK_FLOATS // max(size, 1), least), 1024)


def by_weight_layer(per_layer, model):
    """``FisherTrace.per_layer`` as a list, BatchNorm's part added to the weights before it."""
    matrices = {name.removesuffix(".weight") for name, p in model.named_parameters() if p.dim() > 1}
    sums = []
    for name, value in per_layer.items():
        if name in matrices:
            sums.append(0.0)
        sums[-1] += value
    return sums


def per_example_fisher(model, x, labels="expected", masks=None, generator=None, method="rules"):
    """The tensors behind ``fisher_trace``, for one batch: module name -> (n,) squared norms,
    float64. The device is waited for by the checks of logits and given labels, by the eigenvectors
    of "signs", and by the comparison of a new model with autograd."""
    if method not in ("rules", "autograd"):
        raise ValueError(f'method must be "rules" or "autograd", got {method!r}')
    if torch.is_inference_mode_enabled():
        raise ValueError("gradients are needed: leave torch.inference_mode()")
    _check_input(model, x, labels)
    masks = masks or {}
    _check_model(model, x, masks)
    with torch.enable_grad():
        if method == "autograd":
            return _by_autograd(model, x, labels, masks, generator)
        return _by_rules(model, x, labels, masks, generator)


def per_example_gradient_norms(model, x, y, masks=None):
    """Squared norms (n,) of each example's cross-entropy gradient |grad_theta (-log p(y_i|x_i))|^2;
    x (n, ...), y (n,) integers.

    Exact; up to four of float32's bits are lost. Only one batch's layer inputs and output gradients
    are alive at once. Errors as ``fisher_trace``.

    Their mean is what "Revisiting", Appendix A.2, takes for Tr F: the empirical one."""
    if isinstance(y, str):
        raise ValueError(f"labels must be a tensor of integers, got {y!r}")
    return sum(per_example_fisher(model, x, y, masks).values())


# ---- the vectors b


def residuals(p, y):
    """p - e_y (n, classes), the gradient of -log p(y|x) in the logits, for probabilities p and
    labels y (n,). No difference is formed: 1 - p_y is the sum of the others, right at every gap.

    "Learning phases", Eq. 8."""
    check_tensors(p=(p, "n classes"), y=(y, "int n"))
    others = p.scatter(1, y[:, None], 0.0)
    return others.scatter(1, y[:, None], -others.sum(1, keepdim=True))


def covariance_factor(p):
    """diag(p) - pp' = B B' for probabilities p (n, classes), float64 -> (multiply, gram).

    B is the closed-form Cholesky factor of the multinomial covariance, the classes in ascending
    order of p and s_k the sum of p_j over j > k: B_kk = sqrt(p_k s_k / s_{k-1}) and, for j > k,
    B_jk = -p_j sqrt(p_k / (s_{k-1} s_k)). No difference is formed, so it is right at every gap
    between logits. multiply: v (n, classes - 1) -> B v (n, classes); gram(rows): B'B of some
    examples, of their 128 most probable classes.
    """
    check_tensors(p=(p, "n classes"))
    p, order = p.sort(1)
    tail = p.flip(1).cumsum(1).flip(1)
    before, after, own = tail[:, :-1], tail[:, 1:], p[:, :-1]
    diagonal, below = (own * after / before).sqrt(), (own / (before * after)).sqrt()

    def multiply(v):
        sums = F.pad((below * v).cumsum(1), (1, 0))
        return torch.empty_like(p).scatter(1, order, F.pad(diagonal * v, (0, 1)) - p * sums)

    def gram(rows):
        c, d, squares = below[rows, -TURNED:], diagonal[rows, -TURNED:], p[rows].square()
        later = squares.flip(1).cumsum(1).flip(1)[:, 1:][:, -TURNED:]  # sum of p_j^2 over j > k
        upper = (c[:, :, None] * (c * later - own[rows, -TURNED:] * d)[:, None, :]).triu(1)
        return upper + upper.transpose(1, 2) + torch.diag_embed(d.square() + c.square() * later)

    return multiply, gram


def _cotangents(logits, labels, generator):
    """The vectors b of the backward passes, one at a time: (n, classes) of norm 1 in the model's
    dtype, and their squared norms (n,) in float64, which no dtype of a model could hold."""
    p = logits.double().softmax(1)
    n, classes = p.shape
    if not isinstance(labels, str) or labels == "sampled":
        given = not isinstance(labels, str)
        y = labels.long() if given else torch.multinomial(p, 1, generator=generator)[:, 0]
        if given:
            check_labels(y, classes)
        yield _scaled(residuals(p, y), logits.dtype)
        return
    if labels not in ("expected", "signs"):
        raise ValueError(
            f'labels must be "expected", "sampled", "signs" or an integer tensor, got {labels!r}'
        )
    multiply, gram = covariance_factor(p)
    if labels == "expected":
        for k in range(classes - 1):
            v = torch.zeros_like(p[:, 1:])
            v[:, k] = 1.0
            yield _scaled(multiply(v), logits.dtype)
        return
    signs = torch.randint(2, (n, classes - 1), device=p.device, generator=generator) * 2.0 - 1.0
    signs = signs.to(p.dtype)
    chunk = max(FACTOR_FLOATS // min(classes, TURNED) ** 2, 1)
    for rows in torch.arange(n, device=p.device).split(chunk):
        basis = torch.linalg.eigh(gram(rows))[1]
        signs[rows, -TURNED:] = (basis @ signs[rows, -TURNED:, None])[:, :, 0]
    yield _scaled(multiply(signs), logits.dtype)


def _scaled(b, dtype):
    largest = b.abs().amax(1, keepdim=True)  # first: squares would underflow
    direction = b / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    return (direction / length.clamp(min=1.0)).to(dtype), (largest * length)[:, 0].square()


# ---- by rules


def _forward(model, x):
    """Logits, and for every layer with parameters its name, module, input and the place of its
    output in the autograd graph."""
    layers, seen = [], {}
    with ExitStack() as hooks:  # they go when it ends
        for name, module in model.named_modules():
            own = [n for n, p in module.named_parameters(recurse=False) if p is not None]
            check_layer(name, module, own)
            for parameter in own:
                place = name, parameter
                if seen.setdefault(id(module._parameters[parameter]), place) != place:
                    raise ValueError(
                        f"parameter {name}.{parameter} is shared with another layer: the rules need"
                        ' each used once; method="autograd" does not'
                    )
            if own:  # first of the hooks: it sees what the layer itself computed
                keep = partial(_keep, layers, name, len(x))
                hooks.enter_context(module.register_forward_hook(keep, prepend=True))
        logits = checked_logits(model, x)
    called = {name for name, *_ in layers}
    for name, module in model.named_modules():
        if name not in called and any(True for _ in module.parameters(recurse=False)):
            raise ValueError(
                f"layer {name!r} was not called: are its weights used some other way (F.linear)?"
                ' then there is no rule for it; method="autograd" needs none'
            )
    return logits, layers


def _keep(layers, name, n, module, inputs, output):
    if any(module is other for _, other, _, _, _ in layers):
        raise ValueError(
            f"layer {name!r} is used twice in one forward pass: the rules need each used once;"
            ' method="autograd" does not'
        )
    if not inputs:
        raise ValueError(f"layer {name!r} must be called with its input first, not by keyword")
    if inputs[0].shape[:1] != (n,) or output.shape[:1] != (n,):
        raise ValueError(
            f"layer {name!r} has {tuple(inputs[0].shape)} -> {tuple(output.shape)}, and the rules"
            f' need the {n} examples along axis 0; method="autograd" does not'
        )
    if output.dtype not in PRECISIONS:
        raise ValueError(f"layer {name!r} computes in {output.dtype}: use float32 or float64")
    if not output.requires_grad:  # frozen parameters: start the graph here
        output = output.detach().requires_grad_()
        edge, output = torch.autograd.graph.get_gradient_edge(output), output.clone()
    else:  # an edge, not the tensor: an in-place ReLU would turn the tensor into something else
        edge = torch.autograd.graph.get_gradient_edge(output)
    layers.append((name, module, inputs[0].detach(), inputs[0]._version, edge))
    return output


def _by_rules(model, x, labels, masks, generator):
    logits, layers = _forward(model, x)
    _check_uses(model, logits)
    cotangents = _cotangents(logits.detach(), labels, generator)
    totals = {name: logits.new_zeros(len(logits), dtype=torch.float64) for name, *_ in layers}
    rules, edges, first = {}, [edge for *_, edge in layers], None
    waiting = next(cotangents, None)
    while waiting is not None:
        (cotangent, size), waiting = waiting, next(cotangents, None)
        last = waiting is None
        deltas = torch.autograd.grad(
            logits, edges, cotangent, retain_graph=not last, allow_unused=True
        )
        norms = {}
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
            norms[name] = rule(delta)
            totals[name] = totals[name] + norms[name] * size
        first = first or (cotangent, norms)
    if first:
        _compare_with_autograd(model, x, logits, *first, masks)
    return totals


# ---- by autograd


def _squares_by_autograd(model, one, cotangents, masks):
    """For one example (1, ...): its logits and [module name -> |J' b|^2] for each b (1, classes).

    Frozen parameters count: they are replaced by copies that are not.
    """
    parameters = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    try:
        logits = torch.func.functional_call(model, parameters, (one,))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"the model takes no single example ({error})") from None
    squares = []
    for b in cotangents:
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), b, retain_graph=True, allow_unused=True
        )
        sums = {name.rpartition(".")[0]: 0.0 for name in parameters}
        for name, g in zip(parameters, gradients):
            if g is not None:
                kept = g.double() * masks[name] if name in masks else g.double()
                sums[name.rpartition(".")[0]] += kept.square().sum()
        squares.append(sums)
    return logits.detach(), squares


def _by_autograd(model, x, labels, masks, generator):
    check_modes(model)
    logits = checked_logits(model, x)
    names = dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters())
    totals = {name: logits.new_zeros(len(x), dtype=torch.float64) for name in names}
    cotangents = list(_cotangents(logits.detach(), labels, generator))
    for i in range(len(x)):
        own = [b[i : i + 1] for b, _ in cotangents]
        alone, squares = _squares_by_autograd(model, x[i : i + 1], own, masks)
        _check_alone(alone[0], logits[i].detach())
        for one, (_, size) in zip(squares, cotangents):
            for name, value in one.items():
                totals[name][i] += value * size[i]
    return totals


# ---- what is refused


def _check_input(model, x, labels):
    given = {} if isinstance(labels, str) else {"labels": (labels, "int n")}
    check_tensors(x=(x, "n ..."), **given)
    if not any(True for _ in model.parameters()):
        raise ValueError("the model has no parameters")


def _check_model(model, x, masks):
    """ValueError: half precision, or a mask that is none of a parameter."""
    for name, p in model.named_parameters():
        if p.dtype not in PRECISIONS:
            raise ValueError(f"parameter {name!r} is {p.dtype}: use float32 or float64")
    if x.is_floating_point() and x.dtype not in PRECISIONS:
        raise ValueError(f"x is {x.dtype}: use float32 or float64")
    check_masks(model, masks)


def checked_logits(model, x):
    """model(x). ValueError: it draws random numbers; no (n, classes) float32 or float64 logits."""
    before = torch.get_rng_state(), torch.cuda.get_rng_state(x.device) if x.is_cuda else None
    logits = model(x)
    drawn = not torch.equal(before[0], torch.get_rng_state())
    if drawn or x.is_cuda and not torch.equal(before[1], torch.cuda.get_rng_state(x.device)):
        raise ValueError("the model draws random numbers: call model.eval()")
    check_output(logits)
    if logits.dtype not in PRECISIONS:
        raise ValueError(f"the logits are {logits.dtype}: use float32 or float64")
    if len(logits) != len(x):
        raise ValueError(f"{len(x)} examples gave {len(logits)} rows of logits")
    if x.device.type != "meta" and not logits.isfinite().all():
        raise ValueError("the logits are not finite: look at the inputs and the weights")
    return logits


def _check_uses(model, logits):
    """ValueError: the autograd graph holds a parameter more than once."""
    seen, waiting, uses = set(), [logits.grad_fn], {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if hasattr(following, "variable"):
                uses[id(following.variable)] = uses.get(id(following.variable), 0) + 1
            else:
                waiting.append(following)
    for name, p in model.named_parameters():
        if uses.get(id(p), 0) > 1:
            raise ValueError(
                f"parameter {name!r} is used {uses[id(p)]} times in one forward pass: the rules"
                ' need each used once; method="autograd" does not'
            )


def _check_alone(alone, logits):
    """ValueError: an example has other logits alone than in its batch."""
    if (alone - logits).abs().max() > TOLERANCE[logits.dtype] * (logits.abs().max() + 1e-30):
        raise ValueError(
            "an example has other logits alone than in its batch: the model uses batch statistics"
            " or random draws (call model.eval())"
        )


def _compare_with_autograd(model, x, logits, cotangent, norms, masks):
    """ValueError: for one example, that with the largest gradient, a layer's rule gives another
    norm than plain autograd. Once for each model and kind of input of several examples."""
    kind = tuple(x.shape[1:]), x.dtype, tuple(module.training for module in model.modules())
    if x.device.type == "meta" or kind in _CHECKED.setdefault(model, set()):
        return
    i = int(sum(norms.values()).argmax())
    alone, [squares] = _squares_by_autograd(model, x[i : i + 1], [cotangent[i : i + 1]], masks)
    _check_alone(alone[0], logits[i].detach())
    total, tolerance = sum(squares.values()), TOLERANCE[logits.dtype]
    for name, value in squares.items():
        ours = float(norms[name][i]) if torch.is_tensor(norms.get(name)) else 0.0
        if not abs(ours - value) <= tolerance * (value + total / 20_000):
            if logits.dtype == torch.float32 and _holds_in_float64(model, x, i, masks):
                break
            raise ValueError(
                f"layer {name!r}: its rule gives {ours:.4g} for one example's squared gradient,"
                f" autograd {float(value):.4g}: is the batch not along axis 0, or are its weights"
                ' used some other way? method="autograd" is exact'
            )
    if len(x) > 1:
        _CHECKED[model].add(kind)


def _holds_in_float64(model, x, i, masks):
    """The same for a copy of the model in float64, which has the last word: in float32 an example
    alone can round to the other side of a ReLU than in its batch, and then both are right."""
    two = x[[i, (i + 1) % len(x)]].double()
    try:
        _by_rules(copy.deepcopy(model).double(), two, "signs", masks, seeded(x.device, "check"))
    except (ValueError, RuntimeError):
        return False
    return True
