"""One step against the update written out; evaluation; shrink-perturb; checkpoints."""

from functools import partial

import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.schedule import Phase
from clp_min.train import Setup, cross_entropy, hinge, load_checkpoint, save_checkpoint

import oracles
from adapters import accuracy, evaluate, shrink_perturb, sweep, training_step
from compare import AUTODIFF, EXACT, assert_close


def test_training_step__equals_sgd_written_out():
    model = models.linear_softmax((6,), 4).double()
    start = model[1].weight.detach().clone().numpy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01)
    batches = [(torch.randn(8, 6, dtype=torch.float64), torch.randint(4, (8,))) for _ in range(20)]
    for x, y in batches:
        loss = training_step(model, optimizer, x, y)
    assert_close(
        model[1].weight,
        oracles.sgd(start, [(x.numpy(), y.numpy()) for x, y in batches], 0.3, 0.9, 0.01), AUTODIFF,
    )
    assert loss.dim() == 0 and not loss.requires_grad


def test_training_step__clips_the_whole_gradient():
    model = models.mlp((6,), 4, (5,)).double()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    training_step(
        model, optimizer, 100 * torch.randn(8, 6, dtype=torch.float64),
        torch.zeros(8, dtype=torch.int64), clip=0.5,
    )
    moved = sum((p - b).square().sum() for p, b in zip(model.parameters(), before)).sqrt()
    assert_close(moved, 0.5, 1e-5)


def test_training_step__uses_the_given_loss():
    model = models.linear_softmax((6,), 4)
    x, y = torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)
    expected = 3 * cross_entropy(model, x, y)
    assert_close(
        training_step(
            model, torch.optim.SGD(model.parameters(), lr=0.0), x, y,
            lambda m, x, y: 3 * cross_entropy(m, x, y),
        ),
        expected,
        1e-6,
    )


def test_training_step__bfloat16_and_channels_last_still_learn():
    x, y = torch.randn(64, 3, 8, 8), torch.arange(64) % 10
    model = models.small_cnn().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = [
        float(training_step(model, optimizer, x, y, autocast=torch.bfloat16, channels_last=True))
        for _ in range(60)
    ]
    assert losses[-1] < 0.5 * losses[0] and all(
        p.dtype == torch.float32 for p in model.parameters()
    )


def test_evaluate__counts_one_by_one_in_eval_mode_on_the_images_as_they_are():
    model = models.small_cnn(norm=True)
    model(torch.randn(64, 3, 16, 16))  # statistics that differ from a batch's
    x, y = torch.randn(53, 3, 16, 16), torch.arange(53) % 10
    training = model.train().training
    right, loss = evaluate(model, x, y, batch_size=20)
    assert model.training == training
    model.eval()
    logits = torch.cat([model(one[None]) for one in x]).double()
    assert_close(right, 100 * np.mean(logits.argmax(1).numpy() == y.numpy()), EXACT)
    assert_close(loss, -(logits[range(53), y] - logits.exp().sum(1).log()).mean().item(), 1e-5)


def test_accuracy__counts_one_by_one_on_the_images_as_they_are():
    model, x, y = models.small_cnn().eval(), torch.randn(200, 3, 16, 16), torch.arange(200) % 10
    assert_close(
        accuracy(model, x, y, 64),
        100 * np.mean([int(model(one[None]).argmax()) == int(c) for one, c in zip(x, y)]), EXACT,
    )


def test_sweep__smaller_last_batch_is_dropped_or_kept():
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    for drop_last, steps in ((True, 2), (False, 3)):
        setup = Setup(
            model=lambda: models.mlp((4,), 3, (5,)), x=x, y=y, batch_size=8, drop_last=drop_last,
            optimizer=partial(torch.optim.Adam), lr=0.01,
        )
        assert [state.step for _, state, _ in sweep(setup, {"run": [Phase(1)]}, 0)] == [0, steps]


def test_shrink_perturb__is_the_formula_in_place():
    model, fresh = models.small_cnn(norm=True).double(), models.small_cnn(norm=True).double()
    model(torch.randn(8, 3, 8, 8, dtype=torch.float64))  # running statistics of its own
    old, other = ({k: v.clone() for k, v in m.state_dict().items()} for m in (model, fresh))
    parameters = dict(model.named_parameters())
    shrink_perturb(model, fresh, 0.4, 0.1)
    for name, value in model.state_dict().items():
        assert_close(
            value, 0.4 * old[name] + 0.1 * other[name] if name in parameters else other[name], EXACT
        )
    assert all(torch.equal(v, other[k]) for k, v in fresh.state_dict().items())


def test_shrink_perturb__ends_of_the_scale():
    model, fresh = models.mlp((4,), 3, (5,)), models.mlp((4,), 3, (5,))
    old = [p.detach().clone() for p in model.parameters()]
    shrink_perturb(model, fresh, 1.0, 0.0)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), old))
    shrink_perturb(model, fresh, 0.0, 1.0)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), fresh.parameters()))
    with pytest.raises(ValueError, match="same parameters"):
        shrink_perturb(model, models.mlp((4,), 3, (6,)), 1.0, 0.0)


def test_shrink_perturb__shrinking_keeps_predictions_of_a_bias_free_net():
    """A bias-free ReLU net of L layers is homogeneous: f_(shrink theta)(x) = shrink^L
    f_theta(x), so the argmax stays."""
    model, x = (
        models.mlp((6,), 5, (8, 7), bias=False).double(), torch.randn(9, 6, dtype=torch.float64),
    )
    before = model(x)
    shrink_perturb(model, models.mlp((6,), 5, (8, 7), bias=False).double(), 0.6, 0.0)
    assert_close(model(x), 0.6**3 * before, EXACT)


def test_checkpoint__truncated_file_gives_the_one_before(tmp_path):
    path = tmp_path / "state.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"epoch": 1, "w": torch.ones(1000)})
    save_checkpoint(path, {"epoch": 2, "w": torch.ones(1000)})
    assert load_checkpoint(path)["epoch"] == 2
    path.write_bytes(path.read_bytes()[:500])
    assert load_checkpoint(path)["epoch"] == 1
    path.with_name(path.name + ".previous").write_bytes(b"")
    assert load_checkpoint(path) is None


def test_hinge__by_hand():
    logits = torch.tensor([[2.0, 1.5, -1.0], [0.0, 0.0, 3.0]])
    found = hinge(lambda x: x, logits, torch.tensor([0, 1]))
    assert_close(found, ((0.5 + 0.0) / 3 + (1.0 + 4.0) / 3) / 2, 1e-6)
