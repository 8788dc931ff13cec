"""The statements of "Generalization and memorization in sparse neural networks", appendix A and
section 2: hand-written derivatives against autograd, the printed formulas beside the right ones."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from clp_min import models

import oracles
from adapters import (
    fisher_trace, kl_divergence, per_example_gradient_norms, softmax_fisher_trace, square_net_gap,
    two_layer_fisher_matrix, two_layer_hessian,
)
from compare import EXACT, ORDER, assert_close
from theory.softmax_fisher import label_noise_limit, two_layer_fisher
from theory.two_layer import (
    two_layer_jacobian, two_layer_output_hessians, two_layer_probabilities,
)


def net(seed=0, n=7, d=3, h=4, classes=3):
    """(A, B, x, y) and the same net in torch, float64."""
    rng = np.random.default_rng(seed)
    a, b, x = rng.normal(size=(h, d)), rng.normal(size=(classes, h)), rng.normal(size=(n, d))
    model = models.mlp((d,), classes, (h,), bias=False, activation=torch.nn.Tanh).double().eval()
    with torch.no_grad():
        for p, value in zip(model.parameters(), (a, b)):
            p.copy_(torch.from_numpy(value))
    return a, b, x, rng.integers(classes, size=n), model


def scores(a, b, x):
    """(p (n, C), the score of every label (n, C, parameters))."""
    p, jacobian = two_layer_probabilities(a, b, x), two_layer_jacobian(a, b, x)
    return p, jacobian - np.einsum("nc,nca->na", p, jacobian)[:, None]


@pytest.mark.claim("sparse_definitionA1", verdict="holds", number="0 is the largest difference")
def test_two_layer_fisher_matrix__is_the_covariance_of_the_score(number):
    """Eq. A.6 = A.7 since the mean score is 0 for each x: by enumeration of the labels; its trace
    is the network estimator's; and Remark A.1's other quantity, of the data's labels, is not it."""
    a, b, x, y, model = net()
    p, score = scores(a, b, x)
    assert_close(np.einsum("nc,nca->na", p, score), np.zeros((7, 24)), EXACT, 1e-13)
    fisher = np.einsum("nc,nca,ncb->ab", p, score, score) / len(x)
    found = two_layer_fisher_matrix(a, b, x)
    assert_close(found, fisher, EXACT, 1e-13)
    number(np.abs(found - fisher).max())
    inputs = torch.from_numpy(x)
    assert_close(np.trace(fisher), fisher_trace(model, inputs).total, EXACT)
    empirical = float(per_example_gradient_norms(model, inputs, torch.from_numpy(y)).mean())
    assert abs(empirical / np.trace(fisher) - 1) > 0.05


@pytest.mark.claim("sparse_lemmaA1", verdict="holds", number="0 is the largest difference")
def test_two_layer_hessian__lemma_a1_minus_the_models_mean_hessian_of_log_p(number):
    """F = -E_y~p of the Hessian of log p: by hand, and by autograd Hessians of every label."""
    a, b, x, _, model = net(1)
    p = two_layer_probabilities(a, b, x)
    fisher = two_layer_fisher_matrix(a, b, x)
    assert_close(two_layer_hessian(a, b, x, p), fisher, EXACT, 1e-13)
    by_autograd = np.zeros_like(fisher)
    for one, q in zip(torch.from_numpy(x), p):
        for c, weight in enumerate(q):
            hessian = oracles.hessian(model, one[None], torch.tensor([c]))
            by_autograd += weight * hessian.numpy() / len(x)
    assert_close(by_autograd, fisher, EXACT, 1e-12)
    number(np.abs(by_autograd - fisher).max())


def test_two_layer_hessian__is_autograds():
    for seed in range(3):
        a, b, x, y, model = net(seed)
        dense = oracles.hessian(model, torch.from_numpy(x), torch.from_numpy(y)).numpy()
        assert_close(two_layer_hessian(a, b, x, np.eye(3)[y]), dense, EXACT, 1e-12)


def test_two_layer_output_hessians__differentiate_the_jacobian():
    a, b, x, _, _ = net(2)
    step, found = 1e-5, two_layer_output_hessians(a, b, x)
    flat = np.concatenate([a.ravel(), b.ravel()])
    for k in (0, 5, 11, 12, 20):
        e = np.zeros(len(flat))
        e[k] = step
        up, down = (
            two_layer_jacobian(v[:12].reshape(4, 3), v[12:].reshape(3, 4), x)
            for v in (flat + e, flat - e)
        )
        assert_close(found[..., k], (up - down) / (2 * step), 1e-5, 1e-8)


@pytest.mark.claim("sparse_corollaryA1", verdict="holds", number="0 is the largest difference")
def test_two_layer_fisher_matrix__corollary_a1_hessian_of_kl(number):
    """Hessian at theta' = theta of KL(p_theta || p_theta'), by autograd."""
    a, b, x, _, model = net(3)
    inputs = torch.from_numpy(x)
    p = model(inputs).detach().softmax(1)
    kl = (p * (p.log() - model(inputs).log_softmax(1))).sum(1).mean()
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(kl, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(e, parameters, retain_graph=True)])
        for e in flat
    ]
    hessian, fisher = torch.stack(rows).numpy(), two_layer_fisher_matrix(a, b, x)
    assert_close(hessian, fisher, EXACT, 1e-12)
    number(np.abs(hessian - fisher).max())


@pytest.mark.claim("sparse_corollaryA2", verdict="holds", number="0.5 of e'Fe is the KL divergence")
@pytest.mark.claim("sparse_eq2_4", verdict="fails as printed",
                   number="0.501 of what is printed")
@pytest.mark.claim("sparse_footnoteA5", verdict="holds as corrected",
                   number="2.99 is the order of the two directions' difference")
def test_two_layer_fisher_matrix__kl_is_half_the_quadratic_form(number):
    """Eq. A.13: KL = e'Fe / 2 + o(|e|^2). Eq. 2.4 prints e'Fe: the ratio goes to a half. Footnote
    5's "symmetric" holds to second order: the two directions differ like |e|^3."""
    a, b, x, _, _ = net(4)
    direction = np.random.default_rng(0).normal(size=24)
    sizes, ratios, apart = np.array([1e-1, 1e-2, 1e-3]), [], []
    for s in sizes:
        e = s * direction
        quadratic = e @ two_layer_fisher_matrix(a, b, x) @ e
        other = a + e[:12].reshape(4, 3), b + e[12:].reshape(3, 4)
        p, q = two_layer_probabilities(a, b, x), two_layer_probabilities(*other, x)
        both = kl_divergence(q, p).mean(), kl_divergence(p, q).mean()
        ratios.append(both[0] / quadratic)
        apart.append(abs(both[0] - both[1]))
    assert abs(ratios[-1] - 0.5) < 0.005
    number(ratios[-1], "sparse_corollaryA2")
    number(ratios[-1], "sparse_eq2_4")
    order = np.polyfit(np.log(sizes), np.log(apart), 1)[0]
    assert abs(order - 3) < ORDER
    number(order, "sparse_footnoteA5")


@pytest.mark.claim("sparse_hessian_fisher", verdict="fails as printed",
                   number="-0.11 of F between H and F at a loss of .01")
def test_square_net_gap__h_and_f_vanish_together(number):
    """"For a well-trained network H ~ F to the first-order approximation": exact for a linear
    softmax at any loss. For logit theta^2 the gap is -.110 at a loss of .01 and -.027 at 1e-8:
    it closes like 1 / log(1 / loss), by no first-order argument. By autograd too."""
    for loss, gap in ((1e-2, -0.110), (1e-8, -0.0271)):
        theta = np.sqrt(-np.log(np.expm1(loss)))
        assert abs(square_net_gap(theta) - gap) < 1e-3
        t = torch.tensor(theta, requires_grad=True)
        value = torch.nn.functional.softplus(-(t**2))
        [slope] = torch.autograd.grad(value, t, create_graph=True)
        [hessian] = torch.autograd.grad(slope, t)
        z = t.detach() ** 2
        fisher = torch.sigmoid(z) * torch.sigmoid(-z) * 4 * z
        assert_close(hessian / fisher - 1, square_net_gap(theta), 1e-7)
    number(square_net_gap(np.sqrt(-np.log(np.expm1(1e-2)))))
    a, b, x, y, _ = net(5)
    linear = np.kron(np.eye(1), x)  # a net without a hidden layer has H = F for any labels
    model = models.linear_softmax((3,), 3).double()
    dense = oracles.hessian(model, torch.from_numpy(linear), torch.from_numpy(y))
    assert_close(dense.trace(), fisher_trace(model, torch.from_numpy(x)).total, EXACT)


@pytest.mark.claim("sparse_hessian_fisher_misfit", verdict="holds as corrected",
                   number="1.4 of the norm of F between H and F")
def test_two_layer_hessian__parts_from_f_as_the_residual_grows(number):
    """H - F = E sum_c (p_c - y_c) d^2 z_c, in proportion to the residual: 0 at y = p, and half as
    large half-way from there to the labels."""
    a, b, x, y, _ = net(6)
    p, fisher = two_layer_probabilities(a, b, x), two_layer_fisher_matrix(a, b, x)
    whole, half = (
        two_layer_hessian(a, b, x, p + share * (np.eye(3)[y] - p)) - fisher for share in (1.0, 0.5)
    )
    assert_close(half, whole / 2, EXACT, 1e-13)
    assert np.linalg.norm(whole) > 0.1 * np.linalg.norm(fisher)
    number(np.linalg.norm(whole) / np.linalg.norm(fisher))


PRINTED = {  # Table 2: Tr F and Tr H of Sol-F, of Sol-S, sparsities .80 to .90
    "Sol-F": ((218.29, 242.64, 295.69, 351.47, 454.83, 635.20),
              (131.66, 124.05, 166.05, 175.58, 172.85, 292.47)),
    "Sol-S": ((682.79, 990.51, 984.73, 1329.26, 1901.46, 2898.05),
              (353.87, 452.80, 452.74, 484.45, 596.07, 722.28)),
}


@pytest.mark.claim("sparse_table2_traces", verdict="does not follow",
                   number="4.01 is the largest printed Tr F / Tr H")
def test_printed_table2__contradicts_h_near_f(number):
    """Its own Tr F / Tr H is 1.66 to 2.63 (Sol-F) and 1.93 to 4.01 (Sol-S) where section 2 says
    H ~ F; of the same weights, images and mode it is .98 to 1.02 on our nets (sparse_table2)."""
    for (name, (fisher, hessian)), ends in zip(PRINTED.items(), ((1.66, 2.63), (1.93, 4.01))):
        ratio = np.array(fisher) / np.array(hessian)
        assert_close([ratio.min(), ratio.max()], ends, 5e-3)
    number(ratio.max())


@pytest.mark.claim("sparse_footnote4", verdict="fails as printed",
                   number="45.5 times as much as printed")
def test_fisher_trace__footnote4_prints_the_datas_label(number):
    """Footnote 4 draws y-hat and then writes the loss of y_i, "the" label: as printed that is the
    empirical Fisher of Remark A.1. On a net that fits: 46 times less than Tr F."""
    x = torch.eye(4, dtype=torch.float64)
    model = models.linear_softmax((4,), 4).double()
    with torch.no_grad():
        model[1].weight.copy_(4.5 * torch.eye(4))
    printed = float(per_example_gradient_norms(model, x, torch.arange(4)).mean())
    assert fisher_trace(model, x).total / printed > 20
    number(fisher_trace(model, x).total / printed)


@pytest.mark.claim("sparse_early_phase", verdict="fails as printed",
                   number="1.56 times the trace of a p of .7")
@pytest.mark.claim("sparse_ending_phase", verdict="fails as printed",
                   number="0.18 of Tr F where the gradient is 0")
@pytest.mark.claim("sparse_bell_shape", verdict="holds", number="1.54 is the logit at the top")
def test_two_layer_fisher__why_it_is_low_early_and_late(number):
    """"Low since the prediction is close to random": for given Jacobians uniform p gives the
    LARGEST trace; it is low early where the Jacobian is small. "Gradients close to zero, so low":
    with a tenth of the labels wrong the gradient is 0 at the optimum and Tr F .18. "First increase,
    then drop": so it does with two layers, 2 z p (1 - p), up to z = 1.54."""
    x = np.ones((1, 3))
    uniform = softmax_fisher_trace(x, np.full((1, 4), 0.25))
    surer = softmax_fisher_trace(x, np.array([[0.7, 0.1, 0.1, 0.1]]))
    assert uniform > surer
    number(uniform / surer, "sparse_early_phase")
    assert two_layer_fisher(1e-3) < 1e-3  # as good as random, and low: |J|^2 = 2 z
    assert_close(label_noise_limit(2, 0.1), 0.18, EXACT)
    number(label_noise_limit(2, 0.1), "sparse_ending_phase")
    grid = np.linspace(0.01, 12, 2000)
    rises = np.sign(np.diff(two_layer_fisher(grid)))
    assert (np.diff(rises) != 0).sum() == 1 and rises[0] == 1 and rises[-1] == -1
    top = np.linspace(1.5, 1.6, 10_001)
    number(top[two_layer_fisher(top).argmax()], "sparse_bell_shape")


@pytest.mark.claim("sparse_promise_bits", verdict="promised, absent")
@pytest.mark.claim("sparse_promise_full_table", verdict="promised, absent")
@pytest.mark.claim("sparse_promise_information_bottleneck", verdict="promised, absent")
@pytest.mark.claim("sparse_promise_disagreement", verdict="promised, absent")
@pytest.mark.claim("sparse_promise_lottery", verdict="promised, absent")
def test_promises__what_stands_for_them_is_built():
    """The draft's promises that are not in it: a review of bits in the weights (nothing here), the
    full Table 2 with deviations (sparse_table2), experiments on the information bottleneck (nothing
    here), the discussion of disagreements (sparse_disagreement), the lottery (sparse_lottery)."""
    text = (Path(__file__).parent / "PANELS.md").read_text()
    built = re.search(r"^Built: (.*?)\n\n", text, re.M | re.S).group(1)
    for panel in ("sparse_table2", "sparse_disagreement", "sparse_lottery"):
        assert f"`{panel}`" in built


def test_square_net_gap__has_no_value_without_a_weight():
    for theta in (0.0, [1.0, 0.0]):
        with pytest.raises(ValueError):
            square_net_gap(theta)


def test_two_layer_probabilities__logits_of_a_thousand():
    p = two_layer_probabilities(np.array([[50.0]]), np.array([[1000.0], [999.0]]), np.eye(1))
    assert_close(p, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)]], EXACT)
