"""What every script shares: arguments, progress, resuming, results. (No experiment is here.)"""

import argparse
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it --deterministic raises on CUDA
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that spin make a busy machine many times slower

import numpy as np  # noqa: E402
import torch  # noqa: E402

import clp_min  # noqa: E402
from clp_min import data, synthetic  # noqa: E402
from clp_min.models import parameter_count  # noqa: E402
from clp_min.plot import draw_panel  # noqa: E402
from clp_min.record import Log, write_json  # noqa: E402
from clp_min.schedule import distinct_epochs, sweep  # noqa: E402
from clp_min.train import cross_entropy, fresh_state, training_step  # noqa: E402

SYNTHETIC = {"textures": synthetic.textures, "shapes": synthetic.shapes, "clusters": synthetic.clusters, "teacher": synthetic.teacher}
REAL_SHAPES = {
    "cifar10": (50_000, 3, 32),
    "cifar100": (50_000, 3, 32),
    "mnist": (60_000, 1, 28),
    "fashion_mnist": (60_000, 1, 28),
    "tiny_imagenet": (100_000, 3, 64),
    "tiny_imagenet50": (25_000, 3, 64),
}


@dataclass
class Run:
    """One call of a script: its arguments, settings, panels asked for, log, and when it started."""

    script: str
    arguments: argparse.Namespace
    config: object
    panels: list
    seeds: list
    log: Log
    work: Path
    variant: str = ""
    started: float = field(default_factory=time.monotonic)
    epochs_done: int = 0
    epochs_planned: int = 0
    last_print: float = 0.0

    def wants(self, *panels):
        """Whether any of these panel functions was asked for."""
        return any(panel in self.panels for panel in panels)


def start(script, doc, panels, configs, argv=None, options=()):
    """Read the command line -> Run. configs: (data, scale) -> settings; options: (flag, add_argument keywords, note for the results).

    --plot redraws from results files and ends the program.
    """
    names = [panel.__name__ for panel in panels]
    parser = argparse.ArgumentParser(prog=Path(script).name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale",
        choices=["smoke", "quick", "paper"],
        default="quick",
        help="seconds / minutes on a CPU / the published experiment on CUDA (default: quick)",
    )
    parser.add_argument("--only", nargs="+", metavar="PANEL", choices=names, default=names, help="panels to make, of: " + ", ".join(names))
    parser.add_argument(
        "--data",
        choices=list(dict.fromkeys(d for d, _ in configs)),
        help="data set (default: the synthetic one; at paper scale the paper's)",
    )
    parser.add_argument(
        "--data-dir", default=os.environ.get("CLP_DATA"), help="folder with the original files of real sets (default: CLP_DATA)"
    )
    parser.add_argument("--download", action="store_true", help="fetch a missing real data set into --data-dir")
    parser.add_argument("--train-size", type=int, help="use a stratified subset of this many training examples")
    parser.add_argument("--seeds", type=int, help="number of seeds, 0..n-1 (default: the scale's)")
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 … (default: cuda at paper scale if there is one, else cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--deterministic", action="store_true", help="bit-for-bit repeatable on CUDA too (slower)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of results (default: results)")
    parser.add_argument("--dry-run", action="store_true", help="print the cost, do one real training step, stop")
    parser.add_argument("--plot", action="store_true", help="redraw the figures from their results files, without training")
    for flag, keywords, _ in options:
        parser.add_argument(flag, **keywords)
    arguments = parser.parse_args(argv)
    synthetic_default = next(d for d, s in configs if s == "quick")
    arguments.data = arguments.data or (next(d for d, s in configs if s == "paper") if arguments.scale == "paper" else synthetic_default)
    if (arguments.data, arguments.scale) not in configs:
        possible = ", ".join(f"--data {d} --scale {s}" for d, s in configs)
        raise ValueError(f"no settings for --data {arguments.data} --scale {arguments.scale}; there are: {possible}")
    config = configs[arguments.data, arguments.scale]
    seeds = config.seeds if arguments.seeds is None else arguments.seeds
    if seeds < 1 or arguments.threads is not None and arguments.threads < 1:
        raise ValueError(f"--seeds and --threads must be at least 1, got {arguments.seeds} and {arguments.threads}")
    arguments.device = arguments.device or ("cuda" if arguments.scale == "paper" and torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {arguments.device} cannot be used here ({str(error).splitlines()[0]})") from None
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(arguments.deterministic)
    notes = [note for flag, _, note in options if getattr(arguments, flag.lstrip("-").replace("-", "_")) not in (None, False)]
    variant = "-".join([f"n{arguments.train_size}"] * bool(arguments.train_size) + notes)
    arguments.is_default = arguments.data == synthetic_default and arguments.scale == "quick" and not variant
    chosen = [panel for panel in panels if panel.__name__ in arguments.only]
    key = hashlib.sha256(
        json.dumps([asdict_of(config), arguments.only, arguments.data, str(arguments.device), variant, _sources(script)]).encode()
    ).hexdigest()[:10]
    work = arguments.out / ".unfinished" / f"{Path(script).stem}.{arguments.data}.{arguments.scale}.{key}"
    run = Run(str(script), arguments, config, chosen, list(range(seeds)), Log(), work, variant)
    if arguments.plot:
        replot(run)
        raise SystemExit(0)
    if not arguments.dry_run:
        if work.exists():
            print(f"going on with the unfinished run in {work}")
        work.mkdir(parents=True, exist_ok=True)
        run.log = Log(work / "log.jsonl")
    return run


def asdict_of(config):
    """The settings as JSON can hold them; functions by name, with the arguments that are fixed."""

    def describe(value):
        if isinstance(value, functools.partial):
            return f"{value.func.__name__}({', '.join(f'{k}={v}' for k, v in value.keywords.items())})"
        return value.__name__ if callable(value) else value

    return {k: describe(v) for k, v in asdict(config).items()}


def _sources(script):
    """A digest of the code that makes the numbers: the script, its neighbours, and clp_min."""
    files = sorted(Path(script).resolve().parent.glob("*.py")) + sorted(Path(clp_min.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def load_data(run, seed):
    """The run's data set for one seed, standardised or not as it comes, on the CPU. Real sets are read once; the subset is the seed's."""
    arguments, config = run.arguments, run.config
    size = arguments.train_size or config.train_size
    if arguments.data in SYNTHETIC:
        return SYNTHETIC[arguments.data](seed, **({"train_size": size} if size else {}), **dict(getattr(config, "generator", {})))
    if not hasattr(run, "cache"):
        try:
            run.cache = data.load(arguments.data, arguments.data_dir, arguments.download)
        except ValueError:
            if not arguments.dry_run:
                raise
            print(f"dry run: {arguments.data} was not found, random images stand for it")
            n, channels, side = REAL_SHAPES[arguments.data]
            x, classes = np.random.default_rng(0).random((n, channels, side, side), np.float32), data.SETS[arguments.data][0]
            run.cache = data.Dataset.from_arrays(
                arguments.data, classes, (x, np.arange(n) % classes), (x[:1000], np.arange(1000) % classes)
            )
    return run.cache.subset(size, seed, "subset") if size else run.cache


def announce(run, setup, schedules, disk=0.0, jobs=None):
    """Say what the run will cost. jobs: (Setup, epochs a seed) of every net that is trained (default: ``setup`` on these schedules, after
    sharing); disk: GB beside the checkpoints. With --dry-run: one real step of the real model, then the program ends."""
    jobs = jobs or [(setup, distinct_epochs(schedules))]
    epochs, alone = sum(e for _, e in jobs), sum(sum(phase.epochs for phase in phases) for phases in schedules.values())
    run.epochs_planned = epochs * len(run.seeds)
    line = f"{Path(run.script).stem}: {run.arguments.data}, {run.arguments.scale} scale, {len(run.seeds)} seeds, device {run.arguments.device}: "
    line += f"{len(schedules)} schedules a seed, {epochs} epochs after sharing ({alone} without)"
    print(line, flush=True)
    if run.arguments.scale == "paper" or run.arguments.dry_run:
        flops = sum(_flops(one) * len(one.x) * e * len(run.seeds) for one, e in jobs)
        parameters = parameter_count(fresh_state(setup, 0).model)
        gigabytes = (setup.x.numel() * setup.x.element_size() * 2 + parameters * 4 * 10) / 1e9
        print(
            f"cost: {parameters:,} parameters, {len(setup.x):,} training examples, {run.epochs_planned:,} epochs in all, {flops:.2g} FLOPs of "
            f"training (measuring comes on top); about {gigabytes:.1f} GB of memory beside the activations, "
            f"{parameters * 4 * 6 / 1e9 + disk:.2f} GB of disk while it runs",
            flush=True,
        )
    if run.arguments.dry_run:
        state, began = fresh_state(setup, 0), time.monotonic()
        state.model.train()
        x, y = setup.x[: setup.batch_size], setup.y[: setup.batch_size]
        loss = float(training_step(state.model, state.optimizer, x, y, setup.loss, setup.clip, setup.autocast, setup.channels_last))
        print(f"dry run: one step of {len(x)} examples took {time.monotonic() - began:.2f} s, loss {loss:.3f}; nothing was written")
        raise SystemExit(0)


def _flops(setup):
    """Floating-point operations of one forward and backward pass, per example."""
    from torch.utils.flop_counter import FlopCounterMode

    batch, model = min(setup.batch_size, 32), fresh_state(setup, 0).model
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model, setup.x[:batch], setup.y[:batch]).backward()
    return counter.get_total_flops() / batch


def trained(run, seed, setup, schedules, at=None, label="run"):
    """``sweep`` with a checkpoint, so that the same command goes on after a kill, and with a progress line; ``label`` tells sweeps of a
    seed apart."""
    for point, state, names in sweep(setup, schedules, seed, at, run.work / f"{label}-seed{seed}.pt"):
        yield point, state, names
        if at is None and point > 0 and not state.event:
            run.epochs_done += 1
        _progress(run, seed, state, names)


def _progress(run, seed, state, names):
    total = run.epochs_planned
    terminal, now = sys.stdout.isatty(), time.monotonic()
    if now - run.last_print < (0.2 if terminal else 20):
        return
    run.last_print = now
    spent = now - run.started
    left = spent / run.epochs_done * max(total - run.epochs_done, 0) if run.epochs_done else math.nan
    line = f"seed {seed}, {run.epochs_done}/{total} epochs, loss {state.loss:.3f}, {spent:.0f} s, about {left:.0f} s left ({names[0]}, epoch {state.epoch})"
    print(
        ("\r" + line[: shutil.get_terminal_size().columns - 1].ljust(shutil.get_terminal_size().columns - 1)) if terminal else line,
        end="" if terminal else "\n",
        flush=True,
    )


def result_path(run, panel):
    """OUT/PANEL.json for the synthetic set at quick scale, else OUT/PANEL.DATA.SCALE[.VARIANT].json."""
    parts = [] if run.arguments.is_default else [run.arguments.data, run.arguments.scale] + [run.variant] * bool(run.variant)
    return run.arguments.out / ".".join([panel, *parts, "json"])


def finish(run):
    """Compute, write and draw every panel that was asked for, say what each found, and remove the unfinished state."""
    if run.arguments.dry_run:
        print("dry run: this script trains no network, its whole work is seconds; nothing was written")
        raise SystemExit(0)
    if sys.stdout.isatty():
        print()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "clp_min": clp_min.__version__}
    for panel in run.panels:
        result = panel(run)
        result = {
            "panel": panel.__name__,
            "scale": run.arguments.scale,
            "data": run.arguments.data,
            "variant": run.variant,
            "seeds": run.seeds,
            **result,
            "config": asdict_of(run.config),
            "seconds": round(time.monotonic() - run.started, 1),
            "device": str(run.arguments.device),
            "versions": versions,
            "source": Path(run.script).read_text(),
        }
        path = result_path(run, panel.__name__)
        write_json(path, result)
        draw_panel(json.loads(path.read_text()), path.with_suffix(".png"))
        print(
            f"{panel.__name__} [{run.arguments.data}, {run.arguments.scale}, n = {len(run.seeds)}]: {result['verdict']}. {result['finding']} -> {path.with_suffix('.png')}"
        )
    shutil.rmtree(run.work, ignore_errors=True)
    if run.work.parent.exists() and not any(run.work.parent.iterdir()):
        run.work.parent.rmdir()


def replot(run):
    """Redraw the figures from the results files."""
    for panel in run.panels:
        path = result_path(run, panel.__name__)
        if not path.exists():
            raise ValueError(f"{path} does not exist: run without --plot first")
        draw_panel(json.loads(path.read_text()), path.with_suffix(".png"))
        print(f"drew {path.with_suffix('.png')}")


def verdict(effect, least=0.0):
    """The common rule, for a headline of paired differences whose sign the paper claims to be positive.

    reproduced: mean > least and > 3 standard errors over >= 3 seeds; reversed: the same with the opposite sign; else not reproduced.
    """
    if effect["n"] < 3:
        return "no verdict (fewer than 3 seeds)"
    bar = max(least, 3 * effect["standard_error"])
    return "reproduced" if effect["mean"] > bar else "reversed" if effect["mean"] < -bar else "not reproduced"


def theory_verdict(run, holds, verdict="holds as corrected", least_seeds=3):
    """The verdict of a panel on theory: ``verdict`` if its rule holds, "disagrees" if not; none at smoke scale or with too few repetitions."""
    if run.arguments.scale == "smoke" or len(run.seeds) < least_seeds:
        return "no verdict (smoke scale or too few repetitions)"
    return verdict if holds else "disagrees"


def leave_one_out_peaks(rows):
    """For each seed's curve (rows: seeds x points), the place of the highest mean of the OTHER seeds' curves (its own if it is alone).

    A seed's own highest value lies above its neighbours by chance alone; a place chosen by the others does not.
    """
    rows = np.asarray(rows, dtype=float)
    return [int(np.delete(rows, i, 0).mean(0).argmax() if len(rows) > 1 else rows[0].argmax()) for i in range(len(rows))]


def joint_verdict(effects, least=0.0):
    """The common rule for several effects: reproduced (reversed) if each is, else not reproduced."""
    verdicts = {verdict(effect, least) for effect in effects}
    return verdicts.pop() if len(verdicts) == 1 else "not reproduced"


def log_ratio(a, b):
    """log(a / b) of two positive measurements, safe at 0."""
    return math.log(max(a, 1e-300) / max(b, 1e-300))


def say(effect):
    """'12.3 ± 0.4 points' of a headline."""
    return f"{effect['mean']:.2f} ± {effect['standard_error']:.2f} {effect['unit']}"


def call(main):
    """Run a script's main(): one line for an error, a clean stop on Ctrl-C."""
    try:
        main()
    except (ValueError, ArithmeticError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was measured is on disk, and the same command goes on from here")
