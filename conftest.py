"""The options --student and --seed, here in the root so that ``pytest --student my.py`` is
understood before my.py is taken for a file of tests."""

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--student", metavar="FILE",
        help="test the functions that FILE defines instead of ours (see tests/adapters.py)",
    )
    parser.addoption(
        "--isolated", action="store_true", help="FILE cannot import or reach our own functions"
    )
    parser.addoption(
        "--limit", type=float, help="seconds that each test may take (with --student 60)"
    )
    parser.addoption("--report", metavar="JSONL", help="write each test's outcome to this file")
    parser.addoption(
        "--seed", type=int, default=0, metavar="N",
        help="draw the samples of Monte-Carlo tests (-m monte_carlo) from another seed",
    )


def pytest_configure(config):
    import adapters  # here: tests/ is on the path by now
    import compare

    compare.SEED = config.getoption("--seed")

    path, isolated = config.getoption("--student"), config.getoption("--isolated")
    if path and not config.option.limit:
        config.option.limit = 60.0
    if isolated:  # a refusal counts in any words
        raises = pytest.raises
        pytest.raises = lambda *kinds, match=None, **more: raises(*kinds, **more)
    try:
        with adapters.time_limit(config.getoption("--limit")):
            config.student_names = adapters.install(path, isolated) if path else None
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
