"""What the scripts on the timing of regularisation and on warm starts train: equal numbers of
epochs, arms that begin alike, the stop rule."""

from types import SimpleNamespace

import ash
import ash_shrink_perturb
import ash_warm_start
import golatkar_timing
import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.schedule import Phase, distinct_epochs, sweep
from clp_min.train import Setup, accuracy, fresh_model

from adapters import shrink_and_perturb


@pytest.mark.parametrize("rate", golatkar_timing.RATES)
@pytest.mark.parametrize("kind", golatkar_timing.KINDS)
def test_golatkar_schedules__equal_totals_and_equal_numbers_of_regularised_epochs(kind, rate):
    """All train as long; windows are a quarter each; a restarted window and its control restart at
    the same epoch; what begins alike is trained once."""
    c = golatkar_timing.CONFIGS["shapes", "quick"]
    plan = golatkar_timing.schedules(c, f"{kind}, {rate}")
    for name, phases in plan.items():
        assert sum(p.epochs for p in phases) == c.epochs
        used = sum(p.epochs for p in phases
                   if (p.weight_decay or p.augment) and p.weight_decay in (None, c.weight_decay))
        word, _, place = name.partition(" ")
        expected = {"none": 0, "plain": 0, "all": c.epochs, "window": c.epochs // 4}
        expected |= {"until": int(place or 0), "after": c.epochs - int(place or 0)}
        assert used == expected[word], name
        for phase in phases:
            both = phase.weight_decay is not None, phase.augment is not None
            assert both in ((False, False), (kind != "augment", kind != "decay"))
    if rate == "restarted":
        for start in golatkar_timing.quarters(c):
            events = [[p.event for p in plan[f"{n} {start}"]] for n in ("window", "plain")]
            assert events[0] == events[1] and (events[0][1] is None) == (start == 0)
    assert distinct_epochs(plan) < sum(p.epochs for phases in plan.values() for p in phases)


def small_setup(n=60):
    torch.manual_seed(0)
    x, y = torch.randn(n, 1, 6, 6), torch.arange(n) % 3
    x += 2 * torch.randn(3, 1, 6, 6)[y]

    def net():
        return models.small_cnn((1, 6, 6), 3, (4, 6), norm=True)

    return Setup(net, x, y, batch_size=10, lr=0.01, optimizer=torch.optim.Adam)


def test_shrink_and_perturb__every_arm_begins_alike():
    """Warm is shrink 1, perturb 0: after the event all arms have an optimizer without memory and
    the buffers of a new net; warm has the parameters of before, to the bit, cold those of a new
    draw."""
    setup, found = small_setup(), {}
    plan = {"stay": [Phase(3)]}
    for name, numbers in {"warm": (1.0, 0.0), "cold": (0.0, 1.0), "both": (0.4, 0.1)}.items():
        plan[name] = [Phase(2), Phase(1, event=shrink_and_perturb(*numbers))]
    for epoch, state, names in sweep(setup, plan, 0):
        if epoch == 2 and not state.event:
            before = [p.clone() for p in state.model.parameters()]
        if state.event:
            assert not state.optimizer.state, names
            found[names[0]] = [p.clone() for p in state.model.parameters()]
            fresh = fresh_model(setup, 0, 2, "redraw")
            for own, new in zip(state.model.buffers(), fresh.buffers()):
                assert torch.equal(own, new), names
    new = list(fresh.parameters())
    arms = (found[name] for name in ("warm", "cold", "both"))
    for old, drawn, warm, cold, both in zip(before, new, *arms):
        assert torch.equal(warm, old) and torch.equal(cold, drawn)
        assert torch.allclose(both, 0.4 * old + 0.1 * drawn)


def test_ash_plans__no_event_before_the_first_stage_and_one_before_each_other():
    """Nothing is shrunk before the first stage (the authors' code does); every later one begins
    with a new optimizer; the halves share no image; rounds grow to all."""
    setup = small_setup()
    wants = SimpleNamespace(wants=lambda *panels: True)
    c = ash_warm_start.CONFIGS["shapes", "quick"]
    plans = [ash_warm_start.schedules(SimpleNamespace(config=c, **vars(wants)), setup, 0, "")]
    online = ash_shrink_perturb.CONFIGS["shapes", "quick"]
    plans += [ash_shrink_perturb.stages_of(online, setup, 0, label) for label in ("", "rounds")]
    for plan in plans:
        for phases in plan.values():
            assert [p.event is not None for p in phases] == [False] + [True] * (len(phases) - 1)
    first, rest = ash.halves(c, setup, 0)
    assert len(first) == 30 and sorted([*first.tolist(), *rest.tolist()]) == list(range(60))
    sizes = [len(p.subset) for p in plans[2]["warm"]]
    assert sizes == [20, 40, 60] and set(plans[2]["warm"][0].subset.tolist()) <= set(range(60))


def test_ash_fitted__ends_so_many_epochs_after_the_phases_own_data_are_fitted():
    setup = small_setup()
    half = torch.arange(0, 60, 2)
    c = SimpleNamespace(target=90.0, more=2, most=60)
    rule, seen, last = ash.fitted(setup, c.target, c.more), [], []
    plan = {"a": [Phase(c.most, subset=half, until=rule)], "b": [Phase(3, until=rule)]}
    for epoch, state, names in sweep(setup, plan, 0):
        if names == ["a"] and epoch:
            seen.append(accuracy(state.model, setup.x[half], setup.y[half]))
            last.append(ash.is_last(c, state))
        elif names == ["b"]:
            short = ash.is_last(c, state)
    reached = int(np.argmax(np.array(seen) >= c.target))
    assert seen[reached] >= c.target and len(seen) == reached + 1 + c.more
    assert last == [False] * (len(seen) - 1) + [True] and short
    assert rule.epochs == 0  # the given object is asked nothing


def test_towards_init__is_the_distance_from_the_seeds_first_weights():
    setup = small_setup()
    loss = ash_shrink_perturb.TowardsInit(setup, 0, 0.5)
    model, first = fresh_model(setup, 1, "init"), fresh_model(setup, 0, "init")
    expected = torch.nn.functional.cross_entropy(model(setup.x), setup.y)
    for p, q in zip(model.parameters(), first.parameters()):
        expected = expected + 0.5 * (p - q).square().sum()
    assert torch.allclose(loss(model, setup.x, setup.y), expected, rtol=1e-5)
