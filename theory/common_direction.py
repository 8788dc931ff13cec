"""The common direction of weight changes: Lemmas 1 and 2, Theorems 1 to 3 of "Trap of feature
diversity in the learning of MLPs", for a ReLU net without biases, backpropagation by hand.

Column vectors; layer l: F_l = D_l W_l F_{l-1}, F_0 = x, no ReLU after the last W_L. delta_l (h_l,)
is the gradient of the cross-entropy in W_l F_{l-1}, so that one plain step changes W_l by
-lr delta_l F_{l-1}'.
"""

import numpy as np

from theory.checks import real, shaped, whole


def relu_net_pass(weights, x, label):
    """Forward and backward pass of one example x (d,) -> (features [F_0 .. F_{L-1}], deltas
    [delta_1 .. delta_L], loss); weights: list of (h, d).

    Forward "Trap of feature diversity", Section 3.2, backward its Eq. 1."""
    shaped(1, x=x)
    whole(0, label=label)
    features, gates = [np.asarray(x, dtype=np.float64)], []
    for w in weights[:-1]:
        z = w @ features[-1]
        gates.append((z > 0).astype(float))
        features.append(z * gates[-1])
    logits = weights[-1] @ features[-1]
    e = np.exp(logits - logits.max())
    p = e / e.sum()
    delta = p - np.eye(len(p))[label]
    deltas = [delta]
    for w, gate in zip(weights[:0:-1], gates[::-1]):
        deltas.insert(0, gate * (w.T @ deltas[0]))
    return features, deltas, float(-np.log(p[label]))


def split_along(w, c):
    """(V, eps) with W = C V' + eps' and eps C = 0, for W (h, d), C (h,): V = W'C / C'C and eps =
    W' (I - CC'/C'C) (d, h), the decomposition of least |eps|_F. Lemma 1 for a change of W."""
    shaped(2, w=w)
    shaped(1, c=c)
    v = w.T @ c / (c @ c)
    return v, w.T - np.outer(v, c)


def printed_residual(w, c):
    """eps as Lemmas 1 and 2 print it: W' - (CC'/C'C) W', which exists for h = d alone."""
    shaped(2, w=w)
    shaped(1, c=c)
    return w.T - np.outer(c, c) / (c @ c) @ w.T


def theorem1_parts(weights, layer, c_next, x, label, lr, w_next=None):
    """Theorem 1 for one example and one plain step of rate ``lr`` on it -> (primary part (h, d),
    the other parts (rank, h, d) by falling singular value, the step's own change of W_l (h, d)).

    layer: l from 0; c_next: the direction C (h',) of layer l + 1, whose W is the one BEFORE the
    step; w_next: another one in its place, with which the parts do not sum to the step. The printed
    factor F F' / |F|^2 cancels: the parts are D V (C'dW_{l+1} F) F_{l-1}' ...
    """
    whole(0, len(weights) - 2, layer=layer)
    real(lr=lr)
    features, deltas, _ = relu_net_pass(weights, x, label)
    own, above = features[layer], features[layer + 1]
    gate = (weights[layer] @ own > 0).astype(float)
    v, eps = split_along(weights[layer + 1] if w_next is None else w_next, c_next)
    change_next = -lr * np.outer(deltas[layer + 1], above)  # of W_{l+1}, on the same step
    dv, deps = split_along(change_next, c_next)
    through = np.outer(above, own) / (above @ above)
    primary = (gate * v)[:, None] * ((c_next @ c_next) * (dv @ through))[None, :]
    u, s, vh = np.linalg.svd(eps, full_matrices=False)
    parts = [
        size * np.outer(gate * u[:, i], (vh[i] @ deps.T) @ through) for i, size in enumerate(s)
    ]
    return primary, np.array(parts), -lr * np.outer(deltas[layer], own)


def theorem2_product(w, c, delta, feature):
    """cos(dV, F) cos(V, dF) for a step on one example, dF = -W'delta: sgn(C'delta) cos(V, W'delta)
    whatever F is, as long as it is not 0.

    The product of Theorem 2, o(x) in Section 3.2.2 and Fig. 6, with the paper's stand-in for dF."""
    shaped(1, delta=delta, feature=feature)
    v, _ = split_along(w, c)
    dv = -(c @ delta) / (c @ c) * feature
    change = -w.T @ delta

    def cosine(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    return cosine(dv, feature) * cosine(v, change)


def theorem2_holds(w, c, delta):
    """The exact condition for a product >= 0: |V|^2 |C'delta| >= -sgn(C'delta) V'eps delta, for a
    unit C. The printed one, "sigma_max(eps) small enough", is neither needed nor enough.

    The condition of Theorem 2."""
    shaped(1, delta=delta)
    v, eps = split_along(w, c)
    along = c @ delta
    return (v @ v) * abs(along) >= -np.sign(along) * (v @ eps @ delta)


def null_frequency(h, d, nodes=20_001):
    """How often Theorem 2's product is positive for Gaussian W (h, d) and independent random C and
    delta: 1/2 + E[a] / pi with a = arctan(chi_d / chi_{h-1}), 3/4 at h = d about.

    The angle a has density in proportion to sin(a)^(d-1) cos(a)^(h-2). h, d >= 2.
    """
    whole(2, h=h, d=d)
    whole(3, nodes=nodes)
    a = np.linspace(0, np.pi / 2, nodes)[1:-1]
    log = (d - 1) * np.log(np.sin(a)) + (h - 2) * np.log(np.cos(a))
    density = np.exp(log - log.max())
    return 0.5 + float((a * density).sum() / density.sum()) / np.pi


def theorem3_share(c, deltas):
    """Theorem 3 says that the sign of C'delta(x) is one for all examples of a category; it is an
    assumption. The share of the majority's sign, deltas (n, h)."""
    shaped(2, deltas=deltas)
    shaped(1, c=c)
    signs = np.sign(deltas @ c)
    return float(max((signs > 0).mean(), (signs < 0).mean()))


def gaussian_clusters(rng, classes=8, each=20, d=24, spread=0.5):
    """Data for ``two_phases``: (x (classes * each, d), labels), Gaussian clusters of deviation
    ``spread`` around Gaussian centres of deviation 1."""
    whole(1, classes=classes, each=each, d=d)
    real(0, spread=spread)
    centres, labels = rng.normal(size=(classes, d)), np.repeat(np.arange(classes), each)
    return centres[labels] + spread * rng.normal(size=(len(labels), d)), labels


def two_phases(weights, x, labels, lr, steps, layer):
    """Gradient descent of a ReLU net on all examples at once, by hand -> (loss (steps + 1,), mean
    cosine of the features F_layer of examples of different classes (steps + 1,)).

    weights: list of (h, d), not changed; x (n, d); layer from 1. A feature of zeros has cosine 0.

    The two curves of Fig. 1, in small."""
    shaped(2, x=x)
    whole(0, steps=steps)
    whole(1, len(weights) - 1, layer=layer)
    real(above=0, lr=lr)
    weights, one_hot = [w.copy() for w in weights], np.eye(len(weights[-1]))[labels]
    apart = labels[:, None] != labels[None, :]
    losses, cosines = [], []
    for step in range(steps + 1):
        features = [x]
        for w in weights[:-1]:
            features.append(np.maximum(features[-1] @ w.T, 0))
        logits = features[-1] @ weights[-1].T
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        p = np.exp(log_p)
        losses.append(-(log_p * one_hot).sum(1).mean())
        length = np.linalg.norm(features[layer], axis=1, keepdims=True)
        unit = features[layer] / np.maximum(length, 1e-300)
        cosines.append((unit @ unit.T)[apart].mean())
        delta = (p - one_hot) / len(x)
        for i in range(len(weights) - 1, -1, -1):
            below = (delta @ weights[i]) * (features[i] > 0)
            weights[i] = weights[i] - lr * delta.T @ features[i]
            delta = below
    return np.array(losses), np.array(cosines)
