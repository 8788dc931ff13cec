"""Device-agnostic without a GPU: everything here runs on the meta device, where a tensor of another
device or an .item() raises.

Exempt, because they end on the host: evaluate and accuracy (the final float), fisher_trace's floats
(its tensors are here), value checks of labels, the loss that train_epoch reads once an epoch.
"""

import ast
import re
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.fx.experimental import _config as fx_config

from clp_min import augment, deficits, files, models
from clp_min.curvature import hessian_vector_product
from clp_min.fisher import per_example_fisher, per_example_gradient_norms
from clp_min.gradients import gradient_cosines
from clp_min.schedule import Phase, restart_learning_rate, shrink_and_perturb, sweep
from clp_min.seeding import generator
from clp_min.selection import (
    bilevel, by_fisher, fisher_penalty, hardest_first, reducible, select_highest, uniform,
)
from clp_min.data import Dataset
from clp_min.sparsity import interpolated
from clp_min.study.command import Study
from clp_min.train import Setup, cross_entropy, fresh_state, train_epoch, training_step

PACKAGE = Path(__file__).parent.parent / "clp_min"
SCRIPTS = [
    path.stem for path in sorted(PACKAGE.parent.glob("examples/*.py"))
    if re.search(r"\.configs\(|phases\.CONFIGS|study\.(sweep|units)", text := path.read_text())
    and "def main(" in text
]


def pictures(n=8, side=32):
    return torch.empty(n, 3, side, side, device="meta"), torch.empty(
        n, dtype=torch.int64, device="meta"
    )


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.SGD, momentum=0.9, nesterov=True), torch.optim.Adam]
)
@pytest.mark.parametrize(
    "make", [models.all_cnn, models.vgg, models.resnet18, models.resnet32x4, models.small_cnn]
)
def test_meta__training_step(make, optimizer):
    x, y = pictures()
    model = make().to("meta")
    loss = training_step(
        model, optimizer(model.parameters(), lr=0.1, weight_decay=1e-3), x, y, cross_entropy,
        clip=1.0, channels_last=True,
    )
    assert loss.device.type == "meta"


def test_meta__sweep():
    x, y = pictures(64)
    blur = deficits.images(deficits.gaussian_blur)
    setup = Setup(
        model=models.small_cnn, x=x, y=y, batch_size=32, augment=augment.crop_and_flip, clip=1.0
    )
    plan = {
        "a": [
            Phase(1, blur), Phase(1, deficits.noise_images),
            Phase(1, subset=torch.arange(32, device="meta"), event=restart_learning_rate),
        ],
        "b": [Phase(1, blur), Phase(1, event=shrink_and_perturb(0.5, 0.1))],
    }
    assert all(
        p.device.type == "meta"
        for _, state, _ in sweep(setup, plan, 0)
        for p in state.model.parameters()
    )


class Planned(Exception):
    """(label -> Setup, label -> schedules) of a script, raised where it would begin to train."""


def planned(study, setups, plans, *more):
    raise Planned(setups, plans)


def empty_data(self, seed, name=None, size=None, n=1000, **generator):
    """A set without numbers; a thousand examples stand for all."""
    name = name or self.data
    shape, self.classes = ((60,), 10) if name not in files.SETS else (None, files.SETS[name][0])
    if shape is None:
        _, _, channels, side = files.PUBLISHED[name]
        shape = (channels, side, side)
    self.sizes[name] = {"train": n, "used": n, "test": n, "digest": ""}
    x = torch.empty(n, *shape, device="meta")
    y = torch.empty(n, dtype=torch.int64, device="meta")
    return Dataset(name, self.classes, (x, y), (x, y))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_meta__every_net_and_phase_of_a_script_at_paper_scale(script, monkeypatch, tmp_path):
    """The nets, optimizers, losses, augmentations, deficits and selections of its settings: a step
    of each kind of phase. Where a plan asks for the examples of some classes, all are."""
    monkeypatch.setattr("clp_min.study.work.Work", planned)
    monkeypatch.setattr(Study, "load_data", empty_data)
    monkeypatch.setattr("clp_min.study.command._usable_device", lambda a: torch.device("meta"))
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True), pytest.raises(Planned) as found:
        import_module(script).main(["--scale", "paper", "--out", str(tmp_path)])
    setups, plans = found.value.args
    for label, setup in setups.items():
        kinds = {  # what a step is made of
            repr((p.deficit, p.select, p.loss, p.augment)): p
            for phases in plans[label].values() for p in phases
        }
        for phase in kinds.values():
            state = fresh_state(setup, 0)
            next(train_epoch(setup, phase, state))
            assert state.step == 1
            assert all(p.device.type == "meta" for p in state.model.parameters())


def test_meta__deficits_and_augmentation():
    x, y = pictures(8)
    g = generator("meta", 0)
    for change in (
        deficits.gaussian_blur, deficits.downsample_blur,
        partial(deficits.downsample_blur, antialias=True), deficits.pooled_blur,
        deficits.vertical_flip,
    ):
        assert change(x).shape == x.shape and change(x).device.type == "meta"
    for change in (
        augment.random_crop, augment.random_flip, augment.random_affine, augment.crop_and_flip,
        augment.none,
    ):
        assert change(x, g).shape == x.shape
    assert (
        deficits.permute_labels(y, list(range(10))).shape
        == deficits.random_labels(y, g).shape
        == deficits.label_noise(y, 0.3, 10, g)[0].shape
        == y.shape
    )
    assert deficits.noise_images(x, y, g)[0].shape == x.shape


@pytest.mark.parametrize("labels", ["expected", "sampled", "signs"])
@pytest.mark.parametrize("make", [models.all_cnn, models.resnet18, models.small_cnn])
def test_meta__fisher(make, labels):
    x, y = pictures(4)
    model = make(classes=4).to("meta").eval()
    masks = {
        name: torch.empty(p.shape, dtype=torch.bool, device="meta")
        for name, p in model.named_parameters()
        if p.dim() > 1
    }
    assert all(
        v.shape == (4,) and v.device.type == "meta"
        for v in per_example_fisher(model, x, labels, masks).values()
    )
    assert per_example_gradient_norms(model, x, y).shape == (4,)


def test_meta__curvature_and_selection():
    """Products, cosines, choices and the penalty; the trace and Lanczos end on the host."""
    x, y = pictures(4)
    model = models.resnet18(width=8).to("meta").eval()
    v = torch.empty(sum(p.numel() for p in model.parameters()), device="meta")
    assert hessian_vector_product(model, x, y, v).device.type == "meta"
    assert gradient_cosines(model, x, y, v).shape == (4,)
    call = (model, x, y, 2, None, torch.arange(4, device="meta"), 0)
    scores = torch.empty(4, dtype=torch.float64, device="meta")
    choices = by_fisher(select_highest), reducible(scores), hardest_first(0, 3), bilevel(), uniform
    assert all(choose(*call).shape == (2,) for choose in choices)
    assert fisher_penalty(0.1)(model, x, y).device.type == "meta"
    start = model.state_dict()
    assert interpolated(model, start, start, 0.5, x)(x).device.type == "meta"


def test_generator__is_made_in_one_place():
    """torch.Generator, and seeding of the global one, appear in seeding.py alone."""
    for path in PACKAGE.rglob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert path.name == "seeding.py" or not names & {
            "Generator", "manual_seed", "default_generator",
        }, path


def test_generator__is_a_function_of_its_key():
    a, b, c = (
        torch.rand(5, generator=generator("cpu", *key))
        for key in ((0, "order"), (0, "order"), (1, "order"))
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
