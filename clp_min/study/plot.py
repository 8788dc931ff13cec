"""Panel → figure: the verdict on top, the axes, and the effects from which
the verdict was computed.

A figure is drawn from a ``Panel`` alone, so that ``--plot`` needs no training. matplotlib is
imported where something is drawn: it takes half a second, of ``--help`` too.
"""

import math
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from clp_min.disk import whole_file
from clp_min.study.panel import would_change

STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.5,
    "svg.hashsalt": "clp_min",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito 2008
WORDS = {  # verdict -> colour; grey for any other
    **dict.fromkeys(("reproduced", "holds", "holds as corrected"), "#0072B2"),
    **dict.fromkeys(("not reproduced", "fails as printed"), "#D55E00"),
    **dict.fromkeys(("reversed", "disagrees"), "#882255"),
}


def draw(panel, figure=""):
    """A matplotlib Figure of the panel, or of those of its axes that belong to another ``figure``.

    Lines and bars are means over seeds with ± one standard error. Below the axes, one row for each
    effect: its interval (``Effect.reach``) on a scale of its own, 0, and its bounds, dashed.
    """
    chosen = [axes for axes in panel.axes if axes.figure == figure]
    if not chosen:
        raise ValueError(f"{panel.name} has no figure {figure!r}")
    effects = [] if figure else panel.effects
    columns = min(len(chosen), 3 if chosen[0].kind == "image" else 2)
    rows = -(-len(chosen) // columns)
    width = 4.2 * columns if columns > 1 else 6.0
    note = textwrap.fill(_note(panel, chosen), int(19 * width))
    heights = [0.72, 3.1 * rows, _strip_height(effects), 0.2 + 0.12 * len(note.splitlines())]
    with _framed(width, sum(heights)) as picture:
        picture.get_layout_engine().set(w_pad=0.1)
        head, body, strip, foot = picture.subfigures(4, 1, height_ratios=heights)
        _draw_head(head, panel, width)
        places = body.subplots(rows, columns, squeeze=False).ravel()
        colours = {}  # of labels: a curve keeps its colour from axes to axes
        for place, axes in zip(places, chosen):
            _draw_axes(place, axes, colours)
        for place in places[len(chosen) :]:  # one is left over
            place.axis("off")
        if effects:
            _draw_strip(strip.subplots(), effects)
        foot.text(0.02, 0.3, note, fontsize=7, color="0.35")
    return picture


@contextmanager
def _framed(width, height, **style):
    """A matplotlib Figure in our style, laid out when it is left, while the style is in force."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, **style}):
        picture = Figure(figsize=(width, height), layout="constrained")
        yield picture
        picture.draw_without_rendering()


def draw_alone(axes, note):
    """A matplotlib Figure of one pair of axes without a verdict, and a note below it."""
    with _framed(6.0, 4.0) as picture:
        body, foot = picture.subfigures(2, 1, height_ratios=[1, 0.08])
        _draw_axes(body.subplots(), axes, {})
        foot.text(0.02, 0.3, note, fontsize=7, color="0.35")
    return picture


def figures(panel):
    """The names of a panel's figures: "" and those that its axes name."""
    return list(dict.fromkeys(["", *(axes.figure for axes in panel.axes)]))


def save(picture, path):
    """Write the figure under a temporary name, then rename; the format is
    that of ``path``'s ending."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    kind = str(path).rsplit(".", 1)[1]
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with whole_file(path) as file:
        picture.savefig(file, format=kind, dpi=150, metadata=metadata)


def data_sheet(dataset, changes, title):
    """A contact sheet of two training images of each class, a row for each label -> change of x,
    which is scaled to its own 1st to 99th percentile."""
    x, y = dataset.train
    chosen = torch.cat([(y == c).nonzero()[:2, 0] for c in range(dataset.classes)])[:20]
    rows, columns = len(changes), len(chosen)
    with _framed(0.8 * columns + 1, 0.95 * rows + 0.2, **{"axes.grid": False}) as picture:
        places = picture.subplots(rows, columns, squeeze=False)
        for row, (label, change) in zip(places, changes.items()):
            images = change(x[chosen]).movedim(1, 3).cpu().numpy()
            low, high = np.percentile(images, (1, 99))
            for place, image in zip(row, np.clip((images - low) / (high - low), 0, 1)):
                place.imshow(image.squeeze(), cmap="gray")
                place.set(xticks=[], yticks=[])
            row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        size = f"{x.shape[2]}x{x.shape[3]}"
        picture.suptitle(f"{title} ({size} pixels): two of each class", fontsize=9)
    return picture


# ---- the frame


def _draw_head(head, panel, width):
    """The verdict, readable from the back of a room, and the claim that it is about."""
    word = panel.verdict.split(" (")[0]
    head.text(0.02, 0.52, word.upper(), fontsize=17, weight="bold", color=WORDS.get(word, "0.4"))
    claim = textwrap.wrap(f"The claim: {panel.claim}", int(15.5 * width))
    head.text(0.02, 0.44, "\n".join(claim), fontsize=9, va="top")


def _note(panel, axes):
    """Where it was measured."""
    data = panel.data.replace("_", " ") + (f", {panel.variant}" if panel.variant else "")
    parts = [panel.name, data, f"{panel.scale} scale" if panel.scale else ""]
    n = max(len(curve.values) for one in axes for curve in one.curves)
    if n > 1:
        parts.append(f"n = {n} {'repetitions' if panel.statement else 'seeds'}, mean ± s.e.")
    shaded = dict.fromkeys(f"grey: {one.shaded}" for one in axes if len(one.spans))
    parts += [*shaded, panel.caption]
    parts += would_change(panel.verdict, panel.details())
    return " · ".join(part for part in parts if part)


def _strip_height(effects):
    lines = sum(len(_effect_label(effect).splitlines()) for effect in effects)
    return 0.16 * lines + 0.12 * len(effects) + 0.45 if effects else 0.05


def _effect_label(effect):
    return textwrap.fill(str(effect), 52)


def _draw_strip(place, effects):
    """Each effect on its own scale: its interval, 0, lines at ± ``least`` or ± ``within``."""
    leftmost = 0.0
    for row, effect in enumerate(effects):
        reach = np.nan_to_num(effect.reach())
        bound = effect.within or effect.least or 0.0
        low, high = effect.mean - reach, effect.mean + reach
        lines = [-bound, bound] if effect.within or low < 0 else [bound]
        scale = max(abs(low), abs(high), bound) or 1.0
        colour = WORDS.get(effect.word(len(effects)) if bound else "", "0.4")
        place.errorbar(
            effect.mean / scale, row, xerr=reach / scale, fmt="o", color=colour, capsize=3, ms=4
        )
        for line in lines:
            place.plot([line / scale] * 2, [row - 0.35, row + 0.35], "k--", lw=1)
        leftmost = min(leftmost, low / scale, *(line / scale for line in lines))
    place.axvline(0, color="k", lw=0.8)
    place.set_yticks(range(len(effects)), map(_effect_label, effects), fontsize=7.5)
    place.set(xlim=(max(leftmost, -1) - 0.1, 1.1), ylim=(len(effects) - 0.4, -0.6), xticks=[])
    label = "mean and interval (99 %): all of it must lie beyond the dashed line, or between two"
    place.set_xlabel(label, fontsize=7, loc="right")
    place.grid(False)
    place.spines["left"].set_visible(False)
    place.tick_params(axis="y", length=0)


# ---- one pair of axes


def _draw_axes(place, axes, colours):
    if axes.kind == "line":
        _draw_lines(place, axes, colours)
    else:
        {"bar": _draw_bars, "image": _draw_image}[axes.kind](place, axes)
    for span in axes.spans:
        place.axvspan(*span, color="0.5", alpha=0.12, linewidth=0)
    x = axes.x + " (log scale)" * axes.log_x
    y = axes.y + " (log scale)" * axes.log
    place.set(xlabel=x, ylabel="\n".join(textwrap.wrap(y, 38)))
    if axes.epoch:
        scales = lambda steps: steps / axes.epoch, lambda epochs: epochs * axes.epoch
        place.secondary_xaxis(-0.26, functions=scales).set_xlabel("epoch")
    if axes.log_x:
        place.set_xscale("log")
        _log_ticks(place.xaxis)
    if axes.log:
        place.set_yscale("log")
        _log_ticks(place.yaxis)
    labels = place.get_legend_handles_labels()[1]
    if len(labels) > 1:  # above the axes: never on data
        columns = 1 if max(map(len, labels)) > 24 or len(labels) < 3 else 2
        place.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderpad=0)


def _log_ticks(axis):
    """Decades; with less than two of them, plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _mean_and_error(curve):
    error = np.zeros(len(curve.x))
    if len(curve.values) > 1:
        error = curve.values.std(0, ddof=1) / math.sqrt(len(curve.values))
    return curve.values.mean(0), error


def _draw_lines(place, axes, colours):
    """Curves with error bars, or with bands where there are many points.

    A label has the number in ``colours`` that it had in earlier axes, else the first free one. A
    "points" curve has the colour of the curve before it and no entry in the legend. A curve that
    lies on an earlier one is dashed, and the earlier one is drawn broad and pale below it.
    """
    from matplotlib.ticker import MaxNLocator

    drawn, near = [], 0.01 * np.ptp(_heights(axes.curves, axes.log))
    taken = {colours[curve.label] for curve in axes.curves if curve.label in colours}
    used, colour = [], COLOURS[0]
    for curve in axes.curves:
        mean, error = _mean_and_error(curve)
        if curve.style == "points":
            place.errorbar(curve.x, mean, error, fmt="o", ms=3.5, capsize=2, color=colour)
            continue
        free = min(set(range(len(used) + len(taken) + 1)) - {*used, *taken})
        number = colours.setdefault(curve.label, free)
        used.append(free if number in used else number)
        colour = COLOURS[used[-1] % len(COLOURS)]
        heights = _heights([curve], axes.log)
        below = [line for x, other, line in drawn
                 if x == curve.x and np.nanmax(np.abs(other - heights)) <= near]
        for line in below[-1:]:
            line.set(linewidth=5, alpha=0.35)
        dashed = "--" if below or curve.style == "dashed" else "-"
        marker = {} if len(curve.x) > 15 else {"marker": "o", "markersize": 3.5}
        line = place.plot(curve.x, mean, dashed, color=colour, label=curve.label, **marker)[0]
        if marker:
            place.errorbar(curve.x, mean, error, fmt="none", capsize=2, color=colour)
        else:
            band = mean - error, mean + error
            place.fill_between(curve.x, *band, color=colour, alpha=0.2, linewidth=0)
        drawn.append((curve.x, heights, line))
    if all(isinstance(v, int) for curve in axes.curves for v in curve.x):
        place.xaxis.set_major_locator(MaxNLocator(integer=True))


def _heights(curves, log):
    """Means of all curves in one array, logarithms on a logarithmic axis.

    What is not finite becomes nan; among several curves, their mean.
    """
    values = np.concatenate([curve.values.mean(0) for curve in curves])
    values = np.log(np.maximum(values, 1e-300)) if log else values
    return np.where(np.isfinite(values), values, np.nan if len(curves) == 1 else np.nanmean(values))


def _draw_bars(place, axes):
    """Groups of bars, one group for each x, with every seed as a dot."""
    width = 0.8 / len(axes.curves)
    for number, curve in enumerate(axes.curves):
        mean, error = _mean_and_error(curve)
        middle = np.arange(len(curve.x)) + (number - (len(axes.curves) - 1) / 2) * width
        place.bar(middle, mean, 0.9 * width, color=COLOURS[number], alpha=0.75, label=curve.label)
        place.errorbar(middle, mean, error, fmt="none", ecolor="k", capsize=3)
        for row in curve.values:
            place.plot(middle + 0.2 * width, row, ".", color="0.25", ms=4)
    names = ["\n".join(textwrap.wrap(str(v), 14)) for v in axes.curves[0].x]
    place.set_xticks(range(len(names)), names)
    if len(names) > 8:
        place.tick_params(axis="x", rotation=90, labelsize="small")
    place.axhline(0, color="k", lw=0.8)
    place.grid(False, axis="x")


def _draw_image(place, axes):
    """Curves as the rows of an image: for more of them than lines could show."""
    rows = np.stack([curve.values.mean(0) for curve in axes.curves])
    image = place.imshow(rows, aspect="auto", cmap="viridis", interpolation="nearest")
    x = axes.curves[0].x
    shown = range(0, len(x), max(len(x) // 6, 1))
    place.set_xticks(list(shown), [f"{x[i]:g}" for i in shown])
    place.set_yticks(range(len(rows)), [curve.label for curve in axes.curves], fontsize=7)
    place.figure.colorbar(image, ax=place)
    place.grid(False)
