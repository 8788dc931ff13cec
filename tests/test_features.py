"""Similarities, rank-one changes, common directions and their strengths against loops and dense
matrices, and against theory/."""

import math

import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.features import (
    along_direction, direction_agreement, direction_strengths, dormant_share, effective_rank,
    layer_factors, recursive_directions, summed_change, theorem2_terms,
)
from theory.common_direction import split_along, theorem1_parts, theorem2_product

import oracles
from adapters import (
    common_directions, component_strengths, cross_class_similarity, feature_similarity,
    pseudo_neuron_similarity, within_class_similarity,
)
from compare import EXACT, assert_close


def rows(seed=0, n=12, d=5):
    torch.manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64), torch.arange(n) % 3


def compare_with_the_double_loop(which, function):
    """Every ordered pair, and a row of zeros (a dead layer) counts with cosine 0."""
    x, y = rows()
    for features in (x, torch.cat([x[:11], torch.zeros(1, 5, dtype=torch.float64)])):
        arguments = (features,) if which == "all" else (features, y)
        assert_close(function(*arguments), oracles.similarity(features, y, which), EXACT)
    labels = torch.tensor([7] * 3 + [2] * 9)  # uneven classes, names of their own
    if which != "all":
        assert_close(function(x, labels), oracles.similarity(x, labels, which), EXACT)


def test_feature_similarity__is_the_double_loop():
    compare_with_the_double_loop("all", feature_similarity)


def test_cross_class_similarity__is_the_double_loop():
    compare_with_the_double_loop("cross", cross_class_similarity)


def test_within_class_similarity__is_the_double_loop():
    compare_with_the_double_loop("within", within_class_similarity)


def test_feature_similarity__values_and_errors():
    ones = torch.ones(4, 3)
    assert feature_similarity(ones) == pytest.approx(1.0, abs=1e-12)
    assert feature_similarity(torch.eye(4)) == 0
    for bad in (ones[:1], ones[0]):
        with pytest.raises(ValueError):
            feature_similarity(bad)


def test_cross_class_similarity__errors():
    for labels in (torch.zeros(4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64),
                   torch.zeros(4)):
        with pytest.raises(ValueError):
            cross_class_similarity(torch.ones(4, 3), labels)


def test_within_class_similarity__errors():
    with pytest.raises(ValueError, match="two examples"):
        within_class_similarity(torch.ones(3, 2), torch.arange(3))


def test_pseudo_neuron_similarity__columns_and_the_tautology():
    """Columns, not rows; and a single example's change has cosines 1 up to signs."""
    x, _ = rows()
    expected = oracles.similarity(x.T, torch.zeros(5), "all")
    assert_close(pseudo_neuron_similarity(x), expected, EXACT)
    single = torch.outer(x[0], x[1].abs())
    assert_close(pseudo_neuron_similarity(single), 1.0, EXACT)


def net(norm=False, seed=0):
    torch.manual_seed(seed)
    model = models.mlp((5,), 3, (7, 6), bias=False, norm=norm).double().eval()
    return model, torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 3


def test_layer_factors__are_each_examples_gradient():
    """delta_i features_i' is the example's own weight gradient; their sum that of the sum."""
    for norm in (False, True):
        model, x, y = net(norm)
        factors = layer_factors(model, x, y)
        weights = {n: m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        assert list(factors) == list(weights)
        for i in range(len(x)):
            own = oracles.example_gradient(model, x[i], int(y[i]))
            for name, (delta, features) in factors.items():
                expected = own[f"{name}.weight"]
                assert_close(torch.outer(delta[i], features[i]), expected, EXACT, 1e-14)
        total = sum(
            oracles.example_gradient(model, one, int(c))["1.weight"] for one, c in zip(x, y)
        )
        assert_close(summed_change(factors["1"]), total, EXACT, 1e-14)
    with pytest.raises(ValueError, match="batch statistics"):
        layer_factors(model.train(), x, y)
    with pytest.raises(ValueError, match="Dropout"):
        layer_factors(torch.nn.Sequential(torch.nn.Dropout(), model), x, y)


def test_common_directions__minimise_eq3():
    """Against the top eigenvectors of the dense sum; no random direction leaves less; factors and
    matrices agree."""
    torch.manual_seed(0)
    delta, features = torch.randn(8, 6).double(), torch.randn(8, 4).double()
    changes = delta[:, :, None] * features[:, None, :]
    c = common_directions(changes, 3)
    assert_close(c @ c.T, torch.eye(3).double(), EXACT, 1e-12)
    dense = sum(one @ one.T for one in changes)
    values, vectors = np.linalg.eigh(dense.numpy())
    for i in range(3):
        assert_close(abs(float(c[i] @ torch.from_numpy(vectors[:, -1 - i]))), 1.0, 1e-9)
    by_factors = common_directions((delta, features), 3)
    assert_close((c * by_factors).sum(1).abs(), torch.ones(3), 1e-9)

    def left(direction):
        return sum(float((one - torch.outer(direction, direction @ one)).square().sum())
                   for one in changes)

    assert_close(left(c[0]), float(dense.trace()) - values[-1], 1e-9)
    for _ in range(200):
        other = torch.nn.functional.normalize(torch.randn(6).double(), dim=0)
        assert left(other) > left(c[0])
    for k in (0, 7):
        with pytest.raises(ValueError):
            common_directions(changes, k)


@pytest.mark.claim("diversity_appendix_d", verdict="holds as corrected",
                   number="2.80 between its strengths and the SVD's")
def test_recursive_directions__svd_from_its_own_start_alone(number):
    """"Similar to the SVD": on one matrix from its own minimiser it IS the SVD; from the examples'
    first direction it stays orthogonal and is not: other strengths."""
    torch.manual_seed(1)
    change = torch.randn(6, 5).double()
    u, s, _ = torch.linalg.svd(change)
    own = recursive_directions(u[:, 0], change, 4)
    assert_close(direction_strengths(change, own), s[:4], 1e-9)
    other = recursive_directions(torch.randn(6).double(), change, 4)
    assert_close(other @ other.T, torch.eye(4).double(), EXACT, 1e-9)
    assert float((direction_strengths(change, other) - s[:4]).abs().max()) > 0.1
    number((direction_strengths(change, other) - s[:4]).abs().max())


def test_component_strengths__are_the_norms_of_theorem1s_parts():
    """Against theory/ by hand, for a step of rate 1; also with Leaky ReLU's gates through the
    sum."""
    model, x, y = net(seed=3)
    weights = [p.detach().numpy() for p in model.parameters()]
    factors, c = layer_factors(model, x, y), torch.randn(6).double()
    gates = (x @ model[1].weight.T > 0).double().detach()
    primary, others, rest = component_strengths(
        model[3].weight.detach(), c, gates, factors["3"][0], factors["1"][1]
    )
    for i in range(len(x)):
        by_hand, parts, step = theorem1_parts(weights, 0, c.numpy(), x[i].numpy(), int(y[i]), 1.0)
        assert_close(primary[i], np.linalg.norm(by_hand), 1e-9)
        assert_close(others[i], np.linalg.norm(parts, axis=(1, 2)), 1e-9, 1e-12)
        assert_close(rest[i], np.linalg.norm(parts.sum(0)), 1e-9, 1e-12)
        assert_close(factors["1"][0][i].norm() * x[i].norm(), np.linalg.norm(step), 1e-9)


def test_direction_agreement__and_theorem2_terms_against_theory():
    model, x, y = net(seed=4)
    delta, features = layer_factors(model, x, y)["3"]
    w, c = model[3].weight.detach(), torch.randn(6).double()
    found = direction_agreement(w, c, delta, features)
    first, second, ratio = theorem2_terms(w, c, delta)
    for i in range(len(x)):
        by_hand = theorem2_product(
            w.numpy(), c.numpy(), delta[i].numpy(), features[i].numpy() + 1e-30
        )
        assert_close(found[i], by_hand, 1e-9)
    unit = c / c.norm()
    v, eps = split_along(w.numpy(), unit.numpy())
    assert_close(first, (v @ v) * (delta @ unit).numpy(), EXACT)
    assert_close(second, delta.numpy() @ (v @ eps), 1e-9, 1e-14)
    assert_close(ratio, np.linalg.norm(eps, 2) / np.linalg.norm(v), EXACT)
    sign = np.sign(first.numpy() * (first + second).numpy())
    alive = features.square().sum(1) > 0
    assert (np.sign(found.numpy()) == sign)[alive].all()
    assert_close(along_direction(w, c)[1] @ c, np.zeros(7), EXACT, 1e-13)
    measured = direction_agreement(w, c, delta, features, torch.ones(9, 7).double())
    assert measured.shape == (9,) and not torch.equal(measured, found)


def test_dormant_share__effective_rank__values():
    x = torch.ones(6, 4)
    x[:, 0] = 0.0
    x[:, 1] = -0.01
    assert dormant_share(x) == 0.5 and dormant_share(x, 0.0) == 0.25
    assert_close(effective_rank(torch.eye(5)), 5.0, EXACT)
    assert_close(effective_rank(torch.ones(5, 3)), 1.0, 1e-5)
    two = torch.diag(torch.tensor([3.0, 1.0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert_close(effective_rank(two), math.exp(entropy), 1e-6)
    with pytest.raises(ValueError):
        effective_rank(torch.zeros(3, 3))


def test_recursive_directions__are_orthonormal_each_the_best_of_what_is_left():
    change = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    found = recursive_directions(torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64), change, 3)
    assert_close(found.abs(), torch.eye(3, dtype=torch.float64)[[1, 0, 2]], EXACT, 1e-12)
