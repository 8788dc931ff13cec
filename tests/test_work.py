"""Work in several processes: how it is dealt, and that the numbers are those of one process."""

import inspect
import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clp_min import models, train
from clp_min.schedule import Phase
from clp_min.study import work
from clp_min.study.record import Log
from clp_min.train import Setup

# two stages, a teacher, snapshots: the hardest one
SCRIPT = Path(__file__).parent.parent / "examples" / "revisiting_gradient.py"
SMOKE = [
    sys.executable, str(SCRIPT), "--scale", "smoke", "--seeds", "2", "--only", "revisiting_fig3",
    "revisiting_fig4a",
]
PLAIN = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("SLURM", "RANK", "WORLD", work.PARENT))
}


def test_share_of__argument_torchrun_and_slurm():
    assert work.share_of(None, {}) == (0, 1) and work.share_of(
        "2/5", {"RANK": "0", "WORLD_SIZE": "2"}
    ) == (2, 5)
    assert work.share_of(None, {"RANK": "1", "WORLD_SIZE": "4"}) == (1, 4)
    array = {
        "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2",
        "SLURM_ARRAY_TASK_COUNT": "4",
    }
    assert work.share_of(None, array) == (3, 4)
    for wrong in ("4/4", "-1/4", "1", "a/b", "0/0"):
        with pytest.raises(ValueError, match="--shard"):
            work.share_of(wrong, {})
    for key, value in (("ID", "x"), ("STEP", "0"), ("ID", "-3"), ("COUNT", "3")):
        with pytest.raises(ValueError, match="the Slurm array must say i/n"):
            work.share_of(None, array | {f"SLURM_ARRAY_TASK_{key}": value})


def test_end_with_parent__a_mark_left_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv(work.PARENT, "3")
    with pytest.raises(ValueError, match="CLP_WORKER_OF is set in the environment"):
        work.end_with_parent()


def test_deal__every_unit_once_and_no_share_too_long():
    assert work.deal([5.0, 4.0, 3.0, 3.0, 3.0], 2) == [[0, 3], [1, 2, 4]]  # the longest first
    costs = [random.Random(0).uniform(1, 10) for _ in range(31)]
    for n in (1, 2, 3, 7, 40):
        shares = work.deal(costs, n)
        loads = [sum(costs[i] for i in share) for share in shares]
        assert sorted(i for share in shares for i in share) == list(range(31)) and len(shares) == n
        # Graham's bound is against the optimum; this is what it gives here
        assert max(loads) <= max(4 / 3 * sum(costs) / n, max(costs))


def test_units_of__seeds_sweeps_and_what_parts_at_once():
    flip = lambda x, y, g: (x, y)  # noqa: E731
    plan = {
        "clean": [Phase(3)], "late": [Phase(1), Phase(2, flip)],
        "early": [Phase(2, flip), Phase(1)],
    }
    plans = {"a": plan, "b": {"clean": [Phase(4)]}}
    costs = {"a": lambda phase: 10.0, "b": lambda phase: 1.0}
    units, costs = work.units_of([0, 1], plans, costs)
    assert [(u.label, sorted(u.schedules)) for u in units if u.seed == 0] == [
        ("a", ["clean", "late"]), ("a", ["early"]), ("b", ["clean"])
    ]
    assert sorted(costs) == sorted([50.0, 30.0, 4.0] * 2)
    assert units[0].name("clean") == "a clean" and work.Unit(0, "", plan).name("clean") == "clean"


def test_work__its_seconds_are_those_of_all_sittings(tmp_path, monkeypatch):
    """Two units, the first in two sittings: what a resumed run took is not its last leg."""
    now = [0.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    units = [work.Unit(seed, "", {"": [Phase(1)]}) for seed in (10, 11)]
    study = SimpleNamespace(log=Log(), folder=tmp_path)
    for leave in (True, False):
        one = object.__new__(work.Work)
        one.study, one.units, one.mine = study, units, units
        for unit in one.todo():
            now[0] += 30.0
            one.spent["in_training"] += 10.0
            if leave:
                one._note_time(unit)
                break
        now[0] += 1000.0  # between the sittings
    assert one.seconds() == {"seconds": 90.0, "in_training": 30.0}


def test_flops_of_epoch__of_a_subset_and_of_a_pool():
    setup = SimpleNamespace(x=range(100), batch_size=10)
    for phase, wanted in (
        (Phase(3), 7.0), (Phase(3, subset=torch.arange(25)), 1.75),
        (Phase(3, select=len, pool=30), 28.0), (Phase(3, select=len, pool=40, batch_size=20), 21.0),
    ):
        assert work.flops_of_epoch(setup, 7.0, phase) == wanted


def test_print_hours__every_net_at_its_own_pace(monkeypatch, capsys):
    """5 passes of 10 steps of 3.6 s, a like net's 10 more; 10 passes of 5 steps of 36 s."""
    model = partial(models.linear_softmax, (2,), 3)
    a, b = (Setup(model, torch.zeros(n, 2), torch.arange(n) % 3, batch_size=10) for n in (100, 50))
    monkeypatch.setattr(work, "_one_step", lambda setup, _: 3.6 if len(setup.x) == 100 else 36.0)
    work._print_hours({"a": a, "like a": a, "b": b}, {"a": 5.0, "like a": 10.0, "b": 10.0})
    assert "about 0.65 hours of" in capsys.readouterr().out


def results(folder):
    return {
        p.name: [json.loads(p.read_text())[k] for k in ("series", "headline", "verdict")]
        for p in sorted(folder.glob("*/*.json"))
    }


def finished(arguments, cwd):
    done = subprocess.run([*SMOKE, *arguments], cwd=cwd, capture_output=True, text=True, env=PLAIN)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_work__shares_and_workers_give_the_numbers_of_one_process(tmp_path):
    assert "process 1 of" not in finished(["--workers", "1", "--out", "one"], tmp_path)
    one = results(tmp_path / "one")
    assert "process 1 of 2" in finished(["--workers", "2", "--out", "two"], tmp_path)
    assert results(tmp_path / "two") == one and len(one) == 2
    assert "units are left to the others" in finished(
        ["--shard", "1/3", "--out", "three"], tmp_path
    )
    assert not results(tmp_path / "three")
    finished(["--shard", "0/3", "--out", "three"], tmp_path)
    assert "are left to the others" not in finished(["--shard", "2/3", "--out", "three"], tmp_path)
    assert results(tmp_path / "three") == one and not (tmp_path / "three" / ".unfinished").exists()


@pytest.mark.slow
def test_work__two_processes_under_torchrun_give_the_numbers_of_one(tmp_path):
    finished(["--workers", "1", "--out", "one"], tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, *SMOKE[1:], "--out", "two"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=PLAIN)
    assert done.returncode == 0 and "process 2 of 2" in done.stdout, done.stderr
    assert results(tmp_path / "two") == results(tmp_path / "one")


def alive(pid):
    """Whether the process exists and is no zombie."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.slow
def test_work__workers_end_with_their_script_and_it_goes_on(tmp_path):
    """kill -9 of the script that started a worker: the worker ends at once, in the middle of its
    share; the same command, in one process, reaches the same numbers."""
    finished(["--workers", "1", "--seeds", "4", "--out", "whole"], tmp_path)
    process = subprocess.Popen(
        [*SMOKE, "--seeds", "4", "--workers", "2", "--out", "killed"], cwd=tmp_path, stdout=-3,
        stderr=-3, env=PLAIN,
    )
    logs = lambda: list((tmp_path / "killed").glob(".unfinished/*/log*.jsonl"))  # noqa: E731
    while len(logs()) < 2 and process.poll() is None:
        time.sleep(0.1)
    workers = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(workers) == 1 and alive(workers[0])  # it fell inside the run
    process.kill()
    process.wait()
    end = time.monotonic() + 4
    while alive(workers[0]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(workers[0])
    worker_log = next(path for path in logs() if "1of2" in path.name)
    assert worker_log.read_text().count('"done"') < 8  # it had not finished its share
    finished(["--workers", "1", "--seeds", "4", "--out", "killed"], tmp_path)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.slow
def test_work__two_processes_on_the_same_units_do_no_harm(tmp_path):
    """The same command started twice at once: both end well, and the numbers are right."""
    finished(["--workers", "1", "--out", "one"], tmp_path)
    both = [
        subprocess.Popen(
            [*SMOKE, "--workers", "1", "--out", "both"], cwd=tmp_path, stdout=-3, env=PLAIN
        )
        for _ in range(2)
    ]
    codes = [process.wait() for process in both]
    assert 0 in codes and results(tmp_path / "both") == results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("script, panel", [
    ("phases_transfer", "phases_fine_tuning"), ("revisiting_gradient", "revisiting_fig3"),
    ("golatkar_timing", "golatkar_solutions"), ("sparse_selection", "sparse_alg3"),
    ("blur_deficit", "achille_fisher"),
])
def test_work__arithmetic_asked_for_reaches_every_step(script, panel, monkeypatch, tmp_path):
    """Of teachers, tuned nets, and whatever else a script trains besides."""
    seen, whole = set(), train.training_step

    def noting(*arguments, **named):
        settings = inspect.signature(whole).bind(*arguments, **named).arguments
        seen.add((settings["autocast"], settings["tf32"]))
        return whole(*arguments, **named)

    monkeypatch.setattr(train, "training_step", noting)
    flags = ["--bfloat16", "--tf32", "--workers", "1", "--scale", "smoke"]
    import_module(script).main([*flags, "--only", panel, "--out", str(tmp_path)])
    assert seen == {(torch.bfloat16, True)}
