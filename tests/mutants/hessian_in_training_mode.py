"""BatchNorm uses the batch's statistics inside the product: caught by
test_hessian_vector_product__is_the_dense_hessian."""

import torch
import torch.nn.functional as F


def hessian_vector_product(model, x, y, v, masks=None, batch_size=None):
    model.train()
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    found = torch.autograd.grad(flat @ v, parameters)
    return torch.cat([g.flatten() for g in found])
