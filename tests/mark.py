"""Marks solutions of the assignments in examples/assignments, and makes their starters.

    python tests/mark.py FILE|FOLDER … [--marks marks.csv]     from any folder
    python tests/mark.py --starter 02_fisher_trace > mine.py
    python tests/mark.py --list

Other functions that have tests (tests/adapters.py names them) are marked too, a point for each.
Every file gets a row: points by property, and for the first failure what was called, what came and
what was wanted, and the usual mistake that gives the same number. A solution cannot reach the
project's own functions. What does not import, floods, exits or never ends gets a row too.
"""

import argparse
import ast
import csv
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import edits  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
HANDOUTS = ROOT / "examples" / "assignments"
ROW = re.compile(r"^\| (\d+) \| ([\w ,]+) \| ((?:`[\w\[+-]+`(?:, )?)+) \|$", re.M)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Assignment:
    """A handout: its name, the functions asked for, and (points, property, tests) of its table."""

    name: str
    functions: tuple
    properties: tuple

    @property
    def points(self):
        return sum(points for points, _, _ in self.properties)


@lru_cache
def assignments():
    """All handouts, by name."""
    found = {}
    for path in sorted(HANDOUTS.glob("[0-9]*.md")):
        rows = [(int(p), what, re.findall(r"`(.+?)`", tests))  # a test, or "test[first case"
                for p, what, tests in ROW.findall(path.read_text())]
        functions = dict.fromkeys(test.split("__")[0] for _, _, tests in rows for test in tests)
        found[path.stem] = Assignment(path.stem, tuple(functions), tuple(rows))
    return found


def without_handout(defined):
    """[one assignment] of other functions that have tests, a point for each; [] if there are
    none."""
    tests = re.findall(r"^def test_(\w+?__\w+)\(", all_tests(), re.M)
    found = {name: [t for t in tests if t.split("__")[0] == name] for name in sorted(defined)}
    rows = [(1, name, own) for name, own in found.items() if own]
    return [Assignment("without a handout", tuple(n for _, n, _ in rows), tuple(rows))] * bool(rows)


@lru_cache
def all_tests():
    return "".join(path.read_text() for path in sorted(ROOT.glob("tests/test_*.py")))


def starter(name):
    """A file to fill in: signature and docstring of our functions, nothing of their code."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import adapters

    own = [adapters.PUBLIC[function] for function in assignments()[name].functions]
    lines = [f'"""Assignment {name}: examples/assignments/{name}.md"""', "", "import math", "",
             "import numpy as np", "import torch", ""]
    lines += ["from clp_min.fisher import FisherTrace", ""] * ("fisher_trace" in name)
    for function in own:
        signature = str(inspect.signature(function))
        text = "\n".join(f"    {line}".rstrip() for line in inspect.getdoc(function).splitlines())
        text = f'    """{text.strip()}\n    """'
        head = f"def {function.__name__}{signature}:"
        lines += ["", head, text, "    raise NotImplementedError", ""]
    return "\n".join(lines)


# ---- one file


def run(path, tests, limit, minutes, isolated=True):
    """({case: its line of the report}, why it ended early or "") of these tests on one file."""
    names = {test.split("[")[0] for test in tests}
    places = [p for p in ROOT.glob("tests/test_*.py")
              if any(f"def test_{name}(" in p.read_text() for name in names)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-s",
            "--tb=no", f"--student={path}", f"--limit={limit}", f"--report={report}",
            "-k", " or ".join(f"test_{name}" for name in names), "-m", "slow or not slow",
            *["--isolated"] * isolated, *map(str, places),
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            said = process.communicate(timeout=60 * minutes)[1]
        except subprocess.TimeoutExpired:
            said = f"ERROR: did not end within {minutes:g} minutes"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        lines = report.read_text().splitlines() if report.exists() else []
        cases = {line["case"]: line for line in map(json.loads, lines) if "case" in line}
        finished = any("finished" in line for line in map(json.loads, lines))
    errors = re.findall(r"^ERROR: (.*)", said, re.M)
    early = errors[-1].replace(f"{path} ", "")[:300] if errors else ""
    if not errors and not finished:
        early = f"it ended the process (status {process.returncode}) before the tests were over"
    return cases, early


def mark(path, limit, minutes):
    """[row] of one file, one for each assignment of which it defines a function."""
    try:
        tree = ast.parse(path.read_bytes())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        wanted = [a for a in assignments().values() if defined & set(a.functions)]
        wanted = wanted or without_handout(defined)
        said = "" if wanted else "defines none of the functions that are tested (mark.py --list)"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        wanted, said = [], f"does not parse: {type(error).__name__}: {error}"
    if said:
        return [{"file": path.name, "assignment": "", "points": 0, "of": "", "remark": said}]
    return [marked(path, assignment, limit, minutes) for assignment in wanted]


def marked(path, assignment, limit, minutes):
    """The row of one file and one assignment."""
    tests = [test for _, _, tests in assignment.properties for test in tests]
    cases, early = run(path.resolve(), tests, limit, minutes)
    row = {"file": path.name, "assignment": assignment.name, "points": 0.0, "of": assignment.points}
    failures = []
    for points, what, tests in assignment.properties:
        shares = []
        for test in tests:
            name, _, first = test.partition("[")
            found = [c for c in cases.values() if c["test"] == f"test_{name}"
                     and c["case"].removeprefix(c["test"]).startswith(f"[{first}" * bool(first))]
            shares.append(sum(c["passed"] for c in found) / len(found) if found else 0.0)
            failures += [c for c in found if not c["passed"]]
        row[what] = round(points * sum(shares) / len(shares), 1)
        row["points"] = round(row["points"] + row[what], 1)
    told = explained(failures[0]) if failures else ""
    row["remark"] = "\n".join(filter(None, (early, told)))
    return row


# ---- what went wrong


def explained(failure):
    """Three lines: called with; got and wanted; the usual mistake that makes the same error."""
    lines = [f"called {failure['called']}"] if failure["called"] else []
    error = " ".join(failure["error"].split())
    seen = re.search(r"at (.*?): (\S.*?), expected (.*?), ratio (\S+),", error)
    if seen:
        where, got, wanted, ratio = (re.sub(r"np\.\w+\((\S+?)\)", r"\1", s) for s in seen.groups())
        place = "" if where == "()" else f" at {where}"
        lines.append(f"got {got}, wanted {wanted}, ratio {ratio}{place}")
    else:
        lines.append(error.removeprefix("AssertionError: ")[:200])
    lines.append(likely(failure))
    return "\n".join(filter(None, [f"{failure['case']}:", *lines]))


def likely(failure):
    """"likely: …", of the known wrong solutions the one that errs by the same number."""
    function = failure["test"].removeprefix("test_").split("__")[0]
    if "ratio" in failure["error"]:
        for words, text in wrong_solutions(function):
            other = of_wrong(text, failure["test"]).get(failure["case"])
            if other and not other["passed"] and same(other["error"], failure["error"]):
                return f"likely: {words}"
        ratio = re.search(r"ratio ([-+.\de]+)", failure["error"])
        if ratio and abs(float(ratio[1]) - 1) < 1e-5:
            return "likely: computed in float32, where float64 came in"
    return ""


@lru_cache
def wrong_solutions(function):
    """[(mistake in words, source)]: the files in mutants/ and the table in edits.py."""
    found = [(edit[2], edits.wrong(edit)) for edit in edits.EDITS if edit[1] == function]
    for path in sorted((ROOT / "tests" / "mutants").glob("*.py")):
        text = path.read_text()
        if re.search(rf"^def {function}\(", text, re.M):
            words = ast.get_docstring(ast.parse(text)).split(": caught by")[0]
            found.append((" ".join(words.split()), text))
    return found


@lru_cache
def of_wrong(text, test):
    """{case: its line} of a test on a wrong solution."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wrong.py"
        path.write_text(text)
        return run(path, [test.removeprefix("test_")], 60, 2, isolated=False)[0]


def same(one, other):
    """Whether two errors hold the same numbers, to six digits."""
    a, b = ([float(x) for x in NUMBER.findall(text)] for text in (one, other))
    return bool(a) and len(a) == len(b) and all(
        abs(x - y) <= 1e-6 * max(abs(x), abs(y)) for x, y in zip(a, b)
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE|FOLDER")
    parser.add_argument("--marks", type=Path, help="write the rows to this CSV file too")
    parser.add_argument("--limit", type=float, default=20, help="seconds for each test (20)")
    parser.add_argument("--minutes", type=float, default=3, help="for each file (3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="files at a time")
    parser.add_argument("--starter", choices=list(assignments()), help="print a file to fill in")
    parser.add_argument("--list", action="store_true", help="the assignments and their functions")
    arguments = parser.parse_args()
    if arguments.starter:
        return print(starter(arguments.starter))
    if arguments.list:
        for one in assignments().values():
            print(f"{one.name} ({one.points} points): {', '.join(one.functions)}")
        return None
    files = []
    for path in arguments.paths:
        if not path.exists():
            sys.exit(f"error: {path} does not exist")
        files += sorted(path.glob("*.py")) if path.is_dir() else [path]
    if not files:
        sys.exit("error: no file to mark: give a FILE, a FOLDER with .py files, or --starter NAME")
    rows = []
    with ThreadPoolExecutor(arguments.workers) as pool:
        for found in pool.map(lambda f: mark(f, arguments.limit, arguments.minutes), files):
            rows += found
            for row in found:
                remark = "".join(f"\n    {line}" for line in row["remark"].splitlines())
                of = f" {row['assignment']}: {row['points']:g} of {row['of']}" * bool(row["of"])
                print(f"{row['file']}:{of}{remark}", flush=True)
    if arguments.marks:
        names = list(dict.fromkeys(key for row in rows for key in row if key != "remark"))
        with open(arguments.marks, "w", newline="") as file:
            writer = csv.DictWriter(file, [*names, "remark"], restval="")
            writer.writeheader()
            writer.writerows(rows)
    return None


if __name__ == "__main__":
    main()
