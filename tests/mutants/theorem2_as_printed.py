"""E|eff|^2 = E|grad|^2, as the paper prints it: caught by
test_quadratic_moments__theorem2_effective_gradient_does_not_vanish."""

from theory import sgd


def quadratic_moments(h, s2, m0, lr, steps):
    true, stochastic, _ = sgd.quadratic_moments(h, s2, m0, lr, steps)
    return true, stochastic, true
