"""Starts from the constant (1 + k)/l of Eq. 15: caught by test_optimal_loss__eq15_constant."""

import numpy as np

from theory import softmax_phases


def optimal_loss(delta, l, k):
    start = softmax_phases.input_variance(l, k) + ((1 + k) / (2 * l)) ** 2
    return np.where(np.asarray(delta) == 0, start, softmax_phases.optimal_loss(delta, l, k))
