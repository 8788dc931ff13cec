"""Values of other packages, where they are installed (none is needed): curvlinops for products with
the Hessian, nngeometry for the Fisher trace."""

import pytest
import torch

from clp_min import models
from clp_min.curvature import hessian_product
from clp_min.fisher import fisher_trace

from compare import assert_close


def case():
    torch.manual_seed(0)
    model = models.small_cnn((3, 8, 8), 4, (4, 6), norm=True, pool=1).double()
    x, y = torch.randn(12, 3, 8, 8, dtype=torch.float64), torch.arange(12) % 4
    model(x)  # running statistics of their own
    return model.eval(), x, y


def test_hessian_product__equals_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model, x, y = case()
    operator = curvlinops.HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)]
    )
    product = hessian_product(model, x, y)
    for _ in range(3):
        v = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
        assert_close(product(v), operator @ v, 1e-9, 1e-12)


def test_fisher_trace__equals_nngeometry():
    """Over Linear, Conv2d and BatchNorm; in float32, which is all it computes in."""
    nngeometry = pytest.importorskip("nngeometry.metrics")
    implicit = pytest.importorskip("nngeometry.object").PMatImplicit
    model, x, y = case()
    model, x = model.float(), x.float()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=12)
    theirs = nngeometry.FIM(model, loader, implicit, variant="classif_logits", device="cpu")
    assert_close(fisher_trace(model, x).total, float(theirs.trace()), 1e-4)
