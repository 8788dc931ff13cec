"""The trace of the Fisher information against the double loop, in float64, for every model and
every kind of layer."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clp_min import models
from clp_min.fisher import (
    CHUNK_FLOATS, _chunk, by_weight_layer, covariance_factor, per_example_fisher,
)
from clp_min.seeding import generator

import oracles
from adapters import fisher_trace, per_example_gradient_norms
from compare import EXACT, SEED, assert_close, assert_mean

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
        fisher_trace(model, repeated, labels, generator=generator("cpu", SEED, 1))
        .per_example.view(500, 2)
        .mean(1)
    )
    assert_mean(samples, oracles.fisher_trace(model, x), detects=0.15 * exact)
    assert_close(exact, oracles.fisher_trace(model, x), EXACT)


def certain(gap, classes=10, dtype=torch.float64):
    """A linear net on one input whose logits are 0 .. -1 but for one that is ``gap`` higher, and
    Tr F in closed form: sum over the unlikely classes, in which nothing cancels."""
    model = nn.Linear(1, classes, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 0, classes)[:, None])
        model.weight[3] = gap
    z = model.weight[:, 0].double().detach()
    p = z.softmax(0).tolist()
    rest = sum(q for k, q in enumerate(p) if k != 3)
    return model, sum(q * (1 - q) for k, q in enumerate(p) if k != 3) + p[3] * rest


@pytest.mark.parametrize("gap", [0, 5, 15, 25, 37, 60, 300])
def test_fisher_trace__right_at_every_gap_between_logits(gap):
    """eigh of diag(p) - pp' loses 27 % from a gap of 37 on; float32's squares underflow at 90."""
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, 1e-5)):
        model, exact = certain(gap, dtype=dtype)
        x = torch.ones(1, 1, dtype=dtype)
        assert_close(fisher_trace(model, x).total, exact, tolerance)
        # J J' is a multiple of the identity here: signs along orthogonal columns do not vary
        signs = fisher_trace(model, x.repeat(50, 1), "signs", generator=generator("cpu", gap))
        assert_close(signs.per_example, [exact] * 50, max(tolerance, 1e-8))
        # and a fitted label: sum of squares of the others' p, and of their sum
        p = model.weight[:, 0].double().softmax(0).detach()
        others = p[torch.arange(10) != 3]
        fitted = per_example_gradient_norms(model, x, torch.tensor([3]))
        assert_close(fitted, (others.square().sum() + others.sum().square())[None], tolerance)


def test_fisher_trace__a_thousand_classes_in_bounded_memory():
    """"signs" diagonalises few examples at a time: never (n, classes, classes) of the whole batch,
    which would be .2 GB here, 8 GB at the default batch size."""
    x, model = torch.randn(24, 5), nn.Linear(5, 1000)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), settings=None):
            out = function(*arguments, **(settings or {}))
            if torch.is_tensor(out):
                largest.append(out.numel())
            return out

    with Watch():
        trace = fisher_trace(model, x, "signs", generator=generator("cpu", SEED))
    assert max(largest) <= 2**22
    p = torch.softmax(model(x), 1).detach().double()
    exact = (1 - p.square().sum(1)) * (x.double().square().sum(1) + 1)
    assert_mean((trace.per_example / exact).numpy(), 1.0, detects=0.01)
    assert ((trace.per_example / exact - 1).abs() < 0.2).all()  # of 1,000 classes 128 are turned


def test_fisher_trace__signs_vary_less_than_labels_when_confident():
    torch.manual_seed(0)  # one net, whatever the seed of the draws: how much they vary is its own
    model, x = prepared(lambda: models.mlp((6,), 4, (16, 16), init=models.kaiming_normal), (40, 6))
    with torch.no_grad():
        model[-1].weight.mul_(40.0)
    exact = fisher_trace(model, x).total
    drawn = {
        k: np.array(
            [
                fisher_trace(model, x, k, generator=generator("cpu", SEED, k, i)).total
                for i in range(60)
            ]
        )
        for k in ("sampled", "signs")
    }
    deviation = {k: v.std(ddof=1) / exact for k, v in drawn.items()}
    assert deviation["signs"] < 0.3 * deviation["sampled"], deviation
    assert_mean(drawn["signs"], exact, detects=0.1 * exact)


def test_fisher_trace__signs_vary_less_than_along_the_columns_alone():
    """The eigenvectors of B'B are what makes the variance low: none where J J' is a multiple of the
    identity, as here; the same signs along the columns of B itself vary by 4 %."""
    logits = torch.tensor([[3.0, 3.0, 0, -1, -2, -2, -3, -4, -4, -5]], dtype=torch.float64)
    model = nn.Linear(10, 10, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.diag(logits[0]))
    x = torch.ones(4000, 10, dtype=torch.float64)
    signs = fisher_trace(model, x, "signs", generator=generator("cpu", SEED, 1)).per_example
    p = logits.softmax(1)
    multiply, _ = covariance_factor(p)
    columns = torch.stack([multiply(row[None])[0] for row in torch.eye(9, dtype=torch.float64)], 1)
    assert_close(columns @ columns.T, torch.diag(p[0]) - p.T @ p, EXACT)
    plain = (columns @ (torch.randint(2, (9, 4000)) * 2.0 - 1).double()).square().sum(0) * 10
    exact = float(columns.square().sum() * 10)
    assert_mean(plain.numpy(), exact, detects=0.01 * exact)
    assert_close(signs, [exact] * 4000, 1e-8)
    assert plain.std() > 0.03 * exact


def test_fisher_trace__float32_of_each_example_at_confident_outputs():
    """Each example, not their mean: one of forty carries a third of it."""
    model, x = prepared(lambda: models.mlp((6,), 4, (16, 16), init=models.kaiming_normal), (40, 6))
    with torch.no_grad():
        model[-1].weight.mul_(150.0)
    assert (1 - torch.softmax(model(x), 1).max(1).values).median() < 1e-6
    exact = fisher_trace(model, x).per_example
    single = fisher_trace(model.float(), x.float()).per_example
    assert float((single / exact - 1).abs().median()) < 1e-4


def test_fisher_trace__empirical_uses_the_given_labels():
    model, x = prepared(*MODELS["mlp"])
    y = torch.tensor([0, 4, 2, 1, 3, 3])
    found = fisher_trace(model, x, y, batch_size=np.int64(4))
    assert_close(found.total, np.mean(oracles.gradient_norms(model, x, y)), EXACT)


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
        model, x.expand(4000, 3), "sampled", generator=generator("cpu", SEED)
    ).per_example
    which = (samples[:, None] - possible).abs().argmin(1)
    assert_close(samples, possible[which], EXACT)
    for c in range(4):
        assert_mean((which == c).double().numpy(), float(p[c]), detects=0.08)


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


# ---- outside the rules: refused with the layer's name, and exact by autograd


class Net(nn.Module):
    """Linear layers a, o and p, put together by ``forward`` (self, x)."""

    def __init__(self, forward, a=5, o=6, **more):
        super().__init__()
        self.a, self.o = nn.Linear(a, 6), nn.Linear(o, 3)
        for name, module in more.items():
            setattr(self, name, module)
        self.by = forward

    def forward(self, x):
        return self.by(self, x)


def twice_by_function(net, x):
    return net.o(F.linear(torch.tanh(net.a(x)), net.a.weight.t()))


def frozen_twice():
    net = Net(twice_by_function, o=5)
    net.a.weight.requires_grad_(False)  # then the graph does not hold it
    return net


OUTSIDE = {  # name -> (net, shape of x, what the error names)
    "used again by function": (lambda: Net(twice_by_function, o=5), (3, 5), "a.weight"),
    "frozen and used again": (frozen_twice, (3, 5), "layer 'a'"),
    "bias used elsewhere": (
        lambda: Net(lambda n, x: n.o(n.a(x)) + n.o.bias.sum() * x[:, :3]), (3, 5), "o.bias"
    ),
    "no batch axis": (
        lambda: Net(
            lambda n, x: n.o(torch.tanh(n.a(x) + n.p(torch.ones(1, 4, dtype=x.dtype)))),
            p=nn.Linear(4, 6),
        ),
        (3, 5), "layer 'p'",
    ),
    "time first": (lambda: Net(lambda n, x: n.o(n.a(x.transpose(0, 1))[-1])), (2, 4, 5), "'a'"),
    "time first, t = n": (
        lambda: Net(lambda n, x: n.o(torch.tanh(n.a(x.transpose(0, 1)))[-1])), (4, 4, 5), "'a'"
    ),
    "time first, t = 1": (
        lambda: Net(lambda n, x: n.o(n.a(x.transpose(0, 1))[-1])), (4, 1, 5), "'a'"
    ),
    "batch and time merged": (
        lambda: Net(lambda n, x: n.o(n.a(x.flatten(0, 1)).view(len(x), -1)), o=24), (1, 4, 5), "'a'"
    ),
    "used twice": (lambda: Net(lambda n, x: n.o(n.a(n.a(x))), a=6), (3, 6), "layer 'a'"),
    "GroupNorm": (
        lambda: Net(lambda n, x: n.o(n.g(n.a(x))), g=nn.GroupNorm(2, 6)), (3, 5), "layer 'g'"
    ),
    "a bare parameter": (
        lambda: Net(lambda n, x: n.o(n.s * n.a(x)), s=nn.Parameter(torch.ones(6) * 1.5)), (3, 5),
        "layer ''",
    ),
    "attention": (
        lambda: Net(
            lambda n, x: n.o(n.m(n.a(x), n.a(x), n.a(x))[0].mean(1)),
            m=nn.MultiheadAttention(6, 2, batch_first=True),
        ),
        (3, 4, 5), "attention|twice|m",
    ),
    "weights by function alone": (
        lambda: Net(lambda n, x: n.o(F.linear(x, n.a.weight, n.a.bias))), (3, 5), "layer 'a'"
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_fisher_trace__refuses_by_name_what_autograd_gets_right(name):
    make, shape, named = OUTSIDE[name]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match=named) as error:
            fisher_trace(model, x)
        assert 'method="autograd"' in str(error.value)
        with pytest.raises(ValueError, match=named):
            per_example_gradient_norms(model, x, torch.arange(len(x)) % 3)
    assert not any(module._forward_hooks for module in model.modules())
    trace = fisher_trace(model, x, method="autograd")
    model.requires_grad_(True)
    assert_close(trace.total, oracles.fisher_trace(model, x), EXACT)
    assert_close(sum(trace.per_layer.values()), trace.total, EXACT)


@pytest.mark.parametrize(
    "name", ["mlp_norm", "small_cnn_norm", "groups", "sequences", "inplace_relu"]
)
def test_fisher_trace__autograd_equals_the_rules(name):
    model, x = prepared(*(MODELS | LAYERS)[name])
    masks = {n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters()}
    y = torch.arange(len(x)) % 3
    for labels, kept in (("expected", None), (y, masks), ("signs", masks)):
        a, b = (
            fisher_trace(model, x, labels, kept, generator("cpu", 3), method)
            for method in ("rules", "autograd")
        )
        assert_close(a.per_example, b.per_example, EXACT)
        assert_close(list(a.per_layer.values()), [b.per_layer[k] for k in a.per_layer], EXACT)


@pytest.mark.parametrize("labels", ["expected", "sampled", "signs"])
@pytest.mark.parametrize("method", ["rules", "autograd"])
def test_fisher_trace__one_logit_holds_no_information(labels, method):
    """Its softmax is 1 whatever the weights."""
    found = fisher_trace(nn.Linear(3, 1).eval(), torch.randn(4, 3), labels, method=method)
    assert found.total == 0 and found.per_layer == {"": 0}


def batch_norm_3d(net, x):
    return net.o(net.n(net.a(x)[:, :, None, None, None]).flatten(1))


@pytest.mark.parametrize("method", ["rules", "autograd"])
@pytest.mark.parametrize(
    "forward, more, message",
    [
        (lambda n, x: n.o(F.dropout(n.a(x), 0.1)), {}, "draws random"),
        (lambda n, x: n.o(F.batch_norm(n.a(x)[:, :, None], None, None, training=True)[:, :, 0]), {},
         "alone|single example"),
        (lambda n, x: n.o(n.r(n.a(x))), {"r": nn.RReLU()}, "draws random"),
        (batch_norm_3d, {"n": nn.BatchNorm3d(6, affine=False)}, "'n' uses batch statistics"),
        (lambda n, x: n.o(n.i(n.a(x))), {"i": nn.BatchNorm1d(6, track_running_stats=False)},
         "'i' uses batch statistics"),
        (lambda n, x: n.o(n.d(n.a(x))), {"d": nn.Dropout(0.5)}, "'d' is in training mode"),
    ],
)
def test_fisher_trace__refuses_batch_statistics_and_draws(forward, more, message, method):
    model = Net(forward, **more).double().train()
    with pytest.raises(ValueError, match=message):
        fisher_trace(model, torch.randn(4, 5, dtype=torch.float64), method=method)


def test_fisher_trace__batch_statistics_are_refused_after_a_single_example_too():
    """One example shows nothing, and does not count as the comparison."""
    net = Net(lambda n, x: n.o(n.a(x) - n.a(x).mean(0) if len(x) > 1 else n.a(x)) * 1.0)
    centred = Net(lambda n, x: n.o(torch.tanh(h := n.a(x)) - (h.mean(0) if len(x) > 1 else 0.0)))
    x = torch.randn(4, 5, dtype=torch.float64)
    for model, message in ((net, "used twice|twice"), (centred, "alone")):
        model = model.double()
        fisher_trace(model, x[:1])
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                fisher_trace(model, x)


def test_fisher_trace__each_layer_is_compared_on_its_own_scale():
    """A small layer that is used once more by function, frozen so that the graph does not show it,
    beside a head of a hundred times its gradient."""
    net = Net(lambda n, x: 0.05 * twice_by_function(n, x) + 5 * n.h(x), o=5, h=nn.Linear(5, 3))
    net.a.weight.requires_grad_(False)
    x, double = torch.randn(4, 5), copy.deepcopy(net).double()
    for model, x in ((net, x), (double, x.double())):
        with pytest.raises(ValueError, match="layer 'a'"):
            fisher_trace(model, x)


def test_fisher_trace__given_labels_at_every_gap_in_float32():
    model, x = nn.Linear(4, 3), torch.ones(2, 4)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    for gap in (0, 100, 300, 380, 500, 640, 1000):
        with torch.no_grad():
            model.bias[0] = gap
        found = fisher_trace(model, x, torch.zeros(2).long()).total
        p = 2 * math.exp(-gap) / (1 + 2 * math.exp(-gap))  # of the two others
        assert_close(found, 5 * (p**2 + p**2 / 2), 1e-5, 1e-300)


def test_fisher_trace__a_hook_that_changes_the_output_is_part_of_the_net():
    model, x = Net(lambda n, x: n.o(torch.tanh(n.a(x)))).double(), torch.randn(3, 5).double()
    model.a.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert_close(fisher_trace(model, x).total, oracles.fisher_trace(model, x), EXACT)


def test_fisher_trace__refuses_half_precision():
    model, x = Net(lambda n, x: n.o(n.a(x))), torch.randn(3, 5)
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="a.weight.*float32"):
            fisher_trace(copy.deepcopy(model).to(dtype), x.to(dtype))
    half = torch.autocast("cpu", torch.bfloat16)
    with half, pytest.raises(ValueError, match="layer 'a' computes"):
        fisher_trace(model, x)


def test_fisher_trace__refuses_what_is_no_input():
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4)
    bad = {"0.weight": torch.ones(3, 3, dtype=torch.bool)}
    soft = {"0.weight": torch.full((3, 4), 0.5)}
    for settings, message in (
        ({"labels": "true"}, "labels"), ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels"),
        ({"labels": np.zeros(2, np.int64)}, "labels"), ({"labels": torch.tensor([0, 3])}, "0..2"),
        ({"masks": bad}, "mask"), ({"masks": soft}, "boolean"),
        ({"masks": {"9": bad["0.weight"]}}, "mask"),
        ({"masks": {"0.weight": 1.0}}, "mask"),
        ({"batch_size": -1}, "batch_size"), ({"method": "magic"}, "method"),
    ):
        with pytest.raises(ValueError, match=message):
            fisher_trace(model, x, **settings)
    for inputs, message in (
        (x[:0], "not empty"), (x * math.nan, "finite"), (x.half(), "float16"),
    ):
        with pytest.raises(ValueError, match=message):
            fisher_trace(model, inputs)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        fisher_trace(model, torch.ones(2, 4))
    same = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(ValueError, match="padding"):
        fisher_trace(same, torch.randn(2, 1, 4, 4))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="shared"):
        fisher_trace(tied, x)
    assert_close(
        fisher_trace(tied.double(), x.double(), method="autograd").total,
        oracles.fisher_trace(tied, x.double()), EXACT,
    )


def test_fisher_trace__input_changed_in_place_is_refused():
    net = Net(lambda n, x: n.o(F.relu_(n.a(x)) + 0 * n.p(x)), p=nn.Linear(5, 6))
    assert fisher_trace(net.double(), torch.randn(3, 5).double()).total > 0  # outputs may be

    def changed(n, x):
        h = torch.tanh(n.a(x)).detach()
        out = n.o(h)
        h.mul_(2)
        return out

    net = Net(changed).double()
    net.o.weight.requires_grad_(False)  # autograd itself does not notice then
    with pytest.raises(ValueError, match="input of layer 'o' was changed in place"):
        fisher_trace(net, torch.randn(3, 5).double())


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


def test_fisher_trace__a_flipped_gate_in_float32_is_no_wrong_rule(monkeypatch):
    """In float32 an example alone can round to the other side of a ReLU than in its batch. The
    comparison with autograd then asks float64; a rule that is wrong there too is still refused."""
    from clp_min import fisher

    model, x = models.small_cnn((1, 8, 8), 3, (4, 4), pool=1).eval(), torch.randn(6, 1, 8, 8)
    plain = fisher._squares_by_autograd

    def rounded(model, one, cotangents, masks):
        logits, squares = plain(model, one, cotangents, masks)
        factor = 1.2 if one.dtype in wrong else 1.0
        return logits, [{k: v * factor for k, v in s.items()} for s in squares]

    monkeypatch.setattr(fisher, "_squares_by_autograd", rounded)
    wrong = {torch.float32}
    fisher_trace(model, x)
    wrong.add(torch.float64)
    with pytest.raises(ValueError, match="its rule gives"):
        fisher_trace(models.small_cnn((1, 8, 8), 3, (4, 4), pool=1).eval(), x)


def test_fisher_trace__masks_of_every_parameter_and_a_hook_of_the_users():
    """Weights and biases of all layer types under masks of their own; and a hook that changes a
    layer's output, which is no part of the layer."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6),
        nn.Dropout(0.0), nn.Linear(6, 3),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.eval()[5].train()  # a dropout of nothing is harmless
    model[3].register_forward_hook(lambda module, inputs, output: 2 * output)
    masks = {k: torch.rand(p.shape) < 0.6 for k, p in model.named_parameters()}
    x = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    ours, plain = (
        per_example_fisher(model, x, masks=masks, method=method) for method in ("rules", "autograd")
    )
    assert set(ours) == set(plain)
    for name, value in plain.items():
        assert_close(ours[name], value, EXACT, 1e-12)


def test_chunk__outputs_of_the_first_convolution_of_one_image():
    """Also of a single one with a single channel, and with other strides down than across."""
    net = nn.Sequential(nn.Conv2d(1, 60, 1, stride=(2, 8)), nn.Flatten(), nn.Linear(60 * 64, 2))
    assert _chunk(net, torch.zeros(1, 1, 32, 32)) == CHUNK_FLOATS // (60 * 16 * 4)
    assert _chunk(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2)) == 1024
