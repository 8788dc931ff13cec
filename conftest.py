"""The option --student, here in the root so that ``pytest --student my.py`` is understood before
my.py is taken for a file of tests."""

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--student", metavar="FILE",
        help="test the functions that FILE defines instead of ours (see tests/adapters.py)",
    )


def pytest_configure(config):
    import adapters  # here: tests/ is on the path by now

    path = config.getoption("--student")
    try:
        config.student_names = adapters.install(path) if path else None
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
