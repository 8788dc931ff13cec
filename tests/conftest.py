"""The tests of ``--student`` (the option is in the root's conftest.py) and the claims ledger."""

import json
import os
from collections import Counter

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # test_devices: deterministic on CUDA

import pytest
import torch

import adapters

torch.set_num_threads(1)  # small tensors: more threads only wait for each other on a busy machine
LEDGER = []


def pytest_collection_modifyitems(config, items):
    for item in items:  # what compares a mean of draws varies with --seed
        if {"assert_mean", "MC"} & set(getattr(item, "obj", item).__code__.co_names):
            item.add_marker("monte_carlo")
    if config.student_names:
        prefixes = tuple(f"test_{name}__" for name in config.student_names)
        left_out = [item for item in items if not item.name.startswith(prefixes)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.name.startswith(prefixes)]
    if path := config.getoption("--report"):
        with open(path, "a") as file:
            numbers = Counter(item.originalname for item in items)
            print(json.dumps({"collected": numbers}), file=file)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    with adapters.time_limit(item.config.getoption("--limit")):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    path = item.config.getoption("--report")
    if path and call.when == "call":
        line = {"test": item.originalname, "case": item.name, "passed": not call.excinfo}
        if call.excinfo:
            line["error"] = f"{call.excinfo.typename}: {call.excinfo.value}"[:1000]
            line["called"] = adapters.described_call()
        with open(path, "a") as file:
            print(json.dumps(line), file=file)
    for marker in item.iter_markers("claim"):
        if call.when == "call":
            LEDGER.append(
                (marker.args[0], marker.kwargs["verdict"], outcome.get_result().outcome, item.name)
            )


def pytest_sessionfinish(session):
    if path := session.config.getoption("--report"):
        with open(path, "a") as file:
            print(json.dumps({"finished": True}), file=file)


def pytest_terminal_summary(terminalreporter):
    if LEDGER:
        terminalreporter.section("claims ledger: statement, verdict, test")
        for identifier, verdict, outcome, name in sorted(LEDGER):
            terminalreporter.write_line(
                f"{identifier:32} {verdict:20}"
                f" {'shown' if outcome == 'passed' else outcome.upper():8} {name}"
            )


@pytest.fixture(autouse=True)
def _fixed_seed(request):
    drawn = request.node.get_closest_marker("monte_carlo")
    torch.manual_seed(request.config.getoption("--seed") if drawn else 0)


@pytest.fixture
def number(request):
    """number(value, claim): the value is what the claim's marker prints, to as many digits. Where a
    test bears one claim with a number, its name may be left out."""
    markers = request.node.iter_markers("claim")
    said = {m.args[0]: m.kwargs["number"].split()[0] for m in markers if "number" in m.kwargs}

    def is_printed(value, claim=None):
        text = said[claim] if claim else next(iter(said.values()))
        digits = len(text.split("e")[0].lstrip("-0.").replace(".", ""))
        value = float(f"{float(value):.{digits - 1}e}") if digits else round(float(value), 12)
        assert value == float(text), f"the marker of {claim or 'this claim'} prints {text}"

    return is_printed
