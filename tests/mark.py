"""Marks solutions of the assignments in examples/assignments, and makes their starters.

    python tests/mark.py FILE|FOLDER … [--marks marks.csv]     from any folder
    python tests/mark.py --starter 02_fisher_trace > mine.py
    python tests/mark.py --list

Other functions that have tests (tests/adapters.py names them) are marked too, a point for each.
Every file gets a row: points by property, and for the first failure what was called, what came and
what was wanted, and the usual mistake that gives the same number. A solution cannot import the
project's own functions; who means to cheat can (examples/assignments/README.md). What does not
import, floods, exits or never ends gets a row too.
"""

import argparse
import ast
import contextlib
import csv
import inspect
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import edits  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
HANDOUTS = ROOT / "examples" / "assignments"
ROW = re.compile(r"^\| (\d+) \| ([\w ,]+) \| ((?:`[\w\[+…\]-]+`(?:, )?)+) \|$", re.M)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class Assignment(NamedTuple):
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
        rows = [(int(p), what, re.findall(r"`(.+?)(?:…\])?`", tests))  # or "test[first case…]"
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
    """({case: its line of the report}, {test: number of its cases}, why it ended early or "") of
    these tests on one file, in a copy of it in a folder of its own. tests: names, with all their
    cases, or one case of one test, "name[parameters]"."""
    names = {test.split("[")[0] for test in tests}
    places = [p for p in ROOT.glob("tests/test_*.py")
              if any(f"def test_{name}(" in p.read_text() for name in names)]
    with tempfile.TemporaryDirectory() as folder:
        report, said, own = (Path(folder) / name for name in ("report", "said", "own"))
        own.mkdir()
        shutil.copy(path, own / "student.py")
        arguments = [
            "-q", "-p", "no:cacheprovider", "--no-header", "-s", "--tb=no",
            "-c", ROOT / "pyproject.toml", "--rootdir", ROOT,
            f"--student={own / 'student.py'}", f"--limit={limit}", f"--report={report}",
            "-m", "slow or not slow", *["--isolated"] * isolated,
        ]
        if len(tests) == 1 and tests[0].endswith("]"):
            arguments += [f"{place}::test_{tests[0]}" for place in places]
        else:
            arguments += ["-k", " or ".join(f"test_{name}" for name in names), *places]
        process = warm().Process(target=_pytest, args=(list(map(str, arguments)), own, said))
        process.start()
        process.join(60 * minutes)
        early = "" if process.exitcode is not None else f"did not end within {minutes:g} minutes"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        lines = [line for text in read(report).splitlines() if (line := parsed(text))]
        errors = re.findall(r"^ERROR: (.*)", read(said), re.M)
    cases = {line["case"]: line for line in lines if "case" in line}
    numbers = next((line["collected"] for line in lines if "collected" in line), {})
    if errors and not early:
        early = errors[-1].replace(f"{own / 'student.py'} ", "")[:300]
    if not early and not any("finished" in line for line in lines):
        early = f"it ended the process (status {process.exitcode}) before the tests were over"
    return cases, numbers, early


@lru_cache
def warm():
    """New processes of this context begin with PyTorch imported, which is half of a run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytest"])
    return context


def _pytest(arguments, own, said):
    """In the new process: pytest in the folder ``own``, its errors in the file ``said``; no file of
    more than 50 MB."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))
    os.chdir(own)
    with open(os.devnull, "wb") as nothing, open(said, "wb") as file:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    sys.exit(int(pytest.main(arguments)))


def read(path):
    """Up to a megabyte from the end of a text file, whatever is in it; "" without one."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 1_000_000, 0))
        return file.read().decode(errors="replace")


def parsed(text):
    """A line of the report; None for what is none."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else None


def mark(path, name, limit, minutes):
    """[row] of one file, one for each assignment of which it defines a function."""
    try:
        tree = ast.parse(path.read_bytes())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        wanted = [a for a in assignments().values() if defined & set(a.functions)]
        wanted = wanted or without_handout(defined)
        if wanted:
            return [marked(path, name, one, defined, limit, minutes) for one in wanted]
        said = "defines (by def) none of the functions that are tested (mark.py --list)"
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        said = f"does not parse: {type(error).__name__}: {error}"
    except Exception as error:  # one file must not cost the others their marks
        said = f"could not be marked: {type(error).__name__}: {error}"
    return [{"file": name, "assignment": "", "points": 0, "of": "", "remark": said}]


def marked(path, name, assignment, defined, limit, minutes):
    """The row of one file and one assignment. Without a point for the definition there is none."""
    tests = [test for _, _, tests in assignment.properties for test in tests]
    cases, numbers, early = run(path.resolve(), tests, limit, minutes)
    failures, shares = [], {}
    for points, what, tests_ in assignment.properties:
        each = []
        for test in tests_:
            own = [c for c in cases.values() if is_of(c, test)]
            n = len(own) if "[" in test else numbers.get(f"test_{test.split('[')[0]}", len(own))
            each.append(sum(c["passed"] for c in own) / n if own else 0.0)
            failures += [c for c in own if not c["passed"]]
        shares[what] = round(points * sum(each) / len(each), 1)
    first = [share for what, share in shares.items() if what.startswith("definition")]
    uncounted = sum(shares.values()) if first and not any(first) else 0
    if uncounted:
        shares = dict.fromkeys(shares, 0.0)
    absent = sorted(set(assignment.functions) - defined)
    told = [f"does not define {', '.join(absent)}"] * bool(absent) + [early] * bool(early)
    if failures:
        told.append(explained(failures[0], cases, tuple(tests)))
        others = sorted({c["test"] for c in failures} - {failures[0]["test"]})
        told += [f"other tests that fail: {', '.join(others)}"] * bool(others)
    if uncounted:
        told.append(f"earned {uncounted:g}, not counted without a point for the definition")
    row = {"file": name, "assignment": assignment.name, "points": round(sum(shares.values()), 1)}
    return row | {"of": assignment.points} | shares | {"remark": "\n".join(told)}


def is_of(case, test):
    """Whether a case belongs to a test of a handout, "name" or "name[first letters of its case"."""
    name, _, first = test.partition("[")
    start = f"[{first}" if first else ""
    return case["test"] == f"test_{name}" and case["case"][len(case["test"]):].startswith(start)


# ---- what went wrong


def explained(failure, cases, tests):
    """Three lines: called with; got and wanted; the usual mistake that makes the same error."""
    lines = [f"called {failure['called']}"] if failure["called"] else []
    error = " ".join(failure["error"].split())
    seen = re.search(r"at (.*?): (\S.*?), expected (.*?), ratio (\S+),", error)
    plain = re.match(r"AssertionError: assert \(?([^ (].{,60}?) (==|<=|>=|<|>) (.{,60}?)\)?"
                     r"(?: \+ | and |$)", error)
    if seen:
        where, got, wanted, ratio = (re.sub(r"np\.\w+\((\S+?)\)", r"\1", s) for s in seen.groups())
        place = "" if where == "()" else f" at {where}"
        lines.append(f"got {got}, wanted {wanted}, ratio {ratio}{place}")
    elif plain:
        got, sign, wanted = plain.groups()
        lines.append(f"got {got}, wanted {'' if sign == '==' else sign + ' '}{wanted}")
    elif "DID NOT RAISE" in error:
        lines.append("got no error, wanted a ValueError")
    else:
        lines.append(error.removeprefix("AssertionError: ").split(" + where")[0][:200])
    lines.append(likely(failure, cases, tests))
    return "\n".join(filter(None, [f"{failure['case']}:", *lines]))


def likely(failure, cases, tests):
    """"likely: …": of the known wrong solutions the one that errs by the same numbers in every
    case of the failing test, and fails no test that the file passes. Where a solution draws, its
    numbers are its own: then up to two that fail the same tests, at the same place."""
    function, test = failure["test"].removeprefix("test_").split("__")[0], failure["test"]
    if not failure["error"].startswith("AssertionError"):
        return ""
    own = [c for c in cases.values() if c["test"] == test]
    mine = {k for k, c in cases.items() if c["passed"] and f"test_{function}__" in c["test"]}
    by_verdict = []

    def errs_so(one, other):
        return agree(one, other) or "Generator" in failure["called"] and alike(one, other)

    for words, text in wrong_solutions(function):
        first = of_wrong(text, (failure["case"].removeprefix("test_"),)).get(failure["case"])
        if not first or not errs_so(failure, first):
            continue  # most fall out by this one case
        others = of_wrong(text, tests)
        pairs = [(c, others.get(c["case"])) for c in own]
        shares = all(other and errs_so(c, other) for c, other in pairs)
        if not (shares and all(others[k]["passed"] for k in mine if k in others)):
            continue
        if all(agree(c, other) for c, other in pairs):
            return f"likely: {words}"
        by_verdict.append(words)
    if 1 <= len(by_verdict) <= 2:
        return f"likely: {', or: '.join(by_verdict)}"
    ratio = re.search(r"ratio ([-+.\de]+)", failure["error"])
    rounded = ratio and abs(float(ratio[1]) - 1) < 1e-5
    if rounded or re.search("float64.* -> .*float32", failure["called"]):
        return "likely: computed in float32, where float64 came in"
    return ""


def alike(one, other):
    """Whether two outcomes of a case are the same but for their numbers."""
    texts = (" ".join(c.get("error", "").split()).split(" + ")[0] for c in (one, other))
    a, b = (NUMBER.sub("#", text)[:60] for text in texts)
    return one["passed"] == other["passed"] and a == b


def agree(one, other):
    """Whether two outcomes of a case are the same: passed, or failed with the same numbers."""
    if one["passed"] or other["passed"]:
        return one["passed"] == other["passed"]
    return one["error"] == other["error"] or same(one["error"], other["error"])


@lru_cache
def wrong_solutions(function):
    """[(mistake in words, source)]: the files in mutants/ and the table in edits.py."""
    found = [(e.mistake, edits.wrong(e)) for e in edits.EDITS if e.function == function]
    for path in sorted((ROOT / "tests" / "mutants").glob("*.py")):
        text = path.read_text()
        if re.search(rf"^def {function}\(", text, re.M):
            words = " ".join(ast.get_docstring(ast.parse(text)).split())
            found.append((words.split(": caught by")[0], text))
    return found


@lru_cache
def of_wrong(text, tests):
    """{case: its line} of these tests on a wrong solution."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wrong.py"
        path.write_text(text)
        return run(path, tests, 60, 2, isolated=False)[0]


def same(one, other):
    """Whether two errors hold the same numbers, to six digits; what is below 1e-12 is 0."""
    a, b = ([float(x) for x in NUMBER.findall(re.sub("0x[0-9a-f]+", "", text))]
            for text in (one, other))
    return bool(a) and len(a) == len(b) and all(
        abs(x - y) <= 1e-12 + 1e-6 * max(abs(x), abs(y)) for x, y in zip(a, b)
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
    files = {}  # its name in the rows -> the file
    for path in arguments.paths:
        if not path.exists():
            sys.exit(f"error: {path} does not exist")
        inside = sorted(p for p in path.rglob("*.py") if p.is_file()) if path.is_dir() else [path]
        files |= {str(p.relative_to(path)) if path.is_dir() else str(p): p for p in inside}
    if not files:
        sys.exit("error: no file to mark: give a FILE, a FOLDER with .py files, or --starter NAME")
    sys.stdout.reconfigure(errors="replace")
    names = ["file", "assignment", "points", "of"]
    names += dict.fromkeys(what for a in assignments().values() for _, what, _ in a.properties)
    with contextlib.ExitStack() as stack:
        writer = None
        if arguments.marks:  # before any work, and a row as soon as it is there
            file = stack.enter_context(open(arguments.marks, "w", newline="", errors="replace"))
            writer = csv.DictWriter(file, [*names, "remark"], restval="", extrasaction="ignore")
            writer.writeheader()
        pool = stack.enter_context(ThreadPoolExecutor(arguments.workers))
        work = [(path, name, arguments.limit, arguments.minutes) for name, path in files.items()]
        for rows in pool.map(lambda one: mark(*one), work):
            for row in rows:
                print(told(row), flush=True)
                if writer:
                    writer.writerow(row)
                    file.flush()
    return None


def told(row):
    """A row as the terminal shows it."""
    apart = ("file", "assignment", "points", "of", "remark")
    parts = ", ".join(f"{what} {share:g}" for what, share in row.items() if what not in apart)
    of = f" {row['assignment']}: {row['points']:g} of {row['of']} ({parts})" * bool(row["of"])
    return f"{row['file']}:{of}" + "".join(f"\n    {line}" for line in row["remark"].splitlines())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # of `| head`
        main()
