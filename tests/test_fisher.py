"""The trace of the Fisher information against the double loop, in float64, for every model and
every kind of layer."""

import numpy as np
import pytest
import torch
from torch import nn

from clp_min import models
from clp_min.fisher import by_weight_layer
from clp_min.seeding import generator

import oracles
from adapters import fisher_trace, per_example_gradient_norms
from compare import EXACT, assert_close, assert_mean

MODELS = {  # the models of the papers with few classes, each with the shape of its input
    "linear_softmax": (lambda: models.linear_softmax((12,), 5), (6, 3, 2, 2)),
    "mlp": (lambda: models.mlp((12,), 5, (9, 8)), (6, 3, 2, 2)),
    "mlp_norm": (lambda: models.mlp((12,), 5, (9, 8), norm=True, bias=False), (6, 12)),
    "small_cnn": (models.small_cnn, (3, 3, 16, 16)),
    "small_cnn_norm": (lambda: models.small_cnn(norm=True), (3, 3, 16, 16)),
    "all_cnn": (lambda: models.all_cnn(classes=4), (2, 3, 32, 32)),
    "all_cnn_plain": (lambda: models.all_cnn(classes=4, norm=False), (2, 3, 32, 32)),
    "vgg11": (lambda: models.vgg(depth=11, classes=3), (2, 3, 32, 32)),
    "vgg16": (lambda: models.vgg(depth=16, classes=3), (1, 3, 32, 32)),
    "resnet10": (lambda: models.resnet10(classes=3), (1, 3, 32, 32)),
    "resnet18": (lambda: models.resnet18(classes=3), (1, 3, 32, 32)),
    "resnet32x4": (lambda: models.resnet32x4(classes=3), (1, 3, 32, 32)),
}


def prepared(make, shape):
    """A float64 model in eval mode, BatchNorm's statistics and affine
    parameters drawn, and inputs."""
    model = make().double().eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return model, torch.randn(shape, dtype=torch.float64)


class Sequences(nn.Module):
    """Linear and LayerNorm on sequences (n, t, d), as in a transformer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh().mean(1))


LAYERS = {
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 16, 3)),
        (3, 4, 6, 6),
    ),
    "stride_dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0), (1, 2)), nn.Flatten(), nn.Linear(36, 3)
        ),
        (3, 2, 6, 6),
    ),
    "one_by_one": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3)),
        (3, 3, 6, 6),
    ),
    "gram": (
        lambda: nn.Sequential(nn.Conv2d(30, 40, 3), nn.Flatten(), nn.Linear(160, 3)), (2, 30, 4, 4),
    ),
    "inplace_relu": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(64, 3),
        ),
        (3, 3, 6, 6),
    ),
    "no_affine": (
        lambda: nn.Sequential(
            nn.Linear(4, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 3)
        ),
        (3, 4),
    ),
    "sequences": (Sequences, (3, 6, 5)),
}


@pytest.mark.parametrize("name", MODELS | LAYERS)
def test_fisher_trace__equals_double_loop(name):
    model, x = prepared(*(MODELS | LAYERS)[name])
    trace = fisher_trace(model, x)
    assert_close(trace.total, oracles.fisher_trace(model, x), EXACT)
    assert_close(sum(trace.per_layer.values()), trace.total, EXACT)
    assert_close(trace.per_example.mean(), trace.total, EXACT)


@pytest.mark.parametrize("name", ["mlp_norm", "small_cnn_norm", "groups", "sequences"])
def test_fisher_trace__per_layer_equals_double_loop(name):
    model, x = prepared(*(MODELS | LAYERS)[name])
    layers = fisher_trace(model, x).per_layer
    names = {n.rpartition(".")[0] for n, _ in model.named_parameters()}
    assert set(layers) == names
    for layer in names:
        others = {
            n: torch.zeros(()) for n, _ in model.named_parameters() if n.rpartition(".")[0] != layer
        }
        assert_close(layers[layer], oracles.fisher_trace(model, x, others), EXACT)


@pytest.mark.parametrize("name", ["mlp", "small_cnn_norm", "groups", "gram"])
def test_fisher_trace__masks_count_kept_weights_only(name):
    model, x = prepared(*(MODELS | LAYERS)[name])
    masks = {
        n: torch.rand(p.shape) < 0.4 for n, p in model.named_parameters() if "0" in n or "bias" in n
    }
    assert_close(
        fisher_trace(model, x, masks=masks).total, oracles.fisher_trace(model, x, masks), EXACT
    )


@pytest.mark.parametrize("labels", ["sampled", "signs"])
@pytest.mark.parametrize("name", ["mlp", "small_cnn_norm"])
def test_fisher_trace__one_pass_is_unbiased(name, labels):
    model, x = prepared(*MODELS[name])
    x = x[:2]
    exact = fisher_trace(model, x).total
    repeated = x.repeat(500, *[1] * (x.dim() - 1))
    samples = (
        fisher_trace(model, repeated, labels, generator=generator("cpu", 1))
        .per_example.view(500, 2)
        .mean(1)
    )
    assert_mean(samples, oracles.fisher_trace(model, x))
    assert_close(exact, oracles.fisher_trace(model, x), EXACT)


def confident(scale):
    """A net whose softmax is as good as certain, and inputs."""
    model, x = prepared(lambda: models.mlp((6,), 4, (16, 16), init=models.kaiming_normal), (40, 6))
    with torch.no_grad():
        model[-1].weight.mul_(scale)
    return model, x


def test_fisher_trace__signs_vary_less_than_labels_when_confident():
    model, x = confident(40.0)
    exact = fisher_trace(model, x).total
    drawn = {
        k: np.array(
            [fisher_trace(model, x, k, generator=generator("cpu", k, i)).total for i in range(60)]
        )
        for k in ("sampled", "signs")
    }
    deviation = {k: v.std(ddof=1) / exact for k, v in drawn.items()}
    assert deviation["signs"] < 0.3 * deviation["sampled"], deviation
    assert_mean(drawn["signs"], exact)


def test_fisher_trace__float32_is_accurate_at_confident_outputs():
    model, x = confident(150.0)
    rarest = 1 - torch.softmax(model(x), 1).max(1).values
    assert rarest.median() < 1e-6
    exact = fisher_trace(model, x).total
    assert_close(fisher_trace(model.float(), x.float()).total, exact, 1e-3)


def test_fisher_trace__empirical_uses_the_given_labels():
    model, x = prepared(*MODELS["mlp"])
    y = torch.tensor([0, 4, 2, 1, 3, 3])
    assert_close(
        fisher_trace(model, x, y, batch_size=4).total, np.mean(oracles.gradient_norms(model, x, y)),
        EXACT,
    )


def test_fisher_trace__linear_softmax_closed_form():
    """Tr F = E (1 - |p|^2) |x|^2 (with a bias |x|^2 + 1)."""
    x = torch.randn(7, 6, dtype=torch.float64)
    for bias in (False, True):
        model = models.linear_softmax((6,), 5, bias).double()
        p = torch.softmax(model(x), 1)
        assert_close(
            fisher_trace(model, x).total,
            ((1 - p.square().sum(1)) * (x.square().sum(1) + bias)).mean().item(), EXACT,
        )


def test_fisher_trace__sampled_labels_come_from_the_model():
    """A drawn label's gradient in a linear net has the squared norm (1 - 2 p_y + |p|^2) |x|^2:
    each drawn value is one of these, y in proportion to p."""
    model, x = models.linear_softmax((3,), 4).double(), torch.randn(1, 3, dtype=torch.float64) * 2
    p = torch.softmax(model(x), 1)[0].detach()
    possible = (1 - 2 * p + p.square().sum()) * x.square().sum()
    samples = fisher_trace(
        model, x.expand(4000, 3), "sampled", generator=generator("cpu", 0)
    ).per_example
    which = (samples[:, None] - possible).abs().argmin(1)
    assert_close(samples, possible[which], EXACT)
    for c in range(4):
        assert_mean((which == c).double().numpy(), float(p[c]))


def test_fisher_trace__frozen_parameters_count():
    model, x = prepared(*MODELS["small_cnn_norm"])
    exact = fisher_trace(model, x).total
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert_close(fisher_trace(model, x).total, exact, EXACT)


def test_fisher_trace__own_layers_by_method():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(1.5))

        def forward(self, x):
            return self.factor * x

        def squared_gradient_norms(self, a, delta):
            return (a * delta).flatten(1).sum(1).square()

    model, x = prepared(lambda: nn.Sequential(nn.Linear(4, 5), Scale(), nn.Linear(5, 3)), (3, 4))
    assert_close(fisher_trace(model, x).total, oracles.fisher_trace(model, x), EXACT)


def test_fisher_trace__leaves_the_model_as_it_was():
    model, x = prepared(*MODELS["small_cnn_norm"])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fisher_trace(model, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not any(
        m._forward_hooks for m in model.modules()
    )


def test_fisher_trace__rejects_batchnorm_and_dropout_in_training_mode():
    model, x = prepared(*MODELS["small_cnn_norm"])
    with pytest.raises(ValueError, match="BatchNorm"):
        fisher_trace(model.train(), x)
    with pytest.raises(ValueError, match="Dropout"):
        fisher_trace(
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)), torch.randn(2, 4)
        )


def test_fisher_trace__rejects_what_it_does_not_cover():
    x = torch.randn(2, 4)
    shared = nn.Linear(4, 4)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    bad_mask = {"0.weight": torch.ones(3, 3, dtype=torch.bool)}
    for model, arguments, message in [
        (nn.Sequential(shared, nn.ReLU(), shared), {}, "twice"), (tied, {}, "shared"),
        (nn.Sequential(nn.Linear(4, 4), nn.PReLU()), {}, "PReLU"),
        (nn.Sequential(nn.Linear(4, 3)), {"labels": "true"}, "labels"),
        (nn.Sequential(nn.Linear(4, 3)), {"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        (nn.Sequential(nn.Linear(4, 3)), {"masks": bad_mask}, "mask"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten()), {}, "padding"),
    ]:
        with pytest.raises(ValueError, match=message):
            fisher_trace(
                model, x[:, None, :, None].expand(2, 1, 4, 4) if message == "padding" else x,
                **arguments,
            )


@pytest.mark.parametrize("name", ["mlp_norm", "small_cnn_norm", "groups", "sequences", "resnet10"])
def test_per_example_gradient_norms__equal_the_loop(name):
    model, x = prepared(*(MODELS | LAYERS)[name])
    y = torch.arange(len(x)) % 3
    assert_close(
        per_example_gradient_norms(model, x, y), oracles.gradient_norms(model, x, y), EXACT
    )
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters()}
    assert_close(
        per_example_gradient_norms(model, x, y, masks), oracles.gradient_norms(model, x, y, masks),
        EXACT,
    )


def test_per_example_gradient_norms__equal_vmap():
    model, x = prepared(*MODELS["small_cnn"])
    y = torch.tensor([1, 0, 9])
    parameters = {k: p.detach() for k, p in model.named_parameters()}

    def loss(parameters, one, label):
        return nn.functional.cross_entropy(
            torch.func.functional_call(model, parameters, one[None]), label[None]
        )

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    assert_close(
        per_example_gradient_norms(model, x, y),
        sum(g.flatten(1).square().sum(1) for g in gradients.values()), EXACT,
    )


def test_per_example_gradient_norms__rejects_bad_labels():
    model, x = prepared(*MODELS["mlp"])
    with pytest.raises(ValueError, match="labels"):
        per_example_gradient_norms(model, x, torch.zeros(len(x)))


def test_by_weight_layer__batchnorm_counts_with_the_convolution_before_it():
    model = models.small_cnn((3, 8, 8), 4, widths=(4, 6), norm=True).double().eval()
    per_layer = fisher_trace(model, torch.randn(3, 3, 8, 8, dtype=torch.float64)).per_layer
    first, norm, second, other, last = per_layer.values()
    assert_close(by_weight_layer(per_layer, model), [first + norm, second + other, last], EXACT)
