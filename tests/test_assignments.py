"""The assignments: handouts and their tables, starters, right and wrong solutions, and files that
do harm."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adapters
import edits
import mark

ROOT = Path(__file__).parent.parent
RIGHT = sorted((ROOT / "tests" / "right").glob("*.py"))
NAMES = list(mark.assignments())


def marks(folder, *arguments, cwd=ROOT):
    """{file: row} of mark.py on a folder."""
    command = [sys.executable, str(ROOT / "tests" / "mark.py"), str(folder), "--marks"]
    done = subprocess.run([*command, str(folder / "marks.csv"), *arguments], cwd=cwd,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(folder / "marks.csv", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_assignments__there_are_eight_and_each_has_a_right_solution():
    assert len(NAMES) >= 8 and [path.stem for path in RIGHT] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_assignments__a_handout_has_all_its_parts(name):
    text, assignment = (mark.HANDOUTS / f"{name}.md").read_text(), mark.assignments()[name]
    for part in ("The question", "The equations", "What to write", "What to observe", "Hints",
                 "Questions to answer from your figure", "Out of scope"):
        assert f"\n## {part}\n" in text
    assert text.count("<details>") == 3
    assert re.search(r"^\d+ minutes · difficulty [1-5] of 5$", text, re.M)
    assert assignment.properties[0][1].startswith("definition")
    tests = "".join(path.read_text() for path in ROOT.glob("tests/test_*.py"))
    for test in [test for _, _, tests_ in assignment.properties for test in tests_]:
        assert f"def test_{test.split('[')[0]}(" in tests, test
    row = re.search(rf"\({name}\.md\).*", (mark.HANDOUTS / "README.md").read_text())[0]
    assert row.split(" | ")[4] == str(assignment.points), row
    definition = sum(p for p, what, _ in assignment.properties if what.startswith("definition"))
    assert definition >= assignment.points / 2


@pytest.mark.parametrize("name", NAMES)
def test_assignments__a_starter_holds_signatures_and_no_code(name, tmp_path):
    text = mark.starter(name)
    space = {}
    exec(compile(text, name, "exec"), space)
    for function in mark.assignments()[name].functions:
        with pytest.raises(NotImplementedError):
            space[function](*[None] * space[function].__code__.co_argcount)
        assert space[function].__doc__.strip() and function in adapters.PUBLIC
    assert text.count("raise NotImplementedError") == len(mark.assignments()[name].functions)


@pytest.mark.parametrize("function", sorted(adapters.PUBLIC))
def test_adapters__every_function_has_two_wrong_solutions(function):
    assert len(mark.wrong_solutions(function)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("edit", edits.EDITS, ids=lambda e: f"{e.function}: {e.mistake}")
def test_edits__each_fails_its_test(edit):
    fails_by_its_numbers(edits.wrong(edit), edit.test)


OF_SHAPES = "projection_on_the_wrong_side", "u_for_v"  # a matrix of another size


def fails_by_its_numbers(text, test, more="Failed"):
    """A wrong solution fails the test, by what it computes and not by how it is called."""
    errors = [c["error"] for c in mark.of_wrong(text, (test,)).values() if not c["passed"]]
    assert errors and all(re.match(f"AssertionError|{more}", error) for error in errors), errors


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sorted((ROOT / "tests" / "mutants").glob("*.py")),
                         ids=lambda path: path.stem)
def test_mutants__each_fails(mutant):
    """The test that must catch it is named in its first line."""
    test = re.search(r"caught by\s+test_(\w+)", mutant.read_text())[1]
    more = "ValueError|RuntimeError" if mutant.stem in OF_SHAPES else "Failed"
    fails_by_its_numbers(mutant.read_text(), test, more)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mark__names_the_mistake_of_every_wrong_solution(name):
    """Marked as a student's, each is told what it is, or one that errs alike."""
    assignment = mark.assignments()[name]
    tests = tuple(test for _, _, tests_ in assignment.properties for test in tests_)
    for function in assignment.functions:
        for words, text in mark.wrong_solutions(function):
            cases = mark.of_wrong(text, tests)
            failed = [c for test in tests for c in cases.values()
                      if mark.is_of(c, test) and not c["passed"]]
            if not failed:  # sampled labels, which no handout asks for
                assert words.startswith("Uses the most likely label")
                continue
            said = mark.likely(failed[0], cases, tests)
            assert words in said, (words, failed[0], said)


@pytest.mark.slow
def test_mark__right_solutions_get_all_points_for_the_definition(tmp_path):
    for path in RIGHT:
        (tmp_path / path.name).write_text(path.read_text())
        (tmp_path / f"starter_{path.name}").write_text(mark.starter(path.stem))
    rows = marks(tmp_path, cwd=tmp_path)
    for path in RIGHT:
        row = rows[path.name]
        for points, what, _ in mark.assignments()[path.stem].properties:
            if what.startswith("definition"):
                assert float(row[what]) == points, row
        assert float(row["points"]) == float(row["of"]), row
        started = rows[f"starter_{path.name}"]
        assert float(started["points"]) == 0 and "NotImplementedError" in started["remark"], started


BODY = "def vertical(x):\n    return x\n\n\ndef effective_gradient(gradient, direction):\n    {}\n"
HOSTILE = {  # name -> (text, what its remark must say)
    "syntax": ("def effective_gradient(g\n", "SyntaxError"),
    "nothing": ("x = 1\n", "none of the functions that are tested"),
    "exit": ("import sys\nsys.exit(0)\n" + BODY.format("return gradient"), "SystemExit"),
    "gone": (BODY.format("import os; os._exit(0)"), "ended the process"),
    "late_exit": (BODY.format("raise SystemExit(0)"), "SystemExit"),
    "loop": ("while True:\n    pass\n" + BODY.format("return gradient"), "took longer than"),
    "endless": (
        BODY.format("while True:\n        try:\n            pass\n        except Exception:"
                    "\n            pass"), "took longer than",
    ),
    "flood": (BODY.format("print('x' * 10_000_000)\n    return gradient"), "got"),
    "ours": (
        "from clp_min.gradients import effective_gradient as f\n" + BODY.format("return f"),
        "project's own",
    ),
    "inside": (
        BODY.format("from clp_min import gradients\n    return gradients.effective_gradient("
                    "gradient, direction)"), "project's own",
    ),
    "sideways": (
        "import sys\n" + BODY.format("return sys.modules['clp_min.gradients'].effective_gradient("
                                     "gradient, direction)"), "cannot be reached",
    ),
    "norm": (BODY.format("return gradient.dot(direction) / direction.norm() * direction"),
             "likely: divides by |d| instead of |d|^2"),
    "binary": ("\x00\x01", "does not parse"),
    "bytes": (BODY.format("import os; os.write(2, b'\\xff' * 1000)\n    return gradient"), "got"),
    "surrogate": (BODY.format("raise ValueError('\\ud800')"), "ValueError"),
    "partly": (
        "calls = []\n" + BODY.format(
            "calls.append(1)\n    import os\n    if len(calls) > 1:\n        os._exit(0)\n"
            "    return (gradient @ direction) / (direction @ direction) * direction"),
        "ended the process",
    ),
    "refuses": (BODY.format("raise ValueError('no')"), "ValueError"),
}


@pytest.mark.slow
def test_mark__a_function_without_a_handout_has_a_point(tmp_path):
    (tmp_path / "right.py").write_text("def vertical_flip(x):\n    return x.flip(2)\n")
    (tmp_path / "wrong.py").write_text("def vertical_flip(x):\n    return x\n")
    rows = marks(tmp_path)
    assert [float(rows[f"{name}.py"]["points"]) for name in ("right", "wrong")] == [1.0, 0.0]


@pytest.mark.slow
def test_mark__a_hundred_files_that_do_harm_give_a_hundred_rows(tmp_path):
    files = [(f"{name}_{i}.py", *HOSTILE[name]) for i in range(8) for name in HOSTILE][:100]
    for name, text, _ in files:
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.py").mkdir()
    rows = marks(tmp_path, "--limit", "1", "--minutes", "0.5")
    assert len(rows) == len(files) == 100
    for name, _, said in files:
        assert said in rows[name]["remark"], (name, rows[name]["remark"])
        assert float(rows[name]["points"]) < 3, rows[name]
