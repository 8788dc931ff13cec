"""Several results in one figure: the same curve on other data, at another scale, or yours beside
ours.

    python -m clp_min.study.overlay RESULT.json RESULT.json … [--curve TEXT] [--relative]

Of every result the first curve, or the first one whose name, or whose axes' name, holds TEXT. The
legend says what each is, its verdict and its n: where verdicts differ, the figure has none.
"""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

from clp_min.study.command import command_line
from clp_min.study.gallery import where
from clp_min.study.panel import Axes, Panel
from clp_min.study.plot import draw_alone, save


def chosen(panel, text):
    """(axes, curve) of a panel: the first whose words hold ``text``. ValueError: none does."""
    pairs = [(axes, curve) for axes in panel.axes if axes.kind == "line" for curve in axes.curves]
    for axes, curve in pairs:
        if text.lower() in f"{axes.y} {curve.label}".lower():
            return axes, curve
    names = ", ".join(dict.fromkeys(f"{axes.y}: {curve.label}" for axes, curve in pairs)) or "none"
    raise ValueError(f"{panel.name} has no line named {text!r}; it has: {names}")


def overlay(results, text="", relative=False):
    """A figure of one curve from each result (dictionaries, as the files hold them).

    relative: x as a share of each curve's last x, for runs of different lengths. ValueError: more
    than six results, or curves whose axes measure different things.
    """
    if len(results) > 6:
        raise ValueError(f"{len(results)} results are more than six curves: nobody can read them")
    curves, found = [], []
    for result in results:
        panel = Panel.from_dict(result)
        axes, curve = chosen(panel, text)
        if relative:
            curve = replace(curve, x=[x / curve.x[-1] for x in curve.x])
        about = f"{where(result)}: {curve.label} ({panel.verdict}, n = {len(curve.values)})"
        curves.append(replace(curve, label=about, style="line"))
        found.append((axes, panel))
    names = ("y", "x", "log", "log_x")
    shared = {name: {getattr(axes, name) for axes, _ in found} for name in names}
    if len(shared["y"]) > 1:  # alike but for the settings' numbers: "lost to 20 epochs"
        shared["y"] = {re.sub(r"[\d.]+", "…", y) for y in shared["y"]}
    for name, words in shared.items():
        if len(words) > 1:
            raise ValueError(f"the curves do not share an axis: {name} is {sorted(words)}")
    first = found[0][0]
    x = f"share of: {first.x}" if relative else first.x
    together = Axes(*shared["y"], curves, x=x, log=first.log, log_x=first.log_x)
    names = dict.fromkeys(panel.name for _, panel in found)
    return draw_alone(together, f"{', '.join(names)} · means over seeds ± one standard error")


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m clp_min.study.overlay", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--curve", default="", metavar="TEXT", help="(the first curve)")
    parser.add_argument("--relative", action="store_true", help="x as a share of its last value")
    parser.add_argument("--out", type=Path, default=Path("overlay.png"), help="(overlay.png)")
    arguments = parser.parse_args(argv)
    try:
        results = [json.loads(path.read_text()) for path in arguments.results]
        save(overlay(results, arguments.curve, arguments.relative), arguments.out)
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"not a results file that can be read: {error}") from None
    print(f"figure: {arguments.out}")


if __name__ == "__main__":
    command_line(main)
