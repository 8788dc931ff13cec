"""Deficits and augmentation: against direct sums, and that they touch the training data alone."""

import numpy as np
import pytest
import torch

from clp_min import models, synthetic
from clp_min.augment import crop_and_flip
from clp_min.deficits import images, labels
from clp_min.schedule import Phase
from clp_min.seeding import generator
from clp_min.train import Setup

import oracles
from adapters import (
    accuracy, downsample_blur, gaussian_blur, label_noise, noise_images, permute_labels,
    pooled_blur, random_affine, random_crop, random_flip, random_labels, sweep, vertical_flip,
)
from compare import EXACT, SEED, assert_close, assert_mean


def picture(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("kernel_size, sigma", [(7, 3.0), (13, 2.0), (3, 0.7)])
def test_gaussian_blur__equals_the_direct_sum(kernel_size, sigma):
    x = picture(2, 3, 9, 11)
    blurred = gaussian_blur(x, kernel_size, sigma)
    for image, result in zip(x.flatten(0, 1), blurred.flatten(0, 1)):
        assert_close(result, oracles.gaussian_blur(image.numpy(), kernel_size, sigma), EXACT)


def test_gaussian_blur__default_is_seven_taps_of_sigma_three():
    x = picture(1, 1, 8, 8)
    assert_close(gaussian_blur(x)[0, 0], oracles.gaussian_blur(x[0, 0].numpy(), 7, 3.0), EXACT)


def test_gaussian_blur__is_differentiable_and_leaves_its_input():
    x = picture(1, 2, 6, 6).requires_grad_()
    before = x.detach().clone()
    gaussian_blur(x, 5, 1.0).square().sum().backward()
    assert torch.equal(x.detach(), before) and x.grad.abs().sum() > 0


def test_gaussian_blur__rejects_bad_input():
    for arguments, message in [
        ((picture(3, 8, 8),), "float tensor"),
        ((torch.zeros(1, 1, 8, 8, dtype=torch.uint8),), "float tensor"),
        ((picture(1, 1, 8, 8), 4), "odd"), ((picture(1, 1, 8, 8), 7, 0.0), "sigma"),
        ((picture(1, 1, 3, 8), 7), "larger"),
    ]:
        with pytest.raises(ValueError, match=message):
            gaussian_blur(*arguments)


def test_downsample_blur__without_antialias_equals_four_neighbours():
    x = picture(1, 2, 32, 32)
    for image, result in zip(x[0], downsample_blur(x)[0]):
        assert_close(
            result, oracles.bilinear_image(oracles.bilinear_image(image.numpy(), 8), 32), EXACT
        )


def test_downsample_blur__antialias_averages_with_a_triangle():
    x = picture(1, 1, 32, 32)
    # a tent of half width 4 source pixels
    weights = np.maximum(
        0, 1 - np.abs((np.arange(32) + 0.5) - (np.arange(8)[:, None] + 0.5) * 4) / 4
    )
    weights /= weights.sum(1, keepdims=True)
    small = weights @ x[0, 0].numpy() @ weights.T
    assert_close(downsample_blur(x, antialias=True)[0, 0], oracles.bilinear_image(small, 32), 1e-6)
    assert (downsample_blur(x, antialias=True) - downsample_blur(x)).abs().max() > 0.1


def test_downsample_blur__rejects_bad_size():
    for size in (0, 33):
        with pytest.raises(ValueError, match="size"):
            downsample_blur(picture(1, 1, 32, 32), size)


def test_pooled_blur__equals_block_means_then_bilinear():
    x = picture(1, 1, 28, 28)
    small = x[0, 0].numpy().reshape(4, 7, 4, 7).mean((1, 3))
    assert_close(pooled_blur(x, 4)[0, 0], oracles.bilinear_image(small, 28), EXACT)


def test_vertical_flip__turns_rows_over():
    x = picture(2, 3, 5, 4)
    assert torch.equal(vertical_flip(x), torch.from_numpy(np.flip(x.numpy(), 2).copy()))


def test_permute_labels__relabels_classes():
    y, permutation = torch.tensor([0, 2, 1, 0]), [2, 0, 1]
    assert permute_labels(y, permutation).tolist() == [2, 1, 0, 2]
    for bad in ([0, 0, 1], [0, 1, 3], [0, 1]):
        with pytest.raises(ValueError):
            permute_labels(y, bad)


def test_random_labels__keep_frequencies_and_forget_the_image():
    y = torch.arange(5000) % 5
    shuffled = random_labels(y, generator("cpu", SEED))
    assert torch.equal(shuffled.bincount(), y.bincount())
    assert_mean((shuffled == y).double(), 0.2, detects=0.05)


def test_label_noise__redraws_exactly_the_share_over_all_classes():
    y = torch.arange(9999) % 10
    for fraction in (0.0, 0.3, 0.4999, 1.0):
        noisy, redrawn = label_noise(y, fraction, 10, generator("cpu", SEED))
        assert int(redrawn.sum()) == round(fraction * len(y)) and torch.equal(
            noisy[~redrawn], y[~redrawn]
        )
    # a tenth of the redrawn get their own label again
    assert_mean((noisy != y).double(), 0.9, detects=0.03)
    assert noisy.dtype == y.dtype and noisy.bincount(minlength=10).min() > 850


def test_label_noise__refuses_a_share_outside_0_and_1():
    for fraction in (1.5, -0.1):
        with pytest.raises(ValueError, match="fraction"):
            label_noise(torch.arange(9) % 3, fraction, 3, generator("cpu", 0))


def test_noise_images__are_standard_normal_under_their_labels():
    x, y = noise_images(torch.full((300, 3, 8, 8), 5.0), torch.arange(300), generator("cpu", SEED))
    assert torch.equal(y, torch.arange(300)) and x.shape == (300, 3, 8, 8)
    assert_mean(x.flatten(), 0.0, detects=0.05)
    assert_mean(x.flatten().square(), 1.0, detects=0.05)


DEFICITS = {
    "gaussian_blur": images(gaussian_blur, kernel_size=5, sigma=2.0),
    "downsample_blur": images(downsample_blur, size=4), "pooled_blur": images(pooled_blur, size=4),
    "vertical_flip": images(vertical_flip),
    "permute_labels": labels(permute_labels, [9, *range(9)]), "noise_images": noise_images,
    "random_labels": lambda x, y, g: (x, random_labels(y, g)),
    "label_noise": lambda x, y, g: (x, label_noise(y, 0.5, 10, g)[0]),
}


@pytest.mark.parametrize("name", DEFICITS)
def test_sweep__deficit_touches_training_data_only(name):
    """Under each deficit the net sees changed training data, and neither the stored training set
    nor the test set changes by a bit."""
    data = synthetic.textures(0, 64, 50)
    before = [t.clone() for t in (*data.train, *data.test)]
    seen = []

    def deficit(x, y, g):
        seen.append(DEFICITS[name](x, y, g))
        return seen[-1]

    setup = Setup(model=models.small_cnn, x=data.train[0], y=data.train[1], batch_size=32)
    for _, state, _ in sweep(setup, {"run": [Phase(2, deficit)]}, seed=0):
        right = [int(state.model(one[None]).argmax()) == int(c) for one, c in zip(*data.test)]
        assert_close(accuracy(state.model, *data.test), 100 * np.mean(right), EXACT)
    assert all(torch.equal(a, b) for a, b in zip(before, (*data.train, *data.test)))
    assert len(seen) == 2 and not (
        torch.equal(seen[0][0], before[0]) and torch.equal(seen[0][1], before[1])
    )


def test_random_crop__is_a_shift_with_zeros():
    x = torch.arange(1, 1 + 6 * 2 * 5 * 5).double().view(6, 2, 5, 5)
    for image, cropped in zip(x, random_crop(x, generator("cpu", 3), 2)):
        padded = torch.zeros(2, 9, 9, dtype=torch.float64)
        padded[:, 2:7, 2:7] = image
        assert any(
            torch.equal(cropped, padded[:, i : i + 5, j : j + 5])
            for i in range(5)
            for j in range(5)
        )


def test_random_crop__all_shifts_are_equally_likely():
    x = torch.zeros(8000, 1, 3, 3)
    x[:, 0, 1, 1] = 1
    cropped = random_crop(x, generator("cpu", SEED), 1)
    for place in cropped.flatten(1).T:
        assert_mean(place, 1 / 9, detects=0.03)


def test_random_flip__mirrors_half():
    x = picture(2000, 1, 2, 3)
    flipped = random_flip(x, generator("cpu", SEED))
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(-1))
    assert_mean(same.double(), 0.5, detects=0.1)


def test_random_affine__identity_and_quarter_shift():
    x = picture(3, 2, 8, 8)
    assert_close(random_affine(x, generator("cpu", 0), 0.0, 0.0, 0.0), x, 1e-6)
    centred = torch.zeros(500, 1, 33, 33)
    centred[:, 0, 16, 16] = 1
    moved = random_affine(centred, generator("cpu", SEED), 0.0, 0.25, 0.0)
    for across in (3, 2):
        places = (moved.sum((1, across)) * torch.arange(33)).sum(1) - 16
        assert 7 < places.abs().max() <= 33 * 0.25 + 1e-3
        assert_mean(places, 0.0, detects=2.0)  # of 8.25 pixels
    # a dot eight pixels above the centre: its angle within the degrees, its distance the zoom's
    dot = torch.zeros(500, 1, 33, 33)
    dot[:, 0, 8, 16] = 1
    for degrees, scale in ((30.0, 0.0), (0.0, 0.25)):
        turned = random_affine(dot, generator("cpu", SEED), degrees, 0.0, scale)[:, 0]
        mass = turned.sum((1, 2))
        rows, columns = (
            (turned.sum(across) * (torch.arange(33) - 16)).sum(1) / mass for across in (2, 1)
        )
        angles, distances = torch.atan2(columns, -rows).rad2deg(), (rows**2 + columns**2).sqrt()
        assert 0.9 * degrees <= angles.abs().max() <= 1.05 * degrees + 0.5
        assert 0.9 * 8 / (1 - scale) < distances.max() < 1.05 * 8 / (1 - scale)


def test_augmentation__depends_on_the_generator_alone():
    x = picture(4, 3, 8, 8)
    a, b, c = (crop_and_flip(x, generator("cpu", k)) for k in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
