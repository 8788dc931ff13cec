"""Weighs the four errors as Eq. 13 prints them, with weights that sum to 2 + 1/l: caught by
test_approximate_loss__eq13_weights."""

import numpy as np

from theory.softmax_phases import outputs


def approximate_loss(delta, l, k):
    weak, strong = outputs(delta, l, 1), outputs(delta, l, k)
    others = (1 - strong) / (l - 1)
    slope = k / (strong - others)
    r_1, r_01 = (1 - slope * (weak - others)) ** 2, (slope * ((1 - weak) / (l - 1) - others)) ** 2
    return np.asarray((1 - 1 / (2 * l)) * r_01 + r_1 / l)
