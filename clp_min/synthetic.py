"""Four synthetic data sets, made in NumPy from a seed in under two seconds: textures (the default
of every script), shapes, clusters, teacher.

They are made to show a phenomenon in minutes, not to stand for natural data. The size of every
effect measured on them is a property of the set, and of a net that can be trained on it without
BatchNorm; it estimates nothing about photographs.
"""

import numpy as np

from clp_min.checks import check_real, check_whole
from clp_min.data import Dataset


def _check_sizes(seed, **sizes):
    check_whole(seed=seed)
    check_whole(2, **sizes)


def _bilinear(grid, size):
    """(n, g, g, c) -> (n, size, size, c): bilinear interpolation, corners on corners."""
    place = np.linspace(0, grid.shape[1] - 1, size)
    low = np.minimum(place.astype(int), grid.shape[1] - 2)
    weights = np.zeros((size, grid.shape[1]))
    weights[np.arange(size), low] = 1 - (place - low)
    weights[np.arange(size), low + 1] += place - low
    return np.einsum("ag,nghc,bh->nabc", weights, grid, weights, optimize=True)


def _textures(rng, n, size, coarse, fine, noise):
    y = np.arange(n) % 10
    rng.shuffle(y)
    # the coarse cue: the same in every set
    prototypes = np.random.default_rng(12345).normal(size=(10, 4, 4, 3))
    images = 0.5 * _bilinear(coarse * prototypes[y] + rng.normal(size=(n, 4, 4, 3)), size)
    theta = np.pi * (y % 5) / 5 + rng.normal(0, 0.06, n)
    wavelength = np.where(y < 5, 2.6, 4.0) * np.exp(rng.normal(0, 0.04, n))
    rows, columns = np.mgrid[:size, :size]
    centre = rng.uniform(0.25, 0.75, (n, 2)) * (size - 1)
    along = columns * np.cos(theta)[:, None, None] + rows * np.sin(theta)[:, None, None]
    wave = np.sin(
        2 * np.pi * along / wavelength[:, None, None] + rng.uniform(0, 2 * np.pi, n)[:, None, None]
    )
    distance = (rows - centre[:, :1, None]) ** 2 + (columns - centre[:, 1:, None]) ** 2
    envelope = np.exp(-distance / (2 * (0.28 * size) ** 2))
    patch = wave * envelope * (fine * rng.uniform(0.5, 1, n))[:, None, None]
    tint = np.abs(rng.normal(1, 0.3, (n, 1, 1, 3)))
    images = images + patch[..., None] * tint + rng.normal(0, noise, images.shape)
    return images.transpose(0, 3, 1, 2).astype(np.float32), y.astype(np.int64)


def textures(seed, train_size=1000, test_size=2000, size=16, coarse=0.3, fine=0.8, noise=0.25):
    """Colour images (n, 3, size, size) of ten classes with a weak coarse cue that survives blur and
    a strong fine cue that does not.

    coarse  strength of the class's own 4x4 colour layout, under clutter N(0, 1) of the same
            coarseness that differs from image to image
    fine    amplitude of a windowed grating, 0.5..1 of it, somewhere in the image; class k has
            orientation pi (k mod 5) / 5 (sd 0.06 rad)
            and wavelength 2.6 pixels (k < 5) or 4.0 (sd 4 %); phase and tint are random
    noise   standard deviation of white noise per pixel and channel
    Classes are balanced. float32, not standardised. Another seed gives other images of the same
    classes.
    """
    _check_sizes(seed, train_size=train_size, test_size=test_size, size=size)
    check_real(coarse=coarse, fine=fine)
    check_real(0, noise=noise)
    train = _textures(np.random.default_rng((seed, 0)), train_size, size, coarse, fine, noise)
    test = _textures(np.random.default_rng((seed, 1)), test_size, size, coarse, fine, noise)
    return Dataset.from_arrays("textures", 10, train, test)


def _shape(k, rows, columns):
    """Indicator of shape k in coordinates (n, size, size) where the shape fills about [-1, 1]."""
    radius, square = np.hypot(rows, columns), np.maximum(abs(rows), abs(columns))
    bar, beam = abs(rows) < 0.28, abs(columns) < 0.28
    inside = square < 1
    return (
        radius < 1,  # disc
        (radius < 1) & (radius > 0.62),  # ring
        square < 0.85,  # filled square
        (square < 0.9) & (square > 0.58),  # hollow square
        bar & inside,  # horizontal bar
        beam & inside,  # vertical bar
        (bar | beam) & inside,  # plus
        ((abs(rows - columns) < 0.38) | (abs(rows + columns) < 0.38)) & inside,  # cross
        (abs(rows - columns) < 0.38) & inside,  # diagonal
        (rows > -0.85) & (rows < 0.85) & (abs(columns) < (rows + 0.85) / 1.7),  # triangle
    )[k]


def _shapes(rng, n, size, noise, amplitude, colour, class_colour):
    y = np.arange(n) % 10
    rng.shuffle(y)
    grid = np.linspace(-1, 1, size)
    rows, columns = np.meshgrid(grid, grid, indexing="ij")
    angle, scale = rng.normal(0, 0.1, n), 0.55 * rng.uniform(0.8, 1.2, n)
    shift = rng.uniform(-0.2, 0.2, (2, n)) * 2
    images = np.empty((n, size, size))
    for k in range(10):
        i = y == k
        r, c = rows - shift[0, i, None, None], columns - shift[1, i, None, None]
        cos = (np.cos(angle[i]) / scale[i])[:, None, None]
        sin = (np.sin(angle[i]) / scale[i])[:, None, None]
        images[i] = _shape(k, cos * r - sin * c, sin * r + cos * c)
    images = (images * rng.uniform(*amplitude, n)[:, None, None])[:, None]
    if colour:
        hue = rng.uniform(0.2, 1.0, (n, 3, 1, 1))
        if class_colour:  # swap the strongest channel into the class's place
            i = (rng.random(n) < class_colour).nonzero()[0]
            strongest = hue[i, :, 0, 0].argmax(1)
            hue[i, strongest], hue[i, y[i] % 3] = hue[i, y[i] % 3], hue[i, strongest]
        images = images * hue
    return (images + rng.normal(0, noise, images.shape)).astype(np.float32), y.astype(np.int64)


def shapes(
    seed, train_size=1000, test_size=1000, size=16, noise=0.1, amplitude=(0.7, 1.0), colour=False,
    class_colour=0.0,
):
    """Images (n, 1 or 3, size, size) of ten shapes: disc, ring, filled and hollow square, two bars,
    plus, cross, diagonal, triangle.

    Position ± 0.2 of the image, scale 0.8..1.2, rotation sd 0.1 rad, brightness uniform in
    ``amplitude``, white noise of sd ``noise``; with ``colour`` each shape has a random hue (a
    task for transfer: which channel is largest?), whose strongest channel is that of the
    class (k mod 3) in a share ``class_colour`` of the images and unrelated to it in the
    others. Classes are balanced.
    """
    _check_sizes(seed, train_size=train_size, test_size=test_size, size=size)
    check_real(0, noise=noise)
    check_real(0, 1, class_colour=class_colour)
    settings = size, noise, amplitude, colour, class_colour
    train = _shapes(np.random.default_rng((seed, 0)), train_size, *settings)
    test = _shapes(np.random.default_rng((seed, 1)), test_size, *settings)
    return Dataset.from_arrays("shapes", 10, train, test)


def clusters(
    seed, train_size=1000, test_size=1000, dim=64, classes=10, modes=1, separation=0.5, noise=1.0
):
    """Gaussian clusters (n, dim): ``modes`` centres N(0, separation^2 I) per class, points
    N(centre, noise^2 I); classes are balanced."""
    _check_sizes(seed, train_size=train_size, test_size=test_size)
    check_whole(1, dim=dim, classes=classes, modes=modes)
    check_real(0, separation=separation, noise=noise)
    rng = np.random.default_rng((seed, 0))
    centres = rng.normal(0, separation, (classes, modes, dim))

    def draw(n):
        y = rng.permutation(np.arange(n) % classes)
        x = centres[y, rng.integers(modes, size=n)] + rng.normal(0, noise, (n, dim))
        return x.astype(np.float32), y.astype(np.int64)

    return Dataset.from_arrays("clusters", classes, draw(train_size), draw(test_size))


def teacher(seed, train_size=1000, test_size=1000, dim=20, hidden=8):
    """Normal vectors (n, dim) with two classes: is a random one-hidden-layer ReLU net of
    ``hidden`` units above its median?

    In the place of the data of the sparse paper's Fig. 3, which are not published."""
    _check_sizes(seed, train_size=train_size, test_size=test_size)
    check_whole(1, dim=dim, hidden=hidden)
    rng = np.random.default_rng((seed, 0))
    weights, readout = rng.normal(size=(dim, hidden)) / np.sqrt(dim), rng.normal(size=hidden)
    x = rng.normal(size=(train_size + test_size, dim))
    score = np.maximum(x @ weights, 0) @ readout
    y = (score > np.median(score)).astype(np.int64)
    x = x.astype(np.float32)
    return Dataset.from_arrays(
        "teacher", 2, (x[:train_size], y[:train_size]), (x[train_size:], y[train_size:])
    )
