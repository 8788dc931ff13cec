"""The sweep: forked equals alone, resumed equals uninterrupted, bit for bit; and what
phases and events do."""

import math
from functools import partial

import numpy as np
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
from clp_min.sparsity import prune
from clp_min.train import Setup, save_checkpoint

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
    """Stopped at every point in turn, the numbers come out the same."""
    whole = final_states(SCHEDULES)
    count = sum(1 for _ in sweep(setup(), SCHEDULES, seed=1))
    for stop in range(1, count):
        path, final = tmp_path / f"{stop}.pt", {}
        for attempt in range(2):
            for i, (_, state, names) in enumerate(
                sweep(setup(), SCHEDULES, 1, checkpoint=path, save_every=0.0, key="tests")
            ):
                final |= {name: everything(state) for name in names}
                if attempt == 0 and i == stop:
                    break
        assert all(same(whole[name], final[name]) for name in SCHEDULES), stop
    # finished: nothing is left to do
    assert [*sweep(setup(), SCHEDULES, 1, checkpoint=path, key="tests")] == []


@pytest.mark.parametrize("epochs", [1, 3])
def test_sweep__asked_to_stop_it_saves_and_nothing_is_yielded_twice(tmp_path, epochs):
    """However short the time since the last save."""
    points, final, path = [], {}, tmp_path / "run.pt"
    for _ in range(30):
        asked = iter([False] * (epochs - 1) + [True] * 30)
        saved = dict(checkpoint=path, save_every=1e9, key="tests", stop=lambda: next(asked))
        for point, state, names in sweep(setup(), SCHEDULES, 1, **saved):
            points.append((point, state.event, tuple(names)))
            final |= {name: everything(state) for name in names}
    whole = final_states(SCHEDULES)
    assert all(same(whole[name], final[name]) for name in SCHEDULES)
    seen = [(p, s.event, tuple(names)) for p, s, names in sweep(setup(), SCHEDULES, 1)]
    assert points == seen


def test_sweep__truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    path, final = tmp_path / "run.pt", {}
    saved = dict(checkpoint=path, key="tests")
    for i, _ in enumerate(sweep(setup(), SCHEDULES, 1, **saved, save_every=0.0)):
        if i == 12:
            break
    path.write_bytes(path.read_bytes()[:-2000])
    for _, state, names in sweep(setup(), SCHEDULES, 1, **saved):
        final |= {name: everything(state) for name in names}
    whole = final_states(SCHEDULES)
    assert final and all(same(whole[name], final[name]) for name in final)


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

    class Rule:
        def __init__(self):
            self.count = 0

        def __call__(self, state):
            asked.append(state.epoch)
            return state.epoch == 3

    rule = Rule()
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

    def lowest(model, x, y, n, generator, indices, step):
        seen.append((len(x), n, step))
        assert torch.equal(x, plain.x[indices]) and torch.equal(y, plain.y[indices])
        pools.append(indices)
        return torch.arange(n)

    def loss(model, x, y):
        used.append(x)
        return nn.functional.cross_entropy(model(x), y)

    used, pools, subset = [], [], torch.arange(40)
    phases = [Phase(1, subset=subset, loss=loss), Phase(2, select=lowest, pool=48, loss=loss)]
    state = [*sweep(plain, {"run": phases}, 0)][-1][1]
    first = used[0]
    # as many steps as without selection (96 / 32), each with a pool of its own from all of the data
    assert len(used) == 1 + 2 * 3 and [n for *n, _ in seen] == [[48, 32]] * 6
    assert [step for *_, step in seen] == [1, 2, 3, 4, 5, 6] and state.scored == 6 * 48
    assert all(len(pool.unique()) == 48 for pool in pools)
    assert len({tuple(pool.tolist()) for pool in pools}) == 6
    assert len(torch.cat(pools[:3]).unique()) > 64  # dealt pools would have 96 / 48 = 2 of them
    assert torch.equal(used[1], plain.x[pools[0][:32]])
    assert all((plain.x[:40] == one).flatten(1).all(1).any() for one in first) and len(first) == 32
    for pool in (31, 97):
        with pytest.raises(ValueError, match="pool must lie in 32..96"):
            [*sweep(plain, {"run": [Phase(1, select=lowest, pool=pool)]}, 0)]


class Pair:
    """A phase's field with two values that must train differently."""

    def __init__(self, name, one, other):
        self.name, self.one, self.other = name, one, other


def tripled(model, x, y):
    return 3 * nn.functional.cross_entropy(model(x), y)


def last_of_pool(model, x, y, n, generator, indices, step):
    return torch.arange(len(x) - n, len(x))


def first_of_pool(model, x, y, n, generator, indices, step):
    return torch.arange(n)


def louder(x, generator):
    return 2 * x


PAIRS = [
    Pair("deficit", FLIP, noise_images), Pair("lr", 0.1, 0.01), Pair("weight_decay", 0.0, 0.5),
    Pair("lr", exponential(0.1, 0.9), exponential(0.01, 0.9)), Pair("batch_size", 32, 16),
    Pair("augment", none, louder), Pair("subset", torch.arange(40), torch.arange(50, 90)),
    Pair("loss", tripled, None), Pair("clip", 0.01, math.inf),
    Pair("select", first_of_pool, last_of_pool), Pair("pool", 40, 80),
    Pair("event", redraw, restart_optimizer),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p.name)
def test_sweep__phases_that_differ_in_one_field_are_not_merged(pair):
    """Both, together and alone; the first epoch is shared, the second one is not."""
    both = dict(select=last_of_pool) if pair.name == "pool" else {}
    both |= dict(pool=64) if pair.name == "select" else {}
    schedules = {
        name: [Phase(1), Phase(1, **both, **{pair.name: value})]
        for name, value in (("one", pair.one), ("other", pair.other))
    }
    assert distinct_epochs(schedules) == 3
    together = final_states(schedules)
    assert not same(together["one"], together["other"])
    for name, phases in schedules.items():
        assert same(together[name], final_states({name: phases})[name])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: p.name)
def test_sweep__a_checkpoint_of_other_phases_is_refused(pair, tmp_path):
    def plan(value):
        more = dict(select=first_of_pool) if pair.name == "pool" else {}
        return {"run": [Phase(1), Phase(2, **more, **{pair.name: value})]}

    path, made = tmp_path / "run.pt", setup(lr=0.05)
    for epoch, *_ in sweep(made, plan(pair.one), 0, checkpoint=path, save_every=0.0):
        if epoch == 2:
            break
    with pytest.raises(ValueError, match="belongs to other schedules: remove"):
        next(sweep(made, plan(pair.other), 0, checkpoint=path))
    assert [e for e, *_ in sweep(made, plan(pair.one), 0, checkpoint=path)][-1] == 3


def test_sweep__a_checkpoint_of_other_data_set_up_or_seed_is_refused(tmp_path):
    path, plan = tmp_path / "run.pt", {"run": [Phase(3)]}
    plain = dict(lr=0.05)
    for epoch, *_ in sweep(setup(**plain), plan, 0, checkpoint=path, save_every=0.0):
        if epoch == 2:
            break
    x, y = DATA.train
    moved = x.clone()
    moved[5, 0, 0, 0] += 1e-6
    for changed, seed, what in (
        (plain | dict(lr=0.06), 0, "set-up"), (plain | dict(batch_size=16), 0, "set-up"),
        (plain | dict(model=models.small_cnn), 0, "set-up"),
        (plain | dict(optimizer=ADAM), 0, "set-up"),
        (plain | dict(x=moved), 0, "data"), (plain | dict(y=(y + 1) % 10), 0, "data"),
        (plain, 1, "seed"), (plain | dict(x=moved), 1, "seed and other data"),
    ):
        with pytest.raises(ValueError, match=f"belongs to other {what}: remove"):
            next(sweep(setup(**changed), plan, seed, checkpoint=path))
    with pytest.raises(ValueError, match="other schedules"):
        next(sweep(setup(**plain), {"run": [Phase(4)]}, 0, checkpoint=path))
    with pytest.raises(ValueError, match="other schedules"):
        next(sweep(setup(**plain), {"another": [Phase(3)]}, 0, checkpoint=path))
    # a closure has no name of its own: key= stands for it
    rate = lambda epoch: 0.05  # noqa: E731
    with pytest.raises(ValueError, match="lambda.*key="):
        next(sweep(setup(lr=rate), plan, 0, checkpoint=tmp_path / "other.pt"))
    with pytest.raises(ValueError, match="other set-up and other key"):
        next(sweep(setup(lr=rate), plan, 0, checkpoint=path, key="rate .05"))


def test_sweep__a_checkpoint_ahead_of_the_record_is_passed_over(tmp_path):
    path, plan, recorded = tmp_path / "run.pt", {"run": [Phase(3)]}, []
    settings = dict(checkpoint=path, save_every=0.0, measured=lambda: recorded)
    for epoch, *_ in sweep(setup(lr=0.05), plan, 0, **settings):
        recorded.append(epoch)
        if epoch == 2:
            break
    recorded.append(5)
    assert [e for e, *_ in sweep(setup(lr=0.05), plan, 0, **settings)] == [2, 3]
    recorded.remove(0)  # a line of the record is lost: from the start
    assert [e for e, *_ in sweep(setup(lr=0.05), plan, 0, **settings)] == [0, 1, 2, 3]


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, epoch):
        return self.rate


def constant(rate=0.1):
    return lambda epoch: rate


def scaled(factor, model, x, y):
    return float(factor) * nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize(
    "one, other",
    [
        (dict(lr=[0.1, 0.1].__getitem__), dict(lr=[0.1, 0.2].__getitem__)),
        (dict(lr={0: 0.1, 1: 0.1}.get), dict(lr={0: 0.1, 1: 0.3}.get)),
        (dict(lr=Slotted(0.1)), dict(lr=Slotted(0.2))),
        (dict(lr=constant()), dict(lr=constant(0.2))),
        (dict(clip=np.float32(0.01)), dict(clip=np.float32(9))),
        (dict(loss=partial(scaled, np.array(1.0))), dict(loss=partial(scaled, np.array(2.0)))),
        (dict(loss=partial(scaled, 1)), dict(loss=partial(scaled, True))),
    ],
)
def test_sweep__owners_that_look_alike_are_told_apart_or_need_a_key(one, other, tmp_path):
    path = tmp_path / "run.pt"

    def begin(settings):
        return next(sweep(setup(**{"lr": 0.1} | settings), {"a": [Phase(2)]}, 0, checkpoint=path))

    with pytest.raises(ValueError, match="key=|belongs to other set-up"):
        saved = dict(checkpoint=path, save_every=0.0)
        made = sweep(setup(**{"lr": 0.1} | one), {"a": [Phase(2)]}, 0, **saved)
        for epoch, *_ in made:
            if epoch == 2:
                break
        begin(other)


def test_sweep__steps_to_measure_are_part_of_the_owner(tmp_path):
    path, plan, made = tmp_path / "run.pt", {"a": [Phase(5)]}, setup(lr=0.1)
    for _ in sweep(made, plan, 0, at={12}, checkpoint=path, save_every=0.0):
        pass
    with pytest.raises(ValueError, match="other steps to be measured"):
        next(sweep(made, plan, 0, at={7, 12}, checkpoint=path))


@pytest.mark.parametrize("content", [{"version": 0}, [1, 2], {"owner": [], "stack": []}, None, 5])
def test_sweep__a_whole_checkpoint_of_something_else_is_one_line(content, tmp_path):
    save_checkpoint(tmp_path / "x", content)
    if content is None:
        return
    with pytest.raises(ValueError, match="is no checkpoint of a sweep: remove it"):
        next(sweep(setup(lr=0.1), {"a": [Phase(1)]}, 0, checkpoint=tmp_path / "x"))


def freeze(setup, state):
    for parameter in state.model[0].parameters():
        parameter.requires_grad_(False)


def slower_statistics(setup, state):
    state.model[1].momentum = 0.01


def other_head(setup, state):
    state.model[-1] = nn.Linear(6 * 64, 10, bias=False)
    restart_optimizer(setup, state)


def to_adam(setup, state):
    state.optimizer = torch.optim.Adam(state.model.parameters(), lr=0.01)


def test_sweep__what_an_event_did_survives_a_kill_or_is_refused(tmp_path):
    for event, refused in (
        (freeze, False), (slower_statistics, True), (other_head, True), (to_adam, True),
    ):
        plan, path = {"run": [Phase(1), Phase(3, event=event)]}, tmp_path / f"{event.__name__}.pt"
        whole = final_states(plan)["run"] if event is not to_adam else None
        for epoch, *_ in sweep(setup(), plan, 1, checkpoint=path, save_every=0.0, key="t"):
            if epoch == 3:
                break
        if refused:
            with pytest.raises(ValueError, match="an event changed the kind"):
                next(sweep(setup(), plan, 1, checkpoint=path, key="t"))
        else:
            *_, (_, state, _) = sweep(setup(), plan, 1, checkpoint=path, key="t")
            assert same(everything(state), whole)


def tighter(setup, state):
    next(iter(state.masks.values()))[:] = False


def test_sweep__masks_are_each_schedules_own_and_hold_in_a_redrawn_net():
    pruning = prune(0.5)
    plan = {
        "a": [Phase(1, event=pruning), Phase(2)],
        "b": [Phase(1, event=pruning), Phase(2, event=tighter)],
        "redrawn": [Phase(1, event=pruning), Phase(2, event=redraw)],
        "shrunk": [Phase(1, event=pruning), Phase(2, event=shrink_and_perturb(0.5, 0.5))],
    }
    together = final_states(plan)
    assert same(together["a"], final_states({"a": plan["a"]})["a"])
    for name in ("redrawn", "shrunk"):
        for _, state, _ in sweep(setup(), {name: plan[name]}, 1):
            for parameter, mask in (state.masks or {}).items():
                assert (dict(state.model.named_parameters())[parameter][~mask] == 0).all()


def test_sweep__every_epoch_draws_anew():
    """Order, augmentation, deficit, pools and dropout depend on the epoch, not on the seed alone:
    at rate 0 the batches of two epochs differ, and those of the same epoch of two runs agree."""
    seen = []

    def watch(model, x, y):
        seen.append((x.clone(), y.clone()))
        return nn.functional.cross_entropy(model(x), y)

    def batches(**settings):
        seen.clear()
        phase = {k: settings.pop(k) for k in ("deficit", "select") if k in settings}
        [*sweep(setup(lr=0.0, loss=watch, **settings), {"run": [Phase(2, **phase)]}, 0)]
        return list(seen)

    whole = DATA.train[0].flatten(1).sum(1)
    plain = batches(augment=None)
    order = [torch.cat([x for x, _ in plain[i : i + 3]]).flatten(1).sum(1) for i in (0, 3)]
    assert torch.allclose(order[0].sort()[0], whole.sort()[0], rtol=1e-3)
    assert not torch.equal(order[0], order[1])
    again = batches(augment=None)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(plain, again))
    # all else at full batch, where the order does not matter
    full = dict(batch_size=96)
    for settings in (dict(augment=crop_and_flip), dict(augment=None, deficit=noise_images)):
        first, second = (x for x, _ in batches(**full, **settings))
        sums = [part.flatten(1).sum(1).sort()[0] for part in (first, second)]
        assert not torch.allclose(*sums), settings
    losses = []
    dropping = setup(lr=0.0, augment=None, batch_size=96)
    for _, state, _ in sweep(dropping, {"run": [Phase(3)]}, 0):
        losses.append(state.loss)
    assert len(set(losses[1:])) == 3  # Dropout's masks


def test_sweep__loss_is_the_mean_over_the_batches_as_they_were_seen():
    seen = []

    def watch(model, x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        seen.append(float(loss.detach()))
        return loss

    for epoch, state, _ in sweep(setup(loss=watch), {"run": [Phase(2)]}, 0):
        if epoch:
            assert math.isclose(state.loss, sum(seen[-3:]) / 3, rel_tol=1e-6)


class Patience:
    """Stop after two epochs without a lower training loss than ``bar`` times the best."""

    def __init__(self, bar):
        self.bar, self.best, self.left = bar, math.inf, 2

    def __call__(self, state):
        better = state.loss < self.bar * self.best
        self.best, self.left = min(self.best, state.loss), 2 if better else self.left - 1
        return self.left == 0


def test_sweep__a_stop_rule_that_remembers_is_each_schedules_own(tmp_path):
    """Together = alone, and killed anywhere = not killed, although one object serves all."""
    rule = Patience(0.8)
    schedules = {
        "a": [Phase(9, until=rule), Phase(1, FLIP)], "b": [Phase(9, noise_images, until=rule)],
        "c": [Phase(1), Phase(9, until=rule)], "short": [Phase(2, until=rule)],
    }
    schedules["parts"] = [Phase(2, until=rule), Phase(4, until=rule)]
    schedules["whole"] = [Phase(6, until=rule)]
    alone = {name: final_states({name: plan})[name] for name, plan in schedules.items()}
    together = final_states(schedules)
    assert all(same(alone[name], together[name]) for name in schedules)
    assert (rule.best, rule.left) == (math.inf, 2)  # the given object is asked nothing
    count = sum(1 for _ in sweep(setup(), schedules, seed=1))
    for stop in range(1, count, 2):
        saved, final = dict(checkpoint=tmp_path / f"{stop}.pt", save_every=0.0, key="t"), {}
        for attempt in range(2):
            for i, (_, state, names) in enumerate(sweep(setup(), schedules, 1, **saved)):
                final |= {name: everything(state) for name in names}
                if attempt == 0 and i == stop:
                    break
        assert all(same(together[name], final[name]) for name in schedules), stop
    left = 2

    def counting(state):
        nonlocal left
        left -= 1
        return left == 0

    seen = []
    for shared in (
        counting, lambda state: seen.append(1), lambda state, seen=[]: len(seen) > 2,  # noqa: B006
        Patience(1.0).__call__, partial(Patience.__call__, rule),
    ):
        with pytest.raises(ValueError, match="object with"):
            Phase(3, until=shared)
    bar = 0.5
    Phase(3, until=lambda state: state.loss < bar)  # remembers nothing
    # what no checkpoint can hold is said when it is to be saved
    rule.seen = {1, 2}
    with pytest.raises(ValueError, match="'seen' is a set"):
        saved = dict(checkpoint=tmp_path / "x", save_every=0.0, key="t")
        [*sweep(setup(), {"a": [Phase(2, until=rule)]}, 0, **saved)]


def test_sweep__parameter_groups_keep_their_shares():
    """Biases at a tenth of the rate and without decay; another group with twice the decay."""

    def groups(parameters, lr, weight_decay):
        first, *middle, last = parameters
        return torch.optim.SGD(
            [
                {"params": [first]}, {"params": middle, "weight_decay": 2 * weight_decay},
                {"params": [last], "lr": lr / 10, "weight_decay": 0.0},
            ],
            lr=lr, weight_decay=weight_decay,
        )

    made = setup(lr=lambda epoch: 0.1 * epoch, weight_decay=0.01, optimizer=groups)  # a warm-up
    other = Phase(1, lr=0.5, weight_decay=0.1)
    plan, seen = {"a": [Phase(2), other, Phase(1, weight_decay=0.0)]}, []
    for epoch, state, _ in sweep(made, plan, 0):
        if epoch:
            seen.append([(g["lr"], g["weight_decay"]) for g in state.optimizer.param_groups])
    expected = [
        (0.0, 0.01), (0.1, 0.01), (0.5, 0.1), (0.3, 0.0),
    ]
    for found, (lr, decay) in zip(seen, expected):
        assert np.allclose(found, [(lr, decay), (lr, 2 * decay), (lr / 10, 0.0)])


def test_sweep__groups_without_decay_stay_so_where_the_set_up_has_none():
    def groups(parameters, lr, weight_decay):
        first, *others = parameters
        return torch.optim.SGD(
            [{"params": [first], "weight_decay": 0.0}, {"params": others}], lr=lr,
            weight_decay=weight_decay,
        )

    plan = {"a": [Phase(1), Phase(1, weight_decay=np.float64(0.2))]}
    *_, (_, state, _) = sweep(setup(optimizer=groups), plan, 0)
    assert [g["weight_decay"] for g in state.optimizer.param_groups] == [0.0, 0.2]


def test_sweep__batch_size_of_a_phase():
    plan = {"a": [Phase(1), Phase(1, batch_size=16), Phase(1, batch_size=96)]}
    assert [state.step for _, state, _ in sweep(setup(), plan, 0)] == [0, 3, 9, 10]
    with pytest.raises(ValueError, match="batch_size 97"):
        [*sweep(setup(), {"a": [Phase(1, batch_size=97)]}, 0)]


def test_sweep__a_net_that_is_not_finite_after_its_last_step_is_an_error():
    """One step at full batch: its loss is that before the step."""
    with pytest.raises(ArithmeticError, match="epoch 1"):
        [
            *sweep(
                setup(
                    model=lambda: models.linear_softmax((192,), 10), lr=1e38, batch_size=96,
                    augment=None, loss=lambda m, x, y: 1e6 * nn.functional.cross_entropy(m(x), y),
                ),
                {"run": [Phase(1)]}, 0,
            )
        ]


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
    for name in ("lr", "weight_decay", "clip"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            Phase(1, **{name: -1.0})
    for subset in (torch.ones(96, dtype=torch.bool), torch.ones(3), torch.ones(3, 1).long()):
        with pytest.raises(ValueError, match="subset must be"):
            Phase(1, subset=subset)
    for subset in (torch.tensor([0, 96]), torch.tensor([-1]), torch.tensor([]).long()):
        with pytest.raises(ValueError, match="subset must"):
            next(sweep(setup(), {"a": [Phase(1, subset=subset)]}, 0))
    with pytest.raises(ValueError, match="same name"):
        next(sweep(setup(), {1: [Phase(1)], "1": [Phase(2)]}, 0))
    with pytest.raises(ValueError, match="each step in at must be"):
        next(sweep(setup(), {"a": [Phase(1)]}, 0, at=set()))
    with pytest.raises(ValueError, match="batch_size"):
        setup(batch_size=97)
    with pytest.raises(ValueError, match="y must be an int64 tensor"):
        setup(y=DATA.train[1].float())
    with pytest.raises(ValueError, match="with n = 96"):
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
