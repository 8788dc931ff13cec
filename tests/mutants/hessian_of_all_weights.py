"""Counts pruned weights in the trace: caught by
test_hessian_trace__is_unbiased_and_its_standard_error_is_honest."""

from clp_min import curvature


def hessian_trace(
    model, x, y, probes, generator=None, masks=None, method="hutchinson", batch_size=None
):
    return curvature.hessian_trace(model, x, y, probes, generator, None, method, batch_size)
