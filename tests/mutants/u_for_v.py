"""The parts of Theorem 1 from U where V belongs: caught by
test_component_strengths__are_the_norms_of_theorem1s_parts."""

import torch

from clp_min import features


def component_strengths(w_next, c_next, gates, delta_next, inputs):
    primary, _, rest = features.component_strengths(w_next, c_next, gates, delta_next, inputs)
    _, eps = features.along_direction(w_next, c_next)
    u, s, vh = torch.linalg.svd(eps, full_matrices=False)
    through = delta_next @ u if len(u) == delta_next.shape[1] else delta_next @ vh.T
    sizes = torch.einsum("nh,rh->nr", gates.square(), vh.square()[:, : gates.shape[1]]).sqrt()
    return primary, sizes * through.abs() * s * inputs.norm(dim=1)[:, None], rest
