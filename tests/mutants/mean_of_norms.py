"""Takes the mean of the examples' squared norms for the squared norm of their mean: caught by
test_minibatch_second_moment__lemma1_by_enumeration."""

import numpy as np


def minibatch_second_moment(gradients, batch, replacement=False):
    return (np.asarray(gradients) ** 2).sum(1).mean()
