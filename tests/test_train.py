"""One step against the update written out; evaluation; shrink-perturb; checkpoints."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.deficits import images, vertical_flip
from clp_min.schedule import Phase, exponential
from clp_min.sparsity import prune, redraw_under_mask
from clp_min.train import (
    Setup, cross_entropy, current_data, fresh_state, hinge, load_checkpoint, save_checkpoint,
    state_from_dict,
)

import oracles
from adapters import (
    accuracy, batch_statistics, evaluate, magnitude_masks, shrink_perturb, sweep, training_step,
)
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


def test_evaluate__puts_every_modules_own_mode_back():
    """Also of a net in eval mode, and of one whose BatchNorm is frozen alone."""
    model, x, y = models.small_cnn(norm=True), torch.randn(9, 3, 16, 16), torch.arange(9)
    for prepare in (model.eval, model.train):
        prepare()
        frozen = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
        modes = [module.training for module in model.modules()]
        evaluate(model, x, y)
        assert [module.training for module in model.modules()] == modes and not frozen.training


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


def old_and_fresh():
    """Two nets with BatchNorm, the first with running statistics of its own, and their states."""
    model, fresh = models.small_cnn(norm=True).double(), models.small_cnn(norm=True).double()
    model(torch.randn(8, 3, 8, 8, dtype=torch.float64))
    states = ({k: v.clone() for k, v in m.state_dict().items()} for m in (model, fresh))
    return model, fresh, *states


def test_shrink_perturb__is_the_formula_in_place():
    model, fresh, old, other = old_and_fresh()
    shrink_perturb(model, fresh, 0.4, 0.1)
    for name, value in model.named_parameters():
        assert_close(value, 0.4 * old[name] + 0.1 * other[name], EXACT)
    assert all(torch.equal(v, other[k]) for k, v in fresh.state_dict().items())


def test_shrink_perturb__takes_the_buffers_of_the_fresh_net():
    model, fresh, _, other = old_and_fresh()
    shrink_perturb(model, fresh, 0.4, 0.1)
    for name, value in model.named_buffers():
        assert_close(value, other[name], EXACT)


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


def test_checkpoint__changed_or_foreign_files_give_the_one_before(tmp_path):
    """Every one of 300 flipped bits, and files of all kinds: never other numbers, never a
    traceback."""
    path, rng = tmp_path / "state.pt", np.random.default_rng(0)
    before = path.with_name(path.name + ".previous")
    save_checkpoint(path, {"epoch": 1, "w": torch.zeros(50)})
    save_checkpoint(path, {"epoch": 2, "w": torch.ones(50)})
    whole = path.read_bytes()
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        assert load_checkpoint(path)["epoch"] == 1
    torch.save({"epoch": 5}, tmp_path / "other.pt")
    for content in (b"hello world, this is no checkpoint", rng.bytes(5000), bytes(3000),
                    (tmp_path / "other.pt").read_bytes()):
        path.write_bytes(content)
        assert load_checkpoint(path)["epoch"] == 1
        before_content = before.read_bytes()
        before.unlink()
        assert load_checkpoint(path) is None
        before.write_bytes(before_content)
    path.unlink()
    path.mkdir()
    assert load_checkpoint(path)["epoch"] == 1


def test_batch_statistics__computes_what_training_mode_does():
    """In float64, for convolutions and vectors, although the running statistics are far off; the
    model itself does not move."""
    for make, shape in (
        (lambda: models.small_cnn(norm=True), (7, 3, 16, 16)),
        (lambda: models.mlp((12,), 5, (9, 8), norm=True), (6, 12)),
    ):
        model, x = make().double(), 3 * torch.randn(shape, dtype=torch.float64) + 1
        before = {k: v.clone() for k, v in model.state_dict().items()}
        measured = batch_statistics(model.eval(), x)
        assert not measured.training and not model.training
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        expected = copy.deepcopy(model).train()(x)
        assert_close(measured(x), expected, EXACT)
        assert (model(x) - expected).abs().max() > 0.01  # a fresh net's running statistics
        # and so do parts of x, one by one
        assert_close(torch.cat([measured(one[None]) for one in x]), expected, EXACT)


def test_batch_statistics__refuses_what_has_no_one_set_of_them():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(torch.relu(self.norm(input=x)))

    with pytest.raises(ValueError, match="used twice"):
        batch_statistics(Twice(), torch.randn(5, 3))
    with pytest.raises(ValueError, match="InstanceNorm"):
        batch_statistics(torch.nn.InstanceNorm1d(3, track_running_stats=True), torch.randn(5, 3, 4))


OPTIMIZERS = {
    "momentum": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam,
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True), "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sweep__pruned_weights_stay_zero_and_so_does_their_momentum(name, clip):
    """After the event and after every step, under decay; the others move; forks carry the masks."""
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    setup = Setup(
        model=lambda: models.mlp((6,), 3, (9, 8)), x=x, y=y, batch_size=10, lr=0.05,
        weight_decay=0.1, clip=clip, optimizer=OPTIMIZERS[name],
    )
    plan = {
        "pruned": [Phase(1), Phase(2, event=prune(0.7, ["5"]))],
        "redrawn": [Phase(1), Phase(1, event=prune(0.7, ["5"])), Phase(1, event=redraw_under_mask)],
        "dense": [Phase(3)],
    }
    for step, state, (run, *_) in sweep(setup, plan, 0, at=range(13)):
        assert state.masks is None or run != "dense"
        if state.masks is None:
            continue
        counted = 0
        for parameter, mask in state.masks.items():
            value = dict(state.model.named_parameters())[parameter]
            assert (value[~mask] == 0).all() and (value[mask] != 0).float().mean() > 0.9
            for memory in state.optimizer.state[value].values():
                if torch.is_tensor(memory) and memory.shape == value.shape:
                    assert (memory[~mask] == 0).all()
            counted += int((~mask).sum())
        assert counted == round(0.7 * (6 * 9 + 9 * 8))
        assert set(state.masks) == {"1.weight", "3.weight"}


def test_training_step__clip_does_not_count_pruned_gradients():
    model = models.linear_softmax((6,), 4).double()
    mask = {"1.weight": torch.rand(4, 6) < 0.5}
    with torch.no_grad():
        model[1].weight.mul_(mask["1.weight"])
    before = model[1].weight.detach().clone()
    x, y = 100 * torch.randn(8, 6, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    training_step(model, optimizer, x, y, clip=0.5, masks=mask)
    assert_close((model[1].weight - before).norm(), 0.5, 1e-5)  # all of it is spent on kept ones


def test_magnitude_masks__prune_the_smallest_exactly_and_globally():
    model = models.small_cnn((3, 8, 8), 4, widths=(4, 6), norm=True)
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    sizes = torch.cat([dict(model.named_parameters())[n].detach().abs().flatten() for n in names])
    for sparsity in (0.0, 0.1, 0.333, 0.5, 0.9, 0.98):
        masks = magnitude_masks(model, sparsity)
        assert list(masks) == names and all(m.dtype == torch.bool for m in masks.values())
        kept = torch.cat([masks[n].flatten() for n in names])
        assert int((~kept).sum()) == round(sparsity * len(sizes))
        if 0 < sparsity:
            assert sizes[~kept].max() <= sizes[kept].min()
    with torch.no_grad():  # ties: exactly as many still
        for p in model.parameters():
            p.fill_(0.3)
    pruned = sum(int((~m).sum()) for m in magnitude_masks(model, 0.5).values())
    assert pruned == round(0.5 * len(sizes))


def test_magnitude_masks__what_is_excluded_is_left_whole_and_not_counted():
    model = models.small_cnn((3, 8, 8), 4, widths=(4, 6), norm=True)
    name = [n for n, p in model.named_parameters() if p.dim() > 1][-1]
    for exclude in ([name.removesuffix(".weight")], [name]):
        masks = magnitude_masks(model, 0.5, exclude)
        assert name not in masks
        counted = sum(m.numel() for m in masks.values())
        assert sum(int((~m).sum()) for m in masks.values()) == round(0.5 * counted)
    net = models.resnet((3, 8, 8), 4, widths=(4, 6))  # a container's name covers all that is in it
    inside = [n for n, p in net.named_parameters() if p.dim() > 1 and n.startswith("3.")]
    assert inside and not set(inside) & set(magnitude_masks(net, 0.5, ["3"]))
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert list(magnitude_masks(tied, 0.5)) == ["0.weight"]


def test_magnitude_masks__refusals():
    model = models.small_cnn((3, 8, 8), 4, widths=(4, 6), norm=True)
    for bad in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="sparsity"):
            magnitude_masks(model, bad)
    for unknown in ("nothing", "1", "0.bias"):
        with pytest.raises(ValueError, match="exclude.*covers no weight"):
            magnitude_masks(model, 0.5, [unknown])
    with pytest.raises(ValueError, match="no weight"):
        magnitude_masks(torch.nn.LayerNorm(3), 0.5)


def test_sweep__mask_events_restart_rate_and_optimizer_and_forget_nothing_on_resume(tmp_path):
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    setup = Setup(
        model=partial(models.mlp, (6,), 3, (9, 8)), x=x, y=y, batch_size=10,
        lr=exponential(0.1, 0.5),
    )
    plan = {
        "run": [Phase(2), Phase(2, event=prune(0.5)), Phase(2, event=redraw_under_mask)],
        "alone": [Phase(2), Phase(2, event=prune(0.5)), Phase(2)],
    }
    rates, momenta, whole = {}, {}, {}
    for epoch, state, names in sweep(setup, plan, 0):
        if "run" in names:
            rates[epoch, state.event] = state.optimizer.param_groups[0]["lr"]
            momenta[epoch, state.event] = len(state.optimizer.state)
        whole[tuple(names), epoch, state.event] = [p.clone() for p in state.model.parameters()]
    assert [rates[e, False] for e in range(1, 7)] == [0.1, 0.05] * 3
    assert momenta[2, True] == momenta[4, True] == 0 and momenta[4, False] > 0
    for stop in range(1, len(whole)):
        saved = dict(checkpoint=tmp_path / f"{stop}.pt", save_every=0.0)
        for attempt in range(2):
            for i, (epoch, state, names) in enumerate(sweep(setup, plan, 0, **saved)):
                expected = whole[tuple(names), epoch, state.event]
                assert all(map(torch.equal, state.model.parameters(), expected))
                if attempt == 0 and i == stop:
                    break
    with pytest.raises(ValueError, match="prune comes before"):
        [*sweep(setup, {"a": [Phase(1, event=redraw_under_mask)]}, 0)]


def test_hinge__by_hand():
    logits = torch.tensor([[2.0, 1.5, -1.0], [0.0, 0.0, 3.0]])
    found = hinge(lambda x: x, logits, torch.tensor([0, 1]))
    assert_close(found, ((0.5 + 0.0) / 3 + (1.0 + 4.0) / 3) / 2, 1e-6)


def test_current_data__is_what_the_phase_shows():
    """As they are before the first epoch and in a phase without a deficit, changed within one."""
    x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 2
    setup = Setup(lambda: models.linear_softmax((1, 4, 4), 2), x, y, batch_size=4)
    upside_down, seen = images(vertical_flip), {}
    for epoch, state, _ in sweep(setup, {"run": [Phase(1, upside_down), Phase(1)]}, 0):
        seen[epoch] = current_data(setup, state, slice(2, 5))
    for epoch, expected in {0: x, 1: vertical_flip(x), 2: x}.items():
        assert torch.equal(seen[epoch][0], expected[2:5]), epoch
        assert torch.equal(seen[epoch][1], y[2:5])


def test_state_from_dict__another_optimizer_than_the_set_ups_is_refused():
    net = partial(models.linear_softmax, (6,), 2)
    setup = Setup(net, torch.randn(8, 6), torch.arange(8) % 2, batch_size=4)
    state = fresh_state(setup, 0)
    again = state_from_dict(setup, state.to_dict())
    assert torch.equal(again.model[1].weight, state.model[1].weight)
    state.optimizer = torch.optim.Adam(state.model.parameters())
    with pytest.raises(ValueError, match="kind of net or optimizer"):
        state_from_dict(setup, state.to_dict())


def test_fresh_state__one_example_goes_through_the_net():
    class Counting(torch.nn.Flatten):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    seen = []
    setup = Setup(Counting, torch.randn(8, 2), torch.arange(8) % 2, batch_size=4,
                  optimizer=lambda parameters, lr, weight_decay: torch.optim.SGD(
                      [torch.zeros(1, requires_grad=True)], lr))
    fresh_state(setup, 0)
    assert seen == [1]


def test_training_step__images_reach_the_net_channels_last_when_asked():
    class Noting(torch.nn.Flatten):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    seen, x = [], torch.randn(4, 3, 2, 2)
    net = torch.nn.Sequential(Noting(), torch.nn.Linear(12, 2))
    for asked in (False, True):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        training_step(net, optimizer, x, torch.arange(4) % 2, channels_last=asked)
    assert seen == [False, True]


def test_training_step__tf32_is_on_forward_and_backward_and_nowhere_else():
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn

    class Noting(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            seen.append([kind.allow_tf32 for kind in kinds])
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            seen.append([kind.allow_tf32 for kind in kinds])
            return gradient

    def loss(model, x, y):
        return Noting.apply(model(x)).sum()

    seen, before, net = [], [kind.allow_tf32 for kind in kinds], torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    try:
        for asked in (False, True):
            for kind in kinds:
                kind.allow_tf32 = False
            training_step(net, optimizer, torch.ones(4, 2), torch.arange(4), loss, tf32=asked)
            assert not any(kind.allow_tf32 for kind in kinds)
    finally:
        for kind, value in zip(kinds, before):
            kind.allow_tf32 = value
    assert seen == [[False] * 2] * 2 + [[True] * 2] * 2
