"""The separations of the project, read off its source."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import adapters
import ledger
import lines

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SETTINGS = {"achille", "ash", "revisiting", "sparse", "phases", "diversity"}
# a panel that stands in the script whose work it reads
OTHER_PREFIX = {"phases_fig5": "softmax_theory"}


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
        "ast", "collections", "contextlib", "copy", "dataclasses", "dis", "functools", "gzip",
        "hashlib", "http", "inspect", "io", "pickletools", "struct", "types", "weakref",
        "json", "math", "numbers", "os", "pathlib", "pickle", "shutil", "sys", "tarfile",
        "textwrap", "time", "urllib", "zipfile", "zlib", "fcntl", "signal",
    }
    for path in (ROOT / "clp_min").rglob("*.py"):
        drawing = {"matplotlib"} if path.name in ("plot.py", "files.py") else set()
        allowed = standard | {"numpy", "torch", "clp_min"} | drawing
        if path.parent.name == "study":
            allowed |= {"argparse", "csv", "fcntl", "functools", "itertools", "platform", "re"}
            allowed |= {"signal", "subprocess", "sys", "threading"}
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


def test_layout__the_science_knows_nothing_of_the_study():
    for path in (ROOT / "clp_min").glob("*.py"):
        assert not any(name.startswith("clp_min.study") for name in imports(path)), path


def scripts():
    """The examples that are scripts."""
    return [p for p in sorted(EXAMPLES.glob("*.py")) if p.stem not in SETTINGS | {"all"}]


def test_layout__a_script_imports_its_papers_settings_and_packages_alone():
    local = {path.stem for path in EXAMPLES.glob("*.py")}
    for path in scripts():
        used = imports(path) & local
        paper = "achille" if path.stem == "blur_deficit" else path.stem.split("_")[0]
        assert used <= {paper} & SETTINGS, f"{path.name} imports {used}"
    for name in SETTINGS:
        assert not imports(EXAMPLES / f"{name}.py") & local


def panels_of(path):
    """Names in a script's PANELS."""
    found = re.search(r"^PANELS = \[(.*?)\]", path.read_text(), re.M | re.S)
    return re.findall(r"\w+", found.group(1))


def test_layout__a_panel_has_its_files_prefix():
    for path in scripts():
        for panel in panels_of(path):
            if OTHER_PREFIX.get(panel) == path.stem:
                continue
            prefix = "achille" if path.stem == "blur_deficit" else path.stem.split("_")[0]
            assert panel.startswith(prefix), f"{panel} lies in {path.name}"
            assert OTHER_PREFIX.get(panel) is None


def test_layout__the_list_of_panels_is_that_of_the_code():
    text = (ROOT / "tests" / "PANELS.md").read_text()
    built = set(re.findall(r"`(\w+)`", re.search(r"^Built: (.*?)\n\n", text, re.M | re.S).group(1)))
    listed = set(ledger.panels())
    coded = {panel for path in scripts() for panel in panels_of(path)}
    assert coded == built, "tests/PANELS.md, Built: is not what the scripts hold"
    assert built <= listed, f"not in a table of PANELS.md: {sorted(built - listed)}"


def test_layout__within_the_budget_of_lines():
    for folder, budget in lines.BUDGETS.items():
        assert sum(lines.count(folder).values()) <= budget, f"python tests/lines.py: {folder}"
    for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= 100, f"{path}:{number} is {len(line)} columns wide"


def test_layout__no_function_is_a_wall():
    """Fewer than 60 lines with its docstring."""
    for folder in ("clp_min", "theory", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    length = node.end_lineno - node.lineno + 1
                    assert length < 60, f"{node.name} in {path} has {length} lines"


def test_layout__oracles_share_no_code_with_the_project():
    assert {name.split(".")[0] for name in imports(ROOT / "tests" / "oracles.py")} <= {
        "math", "numpy", "torch",
    }


def test_layout__each_panel_is_defined_once():
    texts = {path: path.read_text() for path in EXAMPLES.glob("*.py")}
    panels = [panel for path in scripts() for panel in panels_of(path)]
    for name in panels:
        defined = [
            len(re.findall(rf"^def {name}\(study\):\n    \"\"\"", text, re.M))
            for text in texts.values()
        ]
        assert sum(defined) == 1, f"{name} is not one documented function"
    assert len(panels) == len(set(panels)) > 0


def test_layout__public_names_are_unique():
    seen = {}
    for path in [*(ROOT / "clp_min").rglob("*.py"), *(ROOT / "theory").glob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            kinds = ast.FunctionDef, ast.ClassDef
            if isinstance(node, kinds) and node.name[0] != "_" and node.name != "main":
                assert node.name not in seen, f"{node.name} in {path} and {seen[node.name]}"
                assert ast.get_docstring(node), f"{node.name} in {path} has no docstring"
                seen[node.name] = path
    assert set(adapters.PUBLIC) <= set(seen)


def test_layout__nothing_is_large_and_nothing_is_data():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    assert all((ROOT / f).stat().st_size < 500_000 for f in files if (ROOT / f).exists())
