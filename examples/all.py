"""Every panel of every script at quick scale, longest first, and one page: yours against ours.

    python examples/all.py [--out results] [--scripts blur_deficit achille_window] [--fresh]

Stopped or killed, the same command goes on where it was; a script whose results are there from the
code as it is now is passed over. The page, OUT/all.md, holds the committed result of
every panel beside yours, and those of other sets and scales of which OUT has yours: equal, within
both intervals, or different; then what each script took.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from clp_min.study.command import command_line, listed, source_digest

HERE = Path(__file__).resolve().parent
OURS = HERE / "results"
FAR = 3.0  # standard errors of a difference beyond which it is called one


def panels():
    """{script: names of its panels}, the one that took longest when ours were made first."""
    rows = dict(line.split(".py: ") for line in listed(HERE).splitlines())
    found = {script: names.split(", ") for script, names in rows.items()}
    return dict(sorted(found.items(), key=lambda row: -took(row[1])))


def took(names):
    """Seconds of a script's committed results."""
    return max((one["seconds"] for one in map(result_of, names) if one), default=0.0)


def path_of(name, folder=OURS):
    """The result of a panel in a folder or in one for its set, None without one."""
    found = [folder / f"{name}.json", *sorted(folder.glob(f"*.quick/{name}.json"))]
    return next((path for path in found if path.exists()), None)


def result_of(name, folder=OURS):
    """What ``path_of`` holds."""
    path = path_of(name, folder)
    return json.loads(path.read_text()) if path else None


def is_there(script, names, out):
    """Whether OUT holds all of a script's panels, made by the code as it is now."""
    digest, results = source_digest(HERE / f"{script}.py")[:10], [result_of(n, out) for n in names]
    return all(one is not None and digest in one["source"] for one in results)


def against_ours(yours, ours):
    """(word, difference in standard errors of it) of two headlines."""
    a, b = yours["headline"], ours["headline"]
    if a == b and yours["verdict"] == ours["verdict"]:
        return "equal"
    if None in (a["standard_error"], b["standard_error"]):
        return "equal" if a["mean"] == b["mean"] else "different"
    error = math.hypot(a["standard_error"], b["standard_error"])
    z = abs(a["mean"] - b["mean"]) / error if error else math.inf
    word = "within the interval" if z <= FAR else "different"
    turned = "" if yours["verdict"] == ours["verdict"] else ", another verdict"
    return f"{word} ({z:.1f} standard errors{turned})"


def page(found, out):
    """The summary, a row for every panel -> (its text, the words of its rows)."""
    lines = ["# Yours against ours", "", "| panel | yours | ours | |", "|---|---|---|---|"]
    names, words = [name for names in found.values() for name in names], []
    shown = {path_of(name) for name in names}
    for path in sorted(set(OURS.glob("*/*.json")) - shown):  # of another set or scale
        name = str(path.relative_to(OURS).with_suffix(""))
        names += [name] * (out / f"{name}.json").exists()
    for name in names:
        yours, ours = result_of(name, out), result_of(name)
        words.append(against_ours(yours, ours) if yours and ours else "missing")
        row = name, told(yours), told(ours), words[-1]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    lines += ["", "| script | minutes of one process | to measure |", "|---|---|---|"]
    for script, names in found.items():
        if yours := next(filter(None, (result_of(name, out) for name in names)), None):
            seconds, training = yours["seconds"], yours.get("in_training")
            share = "–" if training is None else f"{1 - training / max(seconds, 0.1):.0%}"
            lines.append(f"| {script} | {seconds / 60:.1f} | {share} |")
    return "\n".join(lines) + "\n", words


def told(result):
    """Verdict and headline in words."""
    if not result:
        return "–"
    headline = result["headline"]
    error = headline["standard_error"]
    spread = "" if error is None else f" ± {error:.2g}"
    return f"{result['verdict']}: {headline['mean']:.4g}{spread} {headline['unit']}"


def everything(argv=None):
    found = panels()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--scripts", nargs="+", choices=list(found), default=list(found))
    parser.add_argument("--fresh", action="store_true", help="run what is there already, too")
    arguments = parser.parse_args(argv)
    found = {script: found[script] for script in found if script in arguments.scripts}
    began, failed = time.monotonic(), []
    for number, (script, names) in enumerate(found.items(), 1):
        if not arguments.fresh and is_there(script, names, arguments.out):
            print(f"{script}: there already")
            continue
        print(f"\n{number} of {len(found)}: {script}", flush=True)
        command = [sys.executable, HERE / f"{script}.py", "--out", arguments.out]
        status = subprocess.run(command).returncode
        if status in (-2, 130):
            raise KeyboardInterrupt
        failed += [script] * bool(status)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text, words = page(found, arguments.out)
    (arguments.out / "all.md").write_text(text)
    kinds = Counter(word.split(" (")[0] for word in words)
    counts = ", ".join(f"{n} {word}" for word, n in sorted(kinds.items()))
    minutes = (time.monotonic() - began) / 60
    print(f"\n{minutes:.0f} minutes; {counts} -> {arguments.out / 'all.md'}")
    if failed:
        raise ValueError(f"failed: {', '.join(failed)}; the same command goes on")


if __name__ == "__main__":
    command_line(everything)
