"""Do the tests see? Small errors, one at a time, in every numerical module; the tests must fail.

    python tests/mutate.py [--n 400] [--seed 0] [--only clp_min/fisher.py ...] [--workers 2]

A mutant changes a constant, a comparison, an operator, a default argument or a generator's key,
drops a term or a minus, swaps two arguments, or removes a check. The tests that bear the function's
name run first (``-k function__``), then every default test of a file that names it, then of those
that import its module or one that uses it, or test all modules. Killed: a test failed. An import
that fails and a time-out are counted apart. Not collected by pytest.
"""

import argparse
import ast
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (these are imported once, for all mutants)
import numpy  # noqa: F401
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
APART = {"files.py", "__init__.py", "identity.py"}  # no numbers
OTHER = {"test_layout", "test_examples", "test_results"}  # they read the text, or the results
EVERY = ("test_misuse", "test_bounds", "test_defaults", "test_models")  # of all modules
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}


def changes(node):
    """[(what, function that changes a copy of the node in place or returns another)]."""
    found = []
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for value in {node.value + 1, 2 * node.value if node.value else -1}:
            found.append(("constant", lambda n, value=value: ast.Constant(value)))
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        found.append(("constant", lambda n: ast.Constant(not n.value)))
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
        found.append(("operator", lambda n: setattr(n, "op", SWAPS[type(n.op)]())))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        found.append(("dropped term", lambda n: n.left))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        found.append(("comparison", lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        found.append(("dropped sign", lambda n: n.operand))
    if isinstance(node, ast.Call):
        alike = len(node.args) > 1 and ast.dump(node.args[0]) == ast.dump(node.args[1])
        alike = alike or getattr(node.func, "attr", "") in ("maximum", "minimum")  # no mutant
        starred = any(isinstance(a, ast.Starred) for a in node.args[:2])
        if len(node.args) > 1 and not starred and not alike:
            found.append(("swapped arguments", lambda n: n.args.insert(0, n.args.pop(1))))
        keyed = getattr(node.func, "id", "") in ("generator", "global_seed")
        if keyed and isinstance(node.args[-1], ast.Constant):
            found.append(("key", lambda n: n.args.__delitem__(-1)))
    if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
        found.append(("removed check", lambda n: setattr(n, "test", ast.Constant(False))))
    return found


def is_told(node, parents):
    """Whether a node belongs to an error's text, an annotation or a decorator."""
    while node in parents:
        node, child = parents[node], node
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.AnnAssign)) and child is not getattr(
            node, "value", None
        ):
            return True
        if child in getattr(node, "decorator_list", ()) or isinstance(node, ast.arg):
            return True
    return False


def places_of(path):
    """[(path, number of the node, name of the function around it, number of its change)]."""
    tree, made = ast.parse(path.read_text()), []
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for number, node in enumerate(ast.walk(tree)):
        if not is_told(node, parents):
            scope = node
            while scope in parents and not isinstance(parents[scope], ast.Module):
                scope = parents[scope]
            name = getattr(scope, "name", "")
            made += [(path, number, name, k) for k in range(len(changes(node)))]
    return made


def mutant(place):
    """(source, what was done, in words) of the mutant at a place."""
    path, number, name, k = place
    tree = ast.parse(path.read_text())
    node = list(ast.walk(tree))[number]
    before, (what, change) = ast.unparse(node), changes(node)[k]
    other = change(node)
    if isinstance(other, ast.AST):
        tree = Replace(node, other).visit(tree)
    words = f"{what}: {before} -> {ast.unparse(other if isinstance(other, ast.AST) else node)}"
    where = f"{path.relative_to(ROOT)}:{node.lineno} {name}"
    return ast.unparse(ast.fix_missing_locations(tree)), f"{where}: {words}"


class Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else self.generic_visit(node)


def tested(folder, arguments, limit):
    """Exit status of pytest in a copy of the tree, None if it takes too long. In a fork of this
    process, which has imported what takes seconds and nothing of the project."""
    child = os.fork()
    if not child:
        code = 3
        try:
            os.chdir(folder)
            sys.path[:0] = [str(folder)]
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments]))
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def judged(place, folder, limit):
    """"killed", "survived", "import" or "time-out" for one mutant, tried in a copy of the tree."""
    path, _, name, _ = place
    target, text = folder / path.relative_to(ROOT), path.read_text()
    source, words = mutant(place)
    target.write_text(source)
    word = name.strip("_") or path.stem
    naming = [p for p in sorted((folder / "tests").glob("test_*.py"))
              if word in p.read_text() and p.stem not in OTHER]
    naming = naming or [folder / "tests" / f"test_{path.stem}.py"]
    users = [path.stem, *(p.stem for p in sorted(path.parent.glob("*.py"))
                          if f".{path.stem} import" in p.read_text())]
    importing = [p for p in sorted((folder / "tests").glob("test_*.py"))
                 if p.stem not in OTHER and (p.stem.startswith(EVERY) or any(
                     f".{user} import" in p.read_text() for user in users))]
    own, found = [str(p) for p in naming if p.exists()], "survived"
    rest = [str(p) for p in importing if str(p) not in own]
    for more in ([*own, "-k", f"{word}__"] if own else [], own, rest):
        code = tested(folder, more, limit) if more else 5
        if code in (1, 2, None):
            found = {1: "killed", 2: "import", None: "time-out"}[code]
            break
    target.write_text(text)
    if found != "killed":
        print(f"{found}: {words}", flush=True)
    return found


def all_judged(places, folder, limit):
    """``judged`` for each place, in one process."""
    return [judged(place, folder, limit) for place in places]


def interval(k, n, z=1.96):
    """Wilson's 95 % interval of a share k / n."""
    centre, width = (k + z * z / 2) / (n + z * z), z / (n + z * z)
    reach = width * math.sqrt(k * (n - k) / n + z * z / 4)
    return centre - reach, centre + reach


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", type=Path, help="modules (default: all numerical)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a mutant's tests take")
    arguments = parser.parse_args()
    paths = arguments.only or [
        *ROOT.glob("clp_min/*.py"), *ROOT.glob("theory/*.py"), ROOT / "clp_min/study/panel.py"
    ]
    paths = [ROOT / p for p in sorted(paths) if Path(p).name not in APART]
    everything = [place for path in paths for place in places_of(path)]
    random.Random(arguments.seed).shuffle(everything)
    chosen = everything[: arguments.n]
    print(f"{len(chosen)} of {len(everything)} mutants of {len(paths)} modules", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(i) for i in range(arguments.workers)]
        for folder in folders:
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git"))
        with ProcessPoolExecutor(arguments.workers, get_context("fork")) as pool:
            shares = [chosen[i :: len(folders)] for i in range(len(folders))]
            found = pool.map(all_judged, shares, folders, [arguments.limit] * len(folders))
            words = [word for share in found for word in share]
    n = words.count("killed") + words.count("survived")
    low, high = interval(words.count("killed"), n)
    print({word: words.count(word) for word in sorted(set(words))})
    print(f"killed {words.count('killed')} of {n}: {100 * words.count('killed') / n:.1f} %"
          f" (95 %: {100 * low:.1f} to {100 * high:.1f})")


if __name__ == "__main__":
    main()
