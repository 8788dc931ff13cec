"""The sweep: forked equals alone, resumed equals uninterrupted, bit for bit; and what
phases and events do."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from clp_min import models, synthetic
from clp_min.augment import crop_and_flip, none
from clp_min.deficits import images, noise_images, vertical_flip
from clp_min.schedule import (
    Phase, redraw, restart_learning_rate, restart_optimizer, shrink_and_perturb,
)
from clp_min.schedule import exponential, new_training_run, phase_at
from clp_min.train import Setup

from adapters import branches, distinct_epochs, evaluate, sweep

DATA = synthetic.textures(0, 96, 20, size=8)
FLIP = images(vertical_flip)


def net():
    """Everything that could carry state: BatchNorm's statistics, dropout's random numbers."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(6 * 64, 10),
    )


def setup(**settings):
    x, y = DATA.train
    return Setup(
        **{
            "model": net, "x": x, "y": y, "batch_size": 32, "augment": crop_and_flip,
            "lr": lambda epoch: 0.05 * 0.9**epoch, **settings,
        }
    )


SCHEDULES = {
    "clean": [Phase(4)],
    "longer": [Phase(6)],
    "flip 1": [Phase(1, FLIP), Phase(3)],
    "flip 3": [Phase(3, FLIP), Phase(3)],
    "noise": [Phase(2), Phase(2, noise_images), Phase(1)],
    "shrunk": [Phase(2), Phase(2, event=shrink_and_perturb(0.5, 0.1))],
    "rates": [
        Phase(2), Phase(1, lr=0.01, weight_decay=0.1, augment=none, clip=0.1),
        Phase(2, event=restart_learning_rate),
    ],
    "until": [Phase(5, until=lambda state: state.epoch >= 2), Phase(1, FLIP)],
}
ADAM = partial(torch.optim.Adam)


def everything(state):
    """Every tensor and number of a state, flat."""
    tensors = [*state.model.state_dict().values()]
    for group in state.optimizer.param_groups:
        tensors += [
            v
            for p in group["params"]
            for v in [*state.optimizer.state[p].values()]
            if v is not None
        ]
    return [
        torch.as_tensor(v).clone()
        for v in [*tensors, state.epoch, state.step, state.lr_start, state.loss]
    ]


def final_states(schedules, runner=sweep, **settings):
    final = {}
    for _, state, names in runner(setup(**settings), schedules, seed=1):
        final |= {name: everything(state) for name in names}
    return final


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) or (x.isnan().all() and y.isnan().all()) for x, y in zip(a, b)
    )


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, momentum=0.9, nesterov=True), ADAM])
def test_sweep__forked_equals_alone(optimizer):
    together = final_states(SCHEDULES, optimizer=optimizer)
    for name, phases in SCHEDULES.items():
        assert same(together[name], final_states({name: phases}, optimizer=optimizer)[name]), name
    assert not same(together["clean"], together["flip 1"])


def test_sweep__measuring_changes_nothing():
    def measured(*arguments, **keywords):
        for point in sweep(*arguments, **keywords):
            evaluate(point[1].model, *DATA.test)
            torch.rand(7)
            yield point

    plain, watched = final_states(SCHEDULES), final_states(SCHEDULES, measured)
    assert all(same(plain[name], watched[name]) for name in SCHEDULES)


def test_sweep__trains_shared_beginnings_once():
    schedules = {d: [Phase(d, FLIP), Phase(4)] for d in (0, 1, 2, 5)}
    points = [(epoch, tuple(names)) for epoch, _, names in sweep(setup(), schedules, seed=0)]
    assert (
        points[0] == (0, (0, 1, 2, 5))
        and len(points) - 1 == distinct_epochs(schedules) == 5 + 4 * 4
    )
    for d in schedules:
        assert [epoch for epoch, names in points if d in names] == list(range(d + 5))


def test_sweep__different_seeds_differ_in_everything():
    weights = [
        next(sweep(setup(), {"run": [Phase(1)]}, seed))[1].model[0].weight for seed in (0, 1)
    ]
    assert not torch.equal(*weights)


def test_sweep__is_independent_of_the_global_generator():
    torch.manual_seed(1)
    first = final_states({"run": [Phase(2)]})["run"]
    torch.manual_seed(2)
    assert same(first, final_states({"run": [Phase(2)]})["run"])


def test_sweep__resumed_equals_uninterrupted(tmp_path):
    """Stopped at every single point in turn, the numbers come out the same."""
    whole = final_states(SCHEDULES)
    count = sum(1 for _ in sweep(setup(), SCHEDULES, seed=1))
    for stop in range(1, count, 3):
        path, final = tmp_path / f"{stop}.pt", {}
        for attempt in range(2):
            for i, (_, state, names) in enumerate(
                sweep(setup(), SCHEDULES, 1, checkpoint=path, save_every=0.0)
            ):
                final |= {name: everything(state) for name in names}
                if attempt == 0 and i == stop:
                    break
        assert all(same(whole[name], final[name]) for name in SCHEDULES), stop
    assert [*sweep(setup(), SCHEDULES, 1, checkpoint=path)] == []  # finished: nothing is left to do


def test_sweep__truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    path, final = tmp_path / "run.pt", {}
    for i, _ in enumerate(sweep(setup(), SCHEDULES, 1, checkpoint=path, save_every=0.0)):
        if i == 12:
            break
    path.write_bytes(path.read_bytes()[:-2000])
    for _, state, names in sweep(setup(), SCHEDULES, 1, checkpoint=path):
        final |= {name: everything(state) for name in names}
    whole = final_states(SCHEDULES)
    assert final and all(same(whole[name], final[name]) for name in final)
    with pytest.raises(ValueError, match="other schedules"):
        next(sweep(setup(), {"another": [Phase(1)]}, 1, checkpoint=path))


def test_sweep__at_yields_the_named_steps():
    schedules = {"a": [Phase(3)], "b": [Phase(2), Phase(1, FLIP)]}
    points = []
    for step, state, names in sweep(setup(), schedules, 0, at={0, 1, 4, 7}):
        points.append((step, state.step, tuple(names)))
        assert not any(module.training for module in state.model.modules())
    assert sorted(points) == [
        (0, 0, ("a", "b")), (1, 1, ("a", "b")), (4, 4, ("a", "b")), (7, 7, ("a",)), (7, 7, ("b",)),
    ]


def test_sweep__until_ends_a_phase_and_is_asked_once_per_epoch():
    asked = []

    def rule(state):
        asked.append(state.epoch)
        return state.epoch == 3

    epochs = [epoch for epoch, _, _ in sweep(setup(), {"run": [Phase(9, until=rule), Phase(2)]}, 0)]
    assert epochs == [0, 1, 2, 3, 4, 5] and asked == [1, 2, 3]


def test_sweep__event_yields_before_the_epoch():
    points = [
        (epoch, state.event)
        for epoch, state, _ in sweep(
            setup(), {"run": [Phase(1), Phase(1, event=restart_optimizer)]}, 0
        )
    ]
    assert points == [(0, False), (1, False), (1, True), (2, False)]


def test_sweep__redraw_and_restart():
    rates, weights, momenta = {}, {}, {}
    plan = {
        "run": [
            Phase(2), Phase(2, event=restart_learning_rate), Phase(1, event=redraw),
            Phase(1, event=restart_optimizer),
        ]
    }
    for epoch, state, _ in sweep(setup(optimizer=partial(torch.optim.SGD, momentum=0.9)), plan, 0):
        rates.setdefault(epoch, state.optimizer.param_groups[0]["lr"])
        weights[epoch, state.event] = state.model[0].weight.detach().clone()
        momenta[epoch, state.event] = len(state.optimizer.state)
    assert [round(rates[e] / 0.05, 6) for e in range(1, 5)] == [1, 0.9, 1, 0.9]
    assert (weights[4, True] - weights[4, False]).abs().max() > 0.01
    assert momenta[4, False] > 0 and momenta[4, True] == 0


def test_sweep__subset_and_selection():
    seen, plain = [], setup(augment=None, model=lambda: models.linear_softmax((192,), 10))

    def lowest(model, x, y, n, generator):
        seen.append((len(x), n))
        return torch.arange(n)

    def loss(model, x, y):
        used.append(x)
        return nn.functional.cross_entropy(model(x), y)

    used, subset = [], torch.arange(40)
    [
        *sweep(
            plain,
            {
                "run": [
                    Phase(1, subset=subset, loss=loss), Phase(1, select=lowest, pool=48, loss=loss),
                ]
            },
            0,
        )
    ]
    first = used[0]
    assert len(used) == 1 + 2 and seen == [(48, 32), (48, 32)]
    assert all((plain.x[:40] == one).flatten(1).all(1).any() for one in first) and len(first) == 32


def test_sweep__loss_that_becomes_nan_names_the_epoch():
    with pytest.raises(ArithmeticError, match="epoch 1"):
        [
            *sweep(
                setup(model=lambda: models.mlp((192,), 10, (8,)), lr=1e30, augment=None),
                {"run": [Phase(3)]}, 0,
            )
        ]


def test_sweep__bad_settings_are_refused():
    with pytest.raises(ValueError, match="epochs"):
        Phase(-1)
    with pytest.raises(ValueError, match="batch_size"):
        setup(batch_size=97)
    with pytest.raises(ValueError, match="labels"):
        setup(y=DATA.train[1].float())
    with pytest.raises(ValueError, match="same length"):
        setup(y=DATA.train[1][:5])


def test_distinct_epochs__counts_the_tree():
    rate = math.sqrt  # any function
    assert distinct_epochs({"a": [Phase(3)], "b": [Phase(5)]}) == 5
    assert distinct_epochs({"a": [Phase(3)], "b": [Phase(3, lr=0.1)]}) == 6
    assert (
        distinct_epochs({"a": [Phase(2), Phase(2, lr=rate)], "b": [Phase(2), Phase(1, lr=rate)]})
        == 4
    )
    assert (
        distinct_epochs({"a": [Phase(2), Phase(2)], "b": [Phase(2), Phase(2, event=redraw)]}) == 6
    )


def test_branches__share_no_epoch_and_lose_none():
    parts = branches(SCHEDULES | {"nothing": [Phase(0)]})
    assert sorted(name for part in parts for name in part) == sorted([*SCHEDULES, "nothing"])
    assert {frozenset(part) - {"nothing"} for part in parts} == {
        frozenset(SCHEDULES) - {"flip 1", "flip 3", "until"}, frozenset({"flip 1", "flip 3"}),
        frozenset({"until"}),
    }
    assert sum(map(distinct_epochs, parts)) == distinct_epochs(SCHEDULES)
    assert branches({"nothing": [Phase(0)]})[0].keys() == {"nothing"}


def test_branches__swept_one_by_one_end_in_the_same_weights():
    together = final_states(SCHEDULES)
    for part in branches(SCHEDULES):
        for name, state in final_states(part).items():
            assert all(map(torch.equal, state, together[name])), name


def test_phase_at__and_exponential():
    phases = [Phase(2), Phase(0), Phase(3)]
    found = [phases.index(phase_at(phases, epoch)) for epoch in (0, 1, 2, 4, 5, 9)]
    assert found == [0, 0, 2, 2, 2, 2]
    assert [exponential(0.5, 0.5)(epoch) for epoch in (0, 1, 3)] == [0.5, 0.25, 0.0625]


def test_new_training_run__forgets_momentum_and_restarts_the_rate():
    made = setup(augment=None, lr=exponential(0.1, 0.5))
    plan = {"a": [Phase(2), Phase(1, event=new_training_run)]}
    seen = [(s.lr_start, len(s.optimizer.state)) for _, s, _ in sweep(made, plan, 0) if s.event]
    assert seen == [(2, 0)]
