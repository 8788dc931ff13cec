"""The work of a script: what it costs, progress, resuming, several processes. (No experiment is here.)

A script's work is units (seed, sweep, subtree of its schedules), dealt to processes that never speak to each other:
each keeps its own log in the run's folder, and the last one to finish draws the figures.

On a CPU a script starts processes of one thread each by itself (``--workers``); on GPUs or a cluster every process is told its share
(``--shard i/n``, or the environment of torchrun or of a Slurm array).
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from clp_min.models import parameter_count
from clp_min.schedule import branches, distinct_epochs, sweep
from clp_min.train import cross_entropy, fresh_state, training_step

PARENT = "CLP_WORKER_OF"  # in the environment of a process that another one started: the other's number


def share_of(text, environment):
    """(i, n): this process does the i-th of n shares, i from 0. text: "i/n", or None for what torchrun or Slurm say, else (0, 1)."""
    source = "--shard"
    if text is None and "RANK" in environment and "WORLD_SIZE" in environment:
        source, text = "RANK/WORLD_SIZE", f"{environment['RANK']}/{environment['WORLD_SIZE']}"
    elif text is None and "SLURM_ARRAY_TASK_COUNT" in environment:
        number, first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{k}", d)) for k, d in (("ID", 0), ("MIN", 0), ("STEP", 1)))
        source, text = "the Slurm array", f"{(number - first) // step}/{environment['SLURM_ARRAY_TASK_COUNT']}"
    match = re.fullmatch(r"(\d+)/(\d+)", text or "0/1")
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"{source} must say i/n with 0 <= i < n, as in 0/4, got {text}: --shard i/n goes before it")
    return int(match[1]), int(match[2])


def units_of(seeds, jobs, cost):
    """[(seed, label, schedules)] and their costs. jobs: label -> (Setup, schedules); cost: label -> cost of one epoch.

    The schedules of a sweep that part before the first epoch are units of their own: nothing that they share is trained twice.
    """
    units = [(seed, label, branch) for seed in seeds for label, (_, schedules) in jobs.items() for branch in branches(schedules)]
    return units, [cost[label] * distinct_epochs(branch) for _, label, branch in units]


def deal(costs, n):
    """Indices of the units in each of n shares: the longest first, each to the share with the least work so far."""
    shares, loads = [[] for _ in range(n)], [0.0] * n
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += costs[i]
    return [sorted(share) for share in shares]


def cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_workers(script, argv, n):
    """The other n - 1 processes of a run on this machine; they are silent but for errors, and end when this one does, by Ctrl-C too."""
    command = [sys.executable, str(script), *argv, "--threads", str(torch.get_num_threads())]
    settings = dict(
        env={**os.environ, PARENT: str(os.getpid())}, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
    )
    return [subprocess.Popen([*command, "--shard", f"{i}/{n}"], **settings) for i in range(1, n)]


def end_with_parent():
    """In a worker: end it within a second of the script that started it (killed, say); the same command will go on from its log."""

    def watch():
        while str(os.getppid()) == os.environ[PARENT]:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def wait_for(workers):
    """ValueError if one of them failed: its own message is above."""
    failed = [worker.wait() for worker in workers]
    if any(failed):
        raise ValueError(f"{sum(map(bool, failed))} of {len(workers)} other processes failed; the same command goes on from here")


def read_logs(run):
    """Take in the logs of all processes that work or worked on this run."""
    for path in run.work.glob("log*.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # another process has finished the run
            run.log.read(path)


def announce(run, jobs, disk=0.0, before=None):
    """Say what the run will cost, deal the work to processes, and start those of this machine.

    jobs: label -> (Setup, schedules) of every sweep of a seed; disk: GB beside the checkpoints, for each process; before: label -> (Setup,
    epochs) of a net that its units train first. With --dry-run: one real step of the real model, then the program ends.
    """
    arguments, flops = run.arguments, {label: _flops(one) * len(one.x) for label, (one, _) in jobs.items()}
    first = {label: (_flops(one) * len(one.x) * epochs, epochs) for label, (one, epochs) in (before or {}).items()}  # cost, epochs
    setup = jobs[max(flops, key=flops.get)][0]  # the largest
    run.units, costs = units_of(run.seeds, jobs, flops)
    costs = [cost + first.get(label, (0, 0))[0] for cost, (_, label, _) in zip(costs, run.units)]
    epochs = [distinct_epochs(schedules) + first.get(label, (0, 0))[1] for _, label, schedules in run.units]
    (share, n), total = run.share, sum(epochs)
    if n == 1:
        on_cpu = torch.device(arguments.device).type == "cpu" and arguments.scale == "quick"
        n = min(arguments.workers or (cores() if on_cpu else 1), len(run.units))
    mine = [i for i in deal(costs, n)[share] if not is_done(run, run.units[i])]
    run.mine, run.epochs_planned = [run.units[i] for i in mine], sum(epochs[i] for i in mine)
    alone = sum(phase.epochs for _, _, schedules in run.units for phases in schedules.values() for phase in phases)
    print(
        f"{Path(run.script).stem}: {arguments.data}, {arguments.scale} scale, {len(run.seeds)} seeds, device {arguments.device}: "
        f"{sum(len(schedules) for _, schedules in jobs.values())} schedules a seed, {total} epochs after sharing ({alone} without)"
        + f", process {share + 1} of {n} does {run.epochs_planned} of them"
        * (n > 1),
        flush=True,
    )
    if arguments.scale == "paper" or arguments.dry_run:
        parameters = parameter_count(fresh_state(setup, 0).model)
        gigabytes = (setup.x.numel() * setup.x.element_size() * 2 + parameters * 4 * 10) / 1e9
        print(
            f"cost: {parameters:,} parameters, {len(setup.x):,} training examples, {total:,} epochs in all, {sum(costs):.2g} FLOPs of "
            f"training (measuring comes on top); about {gigabytes:.1f} GB of memory beside the activations, "
            f"{(parameters * 4 * 6 / 1e9 + disk) * n:.2f} GB of disk while it runs",
            flush=True,
        )
    if arguments.dry_run:
        _one_step(setup)
        raise SystemExit(0)
    if run.share == (0, 1):
        run.workers = start_workers(run.script, run.argv, n)


def _one_step(setup):
    """One real step of the real model, for --dry-run."""
    state, began = fresh_state(setup, 0), time.monotonic()
    state.model.train()
    x, y = setup.x[: setup.batch_size], setup.y[: setup.batch_size]
    loss = float(training_step(state.model, state.optimizer, x, y, setup.loss, setup.clip, setup.autocast, setup.channels_last))
    print(f"dry run: one step of {len(x)} examples took {time.monotonic() - began:.2f} s, loss {loss:.3f}; nothing was written")


def units(run):
    """(seed, label, schedules) of every unit of this process that is still to do; one is done when the next is asked for."""
    for seed, label, schedules in run.mine:
        read_logs(run)  # an earlier process of this run may have done it since
        if not is_done(run, (seed, label, schedules)):
            yield seed, label, schedules
            run.log.add(seed, [_name(label, schedules)], 0, done=1)


def _name(label, schedules):
    return f"unit {label}: {next(iter(schedules))}"


def is_done(run, unit):
    return bool(run.log.series(unit[0], _name(*unit[1:]), "done")[0])


def _flops(setup):
    """Floating-point operations of one forward and backward pass, per example."""
    from torch.utils.flop_counter import FlopCounterMode

    batch, model = min(setup.batch_size, 32), fresh_state(setup, 0).model
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model, setup.x[:batch], setup.y[:batch]).backward()
    return counter.get_total_flops() / batch


def trained(run, seed, label, setup, schedules, at=None):
    """``sweep`` of a unit with a checkpoint, so that the same command goes on after a kill, and with a progress line."""
    file = re.sub(r"\W+", "-", f"{label}-{next(iter(schedules))}-seed{seed}") + ".pt"
    before = run.epochs_done
    for point, state, names in sweep(setup, schedules, seed, at, run.work / file):
        yield point, state, names
        if at is not None:
            run.epochs_done = before + state.epoch
        elif point > 0 and not state.event:
            run.epochs_done += 1
        if any(worker.poll() for worker in run.workers):
            wait_for(run.workers)
        _progress(run, seed, state, names)


def _progress(run, seed, state, names):
    total, terminal, now = run.epochs_planned, sys.stdout.isatty(), time.monotonic()
    if now - run.last_print < (0.2 if terminal else 20) or not run.epochs_done:
        return
    run.last_print = now
    spent = now - run.started
    left = spent / run.epochs_done * max(total - run.epochs_done, 0)
    line = f"seed {seed}, {run.epochs_done}/{total} epochs, loss {state.loss:.3f}, {spent:.0f} s, about {left:.0f} s left ({names[0]}, epoch {state.epoch})"
    print(
        ("\r" + line[: shutil.get_terminal_size().columns - 1].ljust(shutil.get_terminal_size().columns - 1)) if terminal else line,
        end="" if terminal else "\n",
        flush=True,
    )
