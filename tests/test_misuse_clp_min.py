"""Every public function of clp_min that takes numbers or tensors refuses what makes no sense, by a
ValueError of one line: a tensor of another shape, dtype or length, an empty one, text; a whole
number that is negative, broken or text; a number that is nan, infinite or text. Values are looked
at where a function ends on the host: there a tensor with nan is refused too."""

import inspect
import math
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from clp_min import models
from clp_min.checks import check_finite, check_real, check_tensors, check_whole
from clp_min.schedule import Phase, sweep
from clp_min.seeding import generator
from clp_min.train import Setup

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(6, 4, generator=G).double(), torch.tensor([0, 1, 2, 0, 1, 2])
IMAGES, SIGNAL = torch.randn(6, 3, 8, 8, generator=G), torch.randn(6, 5, generator=G).double()
FLOATS = SIGNAL.float()
W, C = torch.randn(5, 4, generator=G).double(), torch.randn(5, generator=G).double()
NET = models.mlp((4,), 3, hidden=(5,)).double().eval()
P = sum(p.numel() for p in NET.parameters())
V, LOGITS, SCORES = torch.randn(P, generator=G).double(), X[:, :3], X[:, 0]


def g():
    return generator("cpu", 0)


BLOCKS = dict(shape=(3, 8, 8), classes=4)
FITTED = dict(features=SIGNAL, x=X, test_features=SIGNAL[:4], test_x=X[:4])
PROBED = dict(features=SIGNAL, y=Y, test_features=SIGNAL[:4], test_y=Y[:4])
CALLS = {  # a call that is right
    "random_crop": dict(x=IMAGES, generator=g, padding=2),
    "random_flip": dict(x=IMAGES, generator=g),
    "random_affine": dict(x=IMAGES, generator=g, degrees=5.0, translate=0.1, scale=0.1),
    "crop_and_flip": dict(x=IMAGES, generator=g), "flip_and_affine": dict(x=IMAGES, generator=g),
    "hessian_product": dict(model=NET, x=X, y=Y, batch_size=2),
    "hessian_vector_product": dict(model=NET, x=X, y=Y, v=V, batch_size=2),
    "hessian_trace": dict(model=NET, x=X, y=Y, probes=3, batch_size=2),
    "hessian_spectrum": dict(model=NET, x=X, y=Y, steps=3, probes=2, batch_size=2),
    "spectral_density": dict(eigenvalues=X, weights=X.abs(), grid=C, width=0.1),
    "jacobian_norm": dict(model=NET, x=X, batch_size=2),
    "prediction_entropy": dict(logits=LOGITS), "entropies": dict(logits=LOGITS),
    "stratified": dict(y=Y, n=3),
    "gaussian_blur": dict(x=IMAGES, kernel_size=3, sigma=1.0),
    "downsample_blur": dict(x=IMAGES, size=4), "pooled_blur": dict(x=IMAGES, size=4),
    "vertical_flip": dict(x=IMAGES), "noise_images": dict(x=IMAGES, y=Y, generator=g),
    "permute_labels": dict(y=Y, permutation=[2, 0, 1]), "random_labels": dict(y=Y, generator=g),
    "label_noise": dict(y=Y, fraction=0.5, classes=3, generator=g),
    "fixed_labels": dict(y_given=Y),
    "feature_similarity": dict(features=X), "cross_class_similarity": dict(features=X, labels=Y),
    "within_class_similarity": dict(features=X, labels=Y),
    "pseudo_neuron_similarity": dict(matrix=W), "layer_factors": dict(model=NET, x=X, y=Y),
    "common_directions": dict(delta_w=W[None], k=2),
    "recursive_directions": dict(first=C, change=W, k=2),
    "direction_strengths": dict(change=W, directions=W.T),
    "along_direction": dict(w=W, c=C),
    "component_strengths": dict(w_next=W, c_next=C, gates=X, delta_next=SIGNAL, features=LOGITS),
    "direction_agreement": dict(w=W, c=C, delta=SIGNAL, features=X, change=X),
    "theorem2_terms": dict(w=W, c=C, delta=SIGNAL),
    "dormant_share": dict(features=X, threshold=0.1), "effective_rank": dict(features=X),
    "fisher_trace": dict(model=NET, x=X, batch_size=2),
    "per_example_fisher": dict(model=NET, x=X),
    "per_example_gradient_norms": dict(model=NET, x=X, y=Y),
    "residuals": dict(p=LOGITS.softmax(1), y=Y), "covariance_factor": dict(p=LOGITS.softmax(1)),
    "effective_gradient": dict(gradient=V, direction=V),
    "full_gradient": dict(model=NET, x=X, y=Y, batch_size=2),
    "gradient_cosines": dict(model=NET, x=X, y=Y, direction=V, batch_size=2),
    "gradient_norms": dict(model=NET, x=X, y=Y, batches=[torch.arange(3)], direction=V),
    "optimum": dict(snapshots=[V, V], accuracies=[50.0, 60.0], top=1),
    "check_examples": dict(model=NET, x=X, y=Y, batch_size=2),
    "binned_mutual_information": dict(t=LOGITS, reading="label", y=Y, bins=3, low=-1.0, high=1.0),
    "label_information": dict(t=LOGITS, y=Y, generator=g),
    "plug_in_bias": dict(cells=3, examples=9),
    "entropy": dict(counts=torch.tensor([1, 2]).numpy()),
    "all_cnn": BLOCKS | dict(width=4), "linear_softmax": BLOCKS,
    "mlp": BLOCKS, "resnet": BLOCKS, "resnet10": BLOCKS | dict(width=2),
    "resnet18": BLOCKS | dict(width=2), "resnet32x4": BLOCKS,
    "small_cnn": BLOCKS | dict(pool=1), "vgg": BLOCKS | dict(depth=11),
    "class_histograms": dict(features=X, y=Y, classes=3, bins=2),
    "class_shares": dict(features=X, y=Y, classes=3),
    "deconvolution_decoder": dict(features=5, shape=(3, 8, 8), width=2),
    "layer_features": dict(model=NET, x=X, batch_size=2),
    "linear_probe": PROBED, "reconstruction_loss": FITTED,
    "fresh_probe_accuracy": PROBED | dict(features=FLOATS, test_features=FLOATS[:4]),
    "fresh_decoder_loss": dict(features=FLOATS, x=IMAGES, test_features=FLOATS, test_x=IMAGES),
    "trained_decoder_loss": dict(decoder=lambda: nn.Linear(5, 4).double(), **FITTED, generator=g,
                                 epochs=1, lr=0.01, batch_size=2),
    "trained_probe": dict(probe=lambda: nn.Linear(5, 3).double(), **PROBED, generator=g, epochs=1,
                          lr=0.01, batch_size=2),
    "exponential": dict(lr=0.1, decay=0.9), "step_decay": dict(lr=0.1, factor=0.5, milestones=(3,)),
    "shrink_and_perturb": dict(shrink=0.5, perturb=0.1),
    "by_fisher": dict(choose=len), "fisher_penalty": dict(strength=0.1),
    "fisher_scores": dict(model=NET, x=X), "hardest_first": dict(start=0, steps=5),
    "reducible": dict(holdout_scores=SCORES),
    "select_highest": dict(scores=SCORES, n=2), "select_lowest": dict(scores=SCORES, n=2),
    "select_reducible": dict(scores=SCORES, holdout_scores=SCORES, n=2),
    "interpolated": dict(model=NET, start=NET.state_dict(), end=NET.state_dict(), alpha=0.5, x=X),
    "magnitude_masks": dict(model=NET, sparsity=0.5), "prune": dict(sparsity=0.5),
    "prune_and_redraw": dict(sparsity=0.5), "prune_and_rewind": dict(sparsity=0.5),
    "clusters": dict(seed=0, train_size=6, test_size=6, dim=2, classes=3, modes=2, separation=0.5,
                     noise=1.0),
    "shapes": dict(seed=0, train_size=6, test_size=6, size=8, noise=0.1, class_colour=0.5),
    "teacher": dict(seed=0, train_size=6, test_size=6, dim=2, hidden=2),
    "textures": dict(seed=0, train_size=6, test_size=6, size=8, coarse=0.3, fine=0.8, noise=0.25),
    "accuracy": dict(model=NET, x=X, y=Y, batch_size=2),
    "evaluate": dict(model=NET, x=X, y=Y, batch_size=2),
    "predict": dict(model=NET, x=X, batch_size=2), "batch_statistics": dict(model=NET, x=X),
    "shrink_perturb": dict(model=NET, fresh=models.mlp((4,), 3, hidden=(5,)).double(), shrink=0.5,
                           perturb=0.1),
}

APART = {  # no numbers or tensors of their own, events (setup, state), what ``sweep`` calls, files
    "apply_masks", "bilevel", "branches", "by_weight_layer", "check_layer", "check_masks",
    "check_modes", "check_training", "checked_logits", "cross_entropy", "current_data",
    "derive_seed", "distinct_epochs", "download_set", "evaluate_both", "flat_parameters",
    "fresh_model",
    "fresh_optimizer", "fresh_state", "generator", "global_seed", "hard_distillation", "hinge",
    "identity_of", "idx_path", "images", "imports_are_over", "kaiming_normal", "labels",
    "layer_rule", "load",
    "load_checkpoint", "locked", "missing", "new_training_run", "none", "nonzero_masks",
    "parameter_count", "phase_at", "prunable_weights", "redraw", "redraw_under_mask",
    "restart_learning_rate", "restart_optimizer", "save_checkpoint", "share_kept",
    "state_from_dict", "summed_change", "sweep", "tensor_digest", "train_epoch", "training_step",
    "uniform", "whole_file",
}
ANY_SHAPE = {"x", "test_x"}  # examples of any shape after the first axis
ANY_DTYPE = {  # images of bytes are cropped, whole numbers are inputs of some nets
    "random_crop", "random_flip", "crop_and_flip", "layer_features", "accuracy", "evaluate",
    "predict", "binned_mutual_information", "label_information",
}
ON_HOST = {  # they end there, so that values are looked at too
    "feature_similarity", "cross_class_similarity", "within_class_similarity", "effective_rank",
    "pseudo_neuron_similarity", "dormant_share", "prediction_entropy", "binned_mutual_information",
    "label_information", "select_highest", "select_lowest", "select_reducible", "fisher_trace",
    "per_example_fisher", "per_example_gradient_norms", "reconstruction_loss", "linear_probe",
    "common_directions", "recursive_directions", "jacobian_norm", "hessian_trace", "evaluate",
    "hessian_spectrum", "accuracy",
}
MODULES = [import_module(f"clp_min.{path.stem}") for path in
           sorted((Path(__file__).parent.parent / "clp_min").glob("[a-z]*.py"))
           if path.stem != "checks"]
FUNCTIONS = {
    name: function for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}


def wrong(function, name, value):
    """Values of the same argument that make no sense."""
    if type(value) is int:
        return [-1, 2.5, "3", math.nan]
    if isinstance(value, float):
        return [math.nan, math.inf, "0.1", []]
    if not isinstance(value, torch.Tensor):
        return []
    found = [value[:0], "a", value.flatten()[0]]
    if value.is_floating_point():
        found += [] if function in ANY_DTYPE else [value.long()]
        found += [] if name in ANY_SHAPE else [value[None]]
        if function in ON_HOST:
            spoiled = value.clone()
            spoiled.flatten()[0] = math.nan
            found.append(spoiled)
    else:
        found += [value.double(), value[None]]
    return found


MASK, HALF = torch.ones(6, dtype=torch.bool), torch.tensor([0.5, 1.0])
MODEL = partial(models.linear_softmax, (4,), 3)
SETUPS = [
    dict(model=MODEL()), dict(model="a"), dict(optimizer=torch.optim.SGD(NET.parameters(), lr=0.1)),
    dict(lr=-1.0), dict(lr=math.nan), dict(lr="a"), dict(weight_decay=-1.0), dict(clip=-1.0),
    dict(clip=0.0), dict(batch_size=0), dict(batch_size=2.5), dict(batch_size="3"),
    dict(batch_size=7), dict(x=X.numpy()), dict(y=Y.numpy()), dict(y=Y.float()), dict(y=Y - 1),
    dict(y=Y[:, None]), dict(y=Y[:4]), dict(x=X[:0], y=Y[:0]), dict(augment=3),
    dict(loss=5), dict(autocast="bfloat16"),
]
PHASES = [
    dict(epochs=-1), dict(epochs=1.5), dict(epochs="a"), dict(lr=-1.0), dict(lr=math.nan),
    dict(weight_decay=-1.0), dict(clip=-1.0), dict(batch_size=0), dict(batch_size=2.5),
    dict(subset=MASK), dict(subset=HALF), dict(subset=[0, 1]), dict(subset=torch.tensor([0, 9])),
    dict(subset=torch.tensor([-1, 0])), dict(subset=Y[:0]), dict(deficit="blur"), dict(select=5),
    dict(pool=2), dict(pool=-3, select=len), dict(event="x"), dict(until=3), dict(augment=3),
    dict(loss=3),
]
SCHEDULES = [
    {}, {"a": Phase(1)}, {"a": ["x"]}, {"a": "x"}, {1: [Phase(1)], "1": [Phase(1)]}, {"a": None},
]


@pytest.mark.parametrize("setup, phase, schedules, at", [
    *((one, {}, None, None) for one in SETUPS), *(({}, one, None, None) for one in PHASES),
    *(({}, {}, one, None) for one in SCHEDULES),
    *(({}, {}, None, at) for at in ({-1}, {0.5}, {0.5, 1}, {}, {99})),
])
def test_misuse__a_run_that_cannot_be_meant_is_refused_before_it_trains(
    setup, phase, schedules, at
):
    with pytest.raises(ValueError) as caught:
        made = Setup(**dict(model=MODEL, x=X.float(), y=Y, batch_size=3) | setup)
        runs = {"a": [Phase(**dict(epochs=1) | phase)]} if schedules is None else schedules
        next(sweep(made, runs, 0, at))
    assert "\n" not in str(caught.value) and str(caught.value)


def made(value):
    """Generators and nets are made anew for every call."""
    return value() if inspect.isfunction(value) and value is not len else value


CASES = [
    pytest.param(function, argument, bad, id=f"{function}-{argument}-{i}")
    for function, right in CALLS.items() for argument, value in right.items()
    for i, bad in enumerate(wrong(function, argument, value))
]


def test_misuse__no_function_is_forgotten():
    assert set(FUNCTIONS) == set(CALLS) | APART


@pytest.mark.parametrize("name", CALLS)
def test_misuse__the_right_call_is_taken(name):
    FUNCTIONS[name](**{key: made(value) for key, value in CALLS[name].items()})


@pytest.mark.parametrize("function, argument, bad", CASES)
def test_misuse__what_makes_no_sense_is_refused_in_one_line(function, argument, bad):
    arguments = {key: made(value) for key, value in CALLS[function].items()}
    with pytest.raises(ValueError) as caught:
        FUNCTIONS[function](**arguments | {argument: bad})
    assert "\n" not in str(caught.value) and str(caught.value)


def test_checks__bounds_belong_to_what_is_allowed_and_above_does_not():
    check_whole(1, 3, n=1)
    check_whole(1, 3, n=3)
    check_real(0, 1, share=0.0)
    check_real(0, 1, share=1)
    check_real(above=0, rate=1e-9)
    check_real(above=0, rate=torch.tensor(0.5))
    for call in (
        lambda: check_whole(1, 3, n=0), lambda: check_whole(1, 3, n=4),
        lambda: check_whole(n=-1), lambda: check_whole(n=True), lambda: check_whole(n=1.0),
        lambda: check_real(above=0, rate=0.0), lambda: check_real(0, 1, share=1.0001),
        lambda: check_real(0, 1, share=-1e-9), lambda: check_real(rate=math.nan),
        lambda: check_real(rate=math.inf), lambda: check_real(rate=True),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_check_tensors__axes_kinds_and_what_is_empty():
    x, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    check_tensors(x=(x, "n d"), y=(y, "label n"))
    check_tensors(x=(x.double(), "n ..."), y=(y.int(), "int n"), z=(y, "any n"))
    check_tensors(square=(torch.zeros(3, 3), "d d"))
    for wrong, said in (
        (dict(x=([1.0], "n")), "got list"), (dict(x=(x, "n")), "x must be a float tensor"),
        (dict(x=(y, "n")), "int64"), (dict(y=(x, "int n d")), "float32"),
        (dict(y=(y.int(), "label n")), "int32"), (dict(x=(x[:0], "n d")), "not empty"),
        (dict(x=(x[0, 0], "n ...")), "not empty"), (dict(x=(x, "d d")), "d = 2"),
        (dict(x=(x, "n d"), y=(y[:1], "int n")), "n = 2"),
        (dict(x=(x, "n d"), y=(y.to("meta"), "int n")), "on meta"),
    ):
        with pytest.raises(ValueError, match=said):
            check_tensors(**wrong)
    check_finite(x=x)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="x holds values that are not finite"):
            check_finite(x=torch.tensor([1.0, value]))
