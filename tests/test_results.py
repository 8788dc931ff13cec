"""The committed results: every panel of every script has one, complete and with a verdict. They are rows of the claims ledger."""

import json
import math
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted((EXAMPLES / "results").glob("*.json"))
VERDICTS = {"reproduced", "not reproduced", "reversed", "holds", "holds as corrected", "fails as printed"}


def row(path):
    result = json.loads(path.read_text())
    return pytest.param(result, path, id=path.stem, marks=pytest.mark.claim(path.stem, verdict=result["verdict"]))


@pytest.mark.parametrize("result, path", [row(path) for path in FILES])
def test_results__complete_and_earned(result, path):
    n, effect = len(result["seeds"]), result["headline"]
    assert result["panel"] == path.stem.split(".")[0] and path.with_suffix(".png").exists()
    assert result["verdict"] in VERDICTS and n >= 3 and result["seeds"] == list(range(n))
    assert set(effect) == {"mean", "standard_error", "n", "unit"} and math.isfinite(effect["mean"])
    assert f"def {result['panel']}(run)" in result["source"]
    for one in result["series"]:
        assert all(len(values) == len(one["x"]) for values in one["values"]), one["label"]
    if result["data"] not in ("closed_form", "hierarchy"):
        assert effect["n"] == n and all(len(one["values"]) in (1, n) for one in result["series"])


def test_results__every_panel_of_every_script_has_one():
    panels = set()
    for script in EXAMPLES.glob("*.py"):
        block = re.search(r"^PANELS = \[(.*?)\]", script.read_text(), re.M | re.S)
        panels |= set(re.findall(r"\w+", block.group(1))) if block else set()
    assert panels == {path.stem for path in FILES if "." not in path.stem}
