"""The committed results: every panel of every script has one, complete and with a verdict. They are
rows of the claims ledger."""

import json
import math
from pathlib import Path

import pytest
from test_layout import panels_of, scripts

from clp_min.study.panel import Panel, standard_seeds
from clp_min.study.plot import figures

RESULTS = Path(__file__).parent.parent / "examples" / "results"
FILES = sorted(path for path in RESULTS.rglob("*.json"))
VERDICTS = {
    "reproduced", "not reproduced", "reversed", "undecided", "holds", "holds as corrected",
    "fails as printed",
}


def row(path):
    """A parameter and its row of the ledger: PANEL, or FOLDER/PANEL."""
    result, name = json.loads(path.read_text()), str(path.relative_to(RESULTS).with_suffix(""))
    claim = pytest.mark.claim(name, verdict=result["verdict"])
    return pytest.param(result, path, id=name, marks=claim)


@pytest.mark.parametrize("result, path", [row(path) for path in FILES])
def test_results__complete_and_earned(result, path):
    n, effect, panel = len(result["seeds"]), result["headline"], Panel.from_dict(result)
    assert result["panel"] == path.stem
    assert result["verdict"] in VERDICTS and result["seeds"] == standard_seeds(n)
    assert n >= (3 if panel.statement else 5 if len(panel.effects) <= 2 else 8)
    assert set(effect) == {"mean", "standard_error", "n", "unit"} and math.isfinite(effect["mean"])
    assert panel.verdict == result["verdict"]  # computed again from the effects
    for figure in figures(panel):
        assert path.with_suffix(f".{figure}.png" if figure else ".png").exists()
    for key, value in panel.details().items():  # half and double the bounds, the n that decides
        assert result[key] == value
    source = (path.parent / result["source"]).read_text()
    assert f"def {result['panel']}(study)" in source
    assert (RESULTS.parent / result["script"]).exists()
    # what was measured on a part of a published set says so in its folder's name
    cut = any(size.get("cut") for size in result["data_sizes"].values())
    assert cut == ("cut" in path.parent.name)
    assert all(size["digest"] for size in result["data_sizes"].values())
    if panel.effects:
        assert effect["n"] == n and all(e.n == n for e in panel.effects)
        assert all(len(one["values"]) in (1, n) for one in result["series"])
    default = path.parent == RESULTS
    where = [result["data"], result["scale"], result["variant"]]
    assert default or path.parent.name == ".".join(part for part in where if part)


def test_results__every_panel_of_every_script_has_one():
    panels = {panel for script in scripts() for panel in panels_of(script)}
    assert panels == {path.stem for path in FILES if path.parent == RESULTS}
    assert {path.stem for path in FILES} <= panels


def test_results__no_source_is_left_over():
    for folder in {path.parent for path in FILES}:
        kept = {f"sources/{path.name}" for path in folder.glob("sources/*.txt")}
        results = [json.loads(path.read_text()) for path in folder.glob("*.json")]
        assert kept == {one["source"] for one in results if one["source"].startswith("sources/")}
