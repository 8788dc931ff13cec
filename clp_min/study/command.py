"""Command line → Study: what a script was asked to do, with which data and
settings, what it found."""

import argparse
import ast
import contextlib
import csv
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or --deterministic raises on CUDA

import numpy as np  # noqa: E402
import torch  # noqa: E402

import clp_min  # noqa: E402
from clp_min import files, interrupt, synthetic  # noqa: E402
from clp_min.checks import check_whole  # noqa: E402
from clp_min.data import Dataset, load, missing  # noqa: E402
from clp_min.disk import locked  # noqa: E402
from clp_min.identity import tensor_digest  # noqa: E402
from clp_min.study import plot, work  # noqa: E402
from clp_min.study.panel import Panel, standard_seeds  # noqa: E402
from clp_min.study.record import Log, Results, write_atomically, write_json  # noqa: E402
from clp_min.train import load_checkpoint, save_checkpoint  # noqa: E402

SYNTHETIC = {
    "textures": synthetic.textures, "shapes": synthetic.shapes, "clusters": synthetic.clusters,
    "teacher": synthetic.teacher,
}
OPTIONS = {  # flag -> keywords of add_argument
    "--scale": dict(choices=["smoke", "quick", "evening", "paper"], default="quick", help=(
        "seconds / minutes on a CPU / one to three hours of two cores, real CIFAR-10, a few"
        " scripts / the published experiment on CUDA (default: quick)"
    )),
    "--data-dir": dict(
        default=os.environ.get("CLP_DATA"),
        help="folder with the original files of real sets (default: CLP_DATA)",
    ),
    "--train-size": dict(type=int, help="use a stratified subset of this many training examples"),
    "--seeds": dict(
        help="N: seeds 10, 11, … N of them; A-B: these, for looking (default: the scale's)"
    ),
    "--device": dict(
        help="cpu, cuda, cuda:1 … (default: cuda at paper scale if there is one, else cpu); MPS"
        " has no float64, in which everything is measured"
    ),
    "--workers": dict(
        type=int,
        help="processes that share the work on this machine (default: at quick and evening scale on"
        " a CPU one per core, else one; not with --shard)",
    ),
    "--threads": dict(
        type=int, help="CPU threads of each process (default: 1; at paper scale PyTorch's)"
    ),
    "--shard": dict(
        metavar="i/n",
        help="do the i-th of n shares, 0 <= i < n (default: what torchrun or a Slurm array say)",
    ),
    "--out": dict(type=Path, default=Path("results"), help="folder of results (default: results)"),
    "--format": dict(
        nargs="+", choices=["png", "pdf", "svg"], default=["png"],
        help="formats of the figures (default: png)",
    ),
    "--set": dict(
        nargs="+", action="extend", metavar="NAME=VALUE", default=[],
        help="change settings of the script's Config, like lr=0.1; a variant of its own",
    ),
}
SWITCHES = {  # flags without a value -> help
    "--download": "fetch a missing real data set into --data-dir",
    "--deterministic": "bit-for-bit repeatable on CUDA too (slower)",
    "--csv": "write what is drawn as PANEL.csv too",
    "--save": "keep the weights of every schedule at its last measured point (SCRIPT.weights/, for"
    " torch.load) and all that was measured (SCRIPT.curves.csv)",
    "--list": "list every script with its panels, and stop",
    "--dry-run": "print the cost, train each net for a few steps, stop",
    "--plot": "redraw the figures from their results files, without training",
}


ARITHMETIC = {  # flag of every script, of training alone: its help, and what a Setup is told
    "bfloat16": ("train in bfloat16 (autocast; other numbers)", dict(autocast=torch.bfloat16)),
    "tf32": ("train in TF32 on CUDA (other numbers)", dict(tf32=True)),
    "channels-last": ("train with channels last (faster; other roundings)",
                      dict(channels_last=True)),
}


class Study:
    """One call of a script: the panels asked for, their settings, data and results.

    script   the script's __file__; its docstring is the help
    panels   its panel functions, Study -> Panel
    configs  (data, scale) -> settings; the default set is the first one of the scale
    options  (flag, keywords of add_argument, note for the results' folder) of its own flags
    also     study -> name of a second data set that it reads, or None

    Attributes: ``config``, ``seeds``, ``classes``, ``results`` (arrays, seeds first), ``log``,
    ``arguments`` (as parsed), ``data`` and ``scale`` (names), ``variant``, ``device``, ``folder``
    (of what is unfinished). A run is a schedule with a seed; a study has many.
    """

    def __init__(self, script, panels, configs, argv=None, options=(), also=lambda study: None):
        self.script, self.argv = Path(script), sys.argv[1:] if argv is None else argv
        self.started, self.work, self.lock = time.monotonic(), None, None
        self.loaded, self.prepared, self.sizes, self.stand_ins = {}, {}, {}, set()
        self.classes = None  # of the study's data set, once it is loaded
        for flag, (said, _) in ARITHMETIC.items():
            said = f"{said}; nets are measured in float32; a variant of its own"
            options = [*options, (f"--{flag}", dict(action="store_true", help=said), flag)]
        self.arguments = parse(self.script, panels, configs, self.argv, options)
        arguments = self.arguments
        # data, settings, panels
        self.scale, self.variant = arguments.scale, _variant(arguments, options)
        default = {scale: data for data, scale in reversed(configs)}  # the first one listed
        self.data = arguments.data or default.get(self.scale, default["quick"])
        if (self.data, self.scale) not in configs:
            possible = ", ".join(f"--data {d} --scale {s}" for d, s in configs)
            raise ValueError(f"no settings for {self.data}, {self.scale}; there are: {possible}")
        self.config = _changed(configs[self.data, self.scale], arguments.set)
        self.seeds = _seeds(str(self.config.seeds) if arguments.seeds is None else arguments.seeds)
        self.panels = [panel for panel in panels if panel.__name__ in arguments.only]
        self.is_default = (self.data, self.scale, self.variant) == (default["quick"], "quick", "")
        # the machine
        self.share = work.share_of(arguments.shard, os.environ)
        self.device = _usable_device(arguments)
        if arguments.threads or self.scale != "paper":  # small nets: more threads only wait
            torch.set_num_threads(arguments.threads or 1)
        # float32 is float32, but for what --tf32 asks
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if arguments.deterministic:  # asking for nothing would take a second
            torch.use_deterministic_algorithms(True)
        if work.PARENT in os.environ:
            work.end_with_parent()
        # the code as it is now, and the log
        self.text, self.digest = _text(self.script), source_digest(self.script)
        if arguments.plot:
            self.replot()
            raise SystemExit(0)
        # real data: what is cut is said, and an unfinished study knows its data
        for data in filter(None, (self.data, also(self))):
            if data in files.SETS:
                self.load_data(self.seeds[0], data)
        if any(size.get("cut") for size in self.sizes.values()):
            self._of_a_cut_set()
        name = f"{self.script.stem}.{self.data}.{self.scale}.{self._key()}"
        self.folder = arguments.out / ".unfinished" / name
        if self.folder.exists() and self.share[1] == 1 and not arguments.dry_run:
            print(f"going on with the unfinished study in {self.folder}")
        shard = "" if self.share[1] == 1 else f"-{self.share[0]}of{self.share[1]}"
        self.log = Log(None if arguments.dry_run else self.folder / f"log{shard}.jsonl")
        work.read_logs(self)
        self.results = Results(self.log, self.seeds)

    def _of_a_cut_set(self):
        self.variant = f"{self.variant}-cut".strip("-")

    def wants(self, *panels):
        """Whether any of these panel functions was asked for."""
        return any(panel in self.panels for panel in panels)

    def leave_out(self, panel, reason):
        """Do not make this panel. ValueError if no other was asked for."""
        if self.wants(panel):
            self.panels = [other for other in self.panels if other is not panel]
            if not self.panels:
                raise ValueError(f"{panel.__name__} {reason}")
            print(f"{panel.__name__} {reason}: left out")

    # ---- training

    def units(self, prepare, schedules, disk=0.0, besides=None):
        """Yield this process's units (work.Unit) that are still to do; done when the
        next is asked for.

        prepare    (study, seed, label) -> (Dataset, Setup); without label if there is one net
        schedules  name -> phases; for several nets label -> (name -> phases)
        disk, besides: see work.Work
        """
        one_net = all(isinstance(phases, list) for phases in schedules.values())
        plans = {"": schedules} if one_net else schedules

        def prepared(seed, label):
            data, setup = prepare(self, seed) if one_net else prepare(self, seed, label)
            return data, self.asked(setup)

        setups = {label: prepared(self.seeds[0], label)[1] for label in plans}
        if not self.arguments.dry_run:
            self.folder.mkdir(parents=True, exist_ok=True)
            if work.PARENT not in os.environ and self.lock is None:
                own = self.folder / f"lock-{self.share[0]}of{self.share[1]}"
                self.lock = locked(own, "wait for it, or give another --out")
        self.work = work.Work(self, setups, plans, disk, besides)
        for unit in self.work.todo():
            data, setup = prepared(unit.seed, unit.label)
            yield replace(unit, data=data, setup=setup)

    def sweep(self, prepare, schedules, at=None, besides=None):
        """Train everything; yield (run, epoch, state, names) wherever something can be measured.

        ``run`` holds seed, label, data and setup; names are the schedules that pass
        through this point, with the label in front. See schedule.sweep for the rest,
        ``units`` for the arguments.
        """
        for unit in self.units(prepare, schedules, besides=besides):
            for point, state, names in self.work.trained(unit, at):
                yield unit, point, state, names

    def asked(self, setup):
        """The Setup with the arithmetic that the flags ask for."""
        for flag, (_, settings) in ARITHMETIC.items():
            if getattr(self.arguments, flag.replace("-", "_")):
                setup = replace(setup, **settings)
        return setup

    def load_data(self, seed, name=None, size=None, **generator):
        """The study's set (or ``name``'s) for one seed, as it comes, on the CPU.

        Real sets are read once; the subset is the seed's. size: training examples, if not as many
        as arguments and settings say; generator: settings of a synthetic set.
        """
        name = name or self.data
        size = size or self.arguments.train_size or self.config.train_size
        if name in SYNTHETIC:
            own = dict(train_size=size) if size else {}
            found = SYNTHETIC[name](seed, **generator | own)
        else:
            found = self.loaded[name] = self.loaded.get(name) or self._read(name)
        if name not in self.sizes:
            n, digest = len(found.train[0]), tensor_digest(*found.train, *found.test)[:16]
            used = {"train": n, "used": min(size or n, n), "test": len(found.test[0])}
            self.sizes[name] = used | {"digest": digest}  # of all examples
            if name in files.SETS and name not in self.stand_ins and (said := missing(found)):
                self.sizes[name]["cut"] = True
                print(f"{name} is cut here: {said}; other numbers than from the complete set")
        if name == self.data:
            self.classes = found.classes
        return found.subset(size, seed, "subset") if size and name not in SYNTHETIC else found

    def prepared_data(self, seed, name=None, **generator):
        """``load_data``, resized to the settings' ``side``, standardised, on the device.

        The sets of the last seed are kept, so that several nets share one copy.
        """
        key = (seed, name, *sorted(generator.items()))
        if key not in self.prepared:
            self.prepared = {old: one for old, one in self.prepared.items() if old[0] == seed}
            data, side = self.load_data(seed, name, **generator), self.config.side
            data = (data.resized(side) if side else data).standardised().to(self.device)
            self.prepared[key] = data
        return self.prepared[key]

    def _read(self, name):
        try:
            return load(name, self.arguments.data_dir, self.arguments.download)
        except files.NotFound:
            if not self.arguments.dry_run:
                raise
        print(f"dry run: {name} was not found, random images stand for it")
        self.stand_ins.add(name)
        n, _, channels, side = files.PUBLISHED[name]
        classes, rng = files.SETS[name][0], np.random.default_rng(0)
        x, y = rng.random((n, channels, side, side), np.float32), np.arange(n) % classes
        return Dataset.from_arrays(name, classes, (x, y), (x[:1000], y[:1000]))

    def step(self, name=None, part="test"):
        """The step of an accuracy, percent, on the test set of the study's data (or ``name``'s), or
        on the training examples in ``part="used"``."""
        return 100 / self.sizes[name or self.data][part]

    # ---- states that are compared later

    def keep(self, seed, name, state):
        """Keep the weights and masks of a state under a name of your choice, once; they survive a
        kill and go when the panels are drawn."""
        path = self._kept(seed, name)
        if not path.exists():
            save_checkpoint(path, {"model": state.model.state_dict(), "masks": state.masks})

    def kept(self, seed, name):
        """What ``keep`` kept: {"model": state_dict, "masks"} on the study's device. ValueError:
        nothing, or the file is damaged."""
        found = load_checkpoint(self._kept(seed, name), self.device)
        if found is None:
            raise ValueError(f"no state {name!r} of seed {seed} is kept (or its file is damaged)")
        return found

    def drop(self, seed, name):
        """Remove a kept state before the study ends: it takes disk."""
        self._kept(seed, name).unlink(missing_ok=True)

    def _kept(self, seed, name):
        readable, digest = re.sub(r"\W+", "-", name), hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.folder / f"kept-{seed}-{readable}-{digest}.pt"

    # ---- results

    def path(self, name, root=None):
        """Results file of a panel: OUT/PANEL.json, or OUT/DATA.SCALE[.VARIANT]/PANEL.json."""
        parts = [self.data, self.scale] + [self.variant] * bool(self.variant)
        folder = (root or self.arguments.out) / ("" if self.is_default else ".".join(parts))
        return folder / f"{name}.json"

    def finish(self):
        """Compute, write and draw every panel that was asked for; say what each found."""
        if self.arguments.dry_run:
            print("dry run: this script trains no net and takes seconds; nothing was written")
            raise SystemExit(0)
        if self.work is not None:
            if sys.stdout.isatty():
                print()
            if work.PARENT in os.environ:
                return  # whoever started this process draws the figures
            work.wait_for(self.work.workers)
            work.read_logs(self)
            if self._left():
                return
            spent = self.seconds()
            share = 1 - spent["in_training"] / max(spent["seconds"], 0.1)
            print(f"{spent['seconds']:.0f} s of one process, {share:.0%} of them to measure")
        for panel in self.panels:
            self._tell(panel)
        if self.arguments.save:
            curves = self.path(self.script.stem).with_suffix(".curves.csv")
            write_csv(curves, self.log.rows(), ["seed", "schedule", "point", "quantity", "value"])
        shutil.rmtree(self.folder, ignore_errors=True)
        # another study lies there, or another process was faster
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def seconds(self):
        """What the study took: see Work.seconds."""
        alone = {"seconds": round(time.monotonic() - self.started, 1)}
        return self.work.seconds() if self.work else alone

    def _left(self):
        left, (i, n) = self.work.left(), self.share
        units = f"{left} of {len(self.work.units)} units are"
        if left and n == 1:
            raise ValueError(f"{units} missing (did the code change?): the same command goes on")
        if left:
            print(f"share {i}/{n} is done; {units} left to the others, the last draws the figures")
        return left

    def _tell(self, function):
        """Write and draw one panel, say what it found, and compare it with the committed result."""
        where = {key: getattr(self, key) for key in ("data", "variant", "scale", "seeds")}
        panel = replace(function(self), name=function.__name__, **where)
        # the script's text is kept once per folder and digest of the code
        path, source = self.path(panel.name), f"sources/{self.script.stem}.{self.digest[:10]}.txt"
        write_atomically(path.parent / source, self.text)
        versions = {module.__name__: module.__version__ for module in (torch, np, clp_min)}
        result = panel.to_dict() | {
            "script": self.script.name, "source": source, "config": described(self.config),
            "data_sizes": self.sizes, "device": str(self.device),
            "versions": {"python": platform.python_version()} | versions, **self.seconds(),
        }
        write_json(path, result)
        figure = self._draw(result, path)[0]
        more = result.get("seeds_to_decide")
        decides = f" (n = {more} would decide, with mean and deviation as they are)" * bool(more)
        run = f"{panel.data}, {panel.scale}, n = {len(self.seeds)}"
        print(f"{panel.name} [{run}]: {panel.verdict}{decides}. {result['finding']} -> {figure}")
        if panel.printed:
            print(f"  the paper, at its scale: {panel.printed}")
        ours = self.path(panel.name, self.script.resolve().parent / "results")
        if ours.exists() and ours.resolve() != path.resolve():
            print("  " + compared(result, json.loads(ours.read_text())))

    def replot(self):
        """Redraw the figures from the results files."""
        paths = [self.path(panel.__name__) for panel in self.panels]
        if not any(path.exists() for path in paths):  # made from a cut set, perhaps
            self._of_a_cut_set()
            paths = [self.path(panel.__name__) for panel in self.panels]
        if not any(path.exists() for path in paths):
            raise ValueError(f"{paths[0].parent} holds none of these results: run without --plot")
        for path in paths:
            if not path.exists():
                print(f"{path} does not exist: run without --plot first")
                continue
            try:
                print("drew", *self._draw(json.loads(path.read_text()), path))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                said = f"{path} is no whole results file ({error!r}): run without --plot"
                raise ValueError(said) from None

    def _draw(self, result, path):
        """All figures of a result beside its file, and its CSV -> figures, the main one first."""
        panel, made = Panel.from_dict(result), []
        for figure in plot.figures(panel):
            picture = plot.draw(panel, figure)
            for ending in self.arguments.format:
                made.append(path.with_suffix(f".{figure}.{ending}" if figure else f".{ending}"))
                plot.save(picture, made[-1])
        if self.arguments.csv:
            write_csv(path.with_suffix(".csv"), drawn(result), DRAWN)
        return made

    def _key(self):
        """What an unfinished study must agree in to be gone on with."""
        config, only = described(self.config), [panel.__name__ for panel in self.panels]
        parts = [config, only, self.data, self.device.type, self.variant, self.digest, self.sizes]
        parts += ["save"] * self.arguments.save
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


def compared(yours, ours):
    """One line: your headline against the committed one."""
    a, b = yours["headline"], ours["headline"]
    keys = "mean", "standard_error"
    values = [math.nan if h[k] is None else h[k] for h in (a, b) for k in keys]
    same = "equal" if a == b else f"difference {values[0] - values[2]:.2g}"
    same += "" if a["unit"] == b["unit"] else f"; ours is in {b['unit']}"
    same += "" if yours["verdict"] == ours["verdict"] else f"; ours was {ours['verdict']}"
    said = [f"{m:.4g}" + f" ± {e:.2g}" * (e == e) for m, e in (values[:2], values[2:])]
    return f"yours {said[0]} against ours {said[1]} {a['unit']} ({same})"


def command_line(main):
    """Run a script's main(): one line for an error, a clean stop on Ctrl-C."""
    interrupt.imports_are_over()
    try:
        main()
    except (ValueError, ArithmeticError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        sys.exit(f"error: {str(error) or type(error).__name__}")
    except KeyboardInterrupt:
        said = "\nstopped; the same command goes on from here, at most half a minute back"
        sys.exit(1 if work.PARENT in os.environ else said)


def parse(script, panels, configs, argv, options):
    """The arguments as given; --data may be None. ValueError: what cannot be meant."""
    names = [panel.__name__ for panel in panels]
    parser = argparse.ArgumentParser(
        prog=script.name, description=ast.get_docstring(ast.parse(script.read_text())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PANEL", choices=names, default=names,
        help="panels to make, of: " + ", ".join(names),
    )
    parser.add_argument(
        "--data", choices=list(dict.fromkeys(data for data, _ in configs)),
        help="data set (default: the synthetic one; at paper scale the paper's)",
    )
    for flag, keywords in OPTIONS.items():
        parser.add_argument(flag, **keywords)
    for flag, said in SWITCHES.items():
        parser.add_argument(flag, action="store_true", help=said)
    for flag, keywords, _ in options:
        parser.add_argument(flag, **keywords)
    arguments = parser.parse_args(argv)
    if arguments.list:
        print(listed(script.resolve().parent))
        raise SystemExit(0)
    for flag in ("threads", "workers", "train_size"):
        if (given := getattr(arguments, flag)) is not None:
            check_whole(1, 10_000_000, **{"--" + flag.replace("_", "-"): given})
    if arguments.shard and arguments.workers and work.PARENT not in os.environ:
        raise ValueError("--shard and --workers exclude each other: give one of them")
    for path in (arguments.out, *arguments.out.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out {arguments.out}: {path} is a file: give a folder")
    return arguments


def listed(folder):
    """Every script of a folder with its panels, a line each."""
    lines = []
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PANELS":
                names = [name.id for name in node.value.elts]
                lines.append(f"{path.name}: {', '.join(names)}")
    return "\n".join(lines)


def _changed(config, settings):
    """The settings with those of ``--set``, of the kind that they replace. ValueError: no such
    setting, or another kind of value."""
    for text in settings:
        name, _, value = text.partition("=")
        if name not in asdict(config):
            names = ", ".join(sorted(asdict(config)))
            raise ValueError(f"--set {text}: there is no setting {name!r}; there are: {names}")
        old, new = getattr(config, name), value
        with contextlib.suppress(ValueError, SyntaxError):  # else it stays text
            new = ast.literal_eval(value)
        new = float(new) if isinstance(old, float) and type(new) is int else new
        if callable(old) or None not in (old, new) and type(new) is not type(old):
            raise ValueError(f"--set {text}: {name} is {old!r} here, set a value of that kind")
        config = replace(config, **{name: new})
    return config


DRAWN = ["axes", "curve", "x", "seed", "value"]


def drawn(result):
    """What a result draws, a row for each number; the seed is empty if it is exact."""
    for one in result["series"]:
        seeds = result["seeds"] if len(one["values"]) == len(result["seeds"]) else [""]
        for seed, values in zip(seeds, one["values"]):
            yield from ([one["y"], one["label"], x, seed, v] for x, v in zip(one["x"], values))


def write_csv(path, rows, header):
    """A table as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    write_atomically(path, text.getvalue())


def described(config):
    """The settings as JSON can hold them; functions by name, with the arguments that are fixed."""

    def describe(value):
        if isinstance(value, functools.partial):
            fixed = ", ".join(f"{k}={describe(v)}" for k, v in value.keywords.items())
            return f"{value.func.__name__}({fixed})"
        return value.__name__ if callable(value) else value

    return {key: describe(value) for key, value in asdict(config).items()}


def scales(Config, quick, smoke, paper, evening=None):
    """(data, scale) -> Config: rows of ``quick`` by data set, with ``smoke`` over them, of
    ``evening`` by data set, and none.

    paper: the sets for which the defaults of Config, the published experiment, are meant; or rows
    over them, by data set.
    """
    made = {(data, "quick"): Config(**rows) for data, rows in quick.items()}
    made |= {(data, "smoke"): Config(**rows | smoke) for data, rows in quick.items()}
    made |= {(data, "evening"): Config(**rows) for data, rows in (evening or {}).items()}
    published = paper if isinstance(paper, dict) else dict.fromkeys(paper, {})
    return made | {(data, "paper"): Config(**rows) for data, rows in published.items()}


def _variant(arguments, options):
    """The notes of the options given, for the name of the results' folder."""
    notes = [f"n{arguments.train_size}"] * bool(arguments.train_size)
    notes += [re.sub(r"[^\w.=+-]+", "_", text) for text in arguments.set]
    for flag, _, note in options:
        given = getattr(arguments, flag.lstrip("-").replace("-", "_"))
        if given not in (None, False):
            notes.append(note.format(given))
    return "-".join(notes)


def _usable_device(arguments):
    cuda = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    paper = arguments.scale == "paper" and torch.cuda.is_available()
    name = (cuda if paper else "cpu") if arguments.device is None else arguments.device
    if not re.fullmatch(r"cpu|(cuda|xpu)(:\d{1,3})?", name):
        raise ValueError(f"--device takes cpu, cuda, cuda:1 or xpu, with float64, got {name!r}")
    try:
        torch.empty(0, device=name, dtype=torch.float64)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"--device {name} cannot be used here ({reason})") from None
    return torch.device(name)


def _seeds(text):
    """"5" -> 10 .. 14, the standard ones; "0-3" -> 0 .. 3."""
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    first, last = map(int, match.groups(0)) if match else (0, 0)
    seeds = range(first, last + 1) if match and match[2] else standard_seeds(min(first, 10_001))
    if not 0 < len(seeds) <= 10_000:
        raise ValueError(f"--seeds takes a number N from 1, or A-B with A <= B, got {text}")
    return list(seeds)


def _local(script):
    """The script and the settings file that it imports, if there is one."""
    tree = ast.parse(script.read_text())
    names = [a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names]
    files = [script.resolve().parent / f"{name}.py" for name in names]
    return [script] + [path for path in files if path.exists()]


def _text(script):
    return "\n\n".join(f"# ---- {path.name}\n\n{path.read_text()}" for path in _local(script))


def source_digest(script):
    """A digest of the code that makes the numbers: the script, its settings, and clp_min."""
    package = sorted(Path(clp_min.__file__).parent.rglob("*.py"))
    content = b"".join(path.read_bytes() for path in _local(script) + package)
    return hashlib.sha256(content).hexdigest()
