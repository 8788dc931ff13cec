"""Lanczos without re-orthogonalisation: caught by
test_hessian_spectrum__all_steps_give_all_eigenvalues."""

from clp_min import curvature


def hessian_spectrum(model, x, y, steps, probes, generator=None, masks=None, batch_size=None):
    whole = curvature._orthogonal
    curvature._orthogonal = lambda v, basis: v - basis[-2:].T @ (basis[-2:] @ v)
    try:
        return curvature.hessian_spectrum(
            model, x, y, steps, probes, generator, masks, batch_size
        )
    finally:
        curvature._orthogonal = whole
