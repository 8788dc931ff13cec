"""The formulas of section 4, one line each."""

import numpy as np


def effective_gradient(gradient, direction):
    if gradient.shape != direction.shape or gradient.dim() != 1:
        raise ValueError("gradient and direction must be vectors of one length")
    squared = (direction * direction).sum()
    if squared == 0:
        raise ValueError("the direction is zero")
    return (gradient * direction).sum() / squared * direction


def minibatch_second_moment(gradients, batch, replacement=False):
    gradients = np.asarray(gradients, dtype=float)
    n, full = len(gradients), gradients.mean(0) @ gradients.mean(0)
    spread = np.mean([g @ g for g in gradients]) - full
    left = 1.0 if replacement or n == 1 else (n - batch) / (n - 1)
    return full + spread / batch * left


def theorem1_bound(loss_gap, lr, smoothness, variance, steps):
    if not 0 < lr * smoothness < 2:
        raise ValueError("lr must lie between 0 and 2 / smoothness")
    first, noise = loss_gap / (lr * steps), smoothness * lr * variance / 2
    return (first + noise) / (1 - smoothness * lr / 2)
