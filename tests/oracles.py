"""Each estimator once more, as slowly and plainly as can be: loops, dense autograd, float64.
Nothing here shares code with the project."""

import math

import numpy as np
import torch


def example_gradient(model, x, c):
    """Gradients of -log p(c | x) for one example x, parameter name -> tensor."""
    model.zero_grad()
    (-torch.log_softmax(model(x[None]), 1)[0, c]).backward()
    return {
        name: p.grad.clone() if p.grad is not None else torch.zeros_like(p)
        for name, p in model.named_parameters()
    }


def squared_norm(gradients, masks=None):
    total = 0.0
    for name, g in gradients.items():
        total += float((g * masks[name] if masks and name in masks else g).pow(2).sum())
    return total


def fisher_trace(model, x, masks=None):
    """E_x sum_y p(y|x) |grad log p(y|x)|^2 by the double loop over examples and classes."""
    total = 0.0
    for one in x:
        p = torch.softmax(model(one[None]), 1)[0].tolist()
        for c, weight in enumerate(p):
            total += weight * squared_norm(example_gradient(model, one, c), masks)
    return total / len(x)


def gradient_norms(model, x, y, masks=None):
    """Squared gradient norm of each example under its label."""
    return [squared_norm(example_gradient(model, one, int(c)), masks) for one, c in zip(x, y)]


def gaussian_blur(image, kernel_size, sigma):
    """One channel (h, w), the two-dimensional sum written out; reflect padding."""
    h, w = image.shape
    half = kernel_size // 2
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * sigma**2))
        for i in range(-half, half + 1)
        for j in range(-half, half + 1)
    }
    total = sum(weights.values())

    def reflect(k, n):
        return -k if k < 0 else 2 * (n - 1) - k if k >= n else k

    out = np.zeros((h, w))
    for r in range(h):
        for c in range(w):
            out[r, c] = (
                sum(
                    v * image[reflect(r + i, h), reflect(c + j, w)] for (i, j), v in weights.items()
                )
                / total
            )
    return out


def bilinear(line, size):
    """A line of pixels resampled to ``size``: pixel centres at (i + 1/2) / size, edges repeated."""
    n, out = len(line), []
    for i in range(size):
        place = min(max((i + 0.5) * n / size - 0.5, 0), n - 1)
        low = int(math.floor(place))
        high = min(low + 1, n - 1)
        out.append(line[low] * (1 - (place - low)) + line[high] * (place - low))
    return np.array(out)


def bilinear_image(image, size):
    """(h, w) -> (size, size), rows then columns."""
    return np.array(
        [bilinear(row, size) for row in np.array([bilinear(column, size) for column in image.T]).T]
    )


def sgd(weight, batches, lr, momentum, weight_decay):
    """Linear softmax regression by SGD with momentum: weight (classes, d), batches [(x (n, d), y
    (n,))], all NumPy."""
    velocity = np.zeros_like(weight)
    for x, y in batches:
        logits = x @ weight.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        velocity = momentum * velocity + p.T @ x / len(y) + weight_decay * weight
        weight = weight - lr * velocity
    return weight


def entropy_bits(symbols):
    """Plug-in entropy of a list of hashable symbols."""
    counts = {}
    for s in symbols:
        counts[s] = counts.get(s, 0) + 1
    return -sum(c / len(symbols) * math.log2(c / len(symbols)) for c in counts.values())


def bin_of(value, bins, low, high, outside):
    """The interval a value lies in, by looking at each in turn; None if it is dropped."""
    edges = np.linspace(low, high, bins + 1)
    for b in range(bins):
        if edges[b] <= value < edges[b + 1] or (b == bins - 1 and value == edges[-1]):
            return b
    if outside == "drop":
        return None
    if outside == "clip":
        return 0 if value < low else bins - 1
    return -1 if value < low else bins


def mutual_information(t, reading, y=None, bins=30, low=-1.0, high=1.0, outside="clip"):
    """The readings of I(X;T) with dictionaries and loops over examples; t a list of lists."""
    rows = [[bin_of(v, bins, low, high, outside) for v in row] for row in t]
    columns = range(len(rows[0]))
    if reading in ("joint", "label"):
        kept = (
            [
                (tuple(r), None if y is None else int(c))
                for r, c in zip(rows, y if y is not None else rows)
                if None not in r
            ]
            if reading == "label"
            else [(tuple(r), None) for r in rows if None not in r]
        )
        joint = entropy_bits([r for r, _ in kept])
        return (
            joint
            if reading == "joint"
            else joint + entropy_bits([c for _, c in kept]) - entropy_bits(kept)
        )
    if reading == "per_logit":
        parts = [[r[c] for r in rows if r[c] is not None] for c in columns]
        return float(np.mean([entropy_bits(part) for part in parts if part]))
    if reading == "per_class":
        parts = [
            [r[c] for r, label in zip(rows, y) if int(label) == c and r[c] is not None]
            for c in columns
        ]
        return float(np.mean([entropy_bits(part) for part in parts if part]))
    lines = [[b for b in r if b is not None] for r in rows]
    pool = [b for line in lines for b in line]
    return entropy_bits(pool) - float(np.mean([entropy_bits(line) for line in lines if line]))


def sgd_chains(h, s2, m0, rates, chains, rng):
    """Many SGD runs on a noisy quadratic, drawn -> |grad|^2, |stochastic|^2, |effective|^2 of
    every chain after the given steps."""
    e = np.tile(np.asarray(m0, dtype=float), (chains, 1))
    for rate in rates:
        e = e - rate * (h * e + rng.normal(size=e.shape) * np.sqrt(s2))
    gradient = h * e
    stochastic = gradient + rng.normal(size=e.shape) * np.sqrt(s2)
    along = (stochastic * gradient).sum(1) / np.linalg.norm(gradient, axis=1)
    return (gradient**2).sum(1), (stochastic**2).sum(1), along**2


def hessian(model, x, y):
    """Dense Hessian (p, p) of the mean cross-entropy: one backward pass for each entry of the
    gradient."""
    loss = -torch.log_softmax(model(x), 1)[torch.arange(len(x)), y].mean()
    parameters = list(model.parameters())
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)]
    )
    rows = []
    for entry in gradient:
        row = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([
            (torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(row, parameters)
        ]))
    return torch.stack(rows)


def jacobian_norm(model, x, probabilities):
    """Mean squared Frobenius norm of d output / d input, example by example, entry by entry."""
    total = 0.0
    for one in x:
        def output(image):
            logits = model(image[None])[0]
            return torch.softmax(logits, 0) if probabilities else logits

        total += float(torch.autograd.functional.jacobian(output, one).pow(2).sum())
    return total / len(x)


def penalised_loss(model, x, y, drawn, strength, masks):
    """Cross-entropy + strength * n * |mean score of the drawn labels|^2 over kept weights."""
    def loss(labels):
        return -torch.log_softmax(model(x), 1)[torch.arange(len(x)), labels].mean()

    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(loss(drawn), parameters, create_graph=True)
    squares = sum(
        ((g * masks[n]) if n in masks else g).pow(2).sum() for n, g in zip(names, gradients)
    )
    return loss(y) + strength * len(x) * squares


def similarity(features, labels, which):
    """Mean cosine over ordered pairs i != j: all, of different classes, of the same class."""
    total, pairs = 0.0, 0
    for i in range(len(features)):
        for j in range(len(features)):
            same = bool(labels[i] == labels[j])
            if i == j or which == "cross" and same or which == "within" and not same:
                continue
            a, b = features[i], features[j]
            size = float(a.norm() * b.norm())
            total += float(a @ b) / size if size else 0.0
            pairs += 1
    return total / pairs
