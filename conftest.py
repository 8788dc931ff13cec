"""The option --student, here in the root so that ``pytest --student my.py`` is understood before
my.py is taken for a file of tests."""


def pytest_addoption(parser):
    parser.addoption(
        "--student", metavar="FILE",
        help="test the functions that FILE defines instead of ours (see tests/adapters.py)",
    )
