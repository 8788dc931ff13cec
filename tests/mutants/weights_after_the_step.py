"""Theorem 1 with W of after the step: caught by test_theorem1_parts__sum_to_the_step."""

import numpy as np

from theory import common_direction


def theorem1_parts(weights, layer, c_next, x, label, lr, w_next=None):
    features, deltas, _ = common_direction.relu_net_pass(weights, x, label)
    after = weights[layer + 1] - lr * np.outer(deltas[layer + 1], features[layer + 1])
    return common_direction.theorem1_parts(weights, layer, c_next, x, label, lr, after)
