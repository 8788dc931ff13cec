"""A study from command line to results file, in this process: seeds, kept states, data that change
under an unfinished study, a damaged record."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import blur_deficit
import numpy as np
import pytest
import torch
from test_data import RNG, make_mnist, write_idx

from clp_min import models
from clp_min.schedule import Phase
from clp_min.study import Axes, Curve, Effect, Panel, Study
from clp_min.train import Setup, accuracy


@dataclass(frozen=True)
class Config:
    seeds: int = 2
    train_size: int | None = 60
    side: int | None = None


CONFIGS = {(d, s): Config() for s in ("quick", "smoke") for d in ("textures", "mnist")}


def made_up(study):
    """A panel of one effect."""
    a, b = (study.results.final("accuracy", name) for name in ("a", "b"))
    effect = Effect("points", a - b, least=1.0, step=study.step())
    curve = Curve("c", ["a", "b"], np.stack([a, b], 1))
    return Panel("a is better", [effect], [Axes("y", [curve])])


def prepare(study, seed):
    data = study.prepared_data(seed)
    x, y = data.train
    model = partial(models.linear_softmax, tuple(x.shape[1:]), 10)
    return data, Setup(model=model, x=x, y=y, lr=0.01, batch_size=20)


PLAN = {"a": [Phase(2), Phase(2)], "b": [Phase(2), Phase(3, lr=0.1)]}


@pytest.fixture
def study(tmp_path):
    script = tmp_path / "script.py"
    script.write_text('"""A script."""\n')

    def begin(*argv):
        argv = ["--scale", "smoke", "--out", str(tmp_path / "out"), *argv]
        return Study(str(script), [made_up], CONFIGS, argv)

    return begin


def run(study, stop=None, save_every=None):
    """Train and finish; with ``stop``, end after so many points, as a kill would."""
    points = 0
    for unit, epoch, state, names in study.sweep(prepare, PLAN):
        study.log.add(unit.seed, names, epoch, accuracy=accuracy(state.model, *unit.data.test))
        points += 1
        if points == stop:
            return None
    study.finish()
    return json.loads(study.path("made_up").read_text())


def test_study__set_makes_a_variant_and_names_what_there_is(study):
    """A changed setting is a result of its own, never in the place of a committed one; an unknown
    name, or a value of another kind, says what there is."""
    own = study("--set", "train_size=60", "seeds=2")
    assert own.config.train_size == 60 and own.config.seeds == 2
    assert own.variant == "train_size=60-seeds=2" and own.path("a") != study().path("a")
    for bad, said in (("sizes=3", "there are: "), ("seeds=2.5", "seeds is"), ("seeds", "seeds is")):
        with pytest.raises(ValueError, match=said):
            study("--set", bad)


def test_study__arithmetic_asked_for_reaches_the_training_and_names_the_variant(study):
    asked = study("--bfloat16", "--tf32", "--channels-last")
    (unit, *_) = asked.units(prepare, PLAN)
    setup = unit.setup
    assert (setup.autocast, setup.tf32, setup.channels_last) == (torch.bfloat16, True, True)
    assert asked.path("p").parent.name.endswith("bfloat16-tf32-channels-last")
    (unit, *_) = study().units(prepare, PLAN)
    assert (unit.setup.autocast, unit.setup.tf32, unit.setup.channels_last) == (None, False, False)


def test_study__csv_holds_every_number_that_is_drawn(study):
    own = study("--csv")
    run(own)
    rows = list(csv.reader(own.path("made_up").with_suffix(".csv").open(newline="")))
    drawn = [v for s in json.loads(own.path("made_up").read_text())["series"] for v in
             sum(s["values"], [])]
    assert rows[0] == ["axes", "curve", "x", "seed", "value"] and {r[3] for r in rows[1:]} == {
        "10", "11"}
    assert [float(row[4]) for row in rows[1:]] == drawn


def test_study__save_keeps_weights_and_all_that_was_measured(study):
    """The weights of a schedule's end give the accuracy that was measured there."""
    own = study("--save")
    run(own)
    rows = list(csv.reader(own.path("script").with_suffix(".curves.csv").open(newline="")))
    assert rows[0] == ["seed", "schedule", "point", "quantity", "value"] and len(rows) == 23
    for seed in (10, 11):
        data, setup = prepare(own, seed)
        for name, epochs in (("a", "4"), ("b", "5")):
            weights = own.path("script").with_suffix(".weights") / f"{name}-seed{seed}.pt"
            model = setup.model()
            model.load_state_dict(torch.load(weights))
            measured = [r[4] for r in rows if r[:4] == [str(seed), name, epochs, "accuracy"]]
            assert [accuracy(model.eval(), *data.test)] == [float(value) for value in measured]


@pytest.mark.parametrize("wrong", [
    "--shard=", "--shard=2/2", "--shard=0/2 --workers=2", "--device=", "--device=meta",
    "--device=cpu:7", "--device=mkldnn", "--device=mps", "--seeds=", "--seeds=0", "--seeds=5-4",
    "--seeds=1000000000", "--train-size=1000000000", "--train-size=0", "--workers=0",
])
def test_study__what_cannot_be_meant_is_refused_before_anything_is_made(study, tmp_path, wrong):
    flag = wrong.split("=")[0]
    with pytest.raises(ValueError, match=flag) as caught:
        study(*wrong.split())
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_study__data_that_are_missing_leave_nothing_unfinished(study, tmp_path):
    """Nor is damage taken for absence by --dry-run, which has random images stand for a set."""
    for flags in ((), ("--dry-run",)):
        with pytest.raises(ValueError, match="damaged" if flags else "mnist not found"):
            study("--data", "mnist", "--data-dir", str(tmp_path), *flags)
        assert not (tmp_path / "out").exists()
        make_mnist(tmp_path / "mnist")
        (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(b"no idx file")


@pytest.mark.parametrize("content", ["{}", "[]", "null", "", '{"panel":', '{"series": [{}]}'])
def test_study__a_damaged_results_file_is_named(study, content):
    path = study().path("made_up")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match="made_up.json is no whole results file"):
        study("--plot")


def test_study__ctrl_c_ends_the_epoch_and_loses_nothing(study):
    """The first one; what is trained next goes on from there, to the same result."""
    own, before = study(), signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            for unit, epoch, state, names in own.sweep(prepare, PLAN):
                correct = accuracy(state.model, *unit.data.test)
                own.log.add(unit.seed, names, epoch, accuracy=correct)
                if epoch == 1:
                    signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    own.lock.close()
    again, points = study(), []
    for unit, epoch, state, names in again.sweep(prepare, PLAN):
        points.append(epoch)
        correct = accuracy(state.model, *unit.data.test)
        again.log.add(unit.seed, names, epoch, accuracy=correct)
    assert points[0] == 2
    again.finish()
    resumed = json.loads(again.path("made_up").read_text())
    again.path("made_up").unlink()
    assert run(study())["series"] == resumed["series"]


def test_study__a_second_copy_in_the_same_folder_says_so_at_once(study, tmp_path):
    """The lock is held by a process, and goes with it, killed or not."""
    own = study()
    run(own, stop=2)
    lock = next(own.folder.glob("lock-*"))
    code = ("import sys; from clp_min.disk import locked; own = locked(sys.argv[1], '');"
            " print('held', flush=True); sys.stdin.read()")
    again = [sys.executable, "-c", code, str(lock)]
    other = subprocess.run(again, capture_output=True, text=True, input="")
    assert "another process works in " in other.stderr
    own.lock.close()
    with subprocess.Popen(again, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process works in "):
            run(study())
        holder.kill()
    assert run(study())["panel"] == "made_up"


def test_study__list_names_every_script_and_panel(capsys):
    with pytest.raises(SystemExit):
        blur_deficit.main(["--list"])
    said = capsys.readouterr().out
    assert "blur_deficit.py: achille_blur, achille_matched" in said and "phases_fig5" in said


def test_study__seeds_are_the_standard_ones_or_a_range(study):
    assert study("--seeds", "3").seeds == [10, 11, 12] and study().seeds == [10, 11]
    assert study("--seeds", "0-2").seeds == [0, 1, 2] and study("--seeds", "7-7").seeds == [7]
    for bad in ("0", "-1", "3-1", "a", "1.5", "", "9" * 30, "20000", "9" * 9, "0-" + "9" * 9):
        with pytest.raises(ValueError, match="--seeds takes"):
            study(f"--seeds={bad}" if bad else "--seeds= ")


def test_study__results_hold_what_was_measured_on_what(study):
    result = run(study())
    assert result["seeds"] == [10, 11] and result["verdict"] == "no verdict (smoke scale)"
    assert {"half", "double"} <= set(result)
    (effect,) = result["effects"]
    assert effect["least"] == 1.0 and effect["agreeing"] in (0, 1, 2) and len(effect["values"]) == 2
    sizes = result["data_sizes"]["textures"]
    assert sizes["used"] == sizes["train"] and effect["step"] == 100 / sizes["test"]
    assert len(sizes["digest"]) == 16 and "cut" not in sizes


def test_study__a_set_of_another_size_has_other_examples_not_other_pixels(study):
    begun = study()
    usual, more = (begun.load_data(10, **own).train[0] for own in ({}, dict(size=80)))
    assert (len(usual), len(more)) == (60, 80) and usual.shape[1:] == more.shape[1:]
    (x, _), y = begun.load_data(10, size=30, fine=0.5).train, begun.load_data(10, size=30).train[0]
    assert len(x) == 30 and not torch.equal(x, y)


def test_study__kept_states_survive_and_go_with_the_study(study):
    begun, weights = study(), {}
    begun.folder.mkdir(parents=True)
    setup = prepare(begun, 10)[1]
    from clp_min.train import fresh_state

    for name in ("a 1", "a-1", "a/1"):  # names that a file could not hold stay apart
        state = fresh_state(setup, len(weights))
        begun.keep(10, name, state)
        weights[name] = state.model[1].weight.detach().clone()
    state.masks = {"1.weight": torch.ones(10, 768) > 0}
    begun.keep(10, "a 1", state)  # written once
    begun.keep(11, "a 1", state)
    again = study()  # another process
    for name, weight in weights.items():
        kept = again.kept(10, name)
        assert torch.equal(kept["model"]["1.weight"], weight) and kept["masks"] is None
    assert again.kept(11, "a 1")["masks"]["1.weight"].all()
    with pytest.raises(ValueError, match="no state 'b' of seed 10 is kept"):
        again.kept(10, "b")
    again.drop(10, "a/1")
    with pytest.raises(ValueError, match="no state"):
        begun.kept(10, "a/1")
    run(again)
    assert not again.folder.exists()


def real(folder):
    """A tiny "MNIST"."""
    make_mnist(folder / "mnist")
    for part, n in (("train", 60), ("t10k", 50)):
        images = RNG.integers(0, 255, (n, 28, 28), np.uint8)
        write_idx(folder / f"mnist/{part}-images-idx3-ubyte", images)
        write_idx(folder / f"mnist/{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return "--data", "mnist", "--data-dir", str(folder)


def test_study__other_files_under_an_unfinished_study_begin_another_one(study, tmp_path):
    """Stopped on one set of files, gone on with on another: nothing is mixed."""
    one, other = real(tmp_path / "one"), real(tmp_path / "other")
    alone = run(study(*other))
    alone = [alone["series"], alone["data_sizes"]]
    begun = study(*one)
    run(begun, stop=7)
    mixed = study(*other)
    assert mixed.folder != begun.folder and begun.folder == study(*one).folder
    result = run(mixed)
    assert [result["series"], result["data_sizes"]] == alone
    assert run(study(*one))["data_sizes"] != alone[1]


def test_study__a_cut_set_is_said_everywhere(study, tmp_path, capsys):
    cut = study(*real(tmp_path / "one"))
    assert "mnist is cut here: 60 of 60,000 training images" in capsys.readouterr().out
    result = run(cut)
    assert cut.path("made_up").parent.name == "mnist.smoke.cut" and result["variant"] == "cut"
    assert result["data_sizes"]["mnist"]["cut"] is True
    with pytest.raises(SystemExit):
        study("--data", "mnist", "--plot")  # finds it without the data
    assert "mnist.smoke.cut" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["emptied", "removed", "a line", "other lines"])
def test_study__a_damaged_record_is_measured_again(study, tmp_path, damage, monkeypatch):
    """Checkpoints ahead of the log, units marked as done whose measurements are lost: the same
    command ends in the same numbers."""
    import clp_min.study.work as work

    whole = run(study())["series"]
    swept = work.sweep
    monkeypatch.setattr(work, "sweep", lambda *a, **k: swept(*a, **k, save_every=0.0))
    for stop in (3, 8, 11, 14):  # within the first unit, at its end, in the second
        begun = study("--workers", "1")
        run(begun, stop)
        log = begun.folder / "log.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        if damage == "emptied":
            log.write_text("")
        elif damage == "removed":
            log.unlink()
        elif damage == "a line":
            log.write_text("".join([lines[0], lines[1][:9] + "\0" + lines[1][9:], *lines[2:]]))
        else:
            strange = ["5\n", "null\n", '[1,"a",2,3]\n', '[0,"x",{},{}]\n', "[[],[],1,{}]\n"]
            log.write_text("".join(strange + lines[2:]))
        assert run(study("--workers", "1"))["series"] == whole, stop
