"""Parameter counts against published or torchvision's numbers, initialisation, and one real step
of every paper-scale model."""

from functools import partial

import pytest
import torch

from clp_min import models
from clp_min.transformer import Block, DeiT, Tokens

from adapters import training_step
from compare import assert_mean

TORCHVISION_RESNET18, TORCHVISION_VGG16_BN_FEATURES, TORCHVISION_VGG11_FEATURES = (
    11_689_512, 14_723_136, 9_220_480,
)


@pytest.mark.parametrize(
    "make, expected",
    [
        # the published 1,621,374 has BatchNorm on the logits too
        (lambda: models.all_cnn(), 1_621_374 - 2 * 10),
        (lambda: models.vgg(depth=16), TORCHVISION_VGG16_BN_FEATURES + 513 * 10),
        (lambda: models.vgg(depth=11, norm=False), TORCHVISION_VGG11_FEATURES + 513 * 10),
        # CIFAR stem and head
        (
            lambda: models.resnet18(),
            TORCHVISION_RESNET18 - 3 * 49 * 64 + 3 * 9 * 64 - 513 * 1000 + 513 * 10,
        ),
        (lambda: models.resnet18(width=16), 701_466),  # Ash & Adams' net
        (lambda: models.mlp((1, 28, 28), 10, (128,) * 6), 184_330),
        (lambda: models.mlp((3072,), 10, (100, 100)), 3073 * 100 + 101 * 100 + 101 * 10),
        (lambda: models.linear_softmax((784,), 10), 7840),
        (lambda: models.small_cnn(), 28 * 16 + 145 * 32 + 289 * 64 + 257 * 10),
    ],
)
def test_models__parameter_counts(make, expected):
    assert models.parameter_count(make()) == expected


def test_models__resnet_depths_are_their_names():
    for make, depth in ((models.resnet10, 10), (models.resnet18, 18), (models.resnet32x4, 32)):
        kernels = [
            m
            for m in make().modules()
            if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert len(kernels) + 1 == depth


def test_models__logits_have_the_right_shape():
    for make in (models.all_cnn, partial(models.vgg, depth=11), models.resnet10, models.small_cnn):
        assert make((1, 32, 32), 7).eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="depth"):
        models.vgg(depth=13)


def test_models__kaiming_normal_scales_with_fan_in():
    model = models.mlp((400,), 20, (300, 200), init=models.kaiming_normal)
    for layer, variance in zip([model[1], model[3], model[5]], (2 / 400, 2 / 300, 1 / 200)):
        squares = layer.weight.detach().square().flatten()
        assert_mean(squares, variance, detects=0.25 * variance)
        assert not layer.bias.any()


def test_models__deit_tokens_begin_small():
    """Class and distillation token and positions N(0, .02^2), as ViT's."""
    torch.manual_seed(0)
    for p in Tokens(64, 512).parameters():
        assert_mean(p.detach().square().flatten(), 0.02**2, detects=0.5 * 0.02**2)


def test_models__transformer_block_adds_both_parts():
    """x + attention(norm x), then that + mlp(norm of it)."""
    block, x = Block(8, 2, 16).double(), torch.randn(3, 5, 8, dtype=torch.float64)
    parts = dict(block.named_children())
    names = list(parts)
    once = x + parts[names[1]](parts[names[0]](x))
    assert torch.allclose(block(x), once + parts[names[3]](parts[names[2]](once)), rtol=1e-12)


PAPER_SCALE = {
    "all_cnn": lambda: models.all_cnn(), "vgg16": lambda: models.vgg(depth=16),
    "resnet18": lambda: models.resnet18(), "resnet32x4": lambda: models.resnet32x4(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER_SCALE)
def test_models__one_real_step_at_paper_scale(name):
    """The published net on a batch of 128 32x32 images: the loss is ln(classes) or so before it,
    finite, and lower on the batch after it."""
    torch.manual_seed(0)
    model = PAPER_SCALE[name]()
    x, y = torch.randn(128, 3, 32, 32), torch.arange(128) % 10
    # small: the step must descend
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    first = float(training_step(model, optimizer, x, y))
    with torch.no_grad():
        second = float(torch.nn.functional.cross_entropy(model(x), y))
    assert 1.5 < first < 8 and second < first
    assert all((p != b).any() for p, b in zip(model.parameters(), before) if b.dim() > 1)


def test_resnet__every_stage_after_the_first_halves_the_map():
    seen = []
    net = models.resnet((3, 16, 16), 10)
    for module in net.modules():
        if isinstance(module, models.BasicBlock):
            module.register_forward_hook(lambda m, inputs, output: seen.append(output.shape[2:]))
    net(torch.zeros(1, 3, 16, 16))
    assert [tuple(size) for size in seen] == [(16, 16), (8, 8), (4, 4)]


def test_deit__the_heads_read_the_first_two_tokens():
    """A norm that puts i into token i tells which of them a head reads."""
    net = DeiT((3, 8, 8), 10, patch=4, dim=16, heads=4, depth=1, hidden=8)
    rows = torch.arange(6.0)[None, :, None].expand(2, 6, 16)  # token i holds i
    net.norm.register_forward_hook(lambda m, inputs, output: rows)
    for head, token in zip(net.both(torch.zeros(2, 3, 8, 8)), (0.0, 1.0)):
        layer = net.distillation_head if token else net.class_head
        assert torch.allclose(head, layer(torch.full((2, 16), token)))


@pytest.mark.parametrize("sides", [(8, 8), (4, 6), (7, 5)])
def test_grid_mean__is_the_adaptive_mean_bit_for_bit(sides):
    """Of its backward pass too, which the adaptive one does not repeat on CUDA."""
    x, g = torch.randn(3, 4, *sides, requires_grad=True), torch.randn(3, 4, 2, 2)
    means = [layer(x) for layer in (models.GridMean(2), torch.nn.AdaptiveAvgPool2d(2))]
    gradients = [torch.autograd.grad(mean, x, g)[0] for mean in means]
    assert torch.equal(*means) and torch.equal(*gradients)
