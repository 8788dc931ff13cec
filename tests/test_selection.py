"""Algorithms 1 to 3 and their relatives: what they choose, from which pool; the penalty; masks,
cosines and interpolation of sparse nets."""

from functools import partial

import numpy as np
import pytest
import torch

from clp_min import models
from clp_min.schedule import Phase, step_decay
from clp_min.selection import (
    bilevel, by_fisher, fisher_penalty, fisher_scores, hardest_first, nonzero_masks, reducible,
    uniform,
)
from clp_min.sparsity import prune, prune_and_redraw, prune_and_rewind, share_kept
from clp_min.train import Setup, batch_statistics, cross_entropy, fresh_model

import oracles
from adapters import (
    fisher_trace, flat_parameters, full_gradient, gradient_cosines, interpolated, magnitude_masks,
    per_example_gradient_norms, select_highest, select_lowest, select_reducible, sweep,
)
from compare import EXACT, assert_close, assert_mean


def pruned_net(seed=0, norm=False):
    torch.manual_seed(seed)
    net = models.mlp((6,), 4, (8,), norm=norm).double().eval()
    masks = magnitude_masks(net, 0.5)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name in masks:
                p.mul_(masks[name])
    x = torch.randn(20, 6, dtype=torch.float64)
    return net, masks, x, torch.arange(20) % 4


SCORES = torch.tensor([3.0, 1.0, 2.0, 1.0, 3.0])


def refuses(choose):
    for scores, n in ((SCORES, 0), (SCORES, 6), (SCORES[None], 1)):
        with pytest.raises(ValueError, match="scores must|n must be a whole number in 1..5"):
            choose(scores, n)
    with pytest.raises(ValueError, match="nan"):
        choose(torch.tensor([1.0, float("nan")]), 1)


def test_select_lowest__order_and_ties():
    assert select_lowest(SCORES, 3).tolist() == [1, 3, 2]
    refuses(select_lowest)


def test_select_highest__order_and_ties():
    assert select_highest(SCORES, 3).tolist() == [0, 4, 2]
    refuses(select_highest)


def test_select_reducible__is_the_difference():
    holdout = torch.tensor([3.0, 0.0, 0.0, 1.0, 1.0])
    assert select_reducible(SCORES, holdout, 2).tolist() == [2, 4]
    refuses(lambda scores, n: select_reducible(scores, 0 * scores, n))
    with pytest.raises(ValueError, match="with m = 5"):
        select_reducible(SCORES, holdout[:3], 2)


def test_nonzero_masks__are_the_states_own_through_training():
    """Momentum, decay and clip do not bring a pruned weight back, nor take a kept one to 0."""
    x = torch.randn(64, 1, 4, 4)
    net = partial(models.small_cnn, (1, 4, 4), 3, (4, 4), norm=True, pool=1)
    setup = Setup(net, x, torch.arange(64) % 3, batch_size=16, weight_decay=0.01, clip=0.5)
    plan = {"a": [Phase(1), Phase(3, event=prune_and_redraw(0.6, ["8"]))]}
    for epoch, state, _ in sweep(setup, plan, 0):
        if state.masks is not None:
            found = nonzero_masks(state.model)
            assert all(torch.equal(found[name], mask) for name, mask in state.masks.items())
    assert epoch == 4


def test_nonzero_masks__a_layer_that_begins_at_zero_is_kept():
    net = models.mlp((3,), 2, (4,))
    torch.nn.init.zeros_(net[3].weight)
    with torch.no_grad():
        net[1].weight[0] = 0.0
    found = nonzero_masks(net)
    assert found["3.weight"].all() and found["1.weight"].sum() == 9


def test_fisher_scores__are_the_exact_traces_of_kept_weights():
    net, masks, x, _ = pruned_net()
    expected = [oracles.fisher_trace(net, one[None], masks) for one in x]
    assert_close(fisher_scores(net, x), expected, EXACT)


def test_by_fisher__and_the_others_choose_what_they_say():
    """On a pool of 20, n = 5: by the oracle's traces and losses."""
    net, masks, x, y = pruned_net(3)
    g, places = torch.Generator().manual_seed(0), torch.arange(100, 120)
    call = (net, x, y, 5, g, places, 7)
    traces = np.array([oracles.fisher_trace(net, one[None], masks) for one in x])
    order = np.argsort(traces)
    assert by_fisher(select_lowest)(*call).tolist() == order[:5].tolist()
    assert by_fisher(select_highest)(*call).tolist() == order[::-1][:5].tolist()
    held = torch.zeros(200, dtype=torch.float64)
    held[100:120] = torch.linspace(0, 50, 20)
    expected = np.argsort(-(traces - held[100:120].numpy()), kind="stable")[:5]
    assert reducible(held)(*call).tolist() == expected.tolist()
    losses = -torch.log_softmax(net(x), 1)[torch.arange(20), y].detach().numpy()
    first = np.argsort(-losses, kind="stable")[:10]
    both = first[np.argsort(-traces[first], kind="stable")[:5]]
    assert bilevel()(*call).tolist() == both.tolist()
    chosen = uniform(*call)
    assert len(set(chosen.tolist())) == 5 and chosen.max() < 20


def test_hardest_first__falls_from_the_whole_pool_to_uniform():
    """At its start the highest of all 20; half-way the highest of the first 12 or 13; later the
    first 5 as they come, without scoring."""
    net, masks, x, y = pruned_net(4)
    traces = np.array([oracles.fisher_trace(net, one[None], masks) for one in x])
    choose = hardest_first(100, 40)

    def at(step):
        return choose(net, x, y, 5, None, None, step).tolist()

    for step, m in ((100, 20), (120, 5 + round(0.5 * 15)), (130, 5 + round(0.25 * 15))):
        assert at(step) == np.argsort(-traces[:m], kind="stable")[:5].tolist()
    assert at(140) == at(150) == [0, 1, 2, 3, 4]


def test_sweep__select_gets_a_pool_of_its_own_in_every_step():
    """Holdout scores are looked up by index; the pools differ from step to step; steps per epoch
    are those of plain training; all pools count as scored."""
    seen = []

    def note(model, x, y, n, generator, indices, step):
        assert torch.equal(x, data[indices])
        seen.append((step, tuple(indices.tolist())))
        return torch.arange(n)

    data = torch.randn(60, 5)
    setup = Setup(partial(models.mlp, (5,), 3), data, torch.arange(60) % 3, batch_size=10)
    for _, state, _ in sweep(setup, {"a": [Phase(2, select=note, pool=30)]}, 0):
        pass
    assert [step for step, _ in seen] == list(range(12)) and state.scored == 360
    assert len({pool for _, pool in seen}) == 12


def test_fisher_penalty__value_gradient_and_mean():
    """Against the oracle's double backward for given draws; over draws its mean is strength times
    Tr F of the kept weights, since the mean score is 0 (400 draws)."""
    net, masks, x, y = pruned_net(5)
    strength = 0.3
    torch.manual_seed(11)
    loss = fisher_penalty(strength)(net, x, y)
    torch.manual_seed(11)
    drawn = torch.multinomial(net(x).detach().softmax(1), 1)[:, 0]
    expected = oracles.penalised_loss(net, x, y, drawn, strength, masks)
    assert_close(loss, expected, EXACT)
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad(one, list(net.parameters()))])
        for one in (loss, expected)
    )
    assert_close(ours, theirs, EXACT, 1e-12)
    plain = float(cross_entropy(net, x, y).detach())
    draws = [
        (float(fisher_penalty(-2.0)(net, x, y).detach()) - plain) / -2.0 for _ in range(400)
    ]
    total = fisher_trace(net, x, masks=masks).total
    assert_mean(draws, total, detects=0.3 * total)


# ---- events, masks


def test_prune_and_rewind__and_redraw__begin_from_the_right_weights():
    """Init-F keeps the dense weights, Init-T has the run's first ones, Init-S one draw at every
    sparsity; all under the mask of the dense net at its last epoch."""
    x = torch.randn(40, 5)
    net = partial(models.mlp, (5,), 3, (6,), norm=True)
    setup = Setup(net, x, torch.arange(40) % 3, batch_size=10, lr=step_decay(0.1, 0.1, (1,)))
    events = {"F": prune(0.5), "T": prune_and_rewind(0.5), "S": prune_and_redraw(0.5)}
    events["S8"] = prune_and_redraw(0.8)
    plan = {"D": [Phase(2)]} | {k: [Phase(2), Phase(1, event=e)] for k, e in events.items()}
    found, dense = {}, None
    for epoch, state, names in sweep(setup, plan, 3):
        if epoch == 2 and len(names) == 5:
            dense = {k: v.clone() for k, v in state.model.state_dict().items()}
            masks = magnitude_masks(state.model, 0.5), magnitude_masks(state.model, 0.8)
        if state.event:
            found[names[0]] = {k: v.clone() for k, v in state.model.state_dict().items()}
            assert state.lr_start == 2
            own = masks[names[0] == "S8"]
            assert all(torch.equal(state.masks[k], own[k]) for k in own)
    first = fresh_model(setup, 3, "init").state_dict()
    for name, mask in masks[0].items():
        assert torch.equal(found["F"][name], dense[name] * mask)
        assert torch.equal(found["T"][name], first[name] * mask)
        both = mask & masks[1][name]
        assert torch.equal(found["S"][name][both], found["S8"][name][both]) and both.any()
        assert not torch.equal(found["S"][name], found["T"][name])
    assert torch.equal(found["T"]["2.running_mean"], first["2.running_mean"])
    assert torch.equal(found["F"]["2.running_mean"], dense["2.running_mean"])


def test_share_kept__counts_what_no_mask_covers():
    net = models.mlp((10,), 4, (5,))  # 50 and 20 weights
    assert_close(share_kept(net, magnitude_masks(net, 0.8, ["3"])), 1 - 40 / 70, EXACT)


def test_step_decay__at_the_milestone():
    lr = step_decay(0.1, 0.5, (2, 4))
    assert [lr(epoch) for epoch in range(6)] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


# ---- the line between two nets


def test_interpolated__parameters_buffers_and_re_estimated_buffers():
    x = torch.randn(30, 6, dtype=torch.float64)
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = models.mlp((6,), 3, (5,), norm=True).double().train()
        net(x * (seed + 1))
        nets.append(net.eval())
    start, end = (net.state_dict() for net in nets)
    before = {k: v.clone() for k, v in start.items()}
    for alpha in (0.0, 0.3, 1.0):
        plain = interpolated(nets[0], start, end, alpha).state_dict()
        for name, value in plain.items():
            if value.is_floating_point():
                expected = (1 - alpha) * start[name] + alpha * end[name]
                assert_close(value, expected, EXACT, 1e-15)
        own = interpolated(nets[0], start, end, alpha, x)
        model = interpolated(nets[0], start, end, alpha)
        assert_close(own(x), batch_statistics(model, x)(x), EXACT)
        assert_close(own(x), model.train()(x), EXACT)
    assert all(torch.equal(before[k], v) for k, v in nets[0].state_dict().items())


@pytest.mark.parametrize("norm", [False, True])
def test_gradient_cosines__equal_those_of_plain_gradients(norm):
    """One backward pass per example, with masks and without; and the direction's length is
    nothing."""
    net, masks, x, y = pruned_net(6, norm)
    torch.manual_seed(0)
    d = torch.randn(len(flat_parameters(net)), dtype=torch.float64)
    kept = torch.cat([
        masks[n].flatten() if n in masks else torch.ones(p.numel(), dtype=torch.bool)
        for n, p in net.named_parameters()
    ]).double()
    g = torch.stack([full_gradient(net, x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    for mask, weight in ((None, torch.ones_like(kept)), (masks, kept)):
        own, along = g * weight, d * weight
        expected = -(own @ along) / own.norm(dim=1) / along.norm()
        assert_close(gradient_cosines(net, x, y, d, mask, batch_size=7), expected, EXACT, 1e-12)
        assert_close(gradient_cosines(net, x, y, 9 * d, mask), expected, EXACT, 1e-12)


def test_gradient_cosines__descent_itself_and_no_gradient():
    """One example's own descent has cosine 1; one that is fitted beyond float64 has none."""
    net = models.linear_softmax((2,), 2).double()
    x, y = torch.tensor([[1.0, 0.0], [2000.0, 0.0]], dtype=torch.float64), torch.tensor([0, 0])
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    own = -full_gradient(net, x[:1], y[:1])
    assert_close(gradient_cosines(net, x[:1], y[:1], own), [1.0], EXACT)
    assert float(per_example_gradient_norms(net, x[1:], y[1:])) == 0
    assert gradient_cosines(net, x[1:], y[1:], own).tolist() == [0.0]
    for bad in (own[1:], 0 * own):
        with pytest.raises(ValueError, match="direction"):
            gradient_cosines(net, x, y, bad)


def test_gradient_cosines__hold_in_float32_for_fitted_examples():
    """Logits far apart: losses near 0, where the derivative of the loss itself
    cancels in float32. Against float64, to a percent of the largest."""
    net, _, x, _ = pruned_net(7)
    with torch.no_grad():
        net[3].weight.mul_(300)
    y = net(x).argmax(1)
    d = torch.randn(len(flat_parameters(net)), dtype=torch.float64)
    exact = gradient_cosines(net, x, y, d)
    assert float(cross_entropy(net, x, y).detach()) < 0.1
    found = gradient_cosines(net.float(), x.float(), y, d.float())
    assert float((found - exact).abs().max()) < 0.01 * float(exact.abs().max())
    with pytest.raises(ValueError, match="y must be an int64 tensor"):
        gradient_cosines(net, x.float(), y[:4], d.float())


@pytest.mark.parametrize("select", [select_lowest, select_highest])
def test_select__a_thousand_ties_go_to_the_earlier(select):
    assert select(torch.zeros(1000), 300).tolist() == list(range(300))
