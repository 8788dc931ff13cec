"""Marks solutions: one line for each file, how many tests of each of its functions pass.

    python tests/mark.py FILE|FOLDER … [--minutes 5]

From any folder. A file that does not import, defines nothing that is asked for, or does not end
within the minutes gets a line that says so.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def mark(path, minutes):
    """The line of one file."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--no-header"]
    process = subprocess.Popen(
        [*command, f"--student={path.resolve()}"], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"did not end within {minutes:g} minutes"
    error = re.search(r"^ERROR: (.*)", output, re.M)
    if error:
        return error[1].replace(f"{path.resolve()} ", "")
    rows = re.findall(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+?)__", output, re.M)
    tests, passed = Counter(n for _, n in rows), Counter(n for word, n in rows if word == "PASSED")
    if not tests:
        return f"no test ran: {(output.strip().splitlines() or ['no output'])[-1]}"
    return ", ".join(f"{name} {passed[name]}/{tests[name]}" for name in sorted(tests))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER")
    parser.add_argument("--minutes", type=float, default=5, help="for each file (5)")
    arguments = parser.parse_args()
    for path in arguments.paths:
        if not path.exists():
            sys.exit(f"error: {path} does not exist")
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        if not files:
            sys.exit(f"error: {path} holds no .py file")
        for file in files:
            print(f"{file.name}: {mark(file, arguments.minutes)}", flush=True)


if __name__ == "__main__":
    main()
