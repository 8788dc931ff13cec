"""Full gradient, Definition 1, the optimum; and DeiT, its loss and its Fisher trace."""

import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.fisher import per_example_fisher
from clp_min.gradients import gradient_norms
from clp_min.train import training_step
from clp_min.transformer import DeiT, hard_distillation

import oracles
from adapters import (
    effective_gradient, fisher_trace, flat_parameters, full_gradient, optimum,
    per_example_gradient_norms,
)
from compare import EXACT, assert_close


def test_full_gradient__is_the_mean_of_examples_gradients():
    model, x, y = (
        models.small_cnn(norm=True).double().eval(), torch.randn(7, 3, 16, 16, dtype=torch.float64),
        torch.arange(7),
    )
    expected = torch.stack(
        [
            torch.cat([g.flatten() for g in oracles.example_gradient(model, one, int(c)).values()])
            for one, c in zip(x, y)
        ]
    ).mean(0)
    model.zero_grad()
    for batch_size in (2, 7, 100):
        assert_close(full_gradient(model, x, y, batch_size), expected, EXACT)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="y must be an int64 tensor .n. with n = 7"):
        full_gradient(model, x, y[:3])


def test_flat_parameters__follow_the_order_of_parameters():
    model = models.mlp((3,), 2, (2,))
    assert (
        torch.equal(flat_parameters(model)[:6], model[1].weight.flatten())
        and len(flat_parameters(model)) == 14
    )


@pytest.mark.claim("revisiting_definition1", verdict="holds", number="0 of P P g - P g is left")
def test_effective_gradient__is_the_projection(number):
    """P g = g_eff: parallel to d, g - P g orthogonal to d, P P g = P g, and the length of
    d does not matter."""
    g, d = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    projected = effective_gradient(g, d)
    assert_close((g - projected) @ d, 0.0, EXACT, 1e-10)
    assert_close(projected / projected.norm(), d / d.norm() * torch.sign(g @ d), EXACT)
    assert_close(again := effective_gradient(projected, d), projected, EXACT)
    number((again - projected).abs().max())
    assert_close(effective_gradient(g, -7 * d), projected, EXACT)
    assert_close(projected.norm(), abs(float(g @ d)) / d.norm(), EXACT)


def test_effective_gradient__rejects_zero_direction_and_shapes():
    g = torch.ones(4)
    with pytest.raises(ValueError, match="zero"):
        effective_gradient(g, torch.zeros(4))
    with pytest.raises(ValueError, match="direction must be a float tensor .p. with p = 4"):
        effective_gradient(g, torch.ones(5))


def test_optimum__averages_the_best_and_ties_go_to_the_earlier():
    snapshots = [torch.full((3,), float(i * i)) for i in range(5)]
    assert_close(optimum(snapshots, [10, 50, 40, 50, 40], top=3), np.full(3, (1 + 9 + 4) / 3), 1e-6)
    assert_close(optimum(snapshots, [1, 1, 1, 1, 1], top=2), np.full(3, 0.5), 1e-6)
    assert_close(optimum(torch.stack(snapshots), [0, 0, 0, 0, 1], top=10), np.full(3, 6.0), 1e-6)
    for bad in (([], []), (snapshots, [1.0]), (snapshots, [1.0] * 5, 0)):
        with pytest.raises(ValueError):
            optimum(*bad)


def small_deit():
    torch.manual_seed(0)
    return DeiT((3, 8, 8), 4, dim=16, heads=2, depth=2, hidden=12).double().eval()


def test_fisher_trace__deit_equals_double_loop():
    model, x = small_deit(), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    trace = fisher_trace(model, x)
    assert_close(trace.total, oracles.fisher_trace(model, x), EXACT)
    for layer in (
        "tokens", "blocks.0.attention.q", "blocks.1.attention_norm", "embedding",
        "distillation_head",
    ):
        others = {
            n: torch.zeros(()) for n, _ in model.named_parameters() if n.rpartition(".")[0] != layer
        }
        assert_close(trace.per_layer[layer], oracles.fisher_trace(model, x, others), EXACT)


def test_per_example_gradient_norms__deit_equal_the_loop():
    model, x, y = (
        small_deit(), torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 1]),
    )
    assert_close(
        per_example_gradient_norms(model, x, y), oracles.gradient_norms(model, x, y), EXACT
    )


def test_deit__attention_equals_its_definition():
    attention, x = small_deit().blocks[0].attention, torch.randn(2, 5, 16, dtype=torch.float64)
    q, k, v = (layer(x).view(2, 5, 2, 8) for layer in (attention.q, attention.k, attention.v))
    heads = [
        torch.softmax(q[:, :, h] @ k[:, :, h].transpose(1, 2) / 8**0.5, 2) @ v[:, :, h]
        for h in range(2)
    ]
    assert_close(attention(x), attention.out(torch.cat(heads, 2)), EXACT)


def test_deit__parameters_of_the_papers_setting():
    d, h = 512, 512
    block = 4 * (d * d + d) + (d * h + h) + (h * d + d) + 2 * 2 * d
    expected = (3 * 16 * d + d) + (2 * d + 66 * d) + 4 * block + 2 * d + 2 * (10 * d + 10)
    assert models.parameter_count(DeiT()) == expected == 6_383_124
    with pytest.raises(ValueError, match="patch"):
        DeiT((3, 30, 30))


def test_deit__hard_distillation_is_half_and_half():
    model, x, y = small_deit(), torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 4
    teacher = models.small_cnn(classes=4).double().eval()
    own, distilled = model.both(x)
    taught = teacher(x).argmax(1)
    expected = (
        -(
            own.log_softmax(1)[range(6), y].mean()
            + distilled.log_softmax(1)[range(6), taught].mean()
        )
        / 2
    )
    loss = hard_distillation(teacher)
    assert_close(loss(model, x, y), expected, EXACT)
    before = [p.clone() for p in teacher.parameters()]
    training_step(model, torch.optim.SGD(model.parameters(), lr=0.1), x, y, loss)
    assert all(torch.equal(p, b) for p, b in zip(teacher.parameters(), before))


def test_meta__deit_and_gradients():
    model, x, y = (
        DeiT().to("meta").eval(), torch.empty(4, 3, 32, 32, device="meta"),
        torch.empty(4, dtype=torch.int64, device="meta"),
    )
    g = full_gradient(model, x, y)
    assert effective_gradient(g, g).shape == (6_383_124,) and g.device.type == "meta"
    assert all(v.shape == (4,) for v in per_example_fisher(model, x, "signs").values())


@pytest.mark.slow
def test_deit__one_real_step_at_paper_scale():
    torch.manual_seed(0)
    model, x, y = DeiT(), torch.randn(256, 3, 32, 32), torch.arange(256) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-6)
    loss = hard_distillation(models.vgg(depth=16).eval())
    first = float(training_step(model, optimizer, x, y, loss))
    assert float(training_step(model, optimizer, x, y, loss)) < first < 4


@pytest.mark.parametrize("size, kept", [(4, 3), (5, 2)])  # the batches are the whole set, or not
def test_gradient_norms__equal_plain_autograd(size, kept):
    """Norms first, then the mean over batches; the full gradient is that of all examples."""
    model = models.mlp((3,), 2, (4,)).double()
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.arange(12) % 2
    direction = torch.randn(models.parameter_count(model), dtype=torch.float64)
    batches = torch.randperm(12).split(size)[:kept]

    def gradient(indices):
        loss = torch.nn.functional.cross_entropy(model(x[indices]), y[indices])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([g.flatten() for g in grads])

    full, drawn = gradient(range(12)), [gradient(batch) for batch in batches]
    expected = {
        "stochastic": sum(g.norm() for g in drawn) / kept,
        "effective": sum((g @ direction).abs() / direction.norm() for g in drawn) / kept,
        "on_full": sum((g @ full).abs() / full.norm() for g in drawn) / kept, "full": full.norm(),
        "cosine": -(full @ direction) / full.norm() / direction.norm(),
    }
    found = gradient_norms(model, x, y, batches, direction)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert_close(found[key], value, EXACT)


def test_optimum__an_accuracy_that_is_nan_has_no_place():
    with pytest.raises(ValueError, match="nan"):
        optimum([torch.zeros(2), torch.ones(2)], [90.0, float("nan")])
