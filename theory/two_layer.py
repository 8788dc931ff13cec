"""Fisher matrix and Hessian of a two-layer net in closed form, every derivative written by hand:
Appendix A of "Generalization and memorization in sparse neural networks".

    z = B tanh(A x),    p = softmax(z);    A (h, d), B (C, h), parameters flat: A by rows, then B

    F = E_x J' (diag p - p p') J                  Definition A.1; also the Gauss-Newton matrix
    H = F + E_x sum_c (p_c - y_c) d^2 z_c         Hessian of the mean cross-entropy
"""

import numpy as np

from theory.checks import real, shaped


def two_layer_probabilities(a, b, x):
    """softmax(B tanh(A x)) for x (n, d) -> (n, C)."""
    shaped(2, a=a, b=b, x=x)
    z = np.tanh(x @ a.T) @ b.T
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def two_layer_jacobian(a, b, x):
    """d z_c / d theta for each example -> (n, C, p): dz_c/dA_ji = B_cj (1 - t_j^2) x_i, and
    dz_c/dB_ek = t_k if e = c."""
    shaped(2, a=a, b=b, x=x)
    t = np.tanh(x @ a.T)
    by_a = np.einsum("cj,nj,ni->ncji", b, 1 - t**2, x)
    by_b = np.einsum("ce,nk->ncek", np.eye(len(b)), t)
    n, classes = len(x), len(b)
    return np.concatenate([by_a.reshape(n, classes, -1), by_b.reshape(n, classes, -1)], 2)


def two_layer_output_hessians(a, b, x):
    """d^2 z_c / d theta^2 for each example -> (n, C, p, p).

    d^2 z_c / dA_ji dA_jm = -2 B_cj t_j (1 - t_j^2) x_i x_m, d^2 z_c / dA_ji dB_cj = (1 - t_j^2)
    x_i, all else 0.
    """
    shaped(2, a=a, b=b, x=x)
    (h, d), classes, n = a.shape, len(b), len(x)
    t = np.tanh(x @ a.T)
    slope = 1 - t**2
    found = np.zeros((n, classes, h * d + classes * h, h * d + classes * h))
    for c in range(classes):
        for j in range(h):
            own, weight = slice(j * d, (j + 1) * d), h * d + c * h + j
            curvature = -2 * b[c, j] * t[:, j] * slope[:, j]
            found[:, c, own, own] = curvature[:, None, None] * x[:, :, None] * x[:, None, :]
            mixed = slope[:, j, None] * x
            found[:, c, own, weight] = found[:, c, weight, own] = mixed
    return found


def two_layer_fisher_matrix(a, b, x):
    """F (p, p): the mean over x (n, d) of J' (diag p - p p') J.

    Definition A.1 of the sparse paper."""
    p, jacobian = two_layer_probabilities(a, b, x), two_layer_jacobian(a, b, x)
    covariance = np.einsum("nc,ce->nce", p, np.eye(len(b))) - p[:, :, None] * p[:, None, :]
    return np.einsum("nca,nce,neb->ab", jacobian, covariance, jacobian) / len(x)


def two_layer_hessian(a, b, x, targets):
    """H (p, p) of the mean cross-entropy under targets (n, C), rows one-hot or distributions.

    With targets = p it is -E_model of the Hessian of log p, and equals F: Lemma A.1.
    """
    shaped(2, targets=targets)
    residual = two_layer_probabilities(a, b, x) - targets
    rest = np.einsum("nc,ncab->ab", residual, two_layer_output_hessians(a, b, x)) / len(x)
    return two_layer_fisher_matrix(a, b, x) + rest


def square_net_gap(theta):
    """(H - F) / F of the smallest net with curvature of its own, two classes and logit theta^2
    under the right label: -1 / (2 p theta^2), p = 1 / (1 + e^(-theta^2)).

    "H ~ F for a well-trained net" since the loss, and with it H - F, vanishes. F vanishes as fast:
    the gap falls like 1 / log(1 / loss), .110 at a loss of .01, .027 at 1e-8.

    The claim of the sparse paper, Section 2."""
    real(theta=theta)
    real(above=0, size=np.abs(theta))
    z = np.asarray(theta, dtype=np.float64) ** 2
    return -(1 + np.exp(-z)) / (2 * z)
