"""What the scripts on learning phases and on Fisher information measure, on tiny nets."""

import copy
from functools import partial
from types import SimpleNamespace

import phases
import phases_reconstruction
import phases_transfer
import pytest
import revisiting_information
import torch
from compare import assert_close
from torch import nn

from clp_min import models
from clp_min.schedule import Phase
from clp_min.train import Setup, State, accuracy, fresh_model, fresh_optimizer


def made(n=40, seed=0, lr=0.1, net=partial(models.resnet, widths=(4, 6, 8))):
    """(data, set-up, state) of a small net; its running statistics are those of no data."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 1, 8, 8, generator=g) * 3 + 1, torch.arange(n) % 4
    data = SimpleNamespace(train=(x, y), test=(x[:20] + 0.1, y[:20]), classes=4)
    setup = Setup(partial(net, (1, 8, 8), 4), x, y, batch_size=10, lr=lr)
    model = fresh_model(setup, seed, "init")
    return data, setup, State(model, fresh_optimizer(setup, model), seed, phase=Phase(1))


def foreign_buffers(state):
    """The same weights with other running statistics."""
    own = state.fork()
    for module in own.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 1.0
            module.running_var *= 9.0
    return own


def study(**config):
    c = SimpleNamespace(decoder="linear", last=4, noise=0.01, **config)
    arguments = SimpleNamespace(net=None)
    return SimpleNamespace(
        config=c, wants=lambda *panels: True, arguments=arguments, asked=lambda setup: setup
    )


def measured(script, data, setup, state):
    if script is revisiting_information:
        c = SimpleNamespace(config=SimpleNamespace(information_examples=30, fisher_examples=20))
        return script.measure(c, setup, state)
    both = data if script is phases_reconstruction else (data, made(seed=1)[0])
    return script.measure(study(), SimpleNamespace(seed=0, data=both, label="net"), 4, state)


@pytest.mark.parametrize(
    "script", [phases_reconstruction, phases_transfer, revisiting_information],
    ids=lambda script: script.__name__,
)
def test_measure__does_not_depend_on_the_running_statistics(script):
    data, setup, state = made()
    first, second = (measured(script, data, setup, s) for s in (state, foreign_buffers(state)))
    assert repr(first) == repr(second)  # also of nan
    other = made(seed=2)[2]
    assert repr(measured(script, data, setup, other)) != repr(first)


def test_as_trained__reads_training_images_as_training_mode_does():
    data, _, state = made()
    x = data.train[0]
    wanted = copy.deepcopy(state.model).train()(x)
    assert_close(phases.as_trained(state.model, x)(x), wanted, 1e-5)


def test_fine_tuned__begins_with_the_trained_body_and_a_new_head(monkeypatch):
    """At rate 0 the accuracy is that of the trained body under another head than the one that the
    net of this seed began with; the trained net itself is not touched."""
    net = partial(models.small_cnn, widths=(4, 6, 8))
    _, _, trained = made(seed=0, net=net)
    before, found = copy.deepcopy(trained.model.state_dict()), {}
    for lr in (0.0, 0.05):
        other, setup, began = made(seed=0, lr=lr, net=net)
        monkeypatch.setattr(phases_transfer, "setup_of", lambda *_, setup=setup: setup)
        found[lr] = phases_transfer.fine_tuned(study(tuning=40), 0, trained.model, other)
    new = fresh_model(setup, 0, "new head").state_dict()
    heads = [(new[k], began.model.state_dict()[k]) for k in list(before)[-2:]]
    assert not any(torch.equal(*pair) for pair in heads)
    began.model.load_state_dict({k: before[k] for k in list(before)[:-2]}, strict=False)
    began.model.load_state_dict({k: new[k] for k in list(before)[-2:]}, strict=False)
    assert found[0.0] == accuracy(began.model, *other.test) < found[0.05] - 20
    assert all(torch.equal(before[k], v) for k, v in trained.model.state_dict().items())
