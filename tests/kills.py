"""Kills scripts at random moments: are the numbers those of a run that nothing stopped?

    python tests/kills.py [--n 100] [--seed 0] [--workers 2]

Every kill (SIGKILL, or SIGINT as Ctrl-C sends it) meets one script at smoke scale, with a
checkpoint after every epoch or with none before the end, at a random moment of its run; the same
command then goes on. Wrong is another number, a file left over, or a second run that fails. Not
collected by pytest.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [p for p in sorted(ROOT.glob("examples/*.py")) if "study.sweep(" in p.read_text()
           or "study.units(" in p.read_text() or "units(study" in p.read_text()]
START = """
import sys, runpy
from clp_min import schedule
*rest, measured, stop = schedule.sweep.__defaults__
schedule.sweep.__defaults__ = (rest[0], rest[1], float(sys.argv[1]), rest[3], measured, stop)
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(script, out, every):
    """The script at smoke scale, a checkpoint every so many seconds."""
    return [sys.executable, "-c", START, str(every), str(script), "--scale", "smoke", "--workers",
            "1", "--out", str(out)]


def numbers(folder):
    """{panel: all that it drew, its headline and verdict}."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.rglob("*.json")}
    keys = "series", "headline", "verdict"
    return {name: [one[key] for key in keys] for name, one in found.items()}


@lru_cache
def whole(script):
    """(numbers, seconds) of the script when nothing stops it."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        done = subprocess.run(command(script, folder, 20.0), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return numbers(Path(folder)), time.monotonic() - began


def killed(case):
    """What is wrong after one kill, "" if nothing is; "late" if the run was over before it."""
    script, every, kind, share = case
    expected, seconds = whole(script)
    with tempfile.TemporaryDirectory() as folder:
        run = command(script, folder, every)
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * seconds)
        late = process.poll() is not None
        process.send_signal(kind)
        process.wait()
        again = subprocess.run(run, capture_output=True, text=True)
        found, left = numbers(Path(folder)), list(Path(folder).glob(".unfinished*"))
    if again.returncode:
        return f"the second run failed: {again.stderr.strip().splitlines()[-1:]}"
    if found != expected:
        return f"other numbers in {[k for k in expected if found.get(k) != expected[k]]}"
    return f"left over: {left}" if left else "late" * late


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    order = [SCRIPTS[i % len(SCRIPTS)] for i in range(arguments.n)]
    cases = [(script, rng.choice((0.0, 1e9)), rng.choice((signal.SIGKILL, signal.SIGINT)),
              rng.uniform(0.15, 1.0)) for script in order]
    with ThreadPoolExecutor(arguments.workers) as pool:
        found = list(pool.map(killed, cases))
    for (script, every, kind, share), wrong in zip(cases, found):
        if wrong and wrong != "late":
            print(f"{script.stem}, {kind.name} after {share:.0%}, every {every:g} s: {wrong}")
    late = found.count("late")
    bad = sum(bool(wrong) for wrong in found) - late
    print(f"{len(found)} kills over {len(SCRIPTS)} scripts: {len(found) - bad - late} lost nothing,"
          f" {late} came after the end, {bad} wrong")


if __name__ == "__main__":
    main()
