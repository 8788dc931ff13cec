"""What every script shares: arguments, data, results. (No experiment is here.)"""

import argparse
import contextlib
import functools
import hashlib
import json
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
import running  # noqa: E402
from clp_min import data, synthetic  # noqa: E402
from clp_min.plot import draw_panel  # noqa: E402
from clp_min.record import Log, write_json  # noqa: E402

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
    argv: list = field(default_factory=list)
    share: tuple = (0, 1)
    units: list = field(default_factory=list)  # (seed, label, schedules) of all shares
    mine: list = field(default_factory=list)  # those of this process
    workers: list = field(default_factory=list)  # processes that this one started
    loaded: dict = field(default_factory=dict)  # real data sets
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
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that share the work on this machine (default: at quick scale on a CPU one per core, else one; not with --shard)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of each process (default: 1; at paper scale PyTorch's)")
    parser.add_argument("--shard", metavar="i/n", help="do the i-th of n shares, 0 <= i < n (default: what torchrun or a Slurm array say)")
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
    for flag in ("seeds", "threads", "workers", "train_size"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise ValueError(f"--{flag.replace('_', '-')} must be at least 1, got {getattr(arguments, flag)}")
    share = running.share_of(arguments.shard, os.environ)
    if running.PARENT in os.environ:
        running.end_with_parent()
    cuda = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    arguments.device = arguments.device or (cuda if arguments.scale == "paper" and torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {arguments.device} cannot be used here ({str(error).splitlines()[0]})") from None
    if arguments.threads or arguments.scale != "paper":  # these nets are small: more threads only wait for each other
        torch.set_num_threads(arguments.threads or 1)
    torch.use_deterministic_algorithms(arguments.deterministic)
    given = {flag: getattr(arguments, flag.lstrip("-").replace("-", "_")) for flag, *_ in options}
    notes = [note.format(given[flag]) for flag, _, note in options if given[flag] not in (None, False)]
    variant = "-".join([f"n{arguments.train_size}"] * bool(arguments.train_size) + notes)
    arguments.is_default = arguments.data == synthetic_default and arguments.scale == "quick" and not variant
    chosen = [panel for panel in panels if panel.__name__ in arguments.only]
    key = hashlib.sha256(
        json.dumps(
            [asdict_of(config), arguments.only, arguments.data, torch.device(arguments.device).type, variant, _sources(script)]
        ).encode()
    ).hexdigest()[:10]
    work = arguments.out / ".unfinished" / f"{Path(script).stem}.{arguments.data}.{arguments.scale}.{key}"
    run = Run(
        str(script), arguments, config, chosen, list(range(seeds)), Log(), work, variant, sys.argv[1:] if argv is None else argv, share
    )
    if arguments.plot:
        replot(run)
        raise SystemExit(0)
    if not arguments.dry_run:
        if work.exists() and share[1] == 1:
            print(f"going on with the unfinished run in {work}")
        work.mkdir(parents=True, exist_ok=True)
        run.log = Log(work / ("log.jsonl" if share[1] == 1 else f"log-{share[0]}of{share[1]}.jsonl"))
        running.read_logs(run)
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


def load_data(run, seed, name=None):
    """The run's data set (or the one of this name) for one seed, as it comes, on the CPU. Real sets are read once; the subset is the seed's."""
    arguments, config, name = run.arguments, run.config, name or run.arguments.data
    size = arguments.train_size or config.train_size
    if name in SYNTHETIC:
        return SYNTHETIC[name](seed, **({"train_size": size} if size else {}), **dict(getattr(config, "generator", {})))
    if name not in run.loaded:
        try:
            run.loaded[name] = data.load(name, arguments.data_dir, arguments.download)
        except ValueError:
            if not arguments.dry_run:
                raise
            print(f"dry run: {name} was not found, random images stand for it")
            n, channels, side = REAL_SHAPES[name]
            x, classes = np.random.default_rng(0).random((n, channels, side, side), np.float32), data.SETS[name][0]
            run.loaded[name] = data.Dataset.from_arrays(name, classes, (x, np.arange(n) % classes), (x[:1000], np.arange(1000) % classes))
    return run.loaded[name].subset(size, seed, "subset") if size else run.loaded[name]


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
    if running.PARENT in os.environ:
        return  # whoever started this process draws the figures
    running.wait_for(run.workers)
    running.read_logs(run)
    left = sum(not running.is_done(run, unit) for unit in run.units)
    if left and run.share == (0, 1):
        raise ValueError(f"{left} of {len(run.units)} units are missing (did the code change while it ran?): the same command goes on")
    if left:
        print(
            f"share {run.share[0]}/{run.share[1]} is done; {left} of {len(run.units)} units are left to the others, and the last draws the figures"
        )
        return
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
    with contextlib.suppress(OSError):  # another run lies there, or another process was faster
        run.work.parent.rmdir()


def replot(run):
    """Redraw the figures from the results files."""
    paths = [result_path(run, panel.__name__) for panel in run.panels]
    if not any(path.exists() for path in paths):
        raise ValueError(f"{run.arguments.out} holds no result of these panels: run without --plot first")
    for path in paths:
        if path.exists():
            draw_panel(json.loads(path.read_text()), path.with_suffix(".png"))
            print(f"drew {path.with_suffix('.png')}")
        else:
            print(f"{path} does not exist: run without --plot first")


def call(main):
    """Run a script's main(): one line for an error, a clean stop on Ctrl-C."""
    try:
        main()
    except (ValueError, ArithmeticError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was measured is on disk, and the same command goes on from here")
