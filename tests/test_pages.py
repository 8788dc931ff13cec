"""The pages beside the gallery: lines of functions, the reading path, several results in one
figure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ledger
import pytest
from test_examples import readme_blocks
from test_layout import panels_of, scripts

from clp_min.study import overlay, pages

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "examples" / "results"


def test_linked__leads_to_the_line_and_refuses_what_is_not_there(tmp_path):
    (tmp_path / "a.py").write_text("import math\n\n\ndef f():\n    pass\n\n\nclass C:\n    pass\n")
    text = "[`f`](a.py#L1), [C](a.py), [the file](a.py), [a.py](a.py) and `f`"
    expected = "[`f`](a.py#L4), [C](a.py#L8), [the file](a.py), [a.py](a.py) and `f`"
    assert pages.linked(text, tmp_path) == expected
    for wrong in ("[`g`](a.py)", "[f](b.py)"):
        with pytest.raises(ValueError, match="a page links to"):
            pages.linked(wrong, tmp_path)


def test_function_table__has_every_public_function_with_its_formula_and_place():
    table = pages.function_table(ROOT, RESULTS)
    for name in ("fisher_trace", "effective_gradient", "simulate", "Phase", "theorem1_bound"):
        assert table.count(f"[`{name}`](../../") == 1
    row = next(line for line in table.splitlines() if "[`simulate`]" in line)
    assert "Delta_(t+1) = Delta_t + (lr d / 2l)" in row
    row = next(line for line in table.splitlines() if "[`theorem1_bound`]" in line)
    line = int(re.search(r"theory/sgd.py#L(\d+)", row)[1])
    text = (ROOT / "theory" / "sgd.py").read_text().splitlines()
    assert text[line - 1].startswith("def theorem1_bound(")
    for name, end in (
        ("all_cnn", "Achille et al."), ("outputs", "Phases: Eq. 2, Eq. 3"),
        ("prune_and_rewind", "Sparse: Section 2, footnote 2"),
        ("theorem1_bound", "Revisiting: Theorem 1"), ("none", ""),
        ("random_flip", "Revisiting: Appendix B.1; Diversity: Appendix A.1"),
        ("separable_quantities", "Phases; Revisiting: Theorem 1, Eq. 22 to 23"),
    ):
        row = next(line for line in table.splitlines() if f"[`{name}`]" in line)
        assert row.endswith(f"| {end} |"), row


def test_reading_path__every_panel_and_no_unknown_erratum():
    text = (RESULTS / "READING.md").read_text()
    for path in scripts():
        for panel in panels_of(path):
            assert f"[{panel}](../{path.name}#L" in text, panel
    known = {leaf.name for leaf in ledger.statements()}
    papers = "|".join(ledger.PAPERS)
    named = set(re.findall(rf"`((?:{papers})_\w+)`", text))
    assert named <= known and len(named) > 20
    anchors = set(re.findall(r'<a name="(.+?)">', (RESULTS / "README.md").read_text()))
    assert set(re.findall(r"\(README.md#(\w+)\)", text)) <= anchors


def result(name, folder="."):
    return json.loads((RESULTS / folder / f"{name}.json").read_text())


def test_overlay__a_curve_of_each_result_with_its_own_verdict():
    both = result("achille_blur"), result("achille_blur", "cifar10.quick.cut")
    picture = overlay.overlay(both, relative=True)
    [place] = [axes for part in picture.subfigs for axes in part.axes]
    labels = place.get_legend_handles_labels()[1]
    assert len(labels) == 2 and "textures" in labels[0] and "cifar10, cut" in labels[1]
    for one, label in zip(both, labels):
        assert f"({one['verdict']}, n = {len(one['seeds'])})" in label
    lines = [line for line in place.lines if line.get_label() in labels]
    assert [list(line.get_xdata())[-1] for line in lines] == [1.0, 1.0]
    assert list(lines[0].get_ydata()) != list(lines[1].get_ydata())


def test_overlay__axes_may_differ_in_the_numbers_of_their_settings():
    both = result("achille_window"), result("achille_window", "cifar10.evening.cut")
    [place] = [axes for part in overlay.overlay(both).subfigs for axes in part.axes]
    assert place.get_ylabel().replace("\n", " ") == "accuracy lost to … blurred epochs (points)"


def test_overlay__what_cannot_lie_together_is_refused():
    blur = result("achille_blur")
    with pytest.raises(ValueError, match="do not share an axis"):
        overlay.overlay([blur, result("revisiting_fig1a")])
    with pytest.raises(ValueError, match="more than six"):
        overlay.overlay([blur] * 7)
    with pytest.raises(ValueError, match="no line named 'nothing'; it has: final test accuracy"):
        overlay.overlay([blur], "nothing")


NETWORK = "pip install", "git clone", "--download"  # only parsed
LONG = "pytest", "tests/mutate.py", "examples/all.py", "tests/gpu/check.sh"  # tested elsewhere
STANDS_FOR = {  # what a reader puts in
    "FOLDER": "solutions", "A.json": "examples/results/achille_blur.json",
    "B.json": "examples/results/fashion_mnist.quick/achille_blur.json",
    "python examples/blur_deficit.py": "python examples/blur_deficit.py --scale smoke --seeds 0-0",
}


def readme_commands():
    """Every command of the README, once, in its order."""
    shell = [line for block in readme_blocks("sh") for line in block.splitlines()]
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.S)
    inline = re.findall(r"`((?:python|pytest|tests/gpu)[^`]*)`", text)
    lines = (line for line in shell + inline if line and line != "%%bash")  # of a notebook's cell
    return list(dict.fromkeys(lines))


@pytest.mark.slow
def test_readme__commands_run_or_parse(tmp_path):
    for name in ("clp_min", "theory", "tests", "examples", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    solutions = tmp_path / "solutions"
    solutions.mkdir()
    right = (ROOT / "tests" / "right" / "05_softmax_phases.py").read_text()
    (solutions / "one.py").write_text(right)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = dict(shell=True, cwd=tmp_path, capture_output=True, text=True,
                    env={**os.environ, "PATH": path})
    done, parsed = [], []
    for command in readme_commands():
        script = re.search(r"(?:^|[ /])((?:examples|tests)/[\w/]+\.(?:py|sh))", command)
        assert script is None or (ROOT / script[1]).exists(), command
        if any(word in command for word in NETWORK) or command.startswith(LONG) or any(
            f" {name}" in command for name in LONG
        ):
            parsed.append(command)
            if script and script[1].endswith(".py"):
                said = subprocess.run(f"python {script[1]} --help", **settings).stdout
                options = re.findall(r"(--[\w-]+)", command.split(script[1])[1])
                assert all(option in said for option in options), command
            continue
        for name, real in STANDS_FOR.items():
            words = rf"(?<=\s){re.escape(name)}(?!\S)"
            command = real if command == name else re.sub(words, real, command)
        ended = subprocess.run(command, **settings)
        assert ended.returncode == 0, (command, ended.stderr)
        done.append(command)
        if command.startswith("python tests/mark.py --starter"):  # what the student then does
            right = (ROOT / "tests" / "right" / "02_fisher_trace.py").read_text()
            (tmp_path / "mine.py").write_text(right)
    assert len(done) >= 8 and len(parsed) >= 8
    assert (tmp_path / "overlay.png").exists() and (tmp_path / "marks.csv").exists()
