"""Rewrites the tables of the README from the results files; --check only says whether they are up to date. (No experiment is here.)"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "examples" / "results"


def rows():
    """Every committed result, in the order of panel, data set and scale."""
    found = [(json.loads(path.read_text()), path) for path in RESULTS.glob("*.json")]
    return sorted(found, key=lambda pair: (pair[0]["panel"], len(pair[1].name.split(".")), pair[1].name))


def script_of(panel):
    """The script that defines a panel."""
    return next(p.name for p in sorted((ROOT / "examples").glob("*.py")) if re.search(rf"^def {panel}\(", p.read_text(), re.M))


def results_table():
    """One row for each results file: panel, data, verdict, what was found, n."""
    lines = ["| panel | data | verdict | found (mean ± s.e.) | n |", "|---|---|---|---|---|"]
    for result, path in rows():
        data = result["data"] + (f", {result['variant']}" if result["variant"] else "")
        figure = path.with_suffix(".png").relative_to(ROOT)
        lines.append(f"| [{result['panel']}]({figure}) | {data} | {result['verdict']} | {result['finding']} | {len(result['seeds'])} |")
    return "\n".join(lines)


def index_table():
    """Panel, what it claims, the script that makes it."""
    lines = ["| panel | claim | script |", "|---|---|---|"]
    for panel, claim in dict((result["panel"], result["claim"]) for result, _ in reversed(rows())).items():
        lines.append(f"| `{panel}` | {claim} | [{script_of(panel)}](examples/{script_of(panel)}) |")
    return "\n".join(lines[:2] + sorted(lines[2:]))


def renewed(text):
    """The README with both tables between their markers renewed."""
    for name, table in (("results", results_table()), ("index", index_table())):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: m.group(1) + table + "\n" + m.group(2), text, flags=re.S)
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    new = renewed(readme.read_text())
    if "--check" in sys.argv:
        sys.exit(0 if new == readme.read_text() else "README.md is not up to date: run python examples/tables.py")
    readme.write_text(new)
