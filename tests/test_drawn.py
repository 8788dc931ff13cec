"""A figure shows what its verdict was computed from: change a measurement on which an effect
depends, and a curve must change. For every panel with effects, on made-up measurements."""

import hashlib

import numpy as np
import pytest
from test_rules import LISTS, SCRIPTS, study_of

from clp_min.study.panel import Panel
from clp_min.study.plot import draw, figures
from clp_min.study.record import Results

PANELS = [(script, panel) for script in SCRIPTS for panel in script.PANELS]


class MadeUp(Results):
    """Every measurement at every point 0..309, or alpha; ``changed`` (key, name) differs."""

    def __init__(self, seeds, alphas, changed=None):
        super().__init__(None, seeds)
        self.alphas, self.changed, self.read = alphas, changed, set()

    def points(self, key, name):
        self.read.add((key, name))
        return self.alphas if name == "line" else list(range(310))

    def values(self, key, name):
        self.read.add((key, name))
        salt = "changed" if (key, name) == self.changed else ""
        digest = hashlib.sha256(f"{key} {name} {salt}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        size = len(self.seeds), len(self.points(key, name)), *LISTS.get(key, ())
        falling = 4 - np.arange(size[1]) / 78 if key == "loss" else 1.0  # crosses all bounds
        return np.exp(rng.normal(size=size) * (0.1 if key == "loss" else 1.0)) * falling


def made(script, panel, changed=None):
    study = study_of(script, None)
    study.results = MadeUp([0, 1, 2, 3], study.results.alphas, changed)
    study.seeds = study.results.seeds
    return panel(study), study.results.read


def numbers(curves):
    return [curve.values for axes in curves for curve in axes.curves]


def differ(a, b):
    return any(not np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("script, panel", PANELS, ids=lambda p: p.__name__)
def test_draw__every_run_that_an_effect_uses_is_drawn(script, panel):
    before, read = made(script, panel)
    assert before.effects and read
    decisive = 0
    for changed in sorted(read):
        after, _ = made(script, panel, changed)
        if differ(*([e.values for e in one.effects] for one in (before, after))):
            decisive += 1
            main = ([a for a in one.axes if not a.figure] for one in (before, after))
            assert differ(*map(numbers, main)), f"{changed} decides and is not drawn"
    assert decisive > 0


@pytest.mark.slow
@pytest.mark.parametrize("script, panel", PANELS, ids=lambda p: p.__name__)
def test_draw__every_panel_and_its_results_file(script, panel):
    panel, _ = made(script, panel)
    again = Panel.from_dict(panel.to_dict())
    for figure in figures(panel):
        draw(panel, figure)
    assert again.verdict == panel.verdict
