"""Layers, decoders and probes against least squares written out."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clp_min import models
from clp_min.reconstruction import (
    class_histograms, class_shares, deconvolution_decoder, fresh_decoder_loss, fresh_probe_accuracy,
    trained_decoder_loss, trained_probe,
)
from clp_min.seeding import generator

from adapters import layer_features, linear_probe, reconstruction_loss
from compare import assert_close


def test_layer_features__are_the_papers_layers():
    x = torch.randn(5, 3, 16, 16)
    net = models.resnet(widths=(4, 8, 16)).eval()
    features = layer_features(net, x, batch_size=2)
    assert_close(features[-1], net(x), 1e-5, 1e-6)
    assert_close(features[-1], features[-2] @ net[-1].weight.T + net[-1].bias, 1e-5, 1e-6)
    # stem (3 modules) and the first two of three blocks
    assert_close(features[-3], net[:5](x).flatten(1), 1e-5, 1e-6)
    plain = models.small_cnn().eval()
    # after the second of three convolutions
    assert_close(layer_features(plain, x)[-3], plain[:4](x).flatten(1), 1e-5, 1e-6)
    assert set(layer_features(models.linear_softmax((768,), 10), x)) == {-1}
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(ValueError, match="BatchNorm"):
        layer_features(net.train(), x)
    with pytest.raises(ValueError, match="Linear"):
        layer_features(models.all_cnn(), x)


def ridge(features, target, test_features, penalty):
    mean, sd = features.mean(0), features.std(0, ddof=1)
    z, u = (features - mean) / sd, (test_features - mean) / sd
    # the penalty as extra rows
    stacked = np.concatenate([z, np.sqrt(penalty * len(z)) * np.eye(z.shape[1])])
    padded = np.concatenate([target - target.mean(0), np.zeros((z.shape[1], target.shape[1]))])
    return u @ np.linalg.lstsq(stacked, padded, rcond=None)[0] + target.mean(0)


def test_reconstruction_loss__is_ridge_least_squares_on_held_out_data():
    f, u = torch.randn(60, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    mix = torch.randn(5, 12, dtype=torch.float64)
    x, v = (
        (z @ mix + 0.3 * torch.randn(len(z), 12, dtype=torch.float64)).view(-1, 3, 2, 2)
        for z in (f, u)
    )
    decoded = ridge(f.numpy(), x.flatten(1).numpy(), u.numpy(), 1e-3)
    error = ((v.flatten(1).numpy() - decoded) ** 2).sum() / (
        (v.flatten(1).numpy() - x.flatten(1).numpy().mean(0)) ** 2
    ).sum()
    assert_close(reconstruction_loss(f, x, u, v, [1e-3]), error, 1e-9)


def test_reconstruction_loss__ridge_is_that_of_leave_one_out():
    """Against n refits, for noise that asks for three different penalties. (The features' scale
    is that of all examples, in both.)"""
    rng, ridges, chosen = np.random.default_rng(0), (1e-4, 1e-2, 1.0, 10.0), []
    for noise in (0.01, 1.0, 30.0):
        f, u = rng.normal(size=(40, 12)), rng.normal(size=(30, 12))
        mix = rng.normal(size=(12, 4))
        x, v = (z @ mix + noise * rng.normal(size=(len(z), 4)) for z in (f, u))
        f, errors = (f - f.mean(0)) / f.std(0, ddof=1), []
        for penalty in ridges:
            residuals = []
            for i in range(len(f)):
                keep = np.arange(len(f)) != i
                z, target = f[keep] - f[keep].mean(0), x[keep] - x[keep].mean(0)
                weights = np.linalg.solve(z.T @ z + penalty * len(f) * np.eye(12), z.T @ target)
                residuals.append(x[i] - x[keep].mean(0) - (f[i] - f[keep].mean(0)) @ weights)
            errors.append(np.square(residuals).sum())
        chosen.append(ridges[int(np.argmin(errors))])
        tensors = [torch.from_numpy(t) for t in (f, x, u, v)]
        assert_close(
            reconstruction_loss(*tensors, ridges), reconstruction_loss(*tensors, chosen[-1:]), 1e-12
        )
    assert len(set(chosen)) == 3


def test_reconstruction_loss__ends_of_the_scale():
    x, v = torch.randn(200, 1, 3, 3), torch.randn(100, 1, 3, 3)
    # everything is there
    assert (float(reconstruction_loss(x.flatten(1), x, v.flatten(1), v, [1e-9])) < 1e-6)
    # nothing: the mean image
    assert_close(reconstruction_loss(torch.zeros(200, 4), x, torch.zeros(100, 4), v), 1.0, 1e-9)


def test_reconstruction_loss__a_unit_that_hardly_varies_does_not_explode():
    """Constant but for 1e-5 in training, alive on one held-out image: divided by its own spread
    it would be 1e5."""
    f, u = torch.randn(100, 3), torch.randn(40, 3)
    x, v = f @ torch.randn(3, 8), None
    v = u @ torch.linalg.lstsq(f, x).solution
    quiet, woken = 1e-5 * torch.randn(100, 1), torch.zeros(40, 1)
    woken[0] = 1.0
    assert (
        float(reconstruction_loss(torch.cat([f, quiet], 1), x, torch.cat([u, woken], 1), v)) < 0.05
    )


def test_linear_probe__equals_argmax_of_least_squares():
    f, u, y = (
        torch.randn(80, 6, dtype=torch.float64), torch.randn(50, 6, dtype=torch.float64),
        torch.arange(80) % 4,
    )
    scores = ridge(f.numpy(), np.eye(4)[y.numpy()], u.numpy(), 1e-3)
    test_y = torch.arange(50) % 4
    assert_close(
        linear_probe(f, y, u, test_y, [1e-3]), 100 * (scores.argmax(1) == test_y.numpy()).mean(),
        1e-9,
    )
    separable = torch.eye(4)[y]
    assert float(linear_probe(separable, y, separable, y)) == 100


def test_trained_decoder_loss__learns_and_is_a_function_of_its_generator():
    f = torch.randn(256, 6)
    x = torch.einsum("nf,fchw->nchw", f, torch.randn(6, 3, 8, 8, generator=generator("cpu", 0)))
    losses, parts = [], (f[:200], x[:200], f[200:], x[200:])
    for _ in range(2):
        torch.manual_seed(0)
        decoder, g = deconvolution_decoder(6, (3, 8, 8)), generator("cpu", 1)
        losses.append(float(trained_decoder_loss(decoder, *parts, g, epochs=100, lr=1e-2)))
    assert losses[0] == losses[1] < 0.5
    with pytest.raises(ValueError, match="side"):
        deconvolution_decoder(6, (3, 12, 12))


def test_trained_probe__learns_what_is_there_and_is_a_function_of_its_generator():
    y = torch.arange(600) % 3
    features = torch.eye(3)[y] + 0.1 * torch.randn(600, 3)
    found = []
    for signal in (features, features, torch.randn(600, 3)):
        torch.manual_seed(0)
        probe, parts = torch.nn.Linear(3, 3), (signal[:400], y[:400], signal[400:], y[400:])
        found.append(float(trained_probe(probe, *parts, generator("cpu", 1))))
    assert found[0] == found[1] == 100 and abs(found[2] - 100 / 3) < 5 * 100 * (2 / 9 / 200) ** 0.5


def test_class_shares__by_hand():
    """Attribute 0 belongs to class 1, attribute 1 to both alike, attribute 2 to none."""
    features = torch.tensor([[0.0, 1.0, 0.0], [0.0, 3.0, -1.0], [4.0, 2.0, 0.0]])
    share, number = class_shares(features, torch.tensor([0, 0, 1]), 2)
    assert share[:2].tolist() == [1.0, 0.5] and share[2].isnan()
    assert number[:2].tolist() == pytest.approx([1.0, 2.0]) and number[2].isnan()


def test_class_histograms__by_hand():
    """Two attributes, two classes, two bins: the second attribute's extremes lie in class 0."""
    features = torch.tensor([[0.0, -1.0], [0.0, 3.0], [4.0, 2.0]])
    found = class_histograms(features, torch.tensor([0, 0, 1]), 2, bins=2)
    assert found.tolist() == [[[1, 0], [0, 1]], [[0.5, 0.5], [0, 1]]]


def test_reconstruction_loss__as_they_are_small_features_tell_less():
    """With a ridge of the noise's variance, x itself times s keeps s^2 / (s^2 + noise) of x: the
    error is (noise / (s^2 + noise))^2; standardised it does not depend on s."""
    x = torch.randn(4000, 1, 1, 1, generator=generator("cpu", 0))
    x = (x - x.mean()) / x.std(correction=0)
    for size in (0.01, 0.1, 1.0):
        parts = size * x.flatten(1), x, size * x.flatten(1), x
        raw = reconstruction_loss(*parts, ridges=(0.01,), standardise=False)
        assert float(raw) == pytest.approx((0.01 / (size**2 + 0.01)) ** 2, rel=1e-4)
        assert float(reconstruction_loss(*parts)) < 1e-5


def test_fresh_decoder_loss__and_probe_depend_on_their_key_alone():
    features, x, y = torch.randn(20, 5), torch.randn(20, 1, 8, 8), torch.arange(20) % 4

    def decoded(*key):
        return float(fresh_decoder_loss(features, x, features, x, *key))

    def probed(*key):
        return float(fresh_probe_accuracy(features, y, features, y, *key))

    first = decoded(0, 1), probed(0, 1)
    torch.rand(7)  # the global generator does not matter
    assert first == (decoded(0, 1), probed(0, 1)) and decoded(0, 2) != first[0]


def test_trained_probe__is_sgd_with_momentum_and_a_tenth_of_the_rate():
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    start = nn.Linear(4, 3)
    ours, plain = copy.deepcopy(start), copy.deepcopy(start)
    trained_probe(ours, x, y, x, y, generator("cpu", 5), epochs=12, lr=0.1, batch_size=8)
    z, g = (x - x.mean(0)) / x.std(0), generator("cpu", 5)
    moved = [torch.zeros_like(p) for p in plain.parameters()]
    for epoch in range(12):
        for batch in torch.randperm(20, generator=g).split(8):
            loss = F.cross_entropy(plain(z[batch]), y[batch])
            grads = torch.autograd.grad(loss, list(plain.parameters()))
            for p, m, gradient in zip(plain.parameters(), moved, grads):
                m.mul_(0.9).add_(gradient)
                p.data -= (0.1 if epoch < 10 else 0.01) * m
    assert_close(ours.weight, plain.weight, 1e-4, 1e-6)


def test_trained_decoder_loss__is_relative_to_the_training_mean():
    x, test_x = 5 + torch.randn(12, 2), 4 + torch.randn(7, 2)
    features, test_features = torch.randn(12, 3), torch.randn(7, 3)
    decoder = nn.Linear(3, 2)
    loss = trained_decoder_loss(
        decoder, features, x, test_features, test_x, generator("cpu", 0), 2, standardise=False
    )
    left = (test_x - decoder(test_features)).square().sum()
    assert_close(loss, left / (test_x - x.mean(0)).square().sum(), 1e-6)


def test_class_shares__a_faint_attribute_counts_and_an_absent_one_is_nan():
    features = torch.tensor([[0.001, 0.0], [0.0, 0.0], [0.003, -1.0]])
    share, number = class_shares(features, torch.tensor([0, 1, 2]), 3)
    assert_close(share[0], 0.75, 1e-6)
    assert share.isnan().tolist() == number.isnan().tolist() == [False, True]


@pytest.mark.parametrize("standardise", [True, False])
def test_reconstruction_loss__where_the_features_lie_does_not_matter(standardise):
    """The mean of the training features is taken from both; the held-out mean differs from it."""
    g = generator("cpu", 1)
    features, test_features = torch.randn(30, 4, generator=g), 2 + torch.randn(20, 4, generator=g)
    x, test_x = features[:, :3] + 1, test_features[:, :3] + 1
    plain = reconstruction_loss(features, x, test_features, test_x, standardise=standardise)
    moved = reconstruction_loss(features + 7, x, test_features + 7, test_x, standardise=standardise)
    assert plain < 0.01  # x is linear in the features, also where they lie two units off
    assert_close(moved, plain, 1e-6, 1e-9)


def test_class_shares__a_negative_class_mean_counts_as_none():
    features = torch.tensor([[-1.0], [3.0], [1.0]], dtype=torch.float64)
    share, number = class_shares(features, torch.tensor([0, 1, 2]), 3)
    assert share.tolist() == [0.75] and number.tolist() == [1]


def test_class_shares__a_class_counts_from_half_of_the_largest_mean_on():
    features = torch.tensor([[1.0, 2.0], [0.5, 0.99], [0.49, 1.01], [0.0, 2.0]])
    share, number = class_shares(features, torch.arange(4), 4)
    assert number.tolist() == [2, 3]
    assert_close(share, [1 / 1.99, 2 / 6], 1e-6)
