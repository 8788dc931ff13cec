"""Curvature of the loss and sensitivity of the outputs: products with the Hessian, its trace and
spectrum without ever forming it, the norm of the input-output Jacobian, the entropy of predictions.

    H = (1/n) sum_i  d^2 (-log p(y_i | x_i)) / d theta^2    ("Generalization and memorization in
                                                            sparse neural networks", Eq. 2.1)

All in eval mode; a net that draws random numbers is refused. Flat vectors (p,) follow
model.parameters(). With ``masks`` the Hessian is that of the kept weights: rows and columns of
pruned ones are 0.
"""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clp_min.checks import check_finite, check_real, check_tensors, check_whole
from clp_min.fisher import checked_logits
from clp_min.gradients import check_examples
from clp_min.layer_rules import check_masks, check_modes


def hessian_product(model, x, y, masks=None, batch_size=None):
    """v (p,) -> H v (p,), a function: double backward on a graph of the gradient that is kept, so
    that many products with one H are cheap.

    In float32 about 5 + g / 7 of 24 bits are lost for logits g apart: take a net that fits its
    data in float64. batch_size: examples at a time; the graph is then built anew in every product,
    which needs less memory. ValueError: BatchNorm or Dropout in training mode, frozen parameters,
    wrong shapes.

    The Hessian is Eq. 2.1 of the sparse paper."""
    check_modes(model)
    check_examples(model, x, y, 1 if batch_size is None else batch_size)
    size = len(x) if batch_size is None else batch_size
    if y.device.type != "meta" and int(y.min()) < 0:
        raise ValueError(f"y must hold labels from 0 on, got {int(y.min())}")
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    kept = _flat_mask(model, masks) if masks else None
    parts = list(zip(x.split(int(size)), y.split(int(size))))
    graphs = [_gradient_graph(model, parameters, *parts[0], len(x))] if len(parts) == 1 else None

    def product(v):
        check_tensors(v=(v, "p"))
        if v.shape != (sum(sizes),):
            raise ValueError(f"v must be one vector of all {sum(sizes)} parameters, got {v.shape}")
        pieces = (v if kept is None else v * kept).split(sizes)
        pieces = [piece.view_as(p) for piece, p in zip(pieces, parameters)]
        total = None
        for part in graphs or (_gradient_graph(model, parameters, *p, len(x)) for p in parts):
            found = torch.autograd.grad(
                part, parameters, pieces, retain_graph=graphs is not None, materialize_grads=True
            )
            found = torch.cat([one.flatten() for one in found])
            total = found if total is None else total.add_(found)
        return total if kept is None else total.mul_(kept)

    return product


def hessian_vector_product(model, x, y, v, masks=None, batch_size=None):
    """H v (p,) for one vector v (p,), exact; ``hessian_product`` is cheaper for several.

    The Hessian is Eq. 2.1 of the sparse paper."""
    return hessian_product(model, x, y, masks, batch_size)(v)


def hessian_trace(
    model, x, y, probes, generator=None, masks=None, method="hutchinson", batch_size=None
):
    """Tr H = E z'Hz over random signs z, from ``probes`` products with H -> (estimate, its standard
    error), both unbiased ("Generalization and memorization", Table 2).

    "hutchinson": the mean of z'Hz over random signs z, variance 2 (|H|_F^2 - sum H_ii^2) / probes.
    "hutch++" (Meyer et al. 2021): a third of the products finds the range of the large eigenvalues,
    a third takes the trace on it exactly, the rest are Hutchinson's on what is left, whose scatter
    is the standard error. With a few large eigenvalues, as after training, its error is a half to a
    third at the same number of products. ValueError: fewer than 2 probes, or 6.
    """
    fewest = {"hutchinson": 2, "hutch++": 6}
    if method not in fewest:
        raise ValueError(f'method must be "hutchinson" or "hutch++", got {method!r}')
    check_whole(fewest[method], probes=probes)
    product, kept = hessian_product(model, x, y, masks, batch_size), _flat_mask(model, masks)

    def signs():
        z = torch.randint(2, kept.shape, device=kept.device, generator=generator)
        return (2.0 * z - 1.0).to(kept.dtype) * kept

    basis, exact = None, 0.0
    if method == "hutch++":
        sketch = torch.stack([product(signs()) for _ in range(probes // 3)], 1)
        basis = torch.linalg.qr(sketch)[0]  # (p, probes // 3)
        exact = sum(float(q.double() @ product(q).double()) for q in basis.T)
        probes -= 2 * (probes // 3)
    found = []
    for _ in range(probes):
        z = signs()
        if basis is not None:
            z = z - basis @ (basis.T @ z)
        found.append(float(z.double() @ product(z).double()))
    rest = torch.tensor(found, dtype=torch.float64)
    return exact + float(rest.mean()), float(rest.std() / len(rest) ** 0.5)


def hessian_spectrum(model, x, y, steps, probes, generator=None, masks=None, batch_size=None):
    """Stochastic Lanczos quadrature -> (eigenvalues, weights), each (probes, steps), float64.

    From each of ``probes`` random starts, ``steps`` steps of Lanczos with full re-orthogonalisation
    (twice); the Ritz values come in ascending order and their weights sum to 1 in each row: the
    spectral measure of H seen from that start, whose mean over starts is the density of H's
    eigenvalues. With masks that of the kept coordinates alone. Where the Krylov space is exhausted
    it goes on with a new direction, of weight 0. ValueError: more steps than (kept) parameters.

    For Fig. 4 of the sparse paper."""
    product, kept = hessian_product(model, x, y, masks, batch_size), _flat_mask(model, masks)
    check_whole(1, int(kept.sum()), steps=steps)  # parameters kept
    check_whole(1, probes=probes)
    rows = [_lanczos(product, kept, steps, generator) for _ in range(probes)]
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def _lanczos(product, kept, steps, generator):
    """(Ritz values, weights), each (steps,), from one random start."""

    def direction(basis):
        v = torch.randn(kept.shape, dtype=kept.dtype, device=kept.device, generator=generator)
        v = _orthogonal(v * kept, basis)
        return v / v.norm()

    basis = kept.new_zeros(steps, len(kept))
    alpha, beta = torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
    v, largest = direction(basis[:0]), 0.0
    for k in range(steps):
        basis[k] = v
        w = product(v)
        alpha[k] = float(v.double() @ w.double())
        largest = max(largest, float(w.norm()))
        w = _orthogonal(w, basis[: k + 1])
        beta[k] = float(w.norm())
        if float(beta[k]) <= 10 * torch.finfo(kept.dtype).eps * largest:  # nothing new
            beta[k] = 0.0
            if k + 1 < steps:
                v = direction(basis[: k + 1])
        else:
            v = w / w.norm()
    small = torch.diag(alpha) + torch.diag(beta[:-1], 1) + torch.diag(beta[:-1], -1)
    values, vectors = torch.linalg.eigh(small)
    return values, vectors[0].square()


def _orthogonal(v, basis):
    """v less its parts along the rows of ``basis``; twice, which is enough (Kahan)."""
    for _ in range(2):
        v = v - basis.T @ (basis @ v)
    return v


def spectral_density(eigenvalues, weights, grid, width):
    """Density of the eigenvalues at the points ``grid`` (k,): each Ritz value a Gaussian of
    standard deviation ``width`` and of its weight, the mean over starts -> (k,), with integral 1.

    The curve of the sparse paper's Fig. 4."""
    form = "starts steps"
    check_tensors(eigenvalues=(eigenvalues, form), weights=(weights, form), grid=(grid, "k"))
    check_real(above=0, width=width)
    bumps = torch.exp(-0.5 * ((grid[:, None, None] - eigenvalues) / width) ** 2)
    return (weights * bumps).sum(2).mean(1) / (width * (2 * torch.pi) ** 0.5)


def jacobian_norm(model, x, of="logits", batch_size=256):
    """Mean over x (n, ...) of the squared Frobenius norm of d output / d input, exact: one backward
    pass for each class.

    Eq. 2.2 and footnote 3 of the sparse paper ("on the parameter x": by the input). of: "logits" or
    "probabilities", which disagree about Table 2. In units of the inputs as they are given,
    standardised or not. ValueError: another ``of``; BatchNorm or Dropout in training mode.
    """
    if of not in ("logits", "probabilities"):
        raise ValueError(f'of must be "logits" or "probabilities", got {of!r}')
    check_modes(model)
    check_tensors(x=(x, "n ..."))
    check_whole(1, batch_size=batch_size)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for part in x.split(int(batch_size)):
        part = part.detach().requires_grad_()
        outputs = checked_logits(model, part)
        outputs = outputs if of == "logits" else outputs.softmax(1)
        for k, column in enumerate(outputs.sum(0)):
            [found] = torch.autograd.grad(column, part, retain_graph=k + 1 < outputs.shape[1])
            total += found.double().square().sum()
    return float(total) / len(x)


def prediction_entropy(logits):
    """Mean over examples of the entropy of softmax(logits (n, classes)), in nats; float32 logits g
    apart lose 4 + log2(1 + g) of their 24 bits in it.

    Fig. 1(c) and Table 2 of the sparse paper."""
    each = entropies(logits)
    check_finite(logits=logits)
    return float(each.mean())


def entropies(logits):
    """Entropy (n,) of softmax(logits (n, classes)) of each example, in nats, float64."""
    check_tensors(logits=(logits, "n classes"))
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def _gradient_graph(model, parameters, x, y, n):
    """The gradient of these examples' part of the mean loss over n, with its graph."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # others have no second derivative
        loss = F.cross_entropy(checked_logits(model, x), y, reduction="sum") / n
        return torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)


def _flat_mask(model, masks):
    """(p,) of 1 (kept) and 0, in the model's dtype."""
    masks = masks or {}
    check_masks(model, masks)
    parts = {name: torch.ones_like(p) for name, p in model.named_parameters()} | masks
    return torch.cat([m.to(p.dtype).flatten() for m, p in zip(parts.values(), model.parameters())])
