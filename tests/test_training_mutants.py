"""Mistakes in how a net is trained or tested, each of which must move a panel's effect out of its
interval: small studies with five seeds, the same but for the mistake.

Two mistakes move none that far, and are left to the tests of schedules: an order of the examples
that every epoch repeats, and a deficit that is one epoch too long.
"""

import json
from dataclasses import replace
from functools import cache, partial

import achille
import achille_deficits
import blur_deficit
import pytest
import torch

from clp_min.deficits import gaussian_blur, images
from clp_min.train import accuracy

pytestmark = pytest.mark.slow
BLUR = partial(gaussian_blur, kernel_size=13, sigma=2.0)
BLURRED = ["removals=(0,8)", "clean=8"]
STUDIES = {  # panel -> its script, and settings in which the effect is large within seconds
    "achille_blur": (blur_deficit, BLURRED),
    "achille_matched": (blur_deficit, BLURRED),
    "achille_restart": (
        blur_deficit, ["restart_removals=(0,10)", "clean=10", "restart_decay=0.5"]
    ),
    "achille_fraction": (blur_deficit, ["total=12", "fractions=(.25,.5,.75)"]),
    "achille_deficits": (achille_deficits, ["length=8", "clean=4"]),
}


def first_effect(panel, folder):
    """(mean, half width of its interval) of what a panel claims."""
    script, settings = STUDIES[panel]
    script.main(["--seeds", "5", "--workers", "1", "--only", panel, "--out", str(folder),
                 "--set", *settings])
    (path,) = folder.rglob(f"{panel}.json")
    effect = json.loads(path.read_text())["effects"][0]
    return effect["mean"], 3.75 * effect["standard_error"]  # t of 4 degrees, 99 % one-sided


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """panel -> ``first_effect`` without a mistake."""
    return cache(lambda panel: first_effect(panel, tmp_path_factory.mktemp(panel)))


def planned(patch, change):
    """Change every phase but the first of every schedule that the main job makes."""
    schedules = blur_deficit.schedules

    def changed(study):
        return {
            name: [phases[0], *(change(phase, phases[0]) for phase in phases[1:])]
            for name, phases in schedules(study).items()
        }

    patch.setattr(blur_deficit, "schedules", changed)


def blurred_test_set(patch):
    patch.setattr(blur_deficit, "accuracy", lambda model, x, y: accuracy(model, BLUR(x), y))


def blur_never_removed(patch):
    planned(patch, lambda phase, first: replace(phase, deficit=images(BLUR)))


def rate_not_restarted(patch):
    planned(patch, lambda phase, first: replace(phase, event=None))


def rate_not_decayed(patch):
    patch.setattr(blur_deficit, "exponential", lambda lr, decay: lr)


def measured_on_training_images(patch):
    prepare = achille.prepare

    def leaking(study, seed):
        data, setup = prepare(study, seed)
        return replace(data, test=data.train), setup

    patch.setattr(achille, "prepare", leaking)


def one_permutation_an_epoch(patch):
    """Labels permuted anew in every epoch: random ones."""

    def random_permutation(y, permutation, generator=None):
        return torch.randperm(10, generator=generator).to(y)[y]

    patch.setattr(achille_deficits, "permute_labels", random_permutation)


def momentum_dropped(patch):
    patch.setattr(achille, "partial", lambda call, *args, momentum=None, **more:
                  partial(call, *args, **more))


MISTAKES = [
    (blurred_test_set, "achille_blur"),
    (blur_never_removed, "achille_blur"),
    (rate_not_decayed, "achille_restart"),
    (rate_not_restarted, "achille_restart"),
    (measured_on_training_images, "achille_fraction"),
    (one_permutation_an_epoch, "achille_deficits"),
    (momentum_dropped, "achille_blur"),
]


@pytest.mark.parametrize("mistake, panel", MISTAKES, ids=[m.__name__ for m, _ in MISTAKES])
def test_mistakes_in_training__move_the_effect_out_of_its_interval(
    mistake, panel, right, monkeypatch, tmp_path
):
    mean, reach = right(panel)
    mistake(monkeypatch)
    wrong, _ = first_effect(panel, tmp_path)
    assert abs(wrong - mean) > reach
