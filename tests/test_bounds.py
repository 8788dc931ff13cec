"""Where the numbers that a function takes begin and end: of a few values next to usual bounds,
those that each number among its arguments refuses, as a table that was judged by eye."""

from pathlib import Path

import pytest
import test_misuse
import test_misuse_clp_min as of_clp_min

TABLE = Path(__file__).with_name("bounds.txt")
WHOLE, REAL = (0, 1, 2, 10**9), (-1e-9, 0.0, 1.0, 1.0 + 1e-9)


def refused(name, argument, value):
    """The values that are refused in place of a right one, as text."""
    functions = test_misuse if name in test_misuse.CALLS else of_clp_min
    calls, found = functions.CALLS[name], []
    for other in WHOLE if isinstance(value, int) else REAL:
        if other == 10**9 and argument not in ("k", "n", "top", "batch"):
            continue  # memory
        try:
            if functions is test_misuse:
                test_misuse.called(name, calls | {argument: other})
            else:
                arguments = calls | {argument: other}
                functions.FUNCTIONS[name](**{k: functions.made(v) for k, v in arguments.items()})
        except ValueError:
            found.append(f"{other:.10g}")
    return " ".join(found)


def rows():
    for calls in (test_misuse.CALLS, of_clp_min.CALLS):
        for name, arguments in calls.items():
            for argument, value in arguments.items():
                if type(value) in (int, float):
                    yield name, argument, value


@pytest.mark.parametrize("name, argument, value", [pytest.param(*row, id=".".join(row[:2]))
                                                   for row in rows()])
def test_bounds__what_is_refused_is_what_the_table_says(name, argument, value):
    table = dict(line.split(": ", 1) for line in TABLE.read_text().splitlines() if ": " in line)
    assert refused(name, argument, value) == table[f"{name}.{argument}"].strip()


def test_bounds__the_table_has_a_row_for_each():
    given = [line.split(": ")[0] for line in TABLE.read_text().splitlines() if ": " in line]
    assert given == [f"{name}.{argument}" for name, argument, _ in rows()]
