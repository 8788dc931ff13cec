"""The statements of "Trap of feature diversity": each identity at 1e-12, each printed statement
that fails with its counterexample; NumPy by hand against autograd."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from clp_min import models
from theory.common_direction import gaussian_clusters

from adapters import (
    null_frequency, printed_residual, relu_net_pass, split_along, theorem1_parts, theorem2_holds,
    theorem2_product, theorem3_share, two_phases,
)
from compare import EXACT, assert_close, assert_mean, draws

TIGHT = 1e-12


def net(seed=0, sizes=(5, 7, 6, 8, 4)):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(h, d)) / np.sqrt(d) * 1.4 for d, h in zip(sizes, sizes[1:])]
    return rng, weights, rng.normal(size=sizes[0]), int(rng.integers(sizes[-1]))


def test_relu_net_pass__is_autograds():
    rng, weights, x, label = net()
    model = models.mlp((5,), 4, (7, 6, 8), bias=False).double()
    with torch.no_grad():
        for p, w in zip(model.parameters(), weights):
            p.copy_(torch.from_numpy(w))
    loss = cross_entropy(model(torch.from_numpy(x)[None]), torch.tensor([label]))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    features, deltas, value = relu_net_pass(weights, x, label)
    assert_close(value, float(loss.detach()), EXACT)
    for g, delta, feature in zip(gradients, deltas, features):
        assert_close(g, np.outer(delta, feature), EXACT, 1e-14)


@pytest.mark.claim("diversity_lemma1", verdict="holds as corrected",
                   number="3.06 is missing from W, as printed")
@pytest.mark.claim("diversity_lemma2", verdict="holds as corrected",
                   number="24.7 along C, as printed; right: 0")
def test_split_along__lemmas_1_and_2(number):
    """Right: eps = W' (I - CC'/C'C), with eps C = 0 and the least norm. As printed, eps = W' -
    (CC'/C'C) W', the projection is on the wrong side: d x h by h x h; where h = d, as in all their
    nets, it runs, eps C is not 0 and C V' + eps' is not W."""
    rng = np.random.default_rng(0)
    for h, d in ((6, 4), (5, 5)):
        w, c = rng.normal(size=(h, d)), 3 * rng.normal(size=h)
        v, eps = split_along(w, c)
        assert_close(np.outer(c, v) + eps.T, w, TIGHT, 1e-14)
        assert np.abs(eps @ c).max() < 1e-13
        for _ in range(20):  # no other V does better
            other = w.T - np.outer(v + 0.1 * rng.normal(size=d), c)
            assert np.linalg.norm(other) > np.linalg.norm(eps)
    printed = printed_residual(w, c)
    for column, row in zip(printed.T, w):  # as it stands: a row of W less its part along C
        assert_close(column, row - (c @ row) / (c @ c) * c, TIGHT, 1e-14)
    assert np.linalg.norm(printed @ c) > 1
    number(np.linalg.norm(printed @ c), "diversity_lemma2")
    assert np.linalg.norm(np.outer(c, v) + printed.T - w) > 1
    number(np.linalg.norm(np.outer(c, v) + printed.T - w), "diversity_lemma1")
    with pytest.raises(ValueError):
        printed_residual(rng.normal(size=(6, 4)), rng.normal(size=6))


@pytest.mark.claim("diversity_theorem1", verdict="holds as corrected",
                   number="0.0567 of the step is missed with the weights after it")
def test_theorem1_parts__sum_to_the_step(number):
    """Exact for one example and one plain step, W_{l+1} before it. The number of terms is 1 + rank
    (eps), not h + 1; V_i'C = 0, where U_i'C = 0 is printed, which has no meaning for h != h'."""
    for seed in range(5):
        rng, weights, x, label = net(seed)
        for layer in (0, 1, 2):
            c = rng.normal(size=weights[layer + 1].shape[0])
            primary, parts, step = theorem1_parts(weights, layer, c, x, label, 0.1)
            size = np.abs(step).max()
            assert np.abs(primary + parts.sum(0) - step).max() < TIGHT * size
            _, eps = split_along(weights[layer + 1], c)
            _, s, vh = np.linalg.svd(eps, full_matrices=False)
            assert np.abs(vh[s > 1e-12] @ c).max() < 1e-12
            h, h_next = weights[layer + 1].shape[::-1]
            assert (s > 1e-12 * s[0]).sum() == min(h, h_next - 1)  # C takes one rank
            # W after the step in its place: percents off
            features, deltas, _ = relu_net_pass(weights, x, label)
            after = weights[layer + 1] - 0.1 * np.outer(deltas[layer + 1], features[layer + 1])
            primary, parts, _ = theorem1_parts(weights, layer, c, x, label, 0.1, after)
            assert np.abs(primary + parts.sum(0) - step).max() > 1e-4 * size
    number(np.abs(primary + parts.sum(0) - step).max() / size)


@pytest.mark.claim("diversity_fig5_one_sample", verdict="does not follow",
                   number="1.00 is |cos(dV, F)| for any C")
@pytest.mark.claim("diversity_theorem2", verdict="fails as printed",
                   number="-1.00 where it is to be 0 or more, at a sigma of .024 |V|")
def test_theorem2_product__exact_condition_and_counterexamples(number):
    """cos(dV, F) is 1 or -1 for any C (Fig. 5 verifies nothing). The product is sgn(C'delta) cos(V,
    W'delta); it is >= 0 exactly if |V|^2 |C'delta| >= -sgn(C'delta) V'eps delta. A sigma_max(eps)
    of .024 |V| does not do; where C is a left singular vector of W any sigma_max will."""
    rng = np.random.default_rng(1)
    for _ in range(2000):
        w, c = rng.normal(size=(6, 5)), rng.normal(size=6)
        c /= np.linalg.norm(c)
        delta, feature = rng.normal(size=6), rng.normal(size=5)
        v, _ = split_along(w, c)
        product = theorem2_product(w, c, delta, feature)
        expected = np.sign(c @ delta) * v @ (w.T @ delta)
        expected /= np.linalg.norm(v) * np.linalg.norm(w.T @ delta)
        assert abs(product - expected) < 1e-12
        assert (product >= 0) == theorem2_holds(w, c, delta)
        change = c @ np.outer(delta, feature)  # of V, by one example, up to the rate
        cosine = change @ feature / np.linalg.norm(change) / np.linalg.norm(feature)
        number(abs(cosine), "diversity_fig5_one_sample")
    # small sigma_max is not enough: C'delta nearly 0, and eps leads against V
    c, v = np.eye(4)[0], np.eye(3)[0]
    w = np.outer(c, v) + 0.024 * np.outer(np.eye(4)[1], v)
    _, eps = split_along(w, c)
    assert np.linalg.svd(eps)[1][0] < 0.025 * np.linalg.norm(v)
    delta = 1e-4 * c - np.eye(4)[1]
    assert theorem2_product(w, c, delta, np.ones(3)) < 0 and not theorem2_holds(w, c, delta)
    number(theorem2_product(w, c, delta, np.ones(3)), "diversity_theorem2")
    # and not needed: C a left singular vector
    w = rng.normal(size=(6, 5))
    c = np.linalg.svd(w)[0][:, 4]  # of the SMALLEST singular value
    v, eps = split_along(w, c)
    assert np.linalg.svd(eps)[1][0] > np.linalg.norm(v)
    assert all(theorem2_holds(w, c, rng.normal(size=6)) for _ in range(500))


@pytest.mark.parametrize("h, d, expected", [(16, 16, 0.7553), (32, 8, 0.6467), (8, 32, 0.8640)])
def test_null_frequency__by_sampling(h, d, expected):
    """Random weights and directions give a positive product in 65 to 86 % of cases: what any
    frequency must be held against (20,000 draws)."""
    rng = draws(h, d)
    assert abs(null_frequency(h, d) - expected) < 1e-4
    w = rng.normal(size=(20_000, h, d))
    c, delta = rng.normal(size=(2, 20_000, h))
    product = (c * delta).sum(1) * np.einsum("nhd,nh,nkd,nk->n", w, c, w, delta, optimize=True)
    assert_mean(product > 0, null_frequency(h, d), detects=0.03)
    with pytest.raises(ValueError):
        null_frequency(1, 5)


@pytest.mark.claim("diversity_theorem3", verdict="does not follow",
                   number="0.501 of one sign where deltas differ")
def test_theorem3_share__is_an_assumption(number):
    """One sign for all examples of a category: true where the deltas are alike, .5 where they are
    not; nothing in the proof makes them so."""
    rng = np.random.default_rng(0)
    c, alike = rng.normal(size=9), rng.normal(size=9)
    assert theorem3_share(c, alike + 0.01 * rng.normal(size=(50, 9))) == 1.0
    share = theorem3_share(c, rng.normal(size=(4000, 9)))
    assert share < 0.55
    number(share)


def test_two_phases__is_autograds_descent():
    """Loss and cosine along 30 full-batch steps of the same net, by torch; the weights that were
    given stay as they were."""
    rng, weights, _, _ = net()
    x, labels = gaussian_clusters(rng, 4, 5, d=5)
    given = [w.copy() for w in weights]
    losses, cosines = two_phases(weights, x, labels, 0.3, 30, layer=2)
    assert all(np.array_equal(w, old) for w, old in zip(weights, given))
    model = models.mlp((5,), 4, (7, 6, 8), bias=False).double()
    with torch.no_grad():
        for p, w in zip(model.parameters(), weights):
            p.copy_(torch.from_numpy(w))
    inputs, targets = torch.from_numpy(x), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for step in range(31):
        unit = torch.nn.functional.normalize(model[:5](inputs).detach(), dim=1)
        pairs = [float(unit[i] @ unit[j]) for i in range(20) for j in range(20)
                 if labels[i] != labels[j]]
        loss = cross_entropy(model(inputs), targets)
        assert_close(losses[step], float(loss.detach()), 1e-10)
        assert_close(cosines[step], np.mean(pairs), 1e-10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.claim("diversity_appendix_i", verdict="does not follow",
                   number="-0.184 is the mean cosine with the same features")
def test_relu_net_pass__the_same_features_do_not_give_alike_gradients(number):
    """Appendix I: alike features open the same gates, "therefore" gradients are alike. Eq. 23 needs
    the gradient above to be alike too: it is within a category; the SAME example under two labels
    has the same features and gates, and gradients with a cosine under 0 on the mean of 200 nets."""
    cosines = []
    for seed in range(200):
        _, weights, x, _ = net(seed)
        (features, one, _), (again, other, _) = (relu_net_pass(weights, x, k) for k in (0, 1))
        assert all(np.array_equal(a, b) for a, b in zip(features, again))
        a, b = (weights[1].T @ deltas[1] for deltas in (one, other))  # in F_1
        if np.linalg.norm(a) > 0:
            cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    assert len(cosines) > 150 and np.mean(cosines) < 0
    number(np.mean(cosines))
    near, also = (relu_net_pass(weights, scale * x, 0)[1] for scale in (1.0, 1.001))
    assert near[1] @ also[1] > 0.999 * np.linalg.norm(near[1]) * np.linalg.norm(also[1])


@pytest.mark.claim("diversity_s_primary", verdict="fails as printed",
                   number="1.35 times the largest other part, as printed: 1")
def test_theorem1_parts__s_primary_has_the_index_of_another_part(number):
    """S_primary is printed with the change of index i: that is S_i, and their ratio 1, where the
    table has 9 to 37. With the primary part it is a number of its own."""
    for seed in range(5):
        rng, weights, x, label = net(seed)
        primary, parts, _ = theorem1_parts(weights, 0, weights[1] @ np.ones(7), x, label, 0.1)
        sizes = np.linalg.norm(parts, axis=(1, 2))
        assert not np.isclose(np.linalg.norm(primary), sizes, rtol=1e-3).any()
    number(np.linalg.norm(primary) / sizes.max())


def test_theorem3_share__an_example_at_right_angles_has_neither_sign():
    deltas = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [2.0, 1.0], [-1.0, 0.0]])
    assert theorem3_share(np.array([1.0, 0.0]), deltas) == 0.4
    assert theorem3_share(np.array([-1.0, 0.0]), deltas) == 0.4
