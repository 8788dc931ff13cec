"""What the sparse scripts measure and compare: counts under label noise, ranks, permutations, equal
updates and equal pools."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import sparse
import sparse_noise
import sparse_path
import sparse_regimes
import sparse_selection
import torch
from torch import nn

from clp_min import models
from clp_min.schedule import Phase, sweep
from clp_min.selection import uniform
from clp_min.sparsity import prune, prune_and_redraw
from clp_min.train import Setup, batch_statistics

import oracles
from adapters import magnitude_masks
from compare import EXACT, assert_close, assert_mean, draws


def test_noise_measure__memorised_counts_changed_labels_alone():
    """A net that says the given labels has memorised all of the changed ones and is right on none;
    one that says the true labels the reverse. A redrawn label that stayed right is clean."""
    true = torch.arange(40) % 4
    given = true.clone()
    given[:10] = (true[:10] + 1) % 4  # 10 changed; others were redrawn to the same label
    identity = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        identity.weight.copy_(10 * torch.eye(4))
    said = {}
    for name, labels in (("given", given), ("true", true)):
        x = nn.functional.one_hot(labels, 4).float()
        run = SimpleNamespace(
            seed=0, data=SimpleNamespace(train=(x, true), test=(x, true)),
            setup=SimpleNamespace(y=given),
        )
        state = SimpleNamespace(model=identity.eval(), event=False, epoch=1, masks=None)
        study = SimpleNamespace(
            config=SimpleNamespace(fisher_examples=8, labels="expected"), wants=lambda *a: False
        )
        said[name] = sparse_noise.measure(study, run, state)
    keys = "memorised", "correct_changed", "correct_clean", "train_accuracy"
    assert [said["given"][key] for key in keys] == [100, 0, 100, 100]
    assert [said["true"][key] for key in keys] == [0, 100, 100, 75]


def test_noise_measure__traces_of_changed_and_clean_labels_over_kept_weights():
    """By the oracle's double loop, on the examples whose label was changed and on the others, the
    pruned weights not counted; at an event the net has the measured images' own statistics."""
    torch.manual_seed(0)
    net = models.mlp((4,), 3, (6,), norm=True).double().eval()
    masks = magnitude_masks(net, 0.5)
    x, true = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    given = torch.where(torch.arange(20) < 8, (true + 1) % 3, true)
    run = SimpleNamespace(
        seed=0, data=SimpleNamespace(train=(x, true), test=(x, true)),
        setup=SimpleNamespace(y=given),
    )
    config = SimpleNamespace(fisher_examples=10, labels="expected")
    study = SimpleNamespace(config=config, wants=lambda *panels: True)
    for event in (False, True):
        state = SimpleNamespace(model=net, event=event, epoch=3, masks=masks)
        found = sparse_noise.measure(study, run, state)
        own = batch_statistics(net, x[:10]) if event else net
        for kind, part in (("changed", x[:5]), ("clean", x[8:13])):
            expected = oracles.fisher_trace(own, part, masks)
            assert_close(found[f"fisher_{kind}"], expected, EXACT)


def test_noise_prepare__redraws_three_tenths_of_the_training_labels():
    study = sparse_noise.Study(
        sparse_noise.__file__, sparse_noise.PANELS, sparse_noise.CONFIGS,
        ["--scale", "smoke", "--dry-run"],
    )
    data, setup = sparse_noise.prepare(study, 0)
    again = sparse_noise.prepare(study, 0)[1]
    changed = int((setup.y != data.train[1]).sum())
    assert torch.equal(setup.x, data.train[0]) and torch.equal(setup.y, again.y)
    assert 0.15 * 200 < changed <= 0.3 * 200  # of 60 redrawn about a tenth stay right


def test_area__is_how_often_a_positive_scores_higher():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 6, 40).astype(float))  # with ties
    positive = torch.from_numpy(rng.random(40) < 0.4)
    up, down = scores[positive].tolist(), scores[~positive].tolist()
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in up for b in down])
    assert_close(sparse_regimes.area(scores, positive), expected, EXACT)
    assert sparse_regimes.area(scores, positive | True) == 0.5


def test_above_chance__null_and_planted():
    """No relation: mean 0 over 100 draws. All of one class on top: far above."""
    c, rng = SimpleNamespace(permutations=100), draws(0)
    null = []
    for _ in range(100):
        labels = rng.integers(0, 10, 400)
        one, other = rng.permutation(400)[:20], rng.permutation(400)[:20]
        null.append(sparse_path.above_chance(labels, one, other, 10, c, rng))
    for column in np.array(null).T:
        assert_mean(column, 0.0, detects=1.0)
    labels = np.arange(400) % 10
    one, other = (np.flatnonzero(labels == k)[:20] for k in (0, 1))
    assert min(sparse_path.above_chance(labels, one, other, 10, c, rng)) > 5
    assert abs(sparse_path.correlation(np.arange(9.0), -(np.arange(9.0) ** 3)) + 1) < 1e-12


def test_sweep__controls_see_the_same_pools_and_make_as_many_updates():
    """Two ways of choosing, one seed: the same pool in every step, whatever is chosen from it."""
    pools = {"lowest": [], "uniform": []}

    def noted(name, model, x, y, n, generator, indices, step):
        pools[name].append(indices.tolist())
        found = uniform(model, x, y, n, generator, indices, step)
        return found if name == "uniform" else torch.arange(n)

    x = torch.randn(60, 5)
    setup = Setup(partial(models.mlp, (5,), 3), x, torch.arange(60) % 3, batch_size=10)
    plan = {k: [Phase(3, select=partial(noted, k), pool=30)] for k in pools}
    steps = {names[0]: state.step for _, state, names in sweep(setup, plan, 0)}
    assert pools["lowest"] == pools["uniform"] and set(steps.values()) == {18}


def test_selection_schedules__lengths_masks_and_learning_rates():
    """All arms train as many sparse epochs but "longer", which trains as many forward passes with
    its milestones as much later; hardest_first begins at the first sparse step."""
    c = sparse_selection.CONFIGS["shapes", "quick"]
    x = torch.randn(1000, 1, 16, 16)
    setup = Setup(partial(c.net, (1, 16, 16), 10), x, torch.arange(1000) % 10, batch_size=100)
    study = SimpleNamespace(config=c, wants=lambda *panels: True)
    plan = sparse_selection.schedules(study, setup)
    for name, phases in plan.items():
        lengths = [phase.epochs for phase in phases]
        events = [phase.event for phase in phases]
        if name == "dense":
            continue
        whole = 4 * c.sparse_epochs if "longer" in name else c.sparse_epochs
        assert lengths[0] == c.dense_epochs and sum(lengths[1:]) == whole, name
        assert [event is not None for event in events] == [False, True] + [False] * (
            len(phases) - 2
        )
        sparsity, excluded = events[1].args
        assert sparsity == float(name.split()[-1]) and excluded == ("5",)
        rate = phases[1].lr
        late = 4 if "longer" in name else 1
        assert rate(25 * late - 1) == c.lr and rate(25 * late) == pytest.approx(c.lr / 10)
    assert plan["hardest first 0.85"][1].select.args[:2] == (c.dense_epochs * 10, 100)
    assert len(plan["reducible 0.85"][1].subset) == 800


def test_solutions__the_same_epochs_and_rates_for_all_arms():
    c = sparse.Config()
    plan = sparse.solutions(c, ["9"], [0.9], tuple(sparse.ARMS))
    lengths = {name: [p.epochs for p in phases] for name, phases in plan.items()}
    assert lengths.pop("dense") == [200] and set(map(tuple, lengths.values())) == {(200, 250)}
    for phases in list(plan.values())[1:]:
        rates = [phases[1].lr(epoch) for epoch in (0, 99, 100, 150, 200)]
        assert_close(rates, [0.1, 0.1, 0.01, 0.001, 1e-4], EXACT)
        assert phases[1].event.args == (0.9, ("9",))


@pytest.mark.slow
def test_sweep__the_papers_resnet_under_masks():
    """ResNet-32 x 4, sparsity .9 without the last layer: one real step leaves exactly the pruned
    weights at 0, and .1 of the others' number is kept."""
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    setup = Setup(partial(models.resnet32x4, classes=100), x, y, batch_size=8, lr=0.1)
    last = sparse.last_layer(setup)
    for event in (prune(0.9, last), prune_and_redraw(0.9, last)):
        plan = {"a": [Phase(1, event=event)]}
        for epoch, state, _ in sweep(setup, plan, 0):
            pass
        kept = sum(int(mask.sum()) for mask in state.masks.values())
        total = sum(mask.numel() for mask in state.masks.values())
        assert kept == total - round(0.9 * total) and len(state.masks) == 33
        for name, p in state.model.named_parameters():
            if name in state.masks:
                assert torch.equal(p != 0, state.masks[name]), name
    assert epoch == 1


def small_unit(n=40):
    """(unit, Init-S's and Sol-F's kept states under one mask) of a small net with BatchNorm."""
    torch.manual_seed(0)
    net = partial(models.mlp, (4,), 3, (6,), norm=True)
    x, y = torch.randn(n, 4), torch.arange(n) % 3
    data = SimpleNamespace(train=(x, y), test=(x[:20] + 0.1, y[:20]), classes=3)
    kept, masks = {}, magnitude_masks(net(), 0.5)
    for name in ("start", "solution", "finetuned", "scratch"):
        model = batch_statistics(net(), x)
        for key, p in model.named_parameters():
            p.data *= masks.get(key, torch.tensor(True))
        kept[name] = {"model": model.state_dict(), "masks": masks}
    return SimpleNamespace(seed=0, data=data, setup=Setup(net, x, y, batch_size=10)), kept


class Log:
    """What a script logs, by point."""

    def __init__(self):
        self.values = {}

    def series(self, seed, name, key):
        found = [p for p, row in self.values.items() if key in row]
        return found, [self.values[p][key] for p in found]

    def add(self, seed, names, point, **values):
        self.values.setdefault(point, {}).update(values)


def study_of(kept, **config):
    c = SimpleNamespace(fisher_examples=30, labels="expected", **config)
    return SimpleNamespace(config=c, log=Log(), kept=lambda seed, name: kept[name])


def test_path_walk__ends_are_the_two_nets_and_cosines_are_plain_gradients():
    """Losses at alpha 0 and 1 are those of Init-S and Sol-F; the mean cosine in the middle is that
    of each example's own descent over kept weights, with statistics of the measured images."""
    unit, kept = small_unit()
    alphas = (0.0, 0.5, 1.0)
    study = study_of(kept, alphas=alphas, upper=0.1, far=1.0, permutations=20)
    sparse_path.walk(study, unit)
    found, model = study.log.values, unit.setup.model().eval()
    for alpha, name in ((0.0, "start"), (1.0, "solution")):
        model.load_state_dict(kept[name]["model"])
        loss = nn.functional.cross_entropy(model(unit.data.test[0]), unit.data.test[1])
        assert_close(found[alpha]["test_loss_interpolated"], float(loss.detach()), 1e-5)
    start, end = ({k: v.double() for k, v in kept[n]["model"].items()} for n in
                  ("start", "solution"))
    model.load_state_dict({k: ((start[k] + end[k]) / 2) for k in start})
    model = batch_statistics(model, unit.data.train[0][:30]).double()
    masks, cosines = kept["solution"]["masks"], []
    for one, label in zip(unit.data.train[0][:30].double(), unit.data.train[1]):
        gradient = oracles.example_gradient(model, one, int(label))
        own = {k: -g * masks.get(k, 1) for k, g in gradient.items()}
        dot = sum(float((g * (end[k] - start[k])).sum()) for k, g in own.items())
        sizes = [sum(float(part.square().sum()) for part in parts) ** 0.5 for parts in
                 (own.values(), [(end[k] - start[k]) * masks.get(k, 1) for k in own])]
        cosines.append(dot / (sizes[0] * sizes[1]))
    assert_close(found[0.5]["cosine"], np.mean(cosines), 1e-4)
    assert_close(found[0.5]["positive"], 100 * np.mean(np.array(cosines) > 0), EXACT)
    before = dict(found[0.5])
    sparse_path.walk(study, unit)  # what is done is not done again
    assert found[0.5] == before


def test_regimes_compare__disagreement_by_hand():
    unit, kept = small_unit()
    study = study_of(kept, generalisation=0.5, dense_epochs=1, sparse_epochs=1)
    sparse_regimes.compare(study, unit)
    [found], said, model = study.log.values.values(), {}, unit.setup.model().eval()
    x, y = unit.data.test
    for arm in ("finetuned", "scratch"):
        model.load_state_dict(kept[arm]["model"])
        said[arm] = model(x).detach()
    apart = said["finetuned"].argmax(1) != said["scratch"].argmax(1)
    assert_close(found["disagreement"], float(apart.double().mean()), EXACT)
    loss = nn.functional.cross_entropy(said["scratch"], y, reduction="none")
    assert_close(found["areas"][1], sparse_regimes.area(loss, apart), EXACT)
    traces = torch.tensor([oracles.fisher_trace(model, one[None], kept["scratch"]["masks"])
                           for one in x])
    assert_close(found["areas"][0], sparse_regimes.area(traces, apart), 1e-9)


def test_selection_holdout__the_small_net_sees_the_holdout_set_alone():
    """A fifth, the rest is what Algorithm 3 trains on; traces of all examples under the net."""
    seen = set()

    class Noting(nn.Module):
        def forward(self, x):
            if self.training:
                seen.update(x[:, 0].round().int().tolist())
            return x / 50

    x = torch.arange(50.0)[:, None] * torch.ones(3)
    setup = Setup(partial(models.mlp, (3,), 3), x, torch.arange(50) % 3, batch_size=10)

    def small_net(shape, classes):
        return nn.Sequential(Noting(), nn.Linear(3, classes))

    study = study_of({}, holdout=0.2, dense_epochs=2, small_net=small_net)
    study.classes, study.work = 3, SimpleNamespace(epochs_done=0)
    rest, traces = sparse_selection.holdout(study, 0, setup)
    assert len(rest) == 40 and seen == set(range(50)) - set(rest.tolist())
    assert traces.shape == (50,) and (traces > 0).all()
