"""Every public function of theory refuses what makes no sense, by a ValueError that names the
argument: a whole number that is negative, broken or text; a number or an array with nan, text, or
nothing in it; an array with an axis too many."""

import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(0)
X, P, Q = RNG.normal(size=(3, 4)), np.full((3, 2), 0.5), np.array([[0.2, 0.8]] * 3)
A, B, WEIGHTS = RNG.normal(size=(5, 4)), RNG.normal(size=(2, 5)), [RNG.normal(size=(4, 4))] * 2
LABELS, HAS = np.array([0, 1, 0]), RNG.random((6, 3)) < 0.5
SOFTMAX, NONE = dict(l=4, d=8, k=3.0), np.zeros(3, bool)
CALLS = {  # a call that is right
    "gaussian_bin_probabilities": dict(scale=0.5, bins=30, low=-1.0, high=1.0),
    "gaussian_binned_entropy": dict(scale=0.5, bins=30, low=-1.0, high=1.0),
    "gaussian_plug_in_error": dict(scale=0.5, examples=100, bins=30),
    "binary_channel_information": dict(error=0.1),
    "relu_net_pass": dict(weights=WEIGHTS, x=X[0], label=1),
    "split_along": dict(w=WEIGHTS[0], c=X[0]), "printed_residual": dict(w=WEIGHTS[0], c=X[0]),
    "theorem1_parts": dict(weights=WEIGHTS, layer=0, c_next=X[0], x=X[1], label=1, lr=0.1),
    "theorem2_product": dict(w=WEIGHTS[0], c=X[0], delta=X[1], feature=X[2]),
    "theorem2_holds": dict(w=WEIGHTS[0], c=X[0], delta=X[1]),
    "null_frequency": dict(h=4, d=5, nodes=101), "theorem3_share": dict(c=X[0], deltas=X),
    "gaussian_clusters": dict(classes=3, each=2, d=4, spread=0.5),
    "two_phases": dict(weights=WEIGHTS, x=X, labels=LABELS, lr=0.1, steps=2, layer=1),
    "gated_pathways": dict(strength=X[0] ** 2, depth=2, gate=(0, 1), duration=1.0, dt=0.1,
                           start=0.01),
    "early_gate_limit": dict(strength=2.0, start=0.01),
    "learn": dict(has=HAS, learned=NONE, memorised=np.zeros(6, bool), enough=2, needed=1),
    "two_stages": dict(has=HAS, first=3, arm="warm", enough=2, needed=1, keep=0.5),
    "chance_to_fit": dict(frequencies=P[:, 0], learned=np.ones(3, bool), needed=1),
    "quadratic_moments": dict(h=X[0] ** 2, s2=X[1] ** 2, m0=X[2], lr=0.1, steps=3),
    "mean_noise_along_gradient": dict(mu=X[0], variance=X[1] ** 2, s2=X[2] ** 2, nodes=51),
    "interpolating_moments": dict(dim=3, batch=2, lr=0.1, steps=3),
    "gradient_floor": dict(lr=0.1, smoothness=1.0, variance=1.0),
    "printed_floor": dict(lr=0.1, smoothness=1.0, variance=1.0),
    "theorem1_bound": dict(loss_gap=1.0, lr=0.1, smoothness=1.0, variance=1.0, steps=5),
    "strong_growth_bound": dict(loss_gap=1.0, lr=0.1, smoothness=1.0, growth=2.0),
    "minibatch_second_moment": dict(gradients=X, batch=2),
    "softmax_fisher_matrix": dict(x=X, p=P), "softmax_fisher_trace": dict(x=X, p=P),
    "sampled_label_variance": dict(x=X[0], p=P[0]), "kl_divergence": dict(p=P, q=Q),
    "label_noise_limit": dict(classes=3, noise=0.1),
    "separable_quantities": dict(delta=0.5, **SOFTMAX), "two_layer_fisher": dict(z=X),
    "student_t_location_information": dict(degrees=3.0),
    "simulate": dict(lr=0.1, steps=3, **SOFTMAX), "full_matrix": dict(lr=0.1, steps=3, **SOFTMAX),
    "outputs": dict(delta=0.5, l=4, v=1.0), "output_ratio": dict(delta=0.5, l=4, k=3.0),
    "input_variance": dict(l=4, k=3.0), "optimal_loss": dict(delta=0.5, l=4, k=3.0),
    "approximate_loss": dict(delta=0.5, l=4, k=3.0),
    "noisy_output_loss": dict(delta=0.5, l=4, k=3.0, tau=0.1),
    "logit_loss": dict(delta=0.5, l=4, k=3.0, tau=0.1), "stage_boundaries": dict(l=4, k=3.0),
    "second_minimum": dict(l=4, k=3.0), "flow_time": dict(delta=0.5, lr=0.1, nodes=11, **SOFTMAX),
    "single_logit_loss": dict(delta=0.5, l=4, k=3.0), "optimal_line": dict(delta=0.5, l=4, k=3.0),
    "fitted_losses": dict(weights=RNG.normal(size=(4, 8)), k=3.0),
    "two_layer_probabilities": dict(a=A, b=B, x=X), "two_layer_jacobian": dict(a=A, b=B, x=X),
    "two_layer_output_hessians": dict(a=A, b=B, x=X),
    "two_layer_fisher_matrix": dict(a=A, b=B, x=X),
    "two_layer_hessian": dict(a=A, b=B, x=X, targets=P), "square_net_gap": dict(theta=1.5),
}
APART = {"whole", "real", "shaped"}  # the checks themselves: theory.checks
FREE = {"z", "strength", "gate", "p", "q", "frequencies"}  # of any shape
MODULES = [import_module(f"theory.{path.stem}") for path in
           sorted((Path(__file__).parent.parent / "theory").glob("[a-z]*.py"))]
FUNCTIONS = {
    name: function for module in MODULES for name, function in inspect.getmembers(
        module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and name not in APART
}


def wrong(name, value):
    """Values of the same argument that make no sense."""
    if isinstance(value, int):
        return [-1, 2.5, "3", float("nan")]
    if isinstance(value, float):
        return [float("nan"), float("inf"), "0.1", []]
    if isinstance(value, np.ndarray) and value.dtype == float:
        spoiled = value.copy()
        spoiled.flat[0] = np.nan
        more = [] if name in FREE else [value[None], value.ravel()[0]]
        return [spoiled, value[:0], np.full(value.shape, "a"), *more]
    return []


CASES = [
    pytest.param(function, argument, bad, id=f"{function}-{argument}-{i}")
    for function, right in CALLS.items() for argument, value in right.items()
    for i, bad in enumerate(wrong(argument, value))
]


def test_misuse__no_function_is_forgotten():
    assert set(CALLS) == set(FUNCTIONS)


def called(name, arguments):
    first = [np.random.default_rng(0)] if name == "gaussian_clusters" else []
    return FUNCTIONS[name](*first, **arguments)


@pytest.mark.parametrize("name", CALLS)
def test_misuse__the_right_call_is_taken(name):
    called(name, CALLS[name])


@pytest.mark.parametrize("function, argument, bad", CASES)
def test_misuse__what_makes_no_sense_is_refused_in_one_line(function, argument, bad):
    with pytest.raises(ValueError) as caught:
        called(function, CALLS[function] | {argument: bad})
    assert "\n" not in str(caught.value) or isinstance(bad, np.ndarray)
