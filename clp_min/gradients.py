"""Full gradient, effective gradient and the optimum of averaged snapshots ("Revisiting critical
learning periods", sections 4.2 and 4.4).

Flat vectors (p,) follow model.parameters().
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clp_min.checks import check_logits, check_tensors, check_whole
from clp_min.fisher import per_example_gradient_norms, residuals
from clp_min.layer_rules import check_modes


def flat_parameters(model):
    """All parameters of the model as one vector (p,), a copy."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def full_gradient(model, x, y, batch_size=256):
    """Gradient of the mean cross-entropy over all of x (n, ...), y (n,) -> (p,): the paper's true
    gradient of l(theta).

    Exact; the model's .grad and buffers are not touched. ValueError: BatchNorm or Dropout in
    training mode, a frozen parameter, labels that are none of the net's classes.

    "Revisiting", Section 4.2."""
    check_examples(model, x, y, batch_size)
    check_modes(model)
    parameters = list(model.parameters())
    total = torch.zeros_like(flat_parameters(model))
    for number, (xb, yb) in enumerate(zip(x.split(int(batch_size)), y.split(int(batch_size)))):
        with torch.enable_grad():
            logits = model(xb)
            if number == 0:
                check_logits(logits, y)
            loss = F.cross_entropy(logits, yb, reduction="sum")
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    return total / len(x)


def check_examples(model, x, y, batch_size=1):
    """ValueError: x and y of different lengths, none, labels that are no integers, or a frozen
    parameter: derivatives here are in all of them."""
    check_tensors(x=(x, "n ..."), y=(y, "label n"))
    check_whole(1, batch_size=batch_size)
    if not all(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "a parameter is frozen (requires_grad is False): the derivative is in all parameters"
        )


def effective_gradient(gradient, direction):
    """Definition 1: the projection (g . d / |d|^2) d of a stochastic gradient (p,) on a direction
    (p,) -> (p,).

    The direction is the full gradient, or as the paper measures it the vector from the current
    parameters to the optimum. For g = d + noise its squared norm has mean |d|^2 + u' Sigma u, u = d
    / |d|: it does not vanish with d (the paper's Theorem 2 says it does). Computed in float64,
    of any length of d that float32 holds. ValueError: shapes differ, a direction that is zero or
    not finite.
    """
    check_tensors(gradient=(gradient, "p"), direction=(direction, "p"))
    g, d = gradient.double(), direction.double()
    squared = d.dot(d)
    if direction.device.type != "meta" and not squared > 0:
        said = "zero" if squared == 0 else "not finite"
        raise ValueError(f"the direction is {said}: nothing can be projected on it")
    return (g.dot(d) / squared * d).to(direction.dtype)


def optimum(snapshots, accuracies, top=10):
    """Mean (p,) of the ``top`` snapshots (list of (p,), or a tensor (k, p)) with the highest test
    accuracies (k,), ties go to the earlier snapshot.

    The paper's stand-in for the minimum (section 4.4). It is chosen on the test set, which is
    harmless for a direction and would not be for an accuracy. ValueError: no snapshots, or another
    number of accuracies.
    """
    if any(float(a) != float(a) for a in accuracies):
        raise ValueError("an accuracy is nan")
    if any(not one.is_floating_point() for one in snapshots):
        raise ValueError("snapshots must be vectors of floats")
    if len(snapshots) != len(accuracies) or not len(snapshots):
        raise ValueError(
            f"need as many snapshots as accuracies, got {len(snapshots)} and {len(accuracies)}"
        )
    check_whole(1, top=top)
    order = sorted(range(len(snapshots)), key=lambda i: (-float(accuracies[i]), i))[:top]
    # one at a time: they may lie on disk
    total = torch.zeros_like(snapshots[order[0]], dtype=torch.float64)
    for i in order:
        total += snapshots[i]
    return (total / len(order)).to(snapshots[order[0]].dtype)


def gradient_norms(model, x, y, batches, direction):
    """Norms at one point: of batch gradients, their projections, and the full gradient -> dict.

    "stochastic", "effective" (projected on ``direction`` (p,)) and "on_full" (projected on
    the full gradient, Definition 1) are means over ``batches``, a list of indices into x
    (n, ...), y (n,); "full" is the full gradient's norm, "cosine" that of the direction
    with the negative full gradient.
    """
    check_tensors(x=(x, "n ..."), y=(y, "label n"), direction=(direction, "p"))
    gradients = [full_gradient(model, x[batch], y[batch]) for batch in batches]
    if sum(map(len, batches)) == len(x):  # together they are the whole set
        full = sum(gradient * (len(b) / len(x)) for gradient, b in zip(gradients, batches))
    else:
        full = full_gradient(model, x, y)
    norms = {"stochastic": 0.0, "effective": 0.0, "on_full": 0.0}
    for gradient in gradients:
        projections = effective_gradient(gradient, direction), effective_gradient(gradient, full)
        for key, vector in zip(norms, (gradient, *projections)):
            norms[key] += float(vector.norm()) / len(gradients)
    descent = -F.cosine_similarity(direction, full, dim=0)
    return norms | {"full": float(full.norm()), "cosine": float(descent)}


def gradient_cosines(model, x, y, direction, masks=None, batch_size=256):
    """Cosine (n,) of each example's negative cross-entropy gradient with a direction (p,): which
    examples pull along it (Fig. 8 of the sparse paper), float64.

    No per-example gradient is formed: one forward-mode derivative of the logits along d gives
    g_i . d = sum_c (p_c - y_c) dz_c, with p - y in float64 and without a difference, so that it
    holds for fitted examples too; the norms are ``per_example_gradient_norms``. masks: kept weights
    only. An example without a gradient has cosine 0. ValueError: a direction of another length, or
    zero on the kept weights; x and y of different lengths; and what the norms refuse.
    """
    check_tensors(x=(x, "n ..."), y=(y, "label n"), direction=(direction, "p"))
    check_whole(1, batch_size=batch_size)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]
    if direction.shape != (sum(sizes),):
        raise ValueError(f"direction must be ({sum(sizes)},), got {tuple(direction.shape)}")
    tangent = {}
    for (name, p), part in zip(parameters.items(), direction.split(sizes)):
        tangent[name] = (part.view_as(p) * (masks or {}).get(name, True)).to(p.dtype)
    length = torch.stack([part.double().norm() for part in tangent.values()]).norm()
    if direction.device.type != "meta" and not length > 0:
        raise ValueError("the direction is zero on the weights that count")
    found = []
    for xb, yb in zip(x.split(int(batch_size)), y.split(int(batch_size))):
        norms = per_example_gradient_norms(model, xb, yb, masks).sqrt()

        def logits_of(theta, xb=xb):
            return torch.func.functional_call(model, theta, (xb,))

        with sdpa_kernel(SDPBackend.MATH):  # the others have no forward-mode derivative
            logits, dz = torch.func.jvp(logits_of, (parameters,), (tangent,))
        along = (residuals(logits.double().softmax(1), yb) * dz.double()).sum(1)
        found.append(-along / (norms * length).clamp(min=1e-300))
    return torch.cat(found)
