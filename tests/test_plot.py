"""The figures: what they show, where it lies, and that a results file draws the same one."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from clp_min.study import Axes, Curve, Effect, Panel
from clp_min.study.panel import exact_curves, standard_seeds
from clp_min.study.plot import draw, figures, save
from clp_min.study.record import write_json

RNG = np.random.default_rng(0)


@pytest.fixture
def panel():
    """All kinds of axes, effects of all words, a second figure; a missing value."""
    rows = RNG.normal(50, 1, (8, 5))
    many = RNG.normal(size=(8, 40)).cumsum(1)
    missing = np.where(np.arange(5) == 2, np.nan, rows)
    return Panel(
        claim="a deficit does what it does, at length and in so many words: they need two lines",
        effects=[
            Effect("points lost", [5.0, 6.0, 5.5, 5.2, 5.0, 6.0, 5.5, 5.2], least=2.0),
            Effect("log ratio", [-3.0, -3.1, -2.9, -3.0, -3.0, -3.1, -2.9, -3.0], least=0.1),
            Effect("doublings apart", [0.1, -0.1, 0.2, 0.0] * 2, within=1.0, step=0.1),
        ],
        axes=[
            Axes("accuracy (%)", [Curve("a", range(5), rows), Curve("b", range(5), missing)]),
            Axes("walk", [Curve("band", range(40), many)], x="step", spans=[[3, 9]]),
            Axes("bars", [Curve("c", ["x", "y"], rows[:, :2])], kind="bar"),
            Axes("rows", exact_curves(range(5), dict(p=rows[0], q=rows[1])), kind="image"),
            Axes("more", [Curve("d", [1, 10], rows[:, :2])], log=True, log_x=True, figure="own"),
        ],
        caption="two settings",
        name="made_up", data="textures", scale="quick", seeds=standard_seeds(8),
    )


def pixels(picture):
    picture.canvas.draw()
    return np.asarray(picture.canvas.buffer_rgba())


def agg(picture):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(picture)
    return pixels(picture)


def test_draw__a_results_file_gives_the_same_pixels(panel, tmp_path):
    write_json(tmp_path / "made_up.json", panel.to_dict())
    again = Panel.from_dict(json.loads((tmp_path / "made_up.json").read_text()))
    assert again.verdict == panel.verdict and figures(again) == figures(panel) == ["", "own"]
    for figure in figures(panel):
        assert np.array_equal(agg(draw(panel, figure)), agg(draw(again, figure)))
    other = replace(panel, effects=panel.effects[:1])
    assert not np.array_equal(agg(draw(panel, "own")), agg(draw(other, "own")))  # another verdict


def texts(picture):
    from matplotlib.text import Text

    return [found.get_text() for found in picture.findobj(Text)]


def test_draw__says_verdict_claim_effects_and_where(panel):
    found = texts(draw(panel))
    assert "NOT REPRODUCED" in found and any(t.startswith("The claim: a deficit") for t in found)
    assert any("5.42 ± 0.14 points lost" in t for t in found)
    note = next(t for t in found if t.startswith("made_up"))
    for part in ("textures", "quick scale", "n = 8 seeds", "two settings", "grey: the deficit"):
        assert part in note
    assert any("all of it must lie beyond" in t for t in found)
    undecided = replace(panel, effects=[Effect("u", [0, 1, 2, 3, 4.0], least=1.5)], seeds=[])
    found = texts(draw(undecided))
    assert "UNDECIDED" in found and any("reproduced with half the bounds" in t for t in found) == (
        undecided.details()["half"] == "reproduced"
    )
    exact = replace(panel, axes=[Axes("y", exact_curves([0, 1], dict(a=[1, 2])))])
    assert not any("n = " in t for t in texts(draw(exact)))  # nothing was repeated


def test_draw__a_figure_that_a_panel_lacks_is_named(panel):
    with pytest.raises(ValueError, match="made_up has no figure 'nope'"):
        draw(panel, "nope")


def test_draw__the_legend_lies_above_the_axes(panel):
    for figure in figures(panel):
        picture = draw(panel, figure)
        pixels_of = lambda part: part.get_window_extent()  # noqa: E731
        for axes in picture.findobj(lambda part: hasattr(part, "get_legend")):
            legend = axes.get_legend()
            if legend is not None:
                assert pixels_of(legend).y0 >= pixels_of(axes.patch).y1 - 1


def test_draw__curves_that_coincide_can_be_told_apart():
    rows = np.linspace(0, 1, 6)[None] * np.ones((3, 1))
    curves = [Curve("under", range(6), rows), Curve("over", range(6), rows + 1e-4)]
    picture = draw(Panel("c", [Effect("u", [1] * 5, least=0.5)], [Axes("y", curves)]))
    lines = {line.get_label(): line for axes in picture.findobj() if hasattr(axes, "get_lines")
             for line in axes.get_lines()}
    assert lines["over"].get_linestyle() == "--"
    assert lines["under"].get_linewidth() > 2 * lines["over"].get_linewidth()


def test_panel__what_nobody_could_read_is_refused():
    seven = exact_curves([0, 1], {str(i): [0, 1] for i in range(7)})
    with pytest.raises(ValueError, match="more than six"):
        Panel("c", [], [Axes("y", seven)])
    Panel("c", [], [Axes("y", seven, kind="image")])
    dots = [replace(curve, style="points") for curve in seven]
    Panel("c", [], [Axes("y", [*seven[:3], *dots])])  # dots on a curve are no curves
    with pytest.raises(ValueError, match="same label"):
        Panel("c", [], [Axes("y", seven[:1]), Axes("y", seven[:1])])
    with pytest.raises(ValueError, match="one number per seed"):
        Effect("u", [[1.0, 2.0]])
    with pytest.raises(ValueError, match="needs"):
        Curve("c", [0, 1], [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_save__writes_every_format_whole(panel, tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    save(draw(panel), path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start) and [*tmp_path.iterdir()] == [path]


def test_plot__importing_the_study_changes_no_backend():
    code = (
        "import matplotlib, sys; rows = matplotlib.rcParams;"
        "keys = [k for k in rows if k != 'backend'];"
        "before = [rows[k] for k in keys]; import clp_min.study;"
        "assert [rows[k] for k in keys] == before and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plot__a_label_keeps_its_colour_from_axes_to_axes():
    lines = {name: Curve(name, [0, 1], np.ones((3, 2)) * i) for i, name in enumerate("abcd")}
    rows = ["abc", "ca", "db", "aa"]
    axes = [Axes(row, [lines[name] for name in row]) for row in rows]
    effect = Effect("points", [1.0, 2.0, 1.5], least=1.0)
    drawn = draw(Panel("a claim", [effect], axes)).subfigs[1].axes
    colours = [[line.get_color() for line in place.lines if line.get_label() in "abcd"]
               for place in drawn]
    (a, b, c), second, (d, b_again), (one, other) = colours
    assert second == [c, a] and b_again == b and one == a
    assert len({a, b, c}) == 3 and d != b and one != other
