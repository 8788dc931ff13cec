"""Draws the figure of an assignment with the functions that FILE defines; what it lacks is ours.

    python examples/assignments/draw.py mine.py [--seed 0] [--out mine.png]

Another seed draws other data: the figure changes, what it shows does not.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import adapters as f  # noqa: E402 (the one seam: the student's functions, or ours)

from clp_min import models  # noqa: E402
from clp_min.schedule import Phase, sweep  # noqa: E402
from clp_min.seeding import generator  # noqa: E402
from clp_min.synthetic import textures  # noqa: E402
from clp_min.train import Setup, fresh_model  # noqa: E402


def data(seed, n=400):
    """Standardised textures, (x, y) of training and test."""
    found = textures(seed, train_size=n, test_size=500).standardised()
    return found.train, found.test


def mlp_setup(x, y, norm=False):
    net = partial(models.mlp, tuple(x.shape[1:]), 10, (64, 64), norm=norm)
    return Setup(net, x, y, lr=0.05, batch_size=50)


def blur_and_label_noise(axes, seed):
    (x, y), _ = data(seed)
    for size in (0, 3, 7, 13):
        blurred = f.gaussian_blur(x, size, 2.0) if size else x
        power = torch.fft.fft2(blurred).abs().square().mean((0, 1))
        rows = torch.fft.fftfreq(x.shape[-1])
        radius = (rows[:, None].square() + rows[None].square()).sqrt()
        bands = [(radius >= a) & (radius < a + 0.1) for a in (0, 0.1, 0.2, 0.3, 0.4)]
        axes[0].plot([0.05, 0.15, 0.25, 0.35, 0.45], [float(power[b].mean()) for b in bands],
                     "o-", label=f"kernel {size}" if size else "sharp")
    axes[0].set(xlabel="cycles per pixel", ylabel="power", yscale="log")
    axes[0].legend()
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    changed = []
    for share in shares:
        labels, _ = f.label_noise(y, share, 10, generator("cpu", seed))
        changed.append(float((labels != y).float().mean()))
    axes[1].plot(shares, changed, "o-", label="labels that really changed")
    axes[1].plot(shares, shares, "--", label="labels redrawn")
    axes[1].set(xlabel="fraction", ylabel="share of the labels")
    axes[1].legend()


def fisher_trace(axes, seed, labels=False):
    (x, y), test = data(seed)
    epochs, traces, accuracies, of_data = [], [], [], []
    for epoch, state, _ in sweep(mlp_setup(x, y), {"run": [Phase(16)]}, seed):
        epochs.append(epoch)
        traces.append(f.fisher_trace(state.model, x[:30]).total)
        accuracies.append(f.accuracy(state.model, *test))
        if labels:
            of_data.append(f.fisher_trace(state.model, x[:30], labels=y[:30]).total)
    axes[0].plot(epochs, traces, "o-")
    axes[0].plot(epochs[: len(of_data)], of_data, "--")  # with the labels of the data
    axes[0].set(xlabel="epoch", ylabel="Tr F of 30 training images")
    axes[1].plot(epochs, accuracies, "o-")
    axes[1].set(xlabel="epoch", ylabel="test accuracy (%)")


def binned_information(axes, seed):
    logits, scales = torch.randn(300, 10, generator=generator("cpu", seed)), 2.0 ** np.arange(-6, 6)
    colours = {"joint": "C0", "per_logit": "C1", "pooled": "C2"}
    readings = {"clip": ("joint", "per_logit", "pooled"), "drop": ("per_logit", "pooled")}
    for ax, outside in zip(axes, readings):
        for reading in readings[outside]:
            values = [f.binned_mutual_information(scale * logits, reading, outside=outside)
                      for scale in scales]
            ax.plot(scales, values, "o-", label=reading, color=colours[reading])
        ax.axhline(np.log2(300), color="grey", linestyle=":", label="log2 of the examples")
        ax.set(xlabel="scale of random logits", ylabel=f"bits ({outside})", xscale="log")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def effective_gradient(axes, seed):
    rng, d, lr, steps = np.random.default_rng(seed), 50, 0.05, 200
    place, rows = 3 * rng.normal(size=d), {"full": [], "stochastic": [], "effective": []}
    for _ in range(steps):  # the loss |place|^2 / 2, its gradient is the place
        noisy, full = place + rng.normal(size=(20, d)), torch.from_numpy(place)
        effective = [f.effective_gradient(torch.from_numpy(one), full).numpy() for one in noisy]
        for row, vectors in zip(rows.values(), ([place], noisy, effective)):
            row.append(np.mean([(vector**2).sum() for vector in vectors]))
        place = place - lr * noisy[0]
    for name, row in rows.items():
        axes[0].plot(row, label=name)
    axes[0].set(xlabel="step", ylabel="squared norm (mean of 20 draws)", yscale="log")
    axes[0].legend()
    gradients, sizes = rng.normal(size=(64, d)) + 0.3, [1, 2, 4, 8, 16, 32, 64]
    drawn = [np.mean([(gradients[rng.permutation(64)[:b]].mean(0) ** 2).sum()
                      for _ in range(300)]) for b in sizes]
    axes[1].plot(sizes, [f.minibatch_second_moment(gradients, b) for b in sizes], label="formula")
    axes[1].plot(sizes, drawn, "o", label="300 random batches")
    axes[1].set(xlabel="batch size", ylabel="mean of |g_B|^2", xscale="log", yscale="log")
    axes[1].legend()


def softmax_phases(axes, seed):
    l, k, lr = 8 + seed % 10, 3 + seed // 10 % 10 / 4, 0.05  # a hundred variants
    delta = f.simulate(l, 10 * l, k, lr, 3000)
    axes[0].plot(delta)
    axes[0].set(xlabel="step", ylabel="Delta", xscale="symlog")
    axes[1].plot(f.optimal_loss(delta, l, k), label="optimal decoder")
    axes[1].plot(f.noisy_output_loss(delta, l, k, 0.03), label="outputs with noise .03")
    axes[1].set(xlabel="step", ylabel=f"reconstruction loss, {l} classes, k = {k:g}",
                xscale="symlog")
    axes[1].legend()


def shrink_perturb(axes, seed):
    (x, y), test = data(seed, 600)
    half, whole = mlp_setup(x[:300], y[:300]), mlp_setup(x, y)

    def warm_start(shrink, perturb, setup, state):
        state.model.load_state_dict(first)
        f.shrink_perturb(state.model, fresh_model(setup, seed, "fresh"), shrink, perturb)

    first = None
    for _, state, _ in sweep(half, {"half": [Phase(60)]}, seed):
        first = {name: value.clone() for name, value in state.model.state_dict().items()}
    shrinks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    ends, early = [], []
    for shrink in shrinks:
        phase = Phase(40, event=partial(warm_start, shrink, 0.1))
        for epoch, state, _ in sweep(whole, {"run": [phase]}, seed):
            if epoch == 5:
                early.append(f.evaluate(state.model, x, y)[1])
        ends.append(f.accuracy(state.model, *test))
    for _, state, _ in sweep(whole, {"cold": [Phase(40)]}, seed):
        pass
    axes[0].plot(shrinks, ends, "o-")
    axes[0].axhline(f.accuracy(state.model, *test), linestyle="--", color="grey", label="a new net")
    axes[0].set(xlabel="shrink (perturb .1)", ylabel="final test accuracy (%)")
    axes[0].legend()
    axes[1].plot(shrinks, early, "o-")
    axes[1].set(xlabel="shrink (perturb .1)", ylabel="training loss after 5 epochs", yscale="log")


def pruning_and_curvature(axes, seed):
    (x, y), test = data(seed)
    for _, state, _ in sweep(mlp_setup(x, y), {"run": [Phase(30)]}, seed):
        pass
    shares, kept = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95], []
    weights = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    for share in shares:
        masks = f.magnitude_masks(state.model, share)
        with torch.no_grad():
            for name, p in state.model.named_parameters():
                p.copy_(weights[name] * masks[name] if name in masks else weights[name])
        kept.append(f.accuracy(state.model, *test))
        state.model.load_state_dict(weights, strict=False)
    axes[0].plot(shares, kept, "o-")
    axes[0].set(xlabel="share of weights pruned, not trained again", ylabel="test accuracy (%)")
    for probes in (4, 16, 64):
        found = f.hessian_trace(state.model, x[:100], y[:100], probes, generator("cpu", seed))
        axes[1].errorbar(probes, found[0], found[1], fmt="o", color="C0")
    axes[1].set(xlabel="products with the Hessian", ylabel="Tr H", xscale="log")
    axes[1].set_xticks([4, 16, 64], ["4", "16", "64"])
    axes[1].minorticks_off()


def common_directions(axes, seed):
    (x, y), _ = data(seed, 200)
    net = partial(models.mlp, tuple(x.shape[1:]), 10, (32,) * 6)
    epochs, similar, strengths, losses, start = [], [], [], [], None
    for epoch, state, _ in sweep(Setup(net, x, y, lr=0.05, batch_size=50), {"run": [Phase(60)]},
                                 seed):
        with torch.no_grad():
            features = state.model[:6](x[:100])
        weights = [p.detach().clone() for p in state.model.parameters() if p.dim() == 2][3]
        start = weights if start is None else start
        epochs.append(epoch)
        similar.append(f.cross_class_similarity(features, y[:100]))
        losses.append(f.evaluate(state.model, x, y)[1] / np.log(10))
        if epoch:
            change = weights - start
            along = f.common_directions(change[None], 3)
            strengths.append((along @ change).norm(dim=1).tolist())
    axes[0].plot(epochs, similar, label="cosine of features, other classes")
    axes[0].plot(epochs, losses, "--", label="loss / ln 10")
    axes[0].set(xlabel="epoch", ylim=(0, 1.1))
    axes[0].legend()
    for i, row in enumerate(zip(*strengths)):
        axes[1].plot(epochs[1:], row, label=f"direction {i + 1}")
    axes[1].set(xlabel="epoch", ylabel="strength in the change of a layer", yscale="log")
    axes[1].legend()


FIGURES = {  # what a file must define -> its figure
    "gaussian_blur": blur_and_label_noise, "fisher_trace": fisher_trace,
    "binned_mutual_information": binned_information, "effective_gradient": effective_gradient,
    "simulate": softmax_phases, "shrink_perturb": shrink_perturb,
    "magnitude_masks": pruning_and_curvature, "common_directions": common_directions,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the data (0)")
    parser.add_argument("--out", type=Path, help="the picture (default: FILE with .png)")
    parser.add_argument("--labels", action="store_true",
                        help="fisher_trace: a dashed line for labels=y, those of the data, too")
    arguments = parser.parse_args()
    try:
        names = f.install(arguments.file)
    except ValueError as error:
        sys.exit(f"error: {error}")
    figures = [draw for name, draw in FIGURES.items() if name in names]
    if not figures:
        sys.exit(f"error: there is a figure for {', '.join(FIGURES)} alone, not {', '.join(names)}")
    for i, draw in enumerate(figures):
        picture, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        more = {"labels": True} if arguments.labels and draw is fisher_trace else {}
        try:
            draw(axes, arguments.seed, **more)
        except NotImplementedError:
            sys.exit(f"error: {f.CALLED[0]} in {arguments.file} is not written yet")
        picture.suptitle(f"{arguments.file.name}, seed {arguments.seed}: {', '.join(names)}",
                         fontsize="small")
        out = arguments.out or arguments.file.with_suffix(".png")
        out = out.with_stem(f"{out.stem}_{i + 1}") if i else out
        picture.savefig(out, dpi=120)
        print(out)


if __name__ == "__main__":
    main()
