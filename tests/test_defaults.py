"""Every default argument of a public function, as its docstring or the paper has it: a changed
default would change results without a word."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

DEFAULTS = """
random_affine: degrees=15.0, translate=0.1, scale=0.1
random_crop: padding=4
hessian_trace: method='hutchinson'
jacobian_norm: of='logits', batch_size=256
load: download=False
downsample_blur: size=8, antialias=False
gaussian_blur: kernel_size=7, sigma=3.0
pooled_blur: size=4
dormant_share: threshold=0.025
fisher_trace: labels='expected', method='rules'
per_example_fisher: labels='expected', method='rules'
check_examples: batch_size=1
check_labels: why=''
full_gradient: batch_size=256
gradient_cosines: batch_size=256
optimum: top=10
binned_mutual_information: bins=30, low=-1.0, high=1.0, outside='clip'
all_cnn: shape=(3, 32, 32), classes=10, norm=True, width=96
linear_softmax: bias=False
mlp: hidden=(128,), bias=True, norm=False
resnet: shape=(3, 32, 32), classes=10, repeats=(1, 1, 1), widths=(8, 16, 32)
resnet10: shape=(3, 32, 32), classes=10, width=64
resnet18: shape=(3, 32, 32), classes=10, width=64
resnet32x4: shape=(3, 32, 32), classes=100
small_cnn: shape=(3, 32, 32), classes=10, widths=(16, 32, 64), norm=False, pool=2
vgg: shape=(3, 32, 32), classes=10, depth=16, norm=True
class_histograms: bins=12
deconvolution_decoder: width=64
fresh_decoder_loss: standardise=True
layer_features: batch_size=1000
linear_probe: ridges=(0.001, 0.01, 0.1, 1.0)
reconstruction_loss: ridges=(0.001, 0.01, 0.1, 1.0), standardise=True
trained_decoder_loss: epochs=30, lr=0.0003, batch_size=128, standardise=True
trained_probe: epochs=20, lr=0.01, batch_size=128
Phase: pool=0
sweep: save_every=20.0
bilevel: labels='expected'
by_fisher: labels='expected'
fisher_scores: labels='expected'
hardest_first: labels='expected'
reducible: labels='expected'
magnitude_masks: exclude=()
prune: exclude=()
prune_and_redraw: exclude=()
prune_and_rewind: exclude=()
clusters: train_size=1000, test_size=1000, dim=64, classes=10, modes=1, separation=0.5, noise=1.0
shapes: train_size=1000, test_size=1000, size=16, noise=0.1, amplitude=(0.7, 1.0), colour=False,
    class_colour=0.0
teacher: train_size=1000, test_size=1000, dim=20, hidden=8
textures: train_size=1000, test_size=2000, size=16, coarse=0.3, fine=0.8, noise=0.25
Setup: lr=0.05, weight_decay=0.0, batch_size=128, drop_last=True, channels_last=False,
    tf32=False
State: epoch=0, step=0, scored=0, lr_start=0, event=False
accuracy: batch_size=1000
evaluate: batch_size=1000
predict: batch_size=1000
training_step: channels_last=False, tf32=False
DeiT: shape=(3, 32, 32), classes=10, patch=4, dim=512, heads=8, depth=4, hidden=512
gaussian_bin_probabilities: bins=30, low=-1.0, high=1.0, outside='clip'
gaussian_binned_entropy: bins=30, low=-1.0, high=1.0, outside='clip'
gaussian_plug_in_error: bins=30
gaussian_clusters: classes=8, each=20, d=24, spread=0.5
null_frequency: nodes=20001
early_gate_limit: start=0.01
gated_pathways: gate=(0, 0), duration=1000.0, dt=0.01, start=0.01
two_stages: keep=1.0
mean_noise_along_gradient: nodes=1201
minibatch_second_moment: replacement=False
flow_time: nodes=20001
"""
ROOT = Path(__file__).parent.parent
APART = {"check_real", "check_whole", "real", "whole"}  # bounds of the checks themselves


def defaults():
    """function or class -> {argument: default}, None left out, of both packages."""
    found = {}
    for path in sorted([*ROOT.glob("clp_min/[a-z]*.py"), *ROOT.glob("theory/[a-z]*.py")]):
        module = import_module(f"{path.parent.name}.{path.stem}")
        for name, one in vars(module).items():
            if getattr(one, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            if inspect.isfunction(one) or inspect.isclass(one) and not issubclass(one, Exception):
                values = {k: p.default for k, p in inspect.signature(one).parameters.items()}
                kinds = int, float, str, tuple
                found[name] = {k: v for k, v in values.items() if isinstance(v, kinds) and v == v}
    return {name: values for name, values in found.items() if values and name not in APART}


FOUND = defaults()
ROWS = DEFAULTS.replace("\n    ", " ").strip().splitlines()
STATED = dict(row.split(": ", 1) for row in ROWS)


@pytest.mark.parametrize("name", sorted(set(FOUND) | set(STATED)))
def test_defaults__are_those_of_the_table(name):
    assert eval(f"dict({STATED.get(name, '')})") == FOUND.get(name, {}), name
