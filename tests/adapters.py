"""The one seam: every function that a test checks is imported from here, so that ``pytest --student
my.py`` can put another in its place.

my.py defines one or more functions with the names below (and anything else it needs); the tests of
those names are run against them, and only those. Oracles never come through here.
"""

import builtins
import contextlib
import functools
import importlib.util
import inspect
import math
import signal
from functools import partial
from pathlib import Path

from clp_min.augment import random_affine, random_crop, random_flip
from clp_min.curvature import (
    hessian_spectrum, hessian_trace, hessian_vector_product, jacobian_norm, prediction_entropy,
)
from clp_min.data import load, stratified
from clp_min.deficits import (
    downsample_blur, gaussian_blur, label_noise, noise_images, permute_labels, pooled_blur,
    random_labels, vertical_flip,
)
from clp_min.features import (
    common_directions, component_strengths, cross_class_similarity, feature_similarity,
    pseudo_neuron_similarity, within_class_similarity,
)
from clp_min.fisher import FisherTrace, fisher_trace, per_example_gradient_norms
from clp_min.gradients import (
    effective_gradient, flat_parameters, full_gradient, gradient_cosines, optimum,
)
from clp_min.information import binned_mutual_information, label_information, plug_in_bias
from clp_min.reconstruction import layer_features, linear_probe, reconstruction_loss
from clp_min.schedule import branches, distinct_epochs, shrink_and_perturb, sweep
from clp_min.selection import select_highest, select_lowest, select_reducible
from clp_min.sparsity import interpolated, magnitude_masks
from clp_min.train import accuracy, batch_statistics, evaluate, shrink_perturb, training_step
from theory.binning import gaussian_binned_entropy
from theory.common_direction import (
    null_frequency, printed_residual, relu_net_pass, split_along, theorem1_parts, theorem2_holds,
    theorem2_product, theorem3_share, two_phases,
)
from theory.deep_linear import gated_pathways
from theory.feature_counts import chance_to_fit, learn, two_stages
from theory.sgd import (
    interpolating_moments, mean_noise_along_gradient, minibatch_second_moment, quadratic_moments,
    theorem1_bound,
)
from theory.softmax_fisher import (
    kl_divergence, separable_quantities, softmax_fisher_matrix, softmax_fisher_trace,
)
from theory.softmax_phases import (
    approximate_loss, full_matrix, logit_loss, noisy_output_loss, optimal_loss, second_minimum,
    simulate, single_logit_loss,
)
from theory.two_layer import square_net_gap, two_layer_fisher_matrix, two_layer_hessian

PUBLIC = {name: value for name, value in list(globals().items()) if inspect.isfunction(value)}


TYPES = {"FisherTrace"}  # what a solution may import of ours: a returned type
OURS = {"clp_min", "theory", "adapters", "oracles", "compare", "mutate"}
CALLED = []  # the last call of a student's function: its name, arguments, and what it returned


class OutOfTime(BaseException):
    """A test took too long; no ``except Exception`` catches it."""


@contextlib.contextmanager
def time_limit(seconds):
    """Within it Python code that takes longer (None: no limit) raises ``OutOfTime``."""

    def out_of_time(*_):
        raise OutOfTime(f"took longer than {seconds:g} seconds")

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again, if the first one was caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def described_call():
    """The last call in words: "fisher_trace(MLP, tensor (6, 12) float64, labels='signs')", and an
    array that it returned."""
    if not CALLED:
        return ""
    name, arguments, more, *returned = CALLED
    words = [_described(value) for value in arguments]
    said = f"{name}({', '.join(words + [f'{k}={_described(v)}' for k, v in more.items()])})"
    return said + "".join(f" -> {_described(v)}" for v in returned if hasattr(v, "dtype"))


def _described(value):
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = str(value.dtype).replace("torch.", "")
        few = value.tolist() if math.prod(value.shape) <= 5 else tuple(value.shape)
        return f"{type(value).__name__.lower()} {few} {dtype}"
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text and " at 0x" not in text else (
        f"a {type(value).__name__}"
    )


def install(path, isolated=False):
    """Put the functions of the file at ``path`` in place of ours -> their names. ValueError: it
    does not import, or defines none of the names here.

    isolated: the file cannot reach our own functions of those names, nor import more of ours than
    ``TYPES``.
    """
    spec = importlib.util.spec_from_file_location("student", Path(path).resolve())
    if spec is None or not Path(path).exists():
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    if isolated:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import_without_ours}
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit, OutOfTime) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not import: {type(error).__name__}: {said}") from None
    names = [
        name
        for name in PUBLIC
        if name in vars(module) and getattr(vars(module)[name], "__module__", "") == "student"
    ]
    if not names:
        raise ValueError(
            f"{path} defines (def, not import) none of: {', '.join(sorted(PUBLIC))}"
        )
    globals().update({name: _recorded(name, vars(module)[name]) for name in names})
    for name in names if isolated else ():
        home = importlib.import_module(PUBLIC[name].__module__)
        setattr(home, name, partial(_unreachable, name))
        PUBLIC[name] = partial(_unreachable, name)
    return names


def _import_without_ours(name, *scope):
    """The import statement of an isolated file."""
    wanted = scope[2] if len(scope) > 2 else ()
    if name.partition(".")[0] in OURS and not (wanted and set(wanted) <= TYPES):
        raise ImportError(f"{name} is the project's own; of it you may import {', '.join(TYPES)}")
    return __import__(name, *scope)


def _unreachable(name, *arguments, **more):
    raise ImportError(f"{name} of the project cannot be reached while a solution is marked")


def _recorded(name, function):
    """The function, which leaves its last call in ``CALLED``, and says if it returns another
    type."""
    wanted = {"fisher_trace": FisherTrace}.get(name)

    @functools.wraps(function)
    def call(*arguments, **more):
        CALLED[:] = name, arguments, more
        result = function(*arguments, **more)
        CALLED.append(result)
        given = type(result).__name__
        if wanted and given != wanted.__name__:  # an edited module has a class of its own
            raise TypeError(f"{name} must return a {wanted.__name__}, it returned a {given}")
        return result

    return call
