"""Decodes from the logits, as Definition 3 says, where the analysis has the softmax outputs:
caught by test_optimal_loss__equals_least_squares_from_the_outputs."""

from theory import softmax_phases


def optimal_loss(delta, l, k):
    return softmax_phases.logit_loss(delta, l, k, 1e-9)
