"""Every script as a user runs it: from another folder, at smoke scale; killed and run again;
refused with one line; the README's commands."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(p for p in (ROOT / "examples").glob("*.py") if "def main(" in p.read_text())
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments, cwd, **settings):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
        env=ENVIRONMENT, **settings,
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_examples__smoke_from_another_folder(script, tmp_path):
    panels = re.findall(
        r"\w+", re.search(r"^PANELS = \[(.*?)\]", script.read_text(), re.M | re.S).group(1)
    )
    done = run(script, "--scale", "smoke", "--out", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(p.read_text()) for p in (tmp_path / "there").rglob("*.json")]
    assert sorted(r["panel"] for r in results) == sorted(panels) and len(panels) > 0
    files = sorted((tmp_path / "there").rglob("*.json"))
    assert all(path.with_suffix(".png").exists() for path in files)
    assert not (tmp_path / "there" / ".unfinished").exists()
    assert all(
        f"n = {len(r['seeds'])}" in done.stdout and r["verdict"] in done.stdout for r in results
    )
    figure = files[0].with_suffix(".png")
    pixels = figure.read_bytes()
    figure.unlink()
    again = "--scale", "smoke", "--out", "there", "--plot", "--format", "png", "svg"
    assert run(script, *again, cwd=tmp_path).returncode == 0
    assert figure.read_bytes() == pixels and figure.with_suffix(".svg").exists()


def test_examples__trace_in_steps_is_the_run_s_own(tmp_path):
    """The first epochs, trained once more, have at an epoch's end its trace to the last bit."""
    command = [ROOT / "examples" / "blur_deficit.py", "--scale", "smoke", "--out", "."]
    run(*command, "--only", "achille_fisher", cwd=tmp_path, check=True)
    found = json.loads((tmp_path / "textures.smoke" / "achille_fisher.json").read_text())["series"]
    trace = {(one["y"], one["label"]): dict(zip(one["x"], one["values"][0])) for one in found}
    for label in ("no deficit", "blurred until epoch 2"):
        epochs = trace["trace of the Fisher information", label]
        steps = trace["trace in the first epochs", label]
        assert (steps[2], steps[4]) == (epochs[1], epochs[2])  # two steps an epoch


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_examples__help_names_every_option(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    for option in (
        "--scale", "--only", "--data", "--data-dir", "--seeds", "--device", "--out", "--dry-run",
        "--plot",
    ):
        assert option in done.stdout
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [s for s in SCRIPTS if re.search(r"\.configs\(|phases\.CONFIGS|study\.units", s.read_text())],
    ids=lambda p: p.stem,
)
def test_examples__dry_run_at_paper_scale_takes_real_steps(script, tmp_path):
    done = run(
        script, "--scale", "paper", "--dry-run", "--device", "cpu", "--data-dir", tmp_path,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (
        re.search(r"([356]0,000|33,333) training examples.* FLOPs", done.stdout)
        and re.search(r": a step of \d+ examples keeps .* GB .*, takes .* s", done.stdout)
        and re.search(r"training takes about [\d.,e-]+ hours", done.stdout)
        and not list(tmp_path.iterdir())
    )


@pytest.mark.slow
def test_examples__killed_and_run_again_gives_the_same_numbers(tmp_path):
    """kill -9 at several moments; the last run goes on to results equal to the uninterrupted
    ones in every bit."""
    command = [ROOT / "examples" / "achille_window.py", "--scale", "smoke", "--seeds", 20]
    assert run(*command, "--out", "whole", cwd=tmp_path).returncode == 0
    alive = 0

    def logged():
        return sum(p.stat().st_size for p in tmp_path.glob("killed/.unfinished/*/log.jsonl"))

    for wait in (0.0, 0.4, 1.0):  # after the first new measurement
        before = logged()
        process = subprocess.Popen(
            [sys.executable, *map(str, command), "--out", "killed"], cwd=tmp_path,
            stdout=subprocess.DEVNULL, env=ENVIRONMENT,
        )
        while logged() == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(wait)
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert alive == 3 and logged() > 0  # every kill fell inside the study
    assert run(*command, "--out", "killed", cwd=tmp_path).returncode == 0
    names = sorted(p.name for p in (tmp_path / "whole").rglob("*.json"))
    assert names and names == sorted(p.name for p in (tmp_path / "killed").rglob("*.json"))
    for name in names:
        paths = [tmp_path / folder / "textures.smoke" / name for folder in ("whole", "killed")]
        whole, killed = (json.loads(path.read_text()) for path in paths)
        assert whole["series"] == killed["series"] and whole["headline"] == killed["headline"]


@pytest.mark.slow
def test_examples__errors_are_one_line(tmp_path):
    script = ROOT / "examples" / "blur_deficit.py"
    for arguments, message in [
        (["--data", "cifar10", "--data-dir", "nowhere"], "nowhere/cifar-10-batches-py"),
        (["--only", "achille_blurr"], "achille_blur"),
        (["--seeds", "0"], "--seeds"),
        (
            [
                "--train-size", "999999", "--scale", "smoke", "--data", "fashion_mnist",
                "--data-dir", "nowhere",
            ],
            "fashion_mnist not found",
        ),
        (["--plot", "--out", "empty"], "run without --plot"),
    ]:
        done = run(script, *arguments, cwd=tmp_path)
        assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
        assert len(done.stderr.strip().splitlines()[-1]) > 20


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CLP_DATA"), reason="needs real data: set CLP_DATA")
@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_examples__real_data_at_smoke_scale(name, tmp_path):
    done = run(
        ROOT / "examples" / "blur_deficit.py", "--scale", "smoke", "--data", name, "--out", ".",
        cwd=tmp_path,
    )
    made = [path.parent.name for path in tmp_path.rglob("achille_blur.json")]
    # a set that is not complete says so
    cut = ".cut" * (f"{name} is cut here" in done.stdout)
    assert done.returncode == 0 and made == [f"{name}.smoke{cut}"], done.stderr


RIGHT = "from clp_min.deficits import vertical_flip as f\ndef vertical_flip(x):\n    return f(x)\n"


@pytest.mark.slow
def test_student__the_readmes_command_in_the_projects_root():
    """pytest --student my.py, with a space and with =, my.py lying in the root."""
    solution = ROOT / "my_solution_for_a_test.py"
    try:
        solution.write_text(RIGHT)
        for arguments in (["--student", solution.name], [f"--student={solution.name}"]):
            done = run("-m", "pytest", "-q", *arguments, cwd=ROOT)
            assert done.returncode == 0 and re.search(r"1 passed", done.stdout), done.stdout
        solution.write_text("def something_else():\n    pass\n")
        told = run("-m", "pytest", "--student", solution.name, cwd=ROOT).stderr
        assert "defines (def, not import) none of" in told
    finally:
        solution.unlink()


def readme_blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.slow
def test_readme__python_example_runs(tmp_path):
    [code] = readme_blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "mine.py").write_text(code)
    done = run("mine.py", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_readme__links_and_scripts_exist():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for script in set(re.findall(r"(?:python |`)(examples/\w+\.py)", text)):
        assert (ROOT / script).exists(), script


def test_gallery__tables_are_those_of_the_results():
    done = run("-m", "clp_min.study.gallery", "--check", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
