"""How much of the input is left in a layer: decoders and linear probes ("Understanding and
leveraging the learning phases").

Layers as the paper counts them: -1 the logits, -2 the input of the last dense layer, -3 the second
last block (ResNet) or the activation after the second last convolution (VGG and other plain nets).
Measure in eval mode, fit on training data, report on held-out data.
"""

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import nn

from clp_min.checks import check_finite, check_real, check_tensors, check_whole
from clp_min.models import BasicBlock
from clp_min.seeding import generator, global_seed

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@torch.no_grad()
def layer_features(model, x, batch_size=1000):
    """{-1, -2, -3: (n, features)} of x (n, ...), flattened; a layer that the net does not have is
    left out (a linear net has -1 alone).

    ValueError: no Linear layer, or BatchNorm in training mode (its features would
    depend on the batch).

    The layers of "learning phases", Fig. 2."""
    check_tensors(x=(x, "any n ..."))
    check_whole(1, batch_size=batch_size)
    modules = list(model.modules())
    linear = [m for m in modules if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError("the model has no Linear layer")
    if any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) and m.training for m in modules):
        raise ValueError("BatchNorm is in training mode: call model.eval() first")
    blocks = [m for m in modules if isinstance(m, BasicBlock)]
    convolutions = [i for i, m in enumerate(modules) if isinstance(m, nn.Conv2d)]
    third = None
    if len(blocks) > 1:
        third = blocks[-2]
    elif len(convolutions) > 1 and not blocks:
        third = next((m for m in modules[convolutions[-2] :] if isinstance(m, nn.ReLU)), None)
        if third is None:
            raise ValueError("no ReLU, layer -3, comes after the second last convolution")
    kept = {-1: [], -2: [], -3: []}

    def keep_last(module, inputs, output):
        kept[-1].append(output), kept[-2].append(inputs[0].flatten(1))

    def keep_third(module, inputs, output):
        kept[-3].append(output.flatten(1))

    with ExitStack() as hooks:  # they go when it ends
        hooks.enter_context(linear[-1].register_forward_hook(keep_last))
        if third is not None:
            hooks.enter_context(third.register_forward_hook(keep_third))
        for part in x.split(int(batch_size)):
            model(part)
    if any(len(own) > -(-len(x) // batch_size) for own in kept.values()):
        raise ValueError("a layer that is measured is called more than once in a forward pass")
    if len(linear) == 1 and not convolutions:
        kept[-2] = []  # the input itself
    return {layer: torch.cat(parts) for layer, parts in kept.items() if parts}


def _checked_parts(features, target, test_features, test_target, form):
    """ValueError: not as many targets as rows, or other features than the test set's."""
    check_tensors(features=(features, "n f"), target=(target, form))
    check_tensors(test_features=(test_features, "n f"), test_target=(test_target, form))
    check_tensors(features=(features[0], "f"), test_features=(test_features[0], "f"))
    check_finite(features=features, test_features=test_features)
    if not target.shape[1:] == test_target.shape[1:]:
        raise ValueError(f"targets of {tuple(target.shape)} and {tuple(test_target.shape)} differ")


def _standardised(features, test_features):
    """Mean 0 and, on the training data, variance 1; less for a feature that hardly varies there
    (a unit active for a single image): it would explode on held-out data."""
    mean, sd = features.mean(0), features.std(0)
    floor = 0.1 * sd.square().mean().sqrt()
    sd = sd.clamp(min=float(floor) or 1.0)
    return (features - mean) / sd, (test_features - mean) / sd


def _ridge(features, target, ridges):
    """Weights (features, targets) of least squares with penalty ridge * n on standardised features;
    targets are centred.

    Of several ridges the one with the least leave-one-out error, which needs no refit: each
    residual is divided by 1 - leverage.
    """
    values, vectors = torch.linalg.eigh(features.T @ features)
    rotated = features @ vectors  # (n, features), columns of squared length ``values``
    projected, best = rotated.T @ target, None
    for ridge in ridges:
        shrink = 1 / (values + ridge * len(features))
        leverage = rotated.square() @ shrink + 1 / len(features)  # 1/n: the mean is fitted too
        residuals = target - rotated @ (shrink[:, None] * projected)
        error = float((residuals / (1 - leverage)[:, None]).square().sum())
        if best is None or error < best[0]:
            best = error, shrink
    return vectors @ (best[1][:, None] * projected)


def reconstruction_loss(features, x, test_features, test_x, ridges=RIDGES, standardise=True):
    """Relative error on held-out data of the linear decoder fitted on (features (n, f), x (n,
    ...)): sum |x - x^|^2 / sum |x - mean x|^2 ("learning phases", Fig. 1 and Fig. 2).

    1 means that nothing is left but the mean image, 0 that everything is. Ridge least squares in
    float64, in closed form, the penalty (``ridges`` times n, features standardised) chosen by
    leave-one-out error on the training data: the quick variant of the paper's trained decoder,
    without its optimiser's noise. standardise=False: features are centred alone, and a ridge is the
    variance of noise added to them, so that small outputs tell less. Returns a 0-dim tensor.
    """
    _checked_parts(features, x, test_features, test_x, "n ...")
    check_finite(x=x, test_x=test_x)
    features, test_features = features.double(), test_features.double()
    if standardise:
        features, test_features = _standardised(features, test_features)
    else:
        test_features, features = test_features - features.mean(0), features - features.mean(0)
    x, test_x = x.flatten(1).double(), test_x.flatten(1).double()
    mean = x.mean(0)
    decoded = test_features @ _ridge(features, x - mean, ridges) + mean
    return (test_x - decoded).square().sum() / (test_x - mean).square().sum()


def linear_probe(features, y, test_features, test_y, ridges=RIDGES):
    """Accuracy in percent, on held-out data, of a linear classifier of features (n, f), y (n,):
    least squares to one-hot targets, with ``reconstruction_loss``'s ridge ("learning phases",
    Fig. 6). 0-dim tensor."""
    _checked_parts(features, y, test_features, test_y, "int n")
    features, test_features = _standardised(features.double(), test_features.double())
    target = F.one_hot(y, int(y.max()) + 1).double()
    mean = target.mean(0)
    scores = test_features @ _ridge(features, target - mean, ridges) + mean
    return 100 * (scores.argmax(1) == test_y).double().mean()


def deconvolution_decoder(features, shape, width=64):
    """A decoder of a standard auto-encoder: Linear to 4x4, then ConvTranspose(4, 2, 1) and ReLU
    until the side (a power of two) is reached.

    The decoder behind Fig. 1 and Fig. 2 of "learning phases"; layers and width are ours."""
    check_whole(1, features=features, width=width)
    channels, side, _ = shape
    doublings = (side // 4).bit_length() - 1
    if 4 * 2**doublings != side or doublings < 1:
        raise ValueError(f"the side must be 8, 16, 32 …, got {side}")
    widths = [width * 2**i for i in reversed(range(doublings))]
    layers = [nn.Linear(features, widths[0] * 16), nn.ReLU(), nn.Unflatten(1, (widths[0], 4, 4))]
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1))


def _fit(net, loss_function, features, target, optimizer, generator, epochs, size, schedule=None):
    """Train ``net`` in place on (features, target), in batches of ``size``."""
    for _ in range(epochs):
        order = torch.randperm(len(features), device=features.device, generator=generator)
        for batch in order.split(int(size)):
            optimizer.zero_grad()
            loss_function(net(features[batch]), target[batch]).backward()
            optimizer.step()
        if schedule is not None:
            schedule.step()


def trained_decoder_loss(
    decoder, features, x, test_features, test_x, generator, epochs=30, lr=3e-4, batch_size=128,
    standardise=True,
):
    """``reconstruction_loss`` of a decoder network trained with Adam on the mean squared error
    (the paper: 30 epochs, 3e-4, of features as they are: standardise=False). 0-dim tensor.

    The loss of Fig. 1 and Fig. 2 of "learning phases"."""
    _checked_parts(features, x, test_features, test_x, "n ...")
    check_whole(1, epochs=epochs, batch_size=batch_size)
    check_real(above=0, lr=lr)
    if standardise:
        features, test_features = _standardised(features, test_features)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=lr)
    _fit(decoder, F.mse_loss, features, x, optimizer, generator, epochs, batch_size)
    with torch.no_grad():
        error = (test_x - decoder(test_features)).square().sum()
        return error / (test_x - x.mean(0)).square().sum()


def trained_probe(
    probe, features, y, test_features, test_y, generator, epochs=20, lr=0.01, batch_size=128
):
    """Accuracy in percent, on held-out data, of a Linear layer ``probe`` trained with
    cross-entropy: the paper's linear classifier, with the rate of the authors' code (SGD .01
    with momentum .9, a tenth of it after ten epochs). 0-dim tensor.

    The probe of Fig. 6 and Fig. 7 of "learning phases"."""
    _checked_parts(features, y, test_features, test_y, "int n")
    check_whole(1, epochs=epochs, batch_size=batch_size)
    check_real(above=0, lr=lr)
    features, test_features = _standardised(features, test_features)
    optimizer = torch.optim.SGD(probe.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    _fit(probe, F.cross_entropy, features, y, optimizer, generator, epochs, batch_size, schedule)
    with torch.no_grad():
        return 100 * (probe(test_features).argmax(1) == test_y).double().mean()


def class_shares(features, y, classes):
    """How much of each attribute belongs to one class ("learning phases", Fig. 4).

    features (n, attributes), y (n,) -> (share (attributes,), number (attributes,)): of the positive
    class means the largest one's share of their sum, 1/classes to 1, and how many are at least half
    of the largest, 1 to classes; nan for an attribute without any.
    """
    check_tensors(features=(features, "n attributes"), y=(y, "int n"))
    check_whole(1, classes=classes)
    means = torch.stack([features[y == c].mean(0) for c in range(classes)]).clamp(min=0)
    total, largest = means.sum(0), means.max(0).values
    found = largest / total.clamp(min=1e-12), (means >= largest / 2).sum(0).to(means.dtype)
    return tuple(torch.where(total > 1e-12, one, torch.nan) for one in found)


def class_histograms(features, y, classes, bins=12):
    """Distribution of each attribute within each class ("learning phases", Fig. 4): features (n,
    attributes), y (n,) -> (attributes, classes, bins), shares of a class's examples, bins of
    equal width between the attribute's extremes over all."""
    check_tensors(features=(features, "n attributes"), y=(y, "int n"))
    check_whole(1, classes=classes, bins=bins)
    low, high = features.min(0).values, features.max(0).values
    place = (features - low) / (high - low).clamp(min=1e-12) * bins
    code = F.one_hot(place.long().clamp(max=bins - 1), bins).double()  # (n, attributes, bins)
    return torch.stack([code[y == c].mean(0) for c in range(classes)], 1)


def fresh_decoder_loss(features, x, test_features, test_x, *key, standardise=True):
    """``trained_decoder_loss`` of a new deconvolution decoder; all its
    randomness comes from ``key``."""
    _checked_parts(features, x, test_features, test_x, "n c h w")
    with global_seed(*key, "decoder"):
        decoder = deconvolution_decoder(features.shape[1], tuple(x.shape[1:])).to(x.device)
    g = generator(x.device, *key, "decoder batches")
    parts = features, x, test_features, test_x, g
    return trained_decoder_loss(decoder, *parts, standardise=standardise)


def fresh_probe_accuracy(features, y, test_features, test_y, *key):
    """``trained_probe`` of a new Linear layer; all its randomness comes from ``key``."""
    _checked_parts(features, y, test_features, test_y, "int n")
    with global_seed(*key, "probe"):
        probe = nn.Linear(features.shape[1], int(y.max()) + 1).to(features.device)
    g = generator(features.device, *key, "probe batches")
    return trained_probe(probe, features, y, test_features, test_y, g)
