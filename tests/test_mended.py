"""What attacks on the project found and no other test sees: each failed before it was mended."""

import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import local_downloads, make_tiny_imagenet  # noqa: F401
from test_study import study  # noqa: F401
from torch import nn

from clp_min import files
from clp_min.deficits import gaussian_blur
from clp_min.schedule import Phase
from clp_min.seeding import derive_seed
from clp_min.study import gallery
from clp_min.study.command import compared
from clp_min.study.record import Log
from clp_min.train import Setup
from theory.softmax_fisher import sampled_label_variance
from theory.softmax_phases import flow_time, input_variance

from adapters import (
    binned_mutual_information, effective_gradient, evaluate, fisher_trace, full_gradient,
    gaussian_binned_entropy, jacobian_norm, label_noise, layer_features, load, optimum,
    per_example_gradient_norms, random_affine, shrink_perturb, simulate, single_logit_loss, sweep,
)
from compare import EXACT, assert_close

ROOT = Path(__file__).parent.parent
X, Y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])


def net(*more):
    return nn.Sequential(nn.Linear(5, 4), *more, nn.Linear(4, 3)).eval()


# ---- gradients, evaluation


@pytest.mark.parametrize("scale", [1e25, 1e-22, 1e-30])
def test_effective_gradient__of_a_direction_of_any_length(scale):
    g, d = torch.randn(50), torch.randn(50)
    assert_close(effective_gradient(g, scale * d), effective_gradient(g, d), 1e-6)


def test_effective_gradient__a_direction_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="the direction is not finite"):
        effective_gradient(torch.ones(3), torch.tensor([1.0, float("nan"), 0.0]))


def test_full_gradient__moves_no_statistics_and_takes_no_label_of_no_class():
    with pytest.raises(ValueError, match="uses batch statistics"):
        full_gradient(net(nn.BatchNorm1d(4)).train(), X, Y)
    for label in (-100, 3):
        with pytest.raises(ValueError, match="labels must lie in 0..2"):
            full_gradient(net(), X, torch.where(Y == 2, label, Y))
    with pytest.raises(ValueError, match="y must be an int64 tensor"):
        full_gradient(net(), X, Y.int())
    model = net()
    with torch.no_grad():
        assert_close(full_gradient(model, X, Y), full_gradient(model, X, Y), EXACT)


def test_optimum__of_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="vectors of floats"):
        optimum([torch.tensor([1]), torch.tensor([2])], [1, 1])


def test_per_example_gradient_norms__a_word_is_no_label():
    with pytest.raises(ValueError, match="a tensor of integers, got 'sampled'"):
        per_example_gradient_norms(net(), X, "sampled")


class Named(nn.Module):
    def forward(self, x):
        return {"logits": x[:, :3]}


def test_evaluate__what_is_no_logits_or_no_class_is_named():
    with pytest.raises(ValueError, match="must return logits .n, classes., got dict"):
        evaluate(Named(), X, Y)
    for measured in (fisher_trace, jacobian_norm):
        with pytest.raises(ValueError, match="must return logits .n, classes., got dict"):
            measured(nn.Sequential(nn.Linear(5, 5), Named()).eval(), X)
    for label in (-100, 3):
        with pytest.raises(ValueError, match="labels must lie in 0..2, as the net has 3 logits"):
            evaluate(net(), X, torch.where(Y == 2, label, Y))


# ---- a run


@pytest.mark.parametrize("changed, said", [
    (dict(y=Y + 1), "labels must lie in 0..2"),
    (dict(x=X.double()), "the net takes no example .5,. torch.float64: "),
    (dict(x=(255 * X.abs()).byte()), "the net takes no example .5,. torch.uint8: "),
    (dict(model=Named), "must return logits"),
])
def test_sweep__a_net_that_does_not_fit_the_data_is_named_at_once(changed, said):
    settings = dict(model=lambda: net(), x=X, y=Y, batch_size=3) | changed
    if changed.get("model"):
        settings["optimizer"] = lambda parameters, **more: torch.optim.SGD([X.clone()], **more)
    with pytest.raises(ValueError, match=said) as error:
        next(sweep(Setup(**settings), {"a": [Phase(1)]}, 0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bare", [gaussian_blur, lambda x: x, lambda x, y, g: x])
def test_sweep__a_function_of_images_is_no_deficit(bare):
    setup = Setup(model=lambda: net(), x=X, y=Y, batch_size=3)
    with pytest.raises(ValueError, match="images.f. makes one of a function of images"):
        [*sweep(setup, {"a": [Phase(1, bare)]}, 0)]


def test_sweep__selection_draws_anew_in_every_epoch():
    drawn = []

    def select(model, x, y, n, generator, indices, step):
        drawn.append(float(torch.rand(1, generator=generator)))
        return torch.arange(n)

    setup = Setup(model=lambda: net(), x=X, y=Y, batch_size=3, lr=0.0)
    for seed in (0, 0, 1):
        [*sweep(setup, {"a": [Phase(np.int64(2), select=select)]}, seed)]
    first, again, other = np.array(drawn).reshape(3, 4)
    assert np.array_equal(first, again) and len({*first, *other}) == 8


def test_shrink_perturb__of_a_net_into_itself_or_with_other_buffers_is_refused():
    model = net()
    with pytest.raises(ValueError, match="two nets"):
        shrink_perturb(model, model, 0.5, 0.5)
    other = net()
    other.register_buffer("mean", torch.zeros(2))
    with pytest.raises(ValueError, match="the same buffers"):
        shrink_perturb(model, other, 0.5, 0.5)


def test_derive_seed__a_numpy_number_is_a_number():
    assert derive_seed(np.int64(3), "a") == derive_seed(3, "a") != derive_seed(4, "a")


# ---- deficits, measurements


def test_label_noise__has_as_many_classes_as_the_labels():
    with pytest.raises(ValueError, match="labels must lie in 0..1, got 0..3"):
        label_noise(torch.arange(8) % 4, 0.5, 2, torch.Generator())


def test_random_affine__turns_an_image_that_is_not_square_by_its_degrees():
    dot = torch.zeros(400, 1, 33, 65)
    dot[:, 0, 8, 32] = 1  # eight pixels above the centre
    turned = random_affine(dot, torch.Generator().manual_seed(0), 15.0, 0.0, 0.0)[:, 0]
    mass = turned.sum((1, 2))
    rows = (turned.sum(2) * (torch.arange(33) - 16)).sum(1) / mass
    columns = (turned.sum(1) * (torch.arange(65) - 32)).sum(1) / mass
    assert 13 < torch.atan2(columns, -rows).rad2deg().abs().max() < 16
    assert (rows**2 + columns**2).sqrt().sub(8).abs().max() < 0.4


def test_binned_mutual_information__refuses_what_would_be_another_number():
    t = torch.randn(30, 3)
    for y in (torch.arange(30) % 3 + 1, torch.arange(30) % 3 - 1):
        with pytest.raises(ValueError, match="labels must name outputs, 0..2"):
            binned_mutual_information(t, "per_class", y)
    with pytest.raises(ValueError, match="numbers are needed"):
        binned_mutual_information(t.to(torch.complex64), "joint")
    with pytest.raises(ValueError, match="bins must be a whole number in 1..10000000"):
        binned_mutual_information(t, "joint", bins=10**12)


def test_layer_features__a_net_without_the_layer_is_named():
    def convolutional(*activations):
        first, second = activations
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), first, nn.Conv2d(2, 2, 3), second, nn.Flatten(), nn.Linear(32, 3)
        )

    x, shared = torch.randn(4, 1, 8, 8), nn.ReLU()
    with pytest.raises(ValueError, match="no ReLU, layer -3"):
        layer_features(convolutional(nn.GELU(), nn.GELU()), x)
    with pytest.raises(ValueError, match="called more than once"):
        layer_features(convolutional(shared, shared), x)


def test_fisher_trace__batch_statistics_in_eval_mode_and_calls_by_keyword_are_named():
    class ByKeyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 3)

        def forward(self, x):
            return self.a(input=x)

    with pytest.raises(ValueError, match="uses batch statistics"):
        fisher_trace(net(nn.BatchNorm1d(4, track_running_stats=False)), X)
    with pytest.raises(ValueError, match="'a' must be called with its input first"):
        fisher_trace(ByKeyword(), X)
    padded = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(32, 3))
    x = torch.randn(2, 1, 4, 4)
    with pytest.raises(ValueError, match='or method="autograd"'):
        fisher_trace(padded, x)
    plain = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *list(padded)[1:])
    plain.load_state_dict(padded.state_dict())
    assert_close(fisher_trace(padded, x, method="autograd").total, fisher_trace(plain, x).total,
                 1e-4)


# ---- theory


def test_theory__refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="an odd number of nodes"):
        flow_time(1.0, 4, 8, 2, 0.1, nodes=10)
    with pytest.raises(ValueError, match="must be distributions"):
        sampled_label_variance(np.ones(3), np.array([0.9, 0.9, 0.9]))
    with pytest.raises(ValueError, match="probability_inside"):
        gaussian_binned_entropy(1e-3, 30, 5, 6, outside="drop")
    with pytest.raises(ValueError, match="lr must be one number"):
        simulate(4, 8, 2, [0.1], 3)


def test_single_logit_loss__of_equal_strengths_at_the_start_is_the_variance():
    assert_close(single_logit_loss(0.0, 4, 1.0), input_variance(4, 1.0), EXACT)


# ---- data


def test_load__an_archive_without_the_set_is_not_installed(
    local_downloads, monkeypatch  # noqa: F811
):
    root, archive, _ = local_downloads
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("content/data_batch_1")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"none"))
    entry = archive.as_uri(), hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(files.DOWNLOADS, "cifar10", ("cifar-10-batches-py", [entry]))
    with pytest.raises(ValueError, match="is missing"):
        load("cifar10", root, download=True)
    assert not (root / "cifar-10-batches-py").exists()


def test_load__tiny_imagenet_of_too_many_classes_or_another_size_is_named(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    make_tiny_imagenet(folder, ["n00000001", "n00000005"])
    names = (folder / "wnids.txt").read_text()
    (folder / "wnids.txt").write_text("\n".join(f"n{i:08}" for i in range(201)))
    with pytest.raises(ValueError, match="wnids.txt holds 201 classes"):
        load("tiny_imagenet", tmp_path)
    (folder / "wnids.txt").write_text(names)
    from matplotlib.image import imsave

    picture = folder / "train" / "n00000001" / "images" / "n00000001_0.JPEG"
    imsave(picture, np.zeros((65, 64, 3), np.uint8), format="jpeg")
    with pytest.raises(ValueError, match="no JPEG file of 64 x 64 pixels"):
        load("tiny_imagenet", tmp_path)


def test_downloads__come_over_https_with_a_sum():
    addresses = [one for _, parts in files.DOWNLOADS.values() for one in parts]
    assert all(url.startswith("https:") and len(md5) == 32 for url, md5 in addresses)


# ---- the command line


@pytest.mark.parametrize("inside", ["", "/x", "/x/y"])
def test_study__out_in_a_file_is_named(study, tmp_path, inside):  # noqa: F811
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out .* is a file: give a folder"):
        study("--out", str(tmp_path / "file") + inside)


def test_log__numpy_numbers_are_numbers(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(0, ["a"], 1, loss=np.float32(0.5), hits=np.int64(3))
    assert Log(tmp_path / "log.jsonl").series(0, "a", "hits") == ([1], [3])


def test_compared__one_seed_has_no_error():
    one = {"headline": dict(mean=1.0, standard_error=None, n=1, unit="points"), "verdict": "a"}
    two = {"headline": dict(mean=2.0, standard_error=0.1, n=8, unit="points"), "verdict": "a"}
    assert compared(one, two).startswith("yours 1 against ours 2 ± 0.1 points")


def test_gallery__a_result_that_lacks_something_is_named_and_help_writes_nothing(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(
        {"panel": "a", "verdict": "x", "finding": "y", "seeds": [1]}
    ))
    with pytest.raises(ValueError, match="is no results file .KeyError..scale"):
        gallery.main([str(tmp_path)])
    with pytest.raises(SystemExit):
        gallery.main([str(tmp_path), "--help"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("after", [0.3, 0.6, 1.2])
def test_examples__ctrl_c_while_packages_are_imported_is_one_line(tmp_path, after):
    command = [sys.executable, ROOT / "examples" / "achille_window.py", "--scale", "smoke"]
    settings = dict(cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # else ignored
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=heard, **settings)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].strip()
    assert said.startswith("stopped") and "\n" not in said, said
