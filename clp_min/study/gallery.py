"""Results to README.md of their folder: verdicts, index, every figure with its finding, all errata.

    python -m clp_min.study.gallery [FOLDER] [--tests tests] [--check]

Tables stand between markers; the text around them is kept. With examples/results the other pages
and README.md at the root are renewed too. Errata are read off the tests in --tests: statements that
fail as printed, in the words of their test.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

from clp_min.study.command import command_line
from clp_min.study.pages import definitions, function_table, linked
from clp_min.study.panel import would_change
from clp_min.study.record import write_atomically

PAPERS = {  # prefix of a panel -> the work
    "achille": "Achille, Rovere & Soatto, *Critical learning periods in deep networks*",
    "revisiting": "*Revisiting critical learning periods in deep neural networks*",
    "sparse": "*Generalization and memorization in sparse neural networks* (a draft)",
    "phases": "*Understanding and leveraging the learning phases of neural networks*",
    "diversity": "*Trap of feature diversity in the learning of MLPs*",
    "golatkar": "Golatkar, Achille & Soatto, *Time matters in regularizing deep networks*",
    "ash": "Ash & Adams, *On warm-starting neural network training*",
    "": "closed forms: SGD, softmax, binning, deep linear networks",
}
# in the table of verdicts
SIGNS = {"reproduced": "✓", "not reproduced": "✗", "reversed": "⇄", "undecided": "?"}


def read(folder):
    """[(result, path)] of every results file below the folder, by panel, the default set first."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            result = json.loads(path.read_text())
            for key in "panel verdict finding seeds scale data variant claim".split():
                result[key]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no results file ({error!r}): remove it") from None
        found.append((result, path))
    if not found:
        raise ValueError(f"{folder} holds no results: run a script with --out {folder}")
    return sorted(found, key=lambda pair: (pair[0]["panel"], pair[1].parent != folder, pair[1]))


def plain(text):
    """Text that can stand in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def where(result):
    """Data set, variant, and the scale if it is not quick."""
    scale = "" if result["scale"] == "quick" else f"{result['scale']} scale"
    parts = result["data"].replace("_", " "), result["variant"], scale
    return ", ".join(part for part in parts if part)


def paper_of(panel):
    """Prefix of the panel's paper; "" for those on theory alone."""
    prefix = panel.split("_")[0]
    return prefix if prefix in PAPERS else ""


def verdict_table(results, folder):
    """Panels against data sets, a sign for every verdict; those on theory have no set."""
    columns = list(dict.fromkeys(where(result) for result, _ in results))
    columns.sort(key=lambda name: -sum(where(result) == name for result, _ in results))
    measured = [name for name in columns if name not in ("closed form", "hierarchy")]
    lines = ["| panel | " + " | ".join(measured) + " |", "|---" * (len(measured) + 1) + "|"]
    for panel in dict.fromkeys(result["panel"] for result, _ in results):
        cells = {}
        for result, path in results:
            if result["panel"] == panel:
                sign = SIGNS.get(result["verdict"], result["verdict"])
                cells[where(result)] = f"[{sign}](#{anchor(path, folder)})"
        if set(cells) & set(measured):
            row = [cells.get(name, "") for name in measured]
            lines.append(f"| {panel} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def anchor(path, folder):
    """Name of a result's place in the gallery."""
    return str(path.relative_to(folder).with_suffix("")).replace("/", "-")


def figure_table(results, folder):
    """One row for each result: thumbnail, verdict and finding, data, n, script."""
    lines = ["| figure | verdict and finding | data, n | script |", "|---|---|---|---|"]
    for result, path in results:
        figure = path.with_suffix(".png").relative_to(folder)
        more = sorted(p.relative_to(folder) for p in path.parent.glob(f"{path.stem}.*.png"))
        links = "".join(f" [{p.name.split('.')[1]}]({p})" for p in more)
        name = f'<a name="{anchor(path, folder)}"></a>{result["panel"]}'
        words = plain(result["finding"])
        changes = "; ".join(would_change(result["verdict"], result))
        word = f"**{result['verdict']}**" + f" ({changes})" * bool(changes)
        text = f"{word}: *{plain(result['claim'])}.* {words}"
        if result.get("printed"):
            text += f". *The paper, at its scale: {plain(result['printed'])}.*"
        link, said = script_link(result, folder), alternative(result)
        image = f'<img src="{figure}" width="280" alt="{said}">'
        image = f'{name}<br><a href="{figure}">{image}</a>{links}'
        about = f"{where(result)}, n = {len(result['seeds'])}"
        lines.append(f"| {image} | {text} | {about} | {link} |")
    return "\n".join(lines)


def alternative(result):
    """What the figure says, for who cannot see it."""
    words = f"{result['claim']} ({where(result)}): {result['verdict']}; {result['finding']}"
    return plain(words).replace('"', "'").replace("<", "less than ").replace(">", "more than ")


def script_link(result, folder):
    """A link to the script of a result, at the line of the panel's function if it is there."""
    script = result.get("script", "")
    found = definitions(path) if (path := folder.parent / script).is_file() else {}
    line = f"#L{found[result['panel']].lineno}" if result["panel"] in found else ""
    return f"[{script}](../{script}{line})" if script else ""


def index_table(results, folder):
    """Panel, what it claims, the script that makes it; the default results alone."""
    lines = ["| panel | claim | script |", "|---|---|---|"]
    for result, path in results:
        if path.parent == folder and result.get("script"):
            link = script_link(result, folder)
            lines.append(f"| `{result['panel']}` | {plain(result['claim'])} | {link} |")
    return "\n".join(dict.fromkeys(lines))


def paper_table(results):
    """One row for each paper: panels and how many of each verdict, all data sets together."""
    lines = ["| paper | panels | verdicts (all data sets) |", "|---|---|---|"]
    for prefix, title in PAPERS.items():
        own = [result for result, _ in results if paper_of(result["panel"]) == prefix]
        words = Counter(result["verdict"] for result in own).most_common()
        if own:
            counts = ", ".join(f"{count} {word}" for word, count in words)
            panels = len({result["panel"] for result in own})
            lines.append(f"| {title} | {panels} | {counts} |")
    effects = sum(len(result.get("effects", ())) for result, _ in results if result["verdict"])
    lines.append(f"\n{effects} effects in all: about {0.01 * effects:.1f} wrong words by chance.")
    return "\n".join(lines)


def errata_table(folder):
    """Statements of the papers that do not hold as printed, with the test that shows it."""
    lines = ["| statement | verdict | what is right, as tested | test |", "|---|---|---|---|"]
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            for mark in getattr(node, "decorator_list", ()):
                if "mark.claim" in ast.unparse(mark) and isinstance(mark.args[0], ast.Constant):
                    said = {keyword.arg: keyword.value.value for keyword in mark.keywords}
                    if (verdict := said.pop("verdict")) != "holds":
                        verdict = ": ".join([verdict, *said.values()])
                        words = plain(ast.get_docstring(node) or "")
                        name = node.name.removeprefix("test_").replace("__", ": ").replace("_", " ")
                        link = f"[{name}](../../{folder.name}/{path.name}#L{node.lineno})"
                        lines.append(f"| `{mark.args[0].value}` | {verdict} | {words} | {link} |")
    return "\n".join(lines[:2] + sorted(lines[2:]))


def renewed(text, tables):
    """The text with every table between its markers renewed."""
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m: m.group(1) + table + "\n" + m.group(2), text, flags=re.S)
    return text


def main(argv=None):
    """Write, or check, the gallery and the README's tables."""
    parser = argparse.ArgumentParser(
        prog="python -m clp_min.study.gallery", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("examples/results"))
    parser.add_argument("--tests", type=Path, default=Path("tests"), help="(tests)")
    parser.add_argument("--check", action="store_true", help="only say whether all is up to date")
    arguments = parser.parse_args(argv)
    folder, results = arguments.folder, read(arguments.folder)
    tables = {
        "verdicts": verdict_table(results, folder), "figures": figure_table(results, folder),
        "index": index_table(results, folder), "papers": paper_table(results),
        "errata": errata_table(arguments.tests),
    }
    stale = []
    start = "# Results\n" + "".join(
        f"\n<!-- {name} -->\n<!-- end -->\n" for name in ("verdicts", "index", "figures", "errata")
    )
    pages = {folder / "README.md": start}
    if folder == Path("examples/results"):
        tables["functions"] = function_table(Path(), folder)
        pages[Path("README.md")] = ""
        pages |= {folder / name: "" for name in ("API.md", "AUTHORS.md", "READING.md")}
    for path, text in pages.items():
        before = path.read_text() if path.exists() else text
        after = linked(renewed(before, tables), path.parent)
        if after != before or not path.exists() and text:
            stale.append(str(path))
            if not arguments.check:
                write_atomically(path, after)
    if arguments.check and stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run python -m clp_min.study.gallery")
    print(", ".join(stale) + " written" if stale else "up to date")


if __name__ == "__main__":
    command_line(main)
