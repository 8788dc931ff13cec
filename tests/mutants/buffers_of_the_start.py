"""Interpolates the parameters and leaves BatchNorm's buffers behind: caught by
test_interpolated__parameters_buffers_and_re_estimated_buffers."""

from clp_min import sparsity


def interpolated(model, start, end, alpha, x=None):
    names = dict(model.named_parameters())
    mixed = {k: v if k in names else start[k] for k, v in end.items()}
    return sparsity.interpolated(model, start, mixed, alpha, x)
