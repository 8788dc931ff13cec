"""Warm starts in closed form: counting features, shrinking bias-free and BatchNorm nets, convex
training with one optimum."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from clp_min import models
from clp_min.gradients import full_gradient

from adapters import batch_statistics, chance_to_fit, learn, shrink_perturb, two_stages
from compare import EXACT, assert_close


def test_learn__by_hand():
    """Feature 0 (3 of 4 examples) is learned, then 1 (2 of 4) is not frequent enough among the
    rest: one example is memorised. What was memorised before does not count."""
    has = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1]], bool)
    none, fresh = np.zeros(3, bool), np.zeros(4, bool)
    learned, memorised, new = learn(has, none, fresh, enough=2, needed=1)
    assert learned.tolist() == [True, False, False] and new == 1
    assert memorised.tolist() == [False, False, False, True]
    known = np.array([True, False, True, False])
    learned, memorised, new = learn(has, none, known, enough=2, needed=1)
    assert not learned.any() and new == 0 and memorised.all()
    with pytest.raises(ValueError, match="arm"):
        two_stages(has, 2, "cold", 2, 1)


def test_chance_to_fit__by_enumeration():
    frequencies, learned = np.array([0.9, 0.5, 0.2, 0.7]), np.array([True, False, True, True])
    for needed in (1, 2, 3):
        expected = 0.0
        for bits in product((0, 1), repeat=4):
            chance = np.prod(np.where(bits, frequencies, 1 - frequencies))
            expected += chance * (np.array(bits)[learned].sum() >= needed)
        assert_close(chance_to_fit(frequencies, learned, needed), expected, EXACT)


@pytest.mark.claim("ash_counting", verdict="holds",
                   number="4.46 points fewer of the new examples are fitted")
def test_two_stages__warm_learns_fewer_features_and_shrinking_as_many(number):
    """100 draws of 400 examples with 30 features: warm fits 4.5 points fewer new examples than
    random (in 98 draws not more); the ideal start as many to .2 points, and it learns 3 features
    anew where random learns 14; shrinking to a tenth forgets every memory and no feature that 10
    examples taught: it is the ideal start."""
    frequencies, chances, new = np.geomspace(0.5, 0.02, 30), [], []
    for seed in range(100):
        has = np.random.default_rng(seed).random((400, 30)) < frequencies
        found = {
            arm: two_stages(has, 200, arm, enough=10, needed=3, keep=0.1)
            for arm in ("random", "warm", "ideal", "shrink")
        }
        chances.append([chance_to_fit(frequencies, one[0], 3) for one in found.values()])
        new.append([one[2] for one in found.values()])
        assert np.array_equal(found["ideal"][0], found["shrink"][0])
    random, warm, ideal, _ = np.array(chances).T
    assert (warm <= random + 1e-12).mean() > 0.9 and 0.04 < (random - warm).mean() < 0.05
    number(100 * (random - warm).mean())
    assert abs((ideal - random).mean()) < 2e-3
    assert 3 * np.mean(new, 0)[2] < np.mean(new, 0)[0]


@pytest.mark.claim("ash_shrink_batchnorm", verdict="holds",
                   number="1.000 of lambda^2 is the factor")
@pytest.mark.parametrize("make", [
    lambda: models.resnet((1, 8, 8), 4, widths=(4, 6, 8)), lambda: models.small_cnn(
        (1, 8, 8), 4, (4, 6), norm=True),
])
def test_shrink_perturb__batchnorm_nets_scale_by_lambda_squared_at_any_depth(make, number):
    """With batch statistics, no last bias and eps -> 0, all that is left of shrinking every
    parameter is gamma and beta of the last normalisation times the last weights: predictions are
    kept, entropy rises."""
    torch.manual_seed(0)
    model, fresh = make().double(), make().double()
    for net in (model, fresh):
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-14
                torch.nn.init.normal_(module.bias)
        torch.nn.init.zeros_([m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1].bias)
    x = torch.randn(12, 1, 8, 8).double()
    before = batch_statistics(model, x)(x).detach()
    for shrink in (0.6, 0.2):
        own = make().double()
        own.load_state_dict(model.state_dict())
        for module in own.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-14
        shrink_perturb(own, fresh, shrink, 0.0)
        after = batch_statistics(own, x)(x).detach()
        assert_close(after, shrink**2 * before, 1e-6, 1e-9)
        number(after.norm() / before.norm() / shrink**2)
        assert torch.equal(after.argmax(1), before.argmax(1))


@pytest.mark.claim("ash_balance", verdict="holds",
                   number="0.62 times as long is the new gradient when shrunk to .2")
def test_shrink_perturb__balances_gradients_of_old_and_new_data(number):
    """A bias-free MLP fitted on one half: |g_new| / |g_old| is large, and falls with every step of
    shrinking, to within a factor of 4 of 1."""
    torch.manual_seed(0)
    net = models.mlp((10,), 3, (40, 40), bias=False).double()
    x, y = torch.randn(60, 10).double(), torch.arange(60) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        cross_entropy(net(x[:30]), y[:30]).backward()
        optimizer.step()
    ratios = []
    for shrink in (1.0, 0.8, 0.6, 0.4, 0.2):
        own = models.mlp((10,), 3, (40, 40), bias=False).double()
        own.load_state_dict(net.state_dict())
        shrink_perturb(own, net, shrink, 0.0)
        new, old = (full_gradient(own, x[part], y[part]).norm() for part in
                    (slice(30, 60), slice(30)))
        ratios.append(float(new / old))
    assert ratios[0] > 100 and all(b < a for a, b in zip(ratios, ratios[1:]))
    assert 0.25 < ratios[-1] < 4
    number(ratios[-1])


def newton(w, x, y, decay, steps=60):
    """Logistic regression with weight decay by Newton's method, labels -1 and 1."""
    for _ in range(steps):
        p = 1 / (1 + np.exp(y * (x @ w)))
        gradient = -(x * (y * p)[:, None]).mean(0) + decay * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x) + decay * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient)
    return w


@pytest.mark.claim("ash_convex", verdict="holds",
                   number="0 is between the two ends, with weight decay")
@pytest.mark.claim("ash_convex_separable", verdict="holds as corrected",
                   number="1.96 between the two after 8,000 steps")
def test_convex_training__one_optimum_with_weight_decay_and_none_without(number):
    """With weight decay warm and random end in one point (1e-10). Separable data without it have no
    optimum: both go to infinity along one direction, slowly; their cosine rises towards 1 and their
    distance does not go to 0, so a stop at 99 % leaves them apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5))
    y = np.sign(x @ rng.normal(size=5))
    warm = newton(newton(np.zeros(5), x[:40], y[:40], 0.01), x, y, 0.01)
    random = newton(rng.normal(size=5), x, y, 0.01)
    assert np.abs(warm - random).max() < 1e-10
    number(np.abs(warm - random).max(), "ash_convex")

    def descend(w, x, y, steps):
        for _ in range(steps):
            w = w + 0.5 * (x * (y / (1 + np.exp(y * (x @ w))))[:, None]).mean(0)
        return w

    start = descend(np.zeros(5), x[:40], y[:40], 2000)
    cosines, lengths = [], []
    a, b = start, np.zeros(5)
    for _ in range(4):
        a, b = descend(a, x, y, 2000), descend(b, x, y, 2000)
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        lengths.append(np.linalg.norm(b))
    assert all(q > p for p, q in zip(cosines, cosines[1:])) and cosines[-1] > 0.999
    assert all(q > p for p, q in zip(lengths, lengths[1:])) and np.linalg.norm(a - b) > 0.01
    number(np.linalg.norm(a - b), "ash_convex_separable")


def test_two_stages__not_shrunk_a_feature_of_one_example_is_kept():
    """One example with both features, then one with the second alone: warm starting (and shrinking
    by 1) knows the first feature of the first example and memorises the second."""
    has = np.array([[1, 0], [0, 1]], bool)
    for arm in ("warm", "shrink"):
        learned, memorised, new = two_stages(has, 1, arm, enough=1, needed=1, keep=1.0)
        assert learned.all() and new == 1 and not memorised.any(), arm
    assert two_stages(has, 1, "shrink", enough=1, needed=1, keep=0.5)[2] == 2


def test_chance_to_fit__a_frequency_below_zero_is_refused():
    for frequency in (-0.5, 1.5):
        with pytest.raises(ValueError, match="frequencies"):
            chance_to_fit(np.array([0.5, frequency]), np.array([True, True]), 1)
