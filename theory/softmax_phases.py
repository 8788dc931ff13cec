"""Linear softmax on data with weak and strong features: the learning phases in closed form.

"Understanding and leveraging the learning phases of neural networks", section 3. Data (Eq. 1): l
classes, d attributes, d/l of them own each class; an example of class y has its own attributes at 1
(weak) or at k (strong), half of the examples each, all others at 0. Gradient descent with the
deterministic start (Assumption 2) moves two numbers: f, each own weight, and g, each other weight,
with f + (l - 1) g = 1. So everything is a function of Delta = f - g: the sum of a class's own
weights over the others'. Reconstruction R is the mean squared error per attribute of a linear
decoder from the softmax outputs q.
"""

import numpy as np

from theory.checks import real, shaped, whole


def _check(l, d, k):
    whole(2, l=l)
    whole(1, d=d)
    real(1, k=k)
    if d % l:
        raise ValueError(f"d must be a multiple of l, got l = {l}, d = {d}")


def _check_run(lr, steps):
    whole(0, steps=steps)
    real(above=0, lr=lr)
    if np.ndim(lr):
        raise ValueError(f"lr must be one number, got {lr!r}")


def simulate(l, d, k, lr, steps):
    """Delta at steps 0..steps, (steps + 1,): the exact full-batch gradient descent for any l, d, in
    one scalar per step.

    Delta_(t+1) = Delta_t + (lr d / 2l) [1/(e^Delta + l - 1) + k/(e^(k Delta) + l - 1)], Delta_0 = 0

    Eq. 5, from a deterministic start."""
    _check(l, d, k)
    _check_run(lr, steps)
    delta = np.zeros(steps + 1)
    for t in range(steps):
        weak, strong = (v / (np.exp(min(v * delta[t], 700.0)) + l - 1) for v in (1, k))
        delta[t + 1] = delta[t] + lr * d / (2 * l) * (weak + strong)
    return delta


def full_matrix(l, d, k, lr, steps, w0=None):
    """The same descent on the whole matrix of weights, (steps + 1, l, d), for any start w0 (l, d);
    None: all weights 1/d.

    Row c of W gives the logit of class c; attribute j belongs to class j // (d / l). The 2l
    distinct examples are equally likely.

    Eq. 5 with the gradient of Eq. 8."""
    _check(l, d, k)
    _check_run(lr, steps)
    weights = np.empty((steps + 1, l, d))
    weights[0] = 1 / d if w0 is None else w0
    own = np.repeat(np.eye(l), d // l, axis=1)  # (l, d): the weak example of each class
    x = np.concatenate([own, k * own])
    target = np.concatenate([np.eye(l)] * 2)
    for t in range(steps):
        logits = x @ weights[t].T
        q = np.exp(logits - logits.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        weights[t + 1] = weights[t] - lr * (q - target).T @ x / len(x)
    return weights


def outputs(delta, l, v):
    """q_v: softmax output of the own class for an example of strength v (1 or k): e^(v Delta) /
    (e^(v Delta) + l - 1).

    Eq. 2 and Eq. 3."""
    whole(2, l=l)
    real(delta=delta, v=v)
    return 1 / (1 + (l - 1) * np.exp(-v * np.asarray(delta, dtype=np.float64)))


def _excess(delta, l, v):
    """u_v = q_v - 1/l."""
    delta = np.asarray(delta, dtype=np.float64)
    return -(l - 1) * np.expm1(-v * delta) / (l * (1 + (l - 1) * np.exp(-v * delta)))


def output_ratio(delta, l, k):
    """rho = u_k / u_1, how far apart strong and weak examples are in the outputs: k as Delta ->
    0, 1 as Delta -> infinity."""
    real(delta=delta)
    _check(l, l, k)
    weak, strong = _excess(delta, l, 1), _excess(delta, l, k)
    return np.where(weak == 0, float(k), strong / np.where(weak == 0, 1.0, weak))


def input_variance(l, k):
    """Variance of an attribute, the loss R(0) of a decoder that knows nothing: (1 + k^2)/(2l) -
    ((1 + k)/(2l))^2.

    R(0) of Corollary 4; Eq. 15 prints (1 + k)/l where its mean is (1 + k)/(2l)."""
    _check(l, l, k)
    return (1 + k**2) / (2 * l) - ((1 + k) / (2 * l)) ** 2


def optimal_loss(delta, l, k):
    """R of Eq. 7 with g_opt of Theorem 5: least squares with intercept from the outputs q, exact;
    like delta. R(0) is ``input_variance``.

        R_opt = [(k - 1)^2 / 2 + (l - 1)(rho - k)^2 / (1 + rho^2)] / (2 l^2)
    Smallest, (k - 1)^2 / 4l^2, at rho = k; (k - 1)^2 / 4l as Delta -> infinity.
    """
    rho = output_ratio(delta, l, k)
    loss = ((k - 1) ** 2 / 2 + (l - 1) * (rho - k) ** 2 / (1 + rho**2)) / (2 * l**2)
    return np.where(np.asarray(delta) == 0, input_variance(l, k), loss)


def approximate_loss(delta, l, k):
    """R of the paper's approximate decoder, the line through its two mean outputs (Eq. 10-15,
    corrected); R_opt <= it <= 2 R_opt for t >= 1.

    R = [((l - 1)(rho - k)/rho - (k - 1))^2 + (l - 1) k^2 (rho - 1)^2 / rho^2] / (2 l^3)
    """
    rho = output_ratio(delta, l, k)
    loss = (
        ((l - 1) * (rho - k) / rho - (k - 1)) ** 2 + (l - 1) * k**2 * (rho - 1) ** 2 / rho**2
    ) / (2 * l**3)
    return np.where(np.asarray(delta) == 0, input_variance(l, k), loss)


def noisy_output_loss(delta, l, k, tau):
    """R when the decoder sees the class's output q_c with noise of standard deviation tau: Var x -
    Cov^2 / (Var q + tau^2).

    Finite precision is what makes the flat first phase; without it R falls at the first step.
    """
    _check(l, l, k)
    real(0, tau=tau)
    real(delta=delta)
    weak, strong = _excess(delta, l, 1), _excess(delta, l, k)
    covariance = (weak + k * strong) / (2 * l)
    variance = (weak**2 + strong**2) / (2 * (l - 1))
    return input_variance(l, k) - covariance**2 / np.where(
        variance + tau**2 == 0, 1.0, variance + tau**2
    )


def logit_loss(delta, l, k, tau):
    """R from all logits with noise tau: it only falls with Delta, for every tau. No phases: the
    increase belongs to the softmax outputs.

    R of Eq. 7 with the decoder of Definition 3, which reads the logits."""
    _check(l, l, k)
    real(above=0, tau=tau)
    real(delta=delta)
    delta = np.asarray(delta, dtype=np.float64)
    second, w = (1 + k**2) / 2, (k - 1) ** 2 / 4
    return (
        (l - 1) * second / l * tau**2 / (delta**2 * second / l + tau**2)
        + w / l * tau**2 / (w / l + tau**2)
    ) / l


def stage_boundaries(l, k):
    """Delta at which the stages part: strong examples are half learned (q_k = 1/2) at ln(l -
    1)/k, weak ones (q_1 = 1/2) at ln(l - 1).

    The stages of Fig. 5."""
    _check(l, l, k)
    return np.log(l - 1) / k, np.log(l - 1)


def second_minimum(l, k):
    """Corollary 4's second minimum: Delta* > 0 with rho = k, where R_opt has its least value
    (k - 1)^2 / 4l^2; by bisection. nan for l = 2, where R_opt only rises after t = 1."""
    _check(l, l, k)
    if l == 2 or k == 1:
        return np.nan
    low, high = 1e-6, 50.0  # rho - k is positive just after 0 and negative at the end
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if output_ratio(middle, l, k) > k else (low, middle)
    return low


def flow_time(delta, l, d, k, lr, nodes=20_001):
    """Steps of gradient flow from 0 to Delta: (2l / lr d) int_0^Delta ds / sum_v v/(e^(v s) + l
    - 1), by Simpson's rule.

    Links the stages of Fig. 5 to iterations, as the t of Corollary 4 does."""
    _check(l, d, k)
    real(above=0, lr=lr)
    real(0, delta=delta)
    whole(3, nodes=nodes)
    if nodes % 2 == 0:
        raise ValueError(f"Simpson's rule needs an odd number of nodes, got {nodes}")
    s = np.linspace(0, delta, nodes)
    slowness = 1 / sum(v / (np.exp(np.minimum(v * s, 700)) + l - 1) for v in (1, k))
    weights = np.where(np.arange(nodes) % 2 == 1, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    return 2 * l / (lr * d) * float((weights * slowness).sum()) * (s[1] - s[0]) / 3


def single_logit_loss(delta, l, k):
    """R of least squares from the class's own logit alone: (1 + k^2)(l - 1)/(2 l^2) at the start,
    (k - 1)^2/4l^2 in the end.

    At Delta = 1 it is 0: there g = 0 and the logit is the attribute. So one logit has a rise too,
    but of order 1/l^2, not 1/l.

    Definition 3 with the slope of the own class alone."""
    _check(l, l, k)
    real(delta=delta)
    delta = np.asarray(delta, dtype=np.float64)
    f, g, first, second = (1 + (l - 1) * delta) / l, (1 - delta) / l, (1 + k) / 2, (1 + k**2) / 2
    covariance = second * f / l - first**2 / l**2
    variance = second * (f**2 + (l - 1) * g**2) / l - first**2 / l**2
    explained = covariance**2 / np.where(variance == 0, 1.0, variance)  # k = 1 at the start: 0 / 0
    return input_variance(l, k) - explained


def optimal_line(delta, l, k):
    """The optimal decoder x = a + b q of one attribute, at one Delta, with the
    four kinds of examples.

    -> (outputs q (4,), attributes x (4,) = 0, 0, 1, k, decoded x (4,), mean squared error). The
    first two are weak and strong examples of the other classes.

    g_opt of Theorem 5, drawn in Fig. 5."""
    _check(l, l, k)
    real(above=0, delta=delta)
    weak, strong = float(outputs(delta, l, 1)), float(outputs(delta, l, k))
    q = np.array([(1 - weak) / (l - 1), (1 - strong) / (l - 1), weak, strong])
    x, share = np.array([0, 0, 1, k]), np.array([l - 1, l - 1, 1, 1]) / (2 * l)
    centred = q - share @ q
    slope = (share * centred * (x - share @ x)).sum() / (share * centred**2).sum()
    decoded = share @ x + slope * centred
    return q, x, decoded, float((share * (decoded - x) ** 2).sum())


def fitted_losses(weights, k):
    """Least-squares reconstruction from the outputs of any weights (l, d), not
    only the exact solution's.

    -> (R from all outputs q, R from each class's own output q_c), means over attributes.

    R of Eq. 7 with the best decoder from q."""
    shaped(2, weights=weights)
    real(1, k=k)
    l, d = weights.shape
    weak = np.repeat(np.eye(l), d // l, axis=1)
    x = np.concatenate([weak, k * weak])
    z = x @ weights.T
    q = np.exp(z - z.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    design = np.concatenate([q, np.ones((len(q), 1))], 1)
    fitted = design @ np.linalg.lstsq(design, x, rcond=None)[0]
    attributes = x[:, :: d // l] - x[:, :: d // l].mean(0)  # one of each class: (2 l, l)
    columns = q - q.mean(0)
    explained = (columns * attributes).sum(0) ** 2 / (columns**2).sum(0) / len(x)
    return ((fitted - x) ** 2).mean(), ((attributes**2).mean(0) - explained).mean()
