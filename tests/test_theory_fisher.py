"""Fisher information of a linear softmax, its limits, the bell; softmax phases against autograd;
the gated pathways."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from clp_min import models
from clp_min.fisher import per_example_gradient_norms
from clp_min.gradients import full_gradient
from theory.deep_linear import HIERARCHY_STRENGTHS, early_gate_limit
from theory.softmax_fisher import (
    label_noise_limit, sampled_label_variance, student_t_location_information, two_layer_fisher,
)
from theory.softmax_phases import input_variance, output_ratio, outputs

from adapters import (
    approximate_loss, fisher_trace, full_matrix, gated_pathways, kl_divergence, logit_loss,
    noisy_output_loss, optimal_loss, separable_quantities, simulate, softmax_fisher_matrix,
    softmax_fisher_trace,
)
from compare import AUTODIFF, EXACT, FD, ORDER, assert_close, assert_mean, draws


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def linear_case(n=6, d=4, c=3, seed=0):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(n, d)), rng.normal(size=(c, d))
    return x, w, softmax(x @ w.T)


def test_softmax_fisher_trace__equals_torch_and_the_matrix():
    x, w, p = linear_case()
    model = models.linear_softmax((4,), 3).double()
    model[1].weight.data = torch.from_numpy(w)
    assert_close(softmax_fisher_trace(x, p), fisher_trace(model, torch.from_numpy(x)).total, EXACT)
    assert_close(np.trace(softmax_fisher_matrix(x, p)), softmax_fisher_trace(x, p), EXACT)


@pytest.mark.claim("revisiting_eq1", verdict="holds", number="0 is the largest difference")
def test_softmax_fisher_matrix__is_the_hessian_for_any_labels(number):
    x, w, p = linear_case()
    inputs = torch.from_numpy(x)
    for y in (torch.tensor([0, 1, 2, 0, 1, 2]), torch.zeros(6, dtype=torch.int64)):
        hessian = torch.func.hessian(
            lambda v: nn.functional.cross_entropy(inputs @ v.view(3, 4).T, y)
        )(torch.from_numpy(w.ravel()))
        fisher = softmax_fisher_matrix(x, p)
        assert_close(hessian, fisher, EXACT)
        number(np.abs(hessian.numpy() - fisher).max())
    assert np.linalg.matrix_rank(softmax_fisher_matrix(x[:1], p[:1])) == 2


@pytest.mark.claim("revisiting_kl_fisher", verdict="holds",
                   number="0.5 of e'Fe is the KL divergence")
def test_kl_divergence__is_half_the_quadratic_form(number):
    """KL(p_theta || p_theta') = e' F e / 2 + o(|e|^2), in both directions; the error ratio falls
    like |e| (slope 1)."""
    x, w, p = linear_case()
    fisher, e = softmax_fisher_matrix(x, p), np.random.default_rng(1).normal(size=w.shape)
    sizes, errors = np.array([1e-1, 1e-2, 1e-3]), []
    for s in sizes:
        q = softmax(x @ (w + s * e).T)
        quadratic = s**2 * e.ravel() @ fisher @ e.ravel() / 2
        errors.append(
            [abs(kl_divergence(a, b).mean() / quadratic - 1) for a, b in ((p, q), (q, p))]
        )
    assert np.max(errors[-1]) < 1e-2
    number(kl_divergence(p, q).mean() / quadratic / 2)
    for direction in zip(*errors):
        assert abs(np.polyfit(np.log(sizes), np.log(direction), 1)[0] - 1) < ORDER


def test_kl_divergence__values_and_errors():
    assert_close(
        kl_divergence([0.5, 0.5], [0.25, 0.75]), 0.5 * math.log(2) + 0.5 * math.log(2 / 3), EXACT
    )
    assert (
        kl_divergence([0.0, 1.0], [0.5, 0.5]) == pytest.approx(math.log(2))
        and kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf
    )
    with pytest.raises(ValueError):
        kl_divergence([0.5, 0.5], [1.0])


def test_softmax_fisher_trace__sampled_label_variance():
    x, _, p = linear_case(1)
    rng = draws(0)
    y = rng.choice(3, size=20_000, p=p[0])
    norms = (1 - 2 * p[0][y] + (p[0] ** 2).sum()) * (x[0] ** 2).sum()
    trace, variance = softmax_fisher_trace(x, p), sampled_label_variance(x[0], p[0])
    assert_mean(norms, trace, detects=0.1 * trace)
    assert_mean((norms - trace) ** 2, variance, detects=0.1 * variance)


def test_softmax_fisher_trace__is_largest_at_uniform_outputs():
    """ "Predictions near random" do not make the trace small: for given inputs they make it as
    large as it can be."""
    x = np.ones((1, 2))
    best = softmax_fisher_trace(x, np.full((1, 5), 0.2))
    for seed in range(50):
        assert (
            softmax_fisher_trace(x, softmax(np.random.default_rng(seed).normal(size=(1, 5))))
            <= best
        )


@pytest.mark.claim("revisiting_proposition1", verdict="fails as printed",
                   number="3.00 is the variance at F = 2/3, 2 at F = 1/2")
def test_proposition1__larger_information_and_larger_variance(number):
    """Larger F, "lower uncertainty": t_3 has F = 2/3 > 1/2 of N(0, 2), and its sample's variance
    3 > 2. 1/F bounds the variance from below, no more. As matrices the trace does not order
    either: diag(100, .01) has a trace of 100.01 and so has its inverse."""
    grid = np.linspace(-200, 200, 400_001)
    density = (1 + grid**2 / 3) ** -2
    density /= np.trapezoid(density, grid) if hasattr(np, "trapezoid") else np.trapz(density, grid)
    score = 4 * grid / (3 + grid**2)
    step = grid[1] - grid[0]
    assert_close((score**2 * density).sum() * step, student_t_location_information(3), 1e-5)
    # x = sqrt(3) tan(a): density (2/pi) cos^2 a, x^2 = 3 tan^2 a
    tangent = np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1]
    variance = (6 / np.pi * np.sin(tangent) ** 2).sum() * (tangent[1] - tangent[0])
    assert_close(variance, 3.0, 1e-5)
    number(variance)
    assert student_t_location_information(3) > 1 / 2.0 and variance > 2.0  # against N(0, 2)
    big, unit = np.diag([100, 0.01]), np.eye(2)
    assert np.trace(big) > np.trace(unit) and np.trace(np.linalg.inv(big)) > np.trace(
        np.linalg.inv(unit)
    )


@pytest.mark.claim("revisiting_tighter_bound", verdict="fails as printed",
                   number="1.50 between bound and variance at F = 2/3, 0 at F = 1/2")
def test_student_t_location_information__larger_is_a_smaller_bound(number):
    """"A larger F implies a tighter lower bound": 1/F falls with F, and a smaller lower bound is
    the looser one. t_3: bound 3/2 under its variance 3; N(0, 2), F = 1/2 < 2/3: 2 under 2."""
    larger, smaller = student_t_location_information(3), 1 / 2
    assert larger > smaller
    room = [3 - 1 / larger, 2 - 1 / smaller]  # variance of the mean of one observation less 1/F
    assert_close(room, [1.5, 0.0], EXACT)
    number(room[0])


@pytest.mark.claim("revisiting_proposition1_efficient", verdict="holds as corrected",
                   number="1.50 is 1 / F, reached within .05")
def test_proposition1__holds_for_efficient_estimators(number):
    """Maximum likelihood, n = 200: n times the variance is near 1/F = 1.5 for t_3 and 2 for
    N(0, 2): among efficient estimators in large samples the order is as printed (10,000 samples;
    the likelihood's own correction of order 1/n is .05)."""
    rng = draws(0)
    x = rng.standard_t(3, size=(10_000, 200))
    centre = np.median(x, axis=1, keepdims=True)
    for _ in range(60):  # weighted means climb the likelihood of t_3
        weight = 1 / (1 + (x - centre) ** 2 / 3)
        centre = (weight * x).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    score = (4 * (x - centre) / (3 + (x - centre) ** 2)).sum(1)
    assert np.abs(score).max() < 1e-6
    student = 200 * centre.ravel() ** 2
    normal = 200 * (math.sqrt(2) * rng.normal(size=(10_000, 200))).mean(1) ** 2
    assert_mean(normal, 2.0, detects=0.3)
    assert abs(student.mean() - 1.5) < 0.05 + 5 * student.std() / 100
    number(1 / student_t_location_information(3))
    assert student.mean() + 5 * np.hypot(student.std(), normal.std()) / 100 < normal.mean()


@pytest.mark.claim("revisiting_eq35", verdict="fails as printed",
                   number="1.00e+06 times as much as printed, at p(y) = 1 - 1e-6")
def test_softmax_fisher_trace__eq35_with_the_corresponding_label(number):
    """Eq. 35 draws x "and y is the corresponding label": the empirical Fisher, another quantity
    than Eq. 1's. A right net at p(y) = 1 - s has (1 - |p|^2) / |p - y|^2 near 1/s: they part just
    where training ends."""
    for s in (0.1, 1e-3, 1e-6):
        x = torch.ones(1, 1, dtype=torch.float64)
        model = models.linear_softmax((1,), 2).double()
        with torch.no_grad():
            model[1].weight.copy_(x.new_tensor([[math.log((1 - s) / s)], [0.0]]))
        ratio = fisher_trace(model, x).total / fisher_trace(model, x, torch.tensor([0])).total
        assert_close(ratio, 2 * s * (1 - s) / (2 * s**2), 1e-9)
    number(ratio)


@pytest.mark.claim("revisiting_theorem1_trace", verdict="fails as printed")
@pytest.mark.parametrize(
    "classes, noise, expected", [(2, 0.1, 0.18), (10, 0.2, 0.3555555556), (10, 0.1, 0.1888888889)]
)
def test_label_noise_limit__full_batch_descent_ends_with_a_trace(classes, noise, expected):
    """Theorem 1: Tr F -> 0. One-hot inputs with noisy labels, full-batch descent (no gradient
    noise at all): the gradient vanishes, Tr F does not."""
    assert_close(label_noise_limit(classes, noise), expected, 1e-9)
    scale = 90  # copies of each input; label counts are exact
    counts = np.full((classes, classes), noise / (classes - 1))
    np.fill_diagonal(counts, 1 - noise)
    counts = np.round(counts * scale * (classes - 1)).astype(int)
    pairs = [(i, j) for i in range(classes) for j in range(classes) for _ in range(counts[i, j])]
    x = torch.eye(classes, dtype=torch.float64)[[i for i, _ in pairs]]
    y = torch.tensor([j for _, j in pairs])
    model = models.linear_softmax((classes,), classes).double()
    target = torch.from_numpy(counts / counts.sum(1, keepdims=True))
    with torch.no_grad():
        model[1].weight.copy_(target.log().T)  # the optimum; descent stays there
    gradient = full_gradient(model, x, y)
    assert gradient.norm() < 1e-12
    assert_close(fisher_trace(model, x).total, expected, 1e-9)
    assert_close(fisher_trace(model, x, y).total, expected, 1e-9)


@pytest.mark.claim("revisiting_theorem1_trace", verdict="fails as printed",
                   number="0.266 of Tr F where the gradient is 0, printed: 0")
def test_label_noise_limit__descent_from_zero_arrives_there(number):
    """Full-batch descent from W = 0, 3 classes, 15 % noise, rate 1: the gradient ends at 1e-9 or
    less, Tr F at the closed form."""
    noise, classes, scale = 0.15, 3, 40
    counts = np.full((classes, classes), round(noise / 2 * scale))
    np.fill_diagonal(counts, round((1 - noise) * scale))
    pairs = [(i, j) for i in range(classes) for j in range(classes) for _ in range(counts[i, j])]
    x = torch.eye(classes, dtype=torch.float64)[[i for i, _ in pairs]]
    y = torch.tensor([j for _, j in pairs])
    model = models.linear_softmax((classes,), classes).double()
    with torch.no_grad():
        model[1].weight.zero_()
    for _ in range(500):
        gradient = full_gradient(model, x, y).view(classes, classes)
        with torch.no_grad():
            model[1].weight -= gradient
    assert full_gradient(model, x, y).norm() < 1e-9
    assert_close(fisher_trace(model, x).total, label_noise_limit(classes, noise), 1e-7)
    number(fisher_trace(model, x).total)


def phases_data(l, d, k):
    own = np.repeat(np.eye(l), d // l, axis=1)
    return torch.from_numpy(np.concatenate([own, k * own])), torch.arange(l).repeat(2)


@pytest.mark.parametrize("l, d, k, lr", [(10, 100, 4, 0.05), (3, 12, 2, 0.2), (7, 21, 6, 0.03)])
def test_simulate__scalar_equals_matrix_equals_autograd(l, d, k, lr):
    steps = 60
    delta, weights = simulate(l, d, k, lr, steps), full_matrix(l, d, k, lr, steps)
    # (t, class of the logit, class of the attributes)
    sums = weights.reshape(steps + 1, l, l, d // l).sum(3)
    f, g = sums[:, 0, 0], sums[:, 0, 1]
    assert_close(f - g, delta, 1e-10, 1e-12)
    assert_close(f + (l - 1) * g, np.ones(steps + 1), EXACT)
    x, y = phases_data(l, d, k)
    model = models.linear_softmax((d,), l).double()
    nn.init.constant_(model[1].weight, 1 / d)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for t in range(steps):
        assert_close(model[1].weight, weights[t], AUTODIFF)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_simulate__acceptance_numbers():
    delta = simulate(10, 100, 4, 0.05, 1000)
    assert_close(
        delta[[1, 2, 10, 100]], [0.125, 0.243579491762, 0.863453996341, 2.543852202618], 1e-11
    )
    assert_close(
        optimal_loss(delta[[1, 10, 100, 1000]], 10, 4),
        [0.023309864651, 0.028189044398, 0.069376533654, 0.209625474918], 1e-10,
    )
    assert_close(
        approximate_loss(delta[[1, 10, 100, 1000]], 10, 4),
        [0.045847541496, 0.050834646762, 0.105544865981, 0.402750869117], 1e-10,
    )


def test_simulate__refuses_what_the_model_does_not_have():
    for bad in ((1, 4, 2, 0.1), (3, 10, 2, 0.1), (2, 4, 0.5, 0.1), (2, 4, 2, 0.0), (2, 4, 2, -1.0)):
        with pytest.raises(ValueError):
            simulate(*bad, 3)


def least_squares_loss(features, x, columns=slice(None)):
    """Mean squared error per attribute of the best linear decoder with intercept."""
    design = np.concatenate([features, np.ones((len(features), 1))], 1)
    solution = np.linalg.lstsq(design, x, rcond=1e-12)[0]
    return ((design @ solution - x) ** 2)[:, columns].mean()


@pytest.mark.parametrize("l, k, delta", [(10, 4, 0.7), (5, 2, 1.5), (3, 7, 0.2), (10, 4, 6.0)])
def test_optimal_loss__equals_least_squares_from_the_outputs(l, k, delta):
    x, _ = phases_data(l, l, k)
    x = x.numpy()
    q = softmax(delta * x)  # f - g = delta decides the softmax
    assert_close(optimal_loss(delta, l, k), least_squares_loss(q, x), 1e-8)
    assert_close(optimal_loss(0.0, l, k), x.var(0).mean(), EXACT)
    assert_close(outputs(delta, l, k), q[l, 0], EXACT)
    # f - g = delta, f + (l - 1) g = 1
    logits = delta * x + (1 - delta) / l * x.sum(1, keepdims=True)
    # with logits the reconstruction is exact: no phases
    assert (least_squares_loss(logits, x) < 1e-20)


def test_approximate_loss__is_within_twice_the_optimum():
    """The right Theorem 5: R_opt <= R_approx <= 2 R_opt for Delta > 0."""
    delta = np.geomspace(1e-4, 50, 200)
    for l, k in ((2, 3), (10, 4), (100, 10)):
        best, approximate = optimal_loss(delta, l, k), approximate_loss(delta, l, k)
        assert (best <= approximate * (1 + 1e-9)).all() and (
            approximate <= 2 * best * (1 + 1e-9)
        ).all()


@pytest.mark.parametrize("tau", [0.03, 0.3])
def test_noisy_output_loss__equals_least_squares_with_noise(tau):
    """One output with noise tau, and all logits with noise tau: noise of variance tau^2 adds
    tau^2 I to the covariance of the features."""
    l, k, delta = 6, 3, 0.8
    x, _ = phases_data(l, l, k)
    x = x.numpy()
    logits = delta * x + (1 - delta) / l * x.sum(1, keepdims=True)
    for features, expected, own in (
        (softmax(logits), noisy_output_loss(delta, l, k, tau), True),
        (logits, logit_loss(delta, l, k, tau), False),
    ):
        losses = []
        for j in range(l):
            z = features[:, [j]] if own else features
            z, t = z - z.mean(0), x[:, j] - x[:, j].mean()
            covariance = z.T @ z / len(z) + tau**2 * np.eye(z.shape[1])
            losses.append(
                (t**2).mean() - (z.T @ t / len(z)) @ np.linalg.solve(covariance, z.T @ t / len(z))
            )
        assert_close(expected, np.mean(losses), 1e-9)
    assert (np.diff(logit_loss(np.linspace(0, 9, 50), l, k, tau)) < 0).all()
    assert_close(output_ratio(1e-9, l, k), k, 1e-6)
    assert_close(noisy_output_loss(0.0, l, k, tau), input_variance(l, k), EXACT)


@pytest.mark.claim("revisiting_trace_is_no_gradient_norm", verdict="fails as printed",
                   number="867 times the squared gradient after 1,000 steps")
def test_separable_quantities__trace_falls_slower_than_the_gradient(number):
    """Eq. 23 takes Tr F for E|grad|^2. On separable data Tr F ~ 2(l-1)/(lr t) and |grad|^2 ~
    1/t^2: their ratio grows like t. Against torch, and the limits."""
    l, d, k, lr = 10, 100, 4, 0.05
    delta = simulate(l, d, k, lr, 200_000)
    trace, empirical, squared = separable_quantities(delta, l, d, k)
    x, y = phases_data(l, d, k)
    for t in (0, 10, 100, 1000):
        model = models.linear_softmax((d,), l).double()
        model[1].weight.data = torch.from_numpy(
            np.kron(delta[t] * np.eye(l) + (1 - delta[t]) / l, np.ones((1, d // l))) / (d // l)
        )
        assert_close(fisher_trace(model, x).total, trace[t], 1e-9)
        assert_close(per_example_gradient_norms(model, x, y).mean(), empirical[t], 1e-9)
        assert_close(full_gradient(model, x, y).square().sum(), squared[t], 1e-9)
    assert_close(trace[[0, 10, 100, 1000]], [76.5, 35.5209, 3.24371, 0.396795], 1e-5)
    number(trace[1000] / squared[1000])
    t = np.arange(20_000, 200_001)
    for values, slope in ((trace, -1), (empirical, -2), (squared, -2), (trace / squared, 1)):
        assert abs(np.polyfit(np.log(t), np.log(values[t]), 1)[0] - slope) < ORDER
    assert_close(trace[-1] * lr * 200_000 / (2 * (l - 1)), 1.0014, 1e-3)


def test_two_layer_fisher__bell_needs_depth():
    """Rise and fall of Tr F without any memory: the two-layer scalar net, against autograd; the
    linear one only falls."""

    class TwoLayer(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            self.double()
            nn.init.constant_(self.first.weight, w)
            nn.init.constant_(self.second.weight, w)

        def forward(self, x):
            z = self.second(self.first(x))
            return torch.cat([z, torch.zeros_like(z)], 1)

    for z in (0.1, 1.0, 1.5434046384, 4.0):
        assert_close(
            two_layer_fisher(z),
            fisher_trace(TwoLayer(math.sqrt(z)), torch.ones(1, 1, dtype=torch.float64)).total, 1e-9,
        )
    grid = np.linspace(0, 12, 120_001)
    top = grid[two_layer_fisher(grid).argmax()]
    assert abs(top - 1.5434046384) < 1e-4 and abs(top * math.tanh(top / 2) - 1) < 1e-4
    assert_close(two_layer_fisher(1.5434046384), 0.4477432047, 1e-9)


class Pathways(nn.Module):
    """Two deep linear pathways as real matrices, started balanced in the singular
    directions of the target."""

    def __init__(self, left, right, depth, start):
        super().__init__()
        r = start ** (1 / depth)
        n = left.shape[1]
        self.a, self.b = (
            nn.ParameterList(
                [
                    nn.Parameter(m.clone())
                    for m in [r * right.T]
                    + [r * torch.eye(n, dtype=torch.float64)] * (depth - 2)
                    + [r * left]
                ]
            )
            for _ in range(2)
        )

    def product(self, path):
        total = path[0]
        for matrix in list(path)[1:]:
            total = matrix @ total
        return total


@pytest.mark.parametrize("depth, gate", [(2, (0, 15)), (2, (40, 55)), (3, (0, 10)), (4, (0, 0))])
def test_gated_pathways__ode_equals_torch_gradient_descent(depth, gate):
    """The scalar equations of every mode against gradient descent on whole weight matrices with
    torch.optim, b's frozen while the gate is on."""
    dt, duration, strengths = 0.01, 60.0, torch.tensor([3.0, 1.5, 0.5], dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, 3, dtype=torch.float64)).Q for n in (5, 4))
    target, net = left @ torch.diag(strengths) @ right.T, Pathways(left, right, depth, 0.05)
    optimizer = torch.optim.SGD(net.parameters(), lr=dt)
    a, b = gated_pathways(strengths.numpy(), depth, gate, duration, dt, 0.05)
    for t in range(round(duration / dt) + 1):
        if t % 1000 == 0:
            assert_close(torch.diag(left.T @ net.product(net.a) @ right), a[t], AUTODIFF)
            assert_close(torch.diag(left.T @ net.product(net.b) @ right), b[t], AUTODIFF)
        optimizer.zero_grad()
        ((target - net.product(net.a) - net.product(net.b)).square().sum() / 2).backward()
        if gate[0] / dt <= t < gate[1] / dt:
            for matrix in net.b:
                matrix.grad = None
        optimizer.step()


def test_gated_pathways__early_gate_never_recovers_later_gates_do_nothing():
    strength = math.sqrt(15)
    for depth in (2, 4):
        ends = {
            gate: [path[-1, 0] for path in gated_pathways(strength, depth, gate)]
            for gate in ((0, 0), (0, 150), (400, 550), (750, 900))
        }
        assert_close(ends[0, 150], early_gate_limit(strength), 1e-6)
        for gate in ((0, 0), (400, 550), (750, 900)):
            assert_close(ends[gate], [strength / 2] * 2, 1e-6)
    with pytest.raises(ValueError):
        gated_pathways(1.0, 1)


def test_gated_pathways__strengths_are_those_of_the_hierarchy():
    """Eight items in a binary tree, 15 properties (one per node), each item has its ancestors':
    singular values of the item-property matrix."""
    items = np.array(
        [
            [item >> (3 - level) == node for level in range(4) for node in range(2**level)]
            for item in range(8)
        ],
        dtype=float,
    )
    assert_close(np.linalg.svd(items, compute_uv=False), HIERARCHY_STRENGTHS, FD)


def test_separable_quantities__equal_sums_over_the_examples():
    """The traces of the model of "learning phases" at one Delta, class by class."""
    l, d, k, delta = 4, 8, 3.0, 0.7
    f, g = (1 + (l - 1) * delta) / l, (1 - delta) / l
    own = np.repeat(np.eye(l), d // l, axis=1)
    weights = np.where(own > 0, f, g) / (d // l)  # logits f and g per unit of an example's strength
    x, y = np.concatenate([own, k * own]), np.tile(np.arange(l), 2)
    p = np.array([softmax(z) for z in x @ weights.T])
    squares, onehot = (x**2).sum(1), np.eye(l)
    apart = ((onehot[None] - p[:, None]) ** 2).sum(2)  # (examples, labels): |e_c - p|^2
    gradient = (p - onehot[y]).T @ x / len(x)
    expected = [
        (squares * (p * apart).sum(1)).mean(), (squares * apart[range(2 * l), y]).mean(),
        (gradient**2).sum(),
    ]
    assert_close(separable_quantities(delta, l, d, k), expected, EXACT)


def test_softmax_fisher_trace__a_probability_below_zero_is_refused():
    with pytest.raises(ValueError, match="must be distributions"):
        softmax_fisher_trace(np.ones((1, 2)), np.array([[-0.5, 1.5]]))


def test_kl_divergence__what_does_not_sum_to_one_is_no_distribution():
    for p, q in (([0.5, 0.6], [0.5, 0.5]), ([0.5, 0.5], [0.5, 0.4])):
        with pytest.raises(ValueError, match="distributions"):
            kl_divergence(np.array(p), np.array(q))
