"""SGD near a minimum: exact second moments of the true, the stochastic and the effective gradient.

"Revisiting critical learning periods", Lemmas 1-2, Theorems 1-2. The effective gradient is the
stochastic one projected on the true one (Definition 1); with u = grad / |grad| and Sigma the
covariance of the noise, conditional on theta,

    E |stochastic|^2 = |grad|^2 + Tr Sigma          E |effective|^2 = |grad|^2 + u' Sigma u

so neither vanishes with the true gradient unless the noise does. Theorem 2 prints E |effective|^2 =
E |grad|^2: it takes the square of a mean for the mean of a square.
"""

import numpy as np

from theory.checks import real, shaped, whole


def quadratic_moments(h, s2, m0, lr, steps):
    """Loss sum h_i (theta - theta*)_i^2 / 2, gradient h (theta - theta*) + noise N(0, diag s2),
    started at theta* + m0.

    h, s2, m0 (D,); lr a number or one per step (steps,). -> (E|grad|^2, E|stochastic|^2,
    E|effective|^2), each (steps + 1,), at steps
    0..steps.
    theta_t - theta* is normal with mean m_t and variance v_t per coordinate:
        m_(t+1) = (1 - lr h) m_t          v_(t+1) = (1 - lr h)^2 v_t + lr^2 s2
    E[u' Sigma u] is a one-dimensional integral (``mean_noise_along_gradient``).
    ValueError: shapes, h or s2 negative, a zero gradient at
    the start.

    The three norms of "Revisiting", Lemma 1, Lemma 2 and Theorem 2, exact."""
    whole(0, steps=steps)
    real(lr=lr, h=h, s2=s2, m0=m0)
    h, s2, m = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (h, s2, m0))
    if not h.shape == s2.shape == m.shape or h.ndim != 1:
        raise ValueError(
            f"h, s2 and m0 must be vectors of one length, got {h.shape}, {s2.shape}, {m.shape}"
        )
    if (h < 0).any() or (s2 < 0).any() or not (h * m).any():
        raise ValueError("h and s2 must not be negative, and the gradient h * m0 must not be zero")
    rates = np.broadcast_to(np.asarray(lr, dtype=np.float64), (steps,))
    means, variances = np.empty((steps + 1, len(h))), np.empty((steps + 1, len(h)))
    means[0], variances[0] = m, 0.0
    for t, rate in enumerate(rates):
        means[t + 1] = (1 - rate * h) * means[t]
        variances[t + 1] = (1 - rate * h) ** 2 * variances[t] + rate**2 * s2
    true = (h**2 * (means**2 + variances)).sum(1)
    along = np.array(
        [mean_noise_along_gradient(h * mu, h**2 * v, s2) for mu, v in zip(means, variances)]
    )
    return true, true + s2.sum(), true + along


def mean_noise_along_gradient(mu, variance, s2, nodes=1201):
    """E[u' diag(s2) u], u = g / |g|, g ~ N(mu, diag variance), all (D,): no sampling.

    From 1/|g|^2 = int_0^inf exp(-x |g|^2) dx:
        int exp(-x sum mu^2/a) prod a^(-1/2) sum s2 (variance/a + mu^2/a^2) dx,  a = 1 + 2 x
    variance.
    Trapezoidal rule in log x, which converges exponentially for this integrand.

    The term that the proof of Theorem 2, Appendix A.5, leaves out."""
    whole(2, nodes=nodes)
    shaped(1, mu=mu, variance=variance, s2=s2)
    real(0, variance=variance, s2=s2)
    scale = (mu**2 + variance).sum()
    if scale == 0:
        return np.nan  # the direction of a zero gradient
    mu, variance = mu / np.sqrt(scale), variance / scale
    log_x = np.linspace(-40, 70, nodes)
    a = 1 + 2 * np.exp(log_x)[:, None] * variance
    exponent = log_x - np.exp(log_x) * (mu**2 / a).sum(1) - 0.5 * np.log(a).sum(1)
    return float(
        (np.exp(exponent) * (s2 * (variance / a + mu**2 / a**2)).sum(1)).sum()
        * (log_x[1] - log_x[0])
    )


def interpolating_moments(dim, batch, lr, steps):
    """Least squares that can be fitted exactly: gradient (1/B) sum_i x_i x_i' e, x ~ N(0, I_dim),
    |e_0|^2 = 1: noise vanishes with the error.

    -> (E|grad|^2, E|stochastic|^2, E|effective|^2), each (steps + 1,): r^t, (1 + (dim + 1)/B) r^t,
    (1 + 2/B) r^t with r = 1 - 2 lr + lr^2 (1 + (dim + 1)/B). All vanish iff lr < 2 / (1 + (dim +
    1)/B), the strong-growth condition.

    Here Theorem 2 of "Revisiting" holds: the noise vanishes with the gradient."""
    whole(1, dim=dim, batch=batch)
    whole(0, steps=steps)
    real(lr=lr)
    growth = 1 + (dim + 1) / batch
    true = (1 - 2 * lr + lr**2 * growth) ** np.arange(steps + 1.0)
    return true, growth * true, (1 + 2 / batch) * true


def gradient_floor(lr, smoothness, variance):
    """Limit of E|grad|^2 at a constant learning rate, H = M I, noise of total variance sigma^2:
    M lr sigma^2 / (2 - M lr). ValueError: lr from 2/M on, where it grows without end.

    Lemma 2 and Eq. 22 of "Revisiting" print 0."""
    real(above=0, smoothness=smoothness)
    real(0, lr=lr, variance=variance)
    if np.max(lr) >= 2 / smoothness:
        raise ValueError(f"lr must lie in [0, {2 / smoothness}), got {lr}")
    return smoothness * lr * variance / (2 - smoothness * lr)


def printed_floor(lr, smoothness, variance):
    """What Eq. 20 leaves over for T -> infinity, and then drops: M sigma^2 lr. Below the true
    floor as soon as lr > 1/M."""
    real(above=0, smoothness=smoothness)
    real(0, lr=lr, variance=variance)
    return smoothness * variance * lr


def theorem1_bound(loss_gap, lr, smoothness, variance, steps):
    """Corrected Theorem 1: mean over t <= T of E|grad|^2 <= [(l_1 - inf l) / (lr T) + M lr
    sigma^2 / 2] / (1 - M lr / 2), lr < 2/M."""
    real(above=0, smoothness=smoothness)
    whole(1, steps=steps)
    real(0, variance=variance)
    real(lr=lr, loss_gap=loss_gap)
    if not 0 < lr < 2 / smoothness:
        raise ValueError(f"lr must lie in (0, {2 / smoothness}), got {lr}")
    return (loss_gap / (lr * steps) + smoothness * lr * variance / 2) / (1 - smoothness * lr / 2)


def strong_growth_bound(loss_gap, lr, smoothness, growth):
    """Corrected Theorem 2: if E|g|^2 <= growth |grad|^2 and lr < 2/(growth M), then sum_t
    E|grad|^2 <= this, so all three norms vanish."""
    real(above=0, smoothness=smoothness, growth=growth)
    real(0, loss_gap=loss_gap)
    real(lr=lr)
    if not 0 < lr < 2 / (growth * smoothness):
        raise ValueError(f"lr must lie in (0, {2 / (growth * smoothness)}), got {lr}")
    return loss_gap / (lr * (1 - smoothness * growth * lr / 2))


def minibatch_second_moment(gradients, batch, replacement=False):
    """Lemma 1 for batches: E|g_B|^2 of the mean of B of the per-example gradients (N, p) is |g|^2 +
    (mean |g_i|^2 - |g|^2) / B * (N - B)/(N - 1).

    The last factor belongs to drawing without replacement. At B = 1 it is the trace of the
    empirical Fisher information.
    """
    shaped(2, gradients=gradients)
    whole(1, batch=batch)
    gradients = np.asarray(gradients, dtype=np.float64)
    n = len(gradients)
    if not 1 <= batch <= n:
        raise ValueError(f"batch must lie in 1..{n}, got {batch}")
    full = (gradients.mean(0) ** 2).sum()
    spread = (gradients**2).sum(1).mean() - full
    return full + spread / batch * (1.0 if replacement else (n - batch) / max(n - 1, 1))
