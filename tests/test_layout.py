"""The separations of the project, read off its source."""

import ast
import json
import re
import subprocess
from pathlib import Path

import adapters
import pytest

ROOT = Path(__file__).parent.parent
PANELS = ROOT / "examples" / "results"


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def test_layout__theory_and_package_do_not_know_each_other():
    for path in (ROOT / "theory").glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= {"numpy", "math", "theory"}, path
    standard = {
        "ast",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "functools",
        "gzip",
        "hashlib",
        "json",
        "math",
        "os",
        "pathlib",
        "pickle",
        "shutil",
        "tarfile",
        "tempfile",
        "textwrap",
        "time",
        "urllib",
        "zipfile",
        "zlib",
    }
    for path in (ROOT / "clp_min").glob("*.py"):
        allowed = standard | {"numpy", "torch", "clp_min"} | ({"matplotlib"} if path.name in ("plot.py", "data.py") else set())
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


def test_layout__oracles_share_no_code_with_the_project():
    assert {name.split(".")[0] for name in imports(ROOT / "tests" / "oracles.py")} <= {"math", "numpy", "torch"}


def test_layout__each_panel_is_defined_once():
    texts = {path: path.read_text() for path in (ROOT / "examples").glob("*.py")}
    panels = [
        name
        for text in texts.values()
        for found in re.findall(r"^PANELS = \[(.*?)\]", text, re.M | re.S)
        for name in re.findall(r"\w+", found)
    ]
    for name in panels:
        assert sum(len(re.findall(rf"^def {name}\(run\):\n    \"\"\"", text, re.M)) for text in texts.values()) == 1, (
            f"{name} is not one documented function"
        )
    assert len(panels) == len(set(panels)) > 0
    assert {result.name.split(".")[0] for result in PANELS.glob("*.json")} <= set(panels)


def test_layout__public_names_are_unique():
    seen = {}
    for path in [*(ROOT / "clp_min").glob("*.py"), *(ROOT / "theory").glob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert node.name not in seen, f"{node.name} in {path} and {seen[node.name]}"
                assert ast.get_docstring(node), f"{node.name} in {path} has no docstring"
                seen[node.name] = path
    assert set(adapters.PUBLIC) <= set(seen)


def test_layout__results_are_whole():
    for path in PANELS.glob("*.json"):
        result = json.loads(path.read_text())
        keys = {
            "panel",
            "claim",
            "scale",
            "data",
            "config",
            "seeds",
            "series",
            "headline",
            "verdict",
            "finding",
            "seconds",
            "device",
            "versions",
            "source",
        }
        assert keys <= set(result) and set(result["headline"]) == {"mean", "standard_error", "n", "unit"}, path
        assert result["seeds"] == list(range(len(result["seeds"]))) and path.with_suffix(".png").exists(), path
        for series in result["series"]:
            assert all(len(row) == len(series["x"]) for row in series["values"]), (path, series["label"])


def test_layout__nothing_is_large_and_nothing_is_data():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    assert all((ROOT / f).stat().st_size < 500_000 for f in files if (ROOT / f).exists())
