"""A figure shows what its verdict was computed from: change a measurement on which an effect
depends, and a curve must change. For every panel with effects, on made-up measurements."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from test_rules import SCRIPTS

from clp_min.study.panel import Panel
from clp_min.study.plot import draw, figures
from clp_min.study.record import Results

PANELS = [(script, panel) for script in SCRIPTS for panel in script.PANELS]
SHAPES = {  # measurements that are lists
    "layers": (4,), "histograms": (3, 10, 12), "top_classes": (10,), "density": (321,),
    "top": (10,),
    "areas": (4,), "by_class": (10,), "shares": (10,),
    **dict.fromkeys(("strengths", "strengths_start", "recursive", "parts", "parts_start"), (5, 5)),
    **dict.fromkeys(("with_v", "agree", "agree_measured", "o", "terms", "sigma"), (5,)),
}


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
        size = len(self.seeds), len(self.points(key, name)), *SHAPES.get(key, ())
        falling = 4 - np.arange(size[1]) / 78 if key == "loss" else 1.0  # crosses all bounds
        return np.exp(rng.normal(size=size) * (0.1 if key == "loss" else 1.0)) * falling


def made(script, panel, changed=None):
    configs = getattr(script, "CONFIGS", None) or script.phases.CONFIGS
    data = next(data for data, scale in configs if scale == "quick")
    alphas = getattr(configs[data, "quick"], "alphas", None)
    results = MadeUp([0, 1, 2, 3], alphas, changed)
    arguments = SimpleNamespace(to=None, held_out=False, net=None)
    study = SimpleNamespace(
        config=configs[data, "quick"], results=results, seeds=results.seeds, arguments=arguments,
        data=data, scale="quick", classes=10, step=lambda name=None, part="test": 0.05,
        sizes={data: {"used": 2000}},
    )
    return panel(study), results.read


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
