"""One house style: every panel is drawn from its results file alone, so ``--plot`` needs no training."""

import math
import os
import textwrap

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}


def _mean_and_error(values):
    values = np.array([[math.nan if v is None else v for v in row] for row in values], dtype=float)  # (seeds, points)
    error = values.std(0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else np.zeros(values.shape[1])
    return values.mean(0), error


def _draw_axes(axes, series, figure):
    band = max(len(one["x"]) for one in series) > 15  # many points: a band instead of error bars
    for number, one in enumerate(series):
        mean, error = _mean_and_error(one["values"])
        if figure.get("kind") == "bar":
            place = np.arange(len(one["x"])) + (number - (len(series) - 1) / 2) * 0.8 / len(series)
            axes.bar(place, mean, 0.8 / len(series), yerr=error, capsize=2, label=one["label"])
            axes.set_xticks(np.arange(len(one["x"])), one["x"])
        elif one.get("points"):
            axes.errorbar(one["x"], mean, error, fmt="o", markersize=3.5, capsize=2, label=one["label"])
        elif band:
            line = axes.plot(one["x"], mean, label=one["label"])[0]
            axes.fill_between(one["x"], mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
        else:
            axes.errorbar(one["x"], mean, error, marker="o", markersize=3.5, capsize=2, label=one["label"])
    for span in figure.get("spans", ()):
        axes.axvspan(*span, color="0.5", alpha=0.12, linewidth=0)
    label = series[0]["y"]
    axes.set(xlabel=series[0].get("x_label", figure.get("x")), ylabel="\n".join(textwrap.wrap(label, 38)))
    if label in figure.get("log_x", ()):
        axes.set_xscale("log")
    if label in figure.get("log", ()):
        axes.set_yscale("log")
    if len(series) > 1 or figure.get("kind") != "bar":
        axes.legend(fontsize=8 if len(series) < 6 else 6)


def draw_panel(result, path):
    """Draw a results file's content as PNG: means over seeds with ± one standard error; one set of axes per y label.

    result["series"]: list of {"label", "x", "y" (label), "values" (seeds x points), optional "points" (True: markers alone), "x_label"};
    result["figure"]: {"x" (label), optional "kind": "bar", "log" and "log_x" (y labels whose axes are logarithmic), "spans" (shaded in x)}.
    Data set, scale and n are written on the figure.
    """
    labels = list(dict.fromkeys(one["y"] for one in result["series"]))
    rows = 1 if len(labels) <= 3 else 2
    columns = -(-len(labels) // rows)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.2 * rows + 0.3), squeeze=False)
        for one in axes.flat[len(labels) :]:
            one.axis("off")
        for one, label in zip(axes.flat, labels):
            _draw_axes(one, [s for s in result["series"] if s["y"] == label], result["figure"])
        figure.suptitle("\n".join(textwrap.wrap(f"{result['panel']}: {result['claim']}", 70 * columns)), fontsize=9)
        variant = f", {result['variant']}" if result.get("variant") else ""
        note = f"{result['data']}{variant}, {result['scale']} scale, n = {len(result['seeds'])} seeds (mean ± s.e.); {result['verdict']}"
        figure.supxlabel(note, fontsize=7, color="0.4")
        save(figure, path)


def contact_sheet(rows, path, title=""):
    """PNG of images: rows = list of (label, images (n, channels, h, w) float); each row is scaled to its own 1st..99th percentile."""
    with plt.rc_context({**STYLE, "axes.grid": False}):
        columns = max(len(images) for _, images in rows)
        figure, axes = plt.subplots(len(rows), columns, figsize=(0.8 * columns + 1, 0.95 * len(rows)), squeeze=False)
        for row, (label, images) in zip(axes, rows):
            low, high = np.percentile(images, (1, 99))
            for axis, image in zip(row, images):
                axis.imshow(np.clip((image.transpose(1, 2, 0) - low) / (high - low), 0, 1).squeeze(), cmap="gray")
            for axis in row:
                axis.set(xticks=[], yticks=[])
            row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        figure.suptitle(title, fontsize=9)
        save(figure, path)


def save(figure, path):
    """Write the figure under a temporary name, then rename; then close it."""
    temporary = f"{path}.{os.getpid()}.new"
    figure.savefig(temporary, format="png", dpi=130)
    os.replace(temporary, path)
    plt.close(figure)
