"""The gradient's cosine, not that of descent: caught by
test_gradient_cosines__equal_those_of_plain_gradients."""

from clp_min import gradients


def gradient_cosines(*arguments, **named):
    return -gradients.gradient_cosines(*arguments, **named)
