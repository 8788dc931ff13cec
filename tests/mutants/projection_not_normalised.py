"""Forgets to divide by |d|^2: caught by test_effective_gradient__is_the_projection."""


def effective_gradient(gradient, direction):
    if gradient.shape != direction.shape:
        raise ValueError("vectors of one length")
    if not direction.any():
        raise ValueError("the direction is zero")
    return gradient.dot(direction) * direction
