"""float32 against float64: bits lost by every estimator over gaps between logits and scales of the
inputs. ``python tests/test_precision.py`` prints the table.

The net is the same float32 net in both; the inputs are multiplied by ``scale`` and the first
layer's weights divided by it, so that the outputs stay and the gradients do not. Lost are
log2(error / 2^-24) bits of the largest entry, 0 for an error of half a unit in the last place.
"""

import copy
import math

import numpy as np
import pytest
import torch

from clp_min import curvature, features, fisher, gradients, information, models, reconstruction
from clp_min.seeding import generator
from clp_min.train import evaluate

GAPS, SCALES = (0, 1, 5, 20, 40, 80), (1e-4, 1e-2, 1.0, 1e3)


def net_and_inputs(gap, scale):
    """A small net whose logits lie about ``gap`` apart, its inputs and labels."""
    torch.manual_seed(0)
    net = models.mlp((12,), 4, hidden=(16,), init=models.kaiming_normal).eval()
    x, y = torch.randn(32, 12), torch.arange(32) % 4
    with torch.no_grad():
        top = net(x).topk(2, 1).values
        net[-1].weight.mul_(gap / float((top[:, 0] - top[:, 1]).mean()))
        net[1].weight.div_(scale)
    return net, x * scale, y


def hidden(net, x):
    """The activations of the net's hidden layer, detached."""
    with torch.no_grad():
        return net[:3](x)


def direction(net):
    """A vector like the net's parameters, the same in both dtypes."""
    parameters = gradients.flat_parameters(net)
    signs = 2.0 * torch.randint(2, parameters.shape, generator=generator("cpu", 5)) - 1
    return signs.to(parameters.dtype)


ESTIMATORS = {
    "fisher_trace expected": lambda n, x, y: fisher.fisher_trace(n, x).total,
    "fisher_trace signs": lambda n, x, y: fisher.fisher_trace(
        n, x, "signs", generator=generator("cpu", 1)).total,
    "per_example_fisher, the smallest": lambda n, x, y: fisher.fisher_trace(n, x).per_example.min(),
    "per_example_gradient_norms": lambda n, x, y: fisher.per_example_gradient_norms(n, x, y),
    "full_gradient": lambda n, x, y: gradients.full_gradient(n, x, y),
    "effective_gradient": lambda n, x, y: gradients.effective_gradient(
        gradients.full_gradient(n, x, y), direction(n)),
    "gradient_cosines": lambda n, x, y: gradients.gradient_cosines(n, x, y, direction(n)),
    "hessian_vector_product": lambda n, x, y: curvature.hessian_vector_product(
        n, x, y, direction(n)),
    "jacobian_norm": lambda n, x, y: curvature.jacobian_norm(n, x),
    "prediction_entropy": lambda n, x, y: curvature.prediction_entropy(n(x).detach()),
    "binned_mutual_information": lambda n, x, y: information.binned_mutual_information(
        n(x).softmax(1), "per_logit", low=0.0),
    "feature_similarity": lambda n, x, y: features.feature_similarity(hidden(n, x)),
    "effective_rank": lambda n, x, y: features.effective_rank(hidden(n, x)),
    "reconstruction_loss": lambda n, x, y: reconstruction.reconstruction_loss(
        hidden(n, x), x, hidden(n, x[::2]), x[::2]),
    "evaluate, the loss": lambda n, x, y: evaluate(n, x, y)[1],
}


def bits_lost(estimator, gap, scale):
    """How many of float32's 24 bits the estimate has lost."""
    net, x, y = net_and_inputs(gap, scale)
    single = ESTIMATORS[estimator](net, x, y)
    double = ESTIMATORS[estimator](copy.deepcopy(net).double(), x.double(), y)
    single, double = (np.asarray(v if isinstance(v, float) else v.detach()) for v in
                      (single, double))
    error, size = np.abs(single - double).max(), np.abs(double).max()
    return math.log2(max(error / size * 2.0**24, 1.0)) if size else float(error)


def of_a_tail(gap):
    """exp(-gap) of logits that are rounded themselves; said in the docstrings."""
    return 4 + math.log2(1 + gap)


ALLOWED = {  # more than three bits; said in the docstrings
    "fisher_trace expected": of_a_tail, "fisher_trace signs": of_a_tail,
    "per_example_fisher, the smallest": of_a_tail, "prediction_entropy": of_a_tail,
    "hessian_vector_product": lambda gap: 5 + gap / 7,
    "per_example_gradient_norms": lambda gap: 4, "effective_gradient": lambda gap: 5,
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_precision__float32_loses_what_the_docstring_says(estimator, gap, scale):
    assert bits_lost(estimator, gap, scale) <= ALLOWED.get(estimator, lambda gap: 3)(gap)


def table():
    """(estimator, gap, scale) -> bits lost."""
    return {(e, g, s): bits_lost(e, g, s) for e in ESTIMATORS for g in GAPS for s in SCALES}


if __name__ == "__main__":
    found = table()
    print("bits lost, largest over scales", "".join(f"{gap:>8}" for gap in GAPS))
    for name in ESTIMATORS:
        rows = [max(found[name, gap, s] for s in SCALES) for gap in GAPS]
        print(f"{name:34}", "".join(f"{bits:8.1f}" for bits in rows))
