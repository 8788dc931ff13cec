"""The claims ledger: every panel of tests/PANELS.md and every statement that a test bears, with its
verdict and who gives it; and what share of each paper is built, run, and as printed.

    python tests/ledger.py [--paper sparse] [--shares]
"""

import argparse
import ast
import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAPERS = {
    "achille": "Achille, Rovere & Soatto 2019", "golatkar": "Golatkar, Achille & Soatto 2019",
    "ash": "Ash & Adams 2020", "revisiting": "Revisiting critical learning periods",
    "sparse": "Generalization and memorization in sparse networks (a draft)",
    "phases": "Understanding and leveraging the learning phases",
    "diversity": "Trap of feature diversity",
}
AS_PRINTED = ("reproduced", "holds")
WORKS = {"Achille": "achille", "Takeaways": "achille", "Golatkar": "golatkar", "Ash": "ash",
         "Revisiting": "revisiting", "Phases": "phases", "Sparse": "sparse",
         "Diversity": "diversity"}  # of the table of sentences
IDENTIFIER = re.compile(r"[a-z]+_\w+")


@dataclass(frozen=True)
class Leaf:
    """One claim: its identifier, verdict ("" if there is none yet), number, and who gives it."""

    name: str
    verdict: str
    number: str
    judge: str
    of: str = ""

    @property
    def paper(self):
        return self.of or self.name.split("_")[0]


def identifiers(cell):
    """"sparse_fig1a, 1b, fig4" -> sparse_fig1a, sparse_fig1b, sparse_fig4; [] if it holds none."""
    found = []
    for word in re.split(r"[,;] ", cell.replace("`", "")):
        if IDENTIFIER.fullmatch(word):
            found.append(word)
        elif found and re.fullmatch(r"\d+\w?", word):
            found.append(re.sub(r"\d+\w?$", word, found[-1]))
        elif found and re.fullmatch(r"\w+", word):
            found.append(f"{found[-1].split('_')[0]}_{word}")
    return found


def panels():
    """Identifiers in the first columns of the tables of PANELS.md, once each."""
    text = (ROOT / "tests" / "PANELS.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \|", text, re.M)
    return list(dict.fromkeys(name for cell in cells for name in identifiers(cell)))


def listed(heading):
    """Identifiers in a paragraph of PANELS.md that begins with ``heading``."""
    text = (ROOT / "tests" / "PANELS.md").read_text()
    return re.findall(r"`(\w+)`", text.split(f"\n{heading}")[1].split("\n\n")[0])


def built():
    """Identifiers of panel functions in the scripts."""
    trees = [ast.parse(path.read_text()) for path in sorted(ROOT.glob("examples/*.py"))]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)
            and IDENTIFIER.fullmatch(node.name)}


def results():
    """{panel: its result at quick scale on the script's default set, or on the first other one}."""
    folder = ROOT / "examples" / "results"
    paths = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.quick*/*.json"))]
    found = {}
    for path in paths:
        found.setdefault(path.stem, json.loads(path.read_text()))
    return found


def statements():
    """[Leaf] of the claims that tests bear: @pytest.mark.claim(name, verdict=..., number=...), the
    number with its unit, which the test computes (the fixture ``number``)."""
    leaves = []
    for path in sorted(ROOT.glob("tests/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
                    said = {k.arg: ast.literal_eval(k.value) for k in mark.keywords}
                    number, _, unit = said.get("number", "").partition(" ")
                    judge = f"{path.name}: {node.name}" + f" ({unit})" * bool(unit)
                    name = ast.literal_eval(mark.args[0])
                    leaves.append(Leaf(name, said["verdict"], number, judge))
    return leaves


def open_sentences():
    """[Leaf] of the sentences of PANELS.md that no panel judges, or not all of, and why."""
    text = (ROOT / "tests" / "PANELS.md").read_text()
    section, found, work = text.split("## Sentences of")[1].split("\n## ")[0], [], ""
    for cell, sentence, judge in re.findall(r"^\| (.*?) ?\| (.+?) \| (.+?) \|$", section, re.M):
        work = WORKS.get(cell.strip(), work)
        unbuilt = "not built" in judge
        if work and sentence != "sentence" and (unbuilt or "`" not in judge):
            judge = judge.replace("`", "") if unbuilt else f"no panel: {judge}"
            found.append(Leaf(sentence[:60], "", "", judge, work))
    return found


def leaves():
    """The whole ledger."""
    code, found = built(), results()
    rows = []
    for name in panels():
        result = found.get(name)
        number = ""
        if result:
            mean, error = (result["headline"][key] for key in ("mean", "standard_error"))
            number = f"{mean:.4g}" if error is None else f"{mean:.4g} ± {error:.2g}"
        judge = result["script"] if result else "built, no result" if name in code else "not built"
        rows.append(Leaf(name, result["verdict"] if result else "", number, judge))
    return rows + statements() + open_sentences()


def shares(rows, paper, ours):
    """(built, run at quick scale, borne by tests, as printed) of a paper's claims, each counted
    once and without the panels that are ``ours``, and how many there are."""
    own = {row.name: row for row in rows if row.paper == paper and row.name not in ours}.values()
    there = sum("not built" not in row.judge and "no panel" not in row.judge for row in own)
    proved = sum(row.judge.startswith("test_") for row in own)
    run = sum(bool(row.verdict) for row in own) - proved
    return there, run, proved, sum(row.verdict in AS_PRINTED for row in own), len(own)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paper", nargs="+", choices=list(PAPERS), default=list(PAPERS))
    parser.add_argument("--shares", action="store_true", help="the shares alone")
    arguments = parser.parse_args()
    rows, ours = leaves(), listed("Ours, no claim")
    for paper in arguments.paper:
        n = shares(rows, paper, ours)
        print(f"{PAPERS[paper]}: of {n[4]} claims {n[0]} built: {n[1]} run at quick scale, {n[2]}"
              f" borne by tests; {n[3]} as printed")
        for row in rows if not arguments.shares else ():
            if row.paper == paper:
                own = " (ours)" * (row.name in ours)
                print(f"  {row.name:36} {row.verdict or '–':28} {row.number:18} {row.judge}{own}")
        verdicts = Counter(row.verdict or "no verdict" for row in rows if row.paper == paper)
        print(f"  {', '.join(f'{n} {word}' for word, n in verdicts.most_common())}")
    if arguments.paper == list(PAPERS) and not arguments.shares:
        print("Beyond one paper:")
        for row in (row for row in rows if row.paper not in PAPERS):
            print(f"  {row.name:36} {row.verdict:28} {row.number:18} {row.judge}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # of `| head`
        main()
