"""Fisher information of a linear softmax, its limits, and the smallest net in which its trace
has a bell shape.

"Revisiting critical learning periods", Eq. 1, Proposition 1, Theorem 1; the
sparse-training paper, Appendix A.
"""

import numpy as np

from theory.checks import real, shaped, whole


def softmax_fisher_matrix(x, p):
    """F = E_x (diag p - p p') kron x x' for logits W x, W (C, d) flattened by rows; x (n, d), p
    (n, C) -> (C d, C d). Also the Hessian of the cross-entropy, for any labels.

    Eq. 1 of "Revisiting", Eq. 2.3 of the sparse paper, for a linear softmax."""
    shaped(2, x=x, p=p)
    x, p = np.asarray(x, dtype=np.float64), np.asarray(p, dtype=np.float64)
    _check(x, p)
    return np.mean(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(one, one)) for one, q in zip(x, p)], axis=0
    )


def softmax_fisher_trace(x, p):
    """Tr F = E_x (1 - |p|^2) |x|^2; x (n, d), p (n, C) -> float. Largest, for given
    x, at uniform p.

    Eq. 35 of "Revisiting" for a linear softmax."""
    shaped(2, x=x, p=p)
    x, p = np.asarray(x, dtype=np.float64), np.asarray(p, dtype=np.float64)
    _check(x, p)
    return float(((1 - (p**2).sum(1)) * (x**2).sum(1)).mean())


def sampled_label_variance(x, p):
    """Variance over y ~ p of one example's |grad log p(y|x)|^2: 4 |x|^4 (sum p^3 - (sum p^2)^2);
    x (d,), p (C,).

    The scatter of Eq. 35 of "Revisiting" with one drawn label; it does not say how many."""
    shaped(1, x=x, p=p)
    real(0, 1, p=p)
    x, p = np.asarray(x, dtype=np.float64), np.asarray(p, dtype=np.float64)
    _check(x[None], p[None])
    return float(4 * (x @ x) ** 2 * ((p**3).sum() - (p**2).sum() ** 2))


def kl_divergence(p, q):
    """KL(p || q) = sum p log(p / q) in nats over the last axis; p, q (..., C) -> (...); 0 log 0
    = 0. Per example, not averaged.

    Eq. A.4 of the sparse paper."""
    real(p=p, q=q)
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if p.shape != q.shape or any(
        (v < 0).any() or not np.allclose(v.sum(-1), 1, atol=1e-6) for v in (p, q)
    ):
        raise ValueError(f"p and q must be distributions of one shape, got {p.shape} and {q.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return terms.sum(-1)


def label_noise_limit(classes, noise):
    """Tr F at the optimum for one-hot inputs whose label is wrong with probability ``noise``
    (uniform over the others): 1 - (1 - noise)^2 - noise^2 / (classes - 1). Theorem 1 of
    "Revisiting" says 0; here the gradient is 0 and this is not, without any gradient noise."""
    whole(2, classes=classes)
    real(0, 1, noise=noise)
    return 1 - (1 - noise) ** 2 - noise**2 / (classes - 1)


def separable_quantities(delta, l, d, k):
    """The model of "learning phases" (theory.softmax_phases) at Delta: (Tr F, Tr F of the true
    labels, |grad|^2), arrays like delta.

    Separable data: Tr F ~ 2(l - 1)/(lr t), but the empirical trace and |grad|^2 ~ 1/t^2, so Tr F /
    |grad|^2 grows like t.

    The proof of Theorem 1 of "Revisiting" takes them for one (Eq. 22 to 23)."""
    whole(2, l=l)
    whole(1, d=d)
    real(above=0, k=k)
    real(0, delta=delta)
    delta = np.asarray(delta, dtype=np.float64)
    trace, empirical, root = (np.zeros_like(delta) for _ in range(3))
    for v in (1, k):
        wrong = (l - 1) / (np.exp(np.minimum(v * delta, 700)) + l - 1)  # 1 - q_v
        trace += d / l / 2 * v**2 * (2 * wrong - wrong**2 - wrong**2 / (l - 1))
        empirical += d / l / 2 * v**2 * wrong**2 * l / (l - 1)
        root += v * wrong
    return trace, empirical, d / (4 * l**2) * l / (l - 1) * root**2


def two_layer_fisher(z):
    """The smallest deep net: logit w1 w2 x with w1 = w2, x = 1, z = w1 w2, two classes: Tr F = 2 z
    p (1 - p), p = 1/(1 + e^-z).

    Rises from 0, falls back to 0: "memorise, then forget" without any memory. Maximum where z
    tanh(z/2) = 1. Depth 1 has p (1 - p), which only falls.

    The "bell-shaped trend" of the sparse paper, Appendix A.1."""
    real(z=z)
    z = np.asarray(z, dtype=np.float64)
    p = 1 / (1 + np.exp(-z))
    return 2 * z * p * (1 - p)


def student_t_location_information(degrees):
    """Fisher information of the location of a Student t with that many degrees of freedom: (n + 1)
    / (n + 3).

    "Revisiting", Proposition 1, reads a larger F as less uncertainty. t_3 has F = 2/3 and variance
    3; a normal of variance 2 has F = 1/2: more information and more variance. 1/F is only a lower
    bound.
    """
    real(above=0, degrees=degrees)
    return (degrees + 1) / (degrees + 3)


def _check(x, p):
    if x.ndim != 2 or p.ndim != 2 or len(x) != len(p):
        raise ValueError(f"x must be (n, d) and p (n, C), got {x.shape} and {p.shape}")
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-6):
        raise ValueError("the rows of p must be distributions")
