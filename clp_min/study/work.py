"""The work of a study: units, their cost, shares for several processes, progress, resuming.

A unit is (seed, label, schedules): the runs of one seed and one net that begin alike. Units are
dealt to processes that never speak to each other: each keeps its own log in the study's folder, and
the last one to finish draws the figures. On a CPU a script starts processes of one thread each by
itself (``--workers``); on GPUs or a cluster every process is told its share (``--shard i/n``, or
the environment of torchrun or of a Slurm array).
"""

import contextlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from clp_min.data import Dataset
from clp_min.interrupt import PARENT
from clp_min.models import parameter_count
from clp_min.schedule import branches, distinct_epochs, sweep
from clp_min.study.record import write_atomically
from clp_min.train import Setup, cross_entropy, fresh_state, training_step


@dataclass(frozen=True, eq=False)
class Unit:
    """The runs of one seed that begin alike: their schedules (name -> phases), data and set-up.

    ``label`` names the net where a study trains several; it stands in front of the runs' names.
    """

    seed: int
    label: str
    schedules: dict
    data: Dataset | None = None
    setup: Setup | None = None

    def name(self, schedule):
        """The name under which a schedule of this unit is logged."""
        return f"{self.label} {schedule}".strip()

    @property
    def key(self):
        """What marks the unit in the log."""
        return f"unit {self.label}: {next(iter(self.schedules))}"


class Work:
    """All units of a study, which of them are this process's, and how far it is.

    setups: label -> Setup of the first seed; plans: label -> its schedules (name -> phases); disk:
    GB beside the checkpoints, for each process; besides: label -> (Setup, epochs) of what the units
    of that label train besides, a teacher or nets that are tuned; (Setup, epochs, schedule) if the
    one with that schedule does.
    """

    def __init__(self, study, setups, plans, disk=0.0, besides=None):
        self.study, self.workers, self.stopping = study, [], False
        self.started, self.epochs_done, self.last_print = time.monotonic(), 0, 0.0
        self.noted, self.spent = self.started, {}
        # what an epoch costs, and what every unit costs
        flops = {label: flops_per_example(one) * len(one.x) for label, one in setups.items()}
        per_epoch = {k: partial(flops_of_epoch, one, flops[k]) for k, one in setups.items()}
        self.setup = setups[max(flops, key=flops.get)]  # the largest
        self.units, costs = units_of(study.seeds, plans, per_epoch)
        epochs = [distinct_epochs(unit.schedules) for unit in self.units]
        alone = sum(p.epochs for u in self.units for phases in u.schedules.values() for p in phases)
        besides, passes = besides or {}, Counter()  # over the data, by net
        beside = {label: study.asked(one) for label, (one, *_) in besides.items()}
        extra = {label: flops_per_example(one) * len(one.x) for label, one in beside.items()}
        for i, unit in enumerate(self.units):
            label = unit.label
            passes[label] += costs[i] / flops[label]
            if label in besides and set(besides[label][2:]) <= set(unit.schedules):
                more = besides[label][1]
                passes[f"beside {label}"] += more
                costs[i] += extra[label] * more
                epochs[i] += more
                alone += more * len(unit.schedules)
        # which are this process's
        (share, n) = study.share
        if n == 1:  # on this machine
            many = study.device.type == "cpu" and study.scale in ("quick", "evening")
            n = min(study.arguments.workers or (cores() if many else 1), len(self.units))
        shares = deal(costs, min(n, len(costs)))  # those beyond the units have nothing to do
        mine = [i for part in shares[share : share + 1] for i in part]
        mine = [i for i in mine if not self.is_done(self.units[i])]
        self.mine, self.epochs_planned = [self.units[i] for i in mine], sum(epochs[i] for i in mine)
        self._announce(sum(map(len, plans.values())), sum(epochs), alone, share, n)
        if study.arguments.dry_run:
            _print_tree(plans, besides)
        if study.scale in ("evening", "paper") or study.arguments.dry_run:
            self._print_cost(sum(epochs), sum(costs), disk, n)
            if share == 0:  # said once
                _print_hours(setups | {f"beside {k}": one for k, one in beside.items()}, passes)
        if study.arguments.dry_run:
            print("dry run: nothing was written")
            raise SystemExit(0)
        if study.share == (0, 1):
            self.workers = start_workers(study.script, study.argv, n)

    def _announce(self, schedules, total, alone, share, n):
        study = self.study
        mine = f", process {share + 1} of {n} does {self.epochs_planned} of them" * (n > 1)
        seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
        print(
            f"{study.script.stem}: {study.data}, {study.scale} scale, {seeds}, device"
            f" {study.device}: {schedules} schedules a seed, {total} epochs after sharing"
            f" ({alone} without){mine}",
            flush=True,
        )

    def _print_cost(self, epochs, flops, disk, n):
        setup = self.setup
        parameters = parameter_count(fresh_state(setup, 0).model)
        # at a fork all schedules but one wait: weights and momentum, in the checkpoint too (two)
        waiting = max(len(unit.schedules) for unit in self.units) - 1
        states = parameters * 4 * (10 + 2 * waiting)
        memory = (setup.x.numel() * setup.x.element_size() * 2 + states) / 1e9
        disk = (parameters * 4 * (6 + 4 * waiting) / 1e9 + disk) * n
        print(
            f"cost: {parameters:,} parameters, {len(setup.x):,} training examples, {epochs:,}"
            f" epochs in all, {flops:.2g} FLOPs of training (measuring comes on top: its share of a"
            " script's time stands in tests/benchmarks/README.md); about"
            f" {memory:.1f} GB of memory beside the activations and what measuring takes,"
            f" {disk:.2f} GB of disk while it runs",
            flush=True,
        )

    def is_done(self, unit):
        """Whether some process has finished the unit, and its measurements are all on record."""
        found = self.study.log.series(unit.seed, unit.key, "done")[1]
        return bool(found) and found[-1] == len(self._measured(unit))

    def _measured(self, unit):
        """What is on record of a unit: one text for each schedule, point and quantity."""
        log = self.study.log.points
        return [f"{name} {point} {key}" for name in map(unit.name, unit.schedules)
                for point, keys in log.get((unit.seed, name), {}).items() for key in keys]

    def left(self):
        """How many units of all processes are still to do."""
        return sum(not self.is_done(unit) for unit in self.units)

    def todo(self):
        """This process's units that are still to do; one is done when the next is asked for."""
        for unit in self.mine:
            read_logs(self.study)  # an earlier process of this study may have done it since
            if not self.is_done(unit):
                self.noted, before = time.monotonic(), self._times(unit)
                self.spent = {key: before.get(key, 0.0) for key in ("seconds", "in_training")}
                yield unit
                self._note_time(unit, done=len(self._measured(unit)))

    def _note_time(self, unit, **more):
        """Put on record the unit's seconds in all sittings, and those of them in training steps."""
        self.spent["seconds"] += time.monotonic() - self.noted
        self.noted = time.monotonic()
        self.study.log.add(unit.seed, [unit.key], 0, **self.spent, **more)

    def _times(self, unit):
        return self.study.log.points.get((unit.seed, unit.key), {}).get(0, {})

    def seconds(self):
        """{"seconds", "in_training"} of one process, all units and sittings together."""
        found = [self._times(unit) for unit in self.units]
        return {k: round(sum(t.get(k, 0) for t in found), 1) for k in ("seconds", "in_training")}

    def trained(self, unit, at=None):
        """``sweep`` of a unit: its names come out with the label in front. Goes on after a kill."""
        file = re.sub(r"\W+", "-", f"{unit.key}-seed{unit.seed}") + ".pt"
        epoch, checkpoint = 0, self.study.folder / file
        on_record = dict(key=self.study.digest, measured=partial(self._measured, unit))
        stop = lambda: self.stopping  # noqa: E731
        run = sweep(unit.setup, unit.schedules, unit.seed, at, checkpoint, stop=stop, **on_record)
        with self._stopped_gently():
            resumed = time.monotonic()
            for point, state, names in run:
                self.spent["in_training"] += time.monotonic() - resumed
                yield point, state, [unit.name(name) for name in names]
                if self.study.arguments.save:
                    self._save_weights(unit, state, names, at)
                if at is not None:
                    self.epochs_done += state.epoch - epoch
                    epoch = state.epoch
                elif point > 0 and not state.event:
                    self.epochs_done += 1
                if any(worker.poll() for worker in self.workers) and not self.stopping:
                    wait_for(self.workers)
                self._progress(unit, state, names)
                resumed = time.monotonic()
                if resumed - self.noted > 20:
                    self._note_time(unit)
            if self.stopping:
                self._note_time(unit)
                for worker in self.workers:
                    worker.wait()
                raise KeyboardInterrupt

    @contextlib.contextmanager
    def _stopped_gently(self):
        """Within it the first Ctrl-C lets all processes end their epoch and save what they have;
        the second one stops at once."""

        def ask(*_):
            self.stopping = True
            signal.signal(kind, before)
            for worker in self.workers:
                worker.terminate()
            if PARENT not in os.environ:
                print("\nstopping after this epoch; Ctrl-C again stops at once", flush=True)

        # a worker is told by SIGTERM, which ends it at once while it still imports
        kind = signal.SIGTERM if PARENT in os.environ else signal.SIGINT
        before, main = signal.getsignal(kind), threading.main_thread()
        ours = before in (signal.default_int_handler, signal.SIG_DFL)
        if not ours or threading.current_thread() is not main:  # ignored, or someone else's
            yield
            return
        signal.signal(kind, ask)
        try:
            yield
        finally:
            signal.signal(kind, before)

    def _save_weights(self, unit, state, names, at):
        """Weights at the end of a schedule, or where it is not known before: so far."""
        folder = self.study.path(self.study.script.stem).with_suffix(".weights")
        for name in names:
            phases = unit.schedules[name]
            open_end = at is not None or any(phase.until for phase in phases)
            if open_end or state.epoch == sum(phase.epochs for phase in phases):
                content = io.BytesIO()
                torch.save(state.model.state_dict(), content)
                readable = re.sub(r"\W+", "-", f"{unit.name(name)}-seed{unit.seed}")
                write_atomically(folder / f"{readable}.pt", content.getvalue())

    def _progress(self, unit, state, names):
        terminal, now = sys.stdout.isatty(), time.monotonic()
        spent = now - self.started
        if now - self.last_print < (0.2 if terminal else 20) or not self.epochs_done or spent < 5:
            return  # nor in the first seconds, which say nothing of the rest
        self.last_print = now
        left = spent / self.epochs_done * max(self.epochs_planned - self.epochs_done, 0)
        loss = f", loss {state.loss:.3f}" if math.isfinite(state.loss) else ""
        line = (
            f"seed {unit.seed}, {self.epochs_done}/{self.epochs_planned} epochs, {spent:.0f} s,"
            f" about {left:.0f} s left ({unit.name(names[0])}, epoch {state.epoch}{loss})"
        )
        if terminal:
            columns = shutil.get_terminal_size().columns - 1
            print("\r" + line[:columns].ljust(columns), end="", flush=True)
        else:
            print(line, flush=True)


# ---- cost and shares


def units_of(seeds, plans, cost):
    """(units, their costs). plans: label -> (name -> phases); cost: label -> (phase -> cost of an
    epoch of it).

    Schedules that part before the first epoch are units of their own: nothing that they
    share is trained twice.
    """
    units = [Unit(seed, label, branch) for seed in seeds for label, schedules in plans.items()
             for branch in branches(schedules)]
    return units, [distinct_epochs(unit.schedules, cost[unit.label]) for unit in units]


def deal(costs, n):
    """Indices of the units in each of n shares: longest first, each to the
    share with least work."""
    shares, loads = [[] for _ in range(n)], [0.0] * n
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += costs[i]
    return [sorted(share) for share in shares]


def share_of(text, environment):
    """(i, n): this process does the i-th of n shares, i from 0.

    text: "i/n", or None for what torchrun or Slurm say, else (0, 1).
    """
    source = "--shard"
    if text is None and "RANK" in environment and "WORLD_SIZE" in environment:
        source, text = "RANK/WORLD_SIZE", f"{environment['RANK']}/{environment['WORLD_SIZE']}"
    elif text is None and "SLURM_ARRAY_TASK_COUNT" in environment:
        keys = (("ID", "0"), ("MIN", "0"), ("STEP", "1"))
        numbers = [environment.get(f"SLURM_ARRAY_TASK_{key}", default) for key, default in keys]
        source, text = "the Slurm array", " ".join(numbers)
        if all(re.fullmatch(r"\d{1,9}", number) for number in numbers) and int(numbers[2]):
            number, first, step = map(int, numbers)
            text = f"{(number - first) // step}/{environment['SLURM_ARRAY_TASK_COUNT']}"
    match = re.fullmatch(r"(\d+)/(\d+)", "0/1" if text is None else text)
    if not match or int(match[1]) >= int(match[2]):
        said = "" if source == "--shard" else "; or give --shard i/n"
        raise ValueError(f"{source} must say i/n with 0 <= i < n, as in 0/4, got {text}{said}")
    return int(match[1]), int(match[2])


def flops_per_example(setup):
    """Floating-point operations of one forward and backward pass, per example."""
    batch, model = min(setup.batch_size, 32), fresh_state(setup, 0).model
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model, setup.x[:batch], setup.y[:batch]).backward()
    return counter.get_total_flops() / batch


def flops_of_epoch(setup, whole, phase):
    """Of one epoch of a phase, ``whole`` being that of all examples once: a subset is less, and a
    pool from which batches are selected is scored at about a pass for each of its examples."""
    share = 1.0 if phase.subset is None else len(phase.subset) / len(setup.x)
    size = phase.batch_size or setup.batch_size
    return whole * share * (1 + ((phase.pool or size) / size if phase.select else 0))


def _print_tree(plans, besides):
    """What is trained for one seed, a line for each net."""
    for label, schedules in plans.items():
        phases = [phase for one in schedules.values() for phase in one]
        capped = " at most, a rule ends phases before" * any(p.until is not None for p in phases)
        others = f", {besides[label][1]} of other nets besides" if label in besides else ""
        print(
            f"  {label or 'one net'}: {distinct_epochs(schedules)} epochs{capped} ("
            f"{sum(p.epochs for p in phases)} without sharing{others}): {', '.join(schedules)}"
        )


def _print_hours(setups, passes):
    """Real steps of every net (name -> its Setup, and how many passes over its data), those that
    are alike once, and what all take at that pace."""
    alike, seconds = {}, 0.0
    for name, setup in setups.items():
        state = fresh_state(setup, 0)
        kind = repr(state.model), type(state.optimizer), setup.x.shape, setup.batch_size
        alike.setdefault(kind, []).append((name.strip() or "one net", setup, passes[name]))
    for same in alike.values():
        name, setup, _ = same[0]
        others = f" and {len(same) - 1} like it" * (len(same) > 1)
        steps = len(setup.x) / min(setup.batch_size, len(setup.x)) * sum(n for _, _, n in same)
        seconds += steps * _one_step(setup, name + others)
    hours = seconds / 3600
    said = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    days = f" ({hours / 24:,.0f} days)" * (hours > 48)
    said = f"training takes about {said} hours{days} of this device in one process"
    print(f"{said}, measuring comes on top", flush=True)


def _one_step(setup, name):
    """Real steps of a real model: what the first keeps for its backward pass, and what the others
    take (the median of three, fewer of long ones) -> its seconds."""
    if setup.x.is_cuda:
        torch.cuda.reset_peak_memory_stats(setup.x.device)
    state = fresh_state(setup, 0)
    state.model.train()
    x, y = (part[: setup.batch_size].clone() for part in (setup.x, setup.y))
    settings = setup.loss, setup.clip, setup.autocast, setup.channels_last
    step = partial(training_step, state.model, state.optimizer, x, y, *settings, tf32=setup.tf32)
    own, kept = {t.untyped_storage().data_ptr() for t in (x, *state.model.parameters())}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = float(step())
    times = []
    while len(times) < 3 and sum(times) < 5:
        began = time.monotonic()  # the device has been waited for: the loss is a number
        loss = float(step())
        times.append(time.monotonic() - began)
    peak = ""
    if x.is_cuda:
        peak = f", {torch.cuda.max_memory_allocated(x.device) / 1e9:.1f} GB at its peak"
    seconds = sorted(times)[len(times) // 2]
    print(
        f"  {name}: a step of {len(x)} examples keeps {sum(kept.values()) / 1e9:.2f} GB of"
        f" activations{peak}, takes {seconds:.2g} s (median of {len(times)}, {min(times):.2g} to"
        f" {max(times):.2g}; loss {loss:.3f})",
        flush=True,
    )
    return seconds


# ---- several processes


def cores():
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def start_workers(script, argv, n):
    """Start the other n - 1 processes of a study on this machine.

    They are silent but for errors, and end when this one does, by Ctrl-C too.
    """
    command = [sys.executable, str(script), *argv, "--threads", str(torch.get_num_threads())]
    settings = dict(
        env={**os.environ, PARENT: str(os.getpid())}, stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )
    return [subprocess.Popen([*command, "--shard", f"{i}/{n}"], **settings) for i in range(1, n)]


def end_with_parent():
    """In a worker: end it within a second of the script that started it (killed, say).

    The same command will go on from its log. ValueError: this process is no worker.
    """
    if str(os.getppid()) != os.environ[PARENT]:
        raise ValueError(f"{PARENT} is set in the environment, which marks workers: unset it")

    def watch():
        while str(os.getppid()) == os.environ[PARENT]:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def wait_for(workers):
    """Wait for the other processes. ValueError if one of them failed: its own message is above."""
    failed = [worker.wait() for worker in workers]
    if any(failed):
        said = f"{sum(map(bool, failed))} of {len(workers)} other processes failed"
        raise ValueError(f"{said}; the same command goes on from here")


def read_logs(study):
    """Merge the logs of all processes that work or worked on this study."""
    for path in study.folder.glob("log*.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # another process has finished the study
            study.log.read(path)
