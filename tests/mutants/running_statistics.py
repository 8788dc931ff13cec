"""A copy with the running statistics where those of the measured examples belong: caught by
test_batch_statistics__computes_what_training_mode_does."""

import copy


def batch_statistics(model, x):
    return copy.deepcopy(model).eval()
