"""A device against the CPU: the same estimators, sweeps and checkpoints, on "cuda" where there is
one (and on the CPU itself, so that these tests cannot rot)."""

import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch

from clp_min import models
from clp_min.augment import crop_and_flip
from clp_min.curvature import hessian_trace, hessian_vector_product
from clp_min.deficits import downsample_blur, gaussian_blur, images, label_noise
from clp_min.features import cross_class_similarity
from clp_min.fisher import fisher_trace
from clp_min.gradients import flat_parameters
from clp_min.information import READINGS, binned_mutual_information
from clp_min.schedule import Phase, restart_learning_rate, shrink_and_perturb, sweep
from clp_min.seeding import generator
from clp_min.train import Setup, evaluate, fresh_state, training_step

from compare import assert_close

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
DEVICES = ["cpu", pytest.param("cuda", marks=no_cuda)]
NETS = {
    "cnn": partial(models.small_cnn, (3, 16, 16), 5, (4, 6, 8), norm=True),
    "resnet18": partial(models.resnet18, (3, 16, 16), 5, width=4),
}


def case(net, device):
    torch.manual_seed(0)
    model, x, y = NETS[net]().double(), torch.randn(12, 3, 16, 16).double(), torch.arange(12) % 5
    model(x)  # running statistics of their own
    return model.eval().to(device), x.to(device), y.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("net", NETS)
def test_devices__estimators_equal_the_cpus(net, device):
    found = {}
    for where in ("cpu", device):
        model, x, y = case(net, where)
        v = torch.linspace(-1, 1, sum(p.numel() for p in model.parameters())).double().to(where)
        found[where] = [
            fisher_trace(model, x).total, *fisher_trace(model, x).per_layer.values(),
            hessian_vector_product(model, x, y, v).cpu(), *evaluate(model, x, y),
            cross_class_similarity(model(x).detach(), y),
            *(binned_mutual_information(model(x), reading, y) for reading in READINGS),
            gaussian_blur(x).cpu(), downsample_blur(x, 4).cpu(),
        ]
    for ours, cpus in zip(found[device], found["cpu"]):
        assert_close(torch.as_tensor(ours).double(), torch.as_tensor(cpus).double(), 1e-8, 1e-10)
    # draws differ between devices: the same in the mean (the shares of 5 errors are 1e-6)
    (a, error_a), (b, error_b) = (
        hessian_trace(*case(net, where), 100, generator(where, 0)) for where in ("cpu", device)
    )
    assert abs(a - b) <= 5 * (error_a**2 + error_b**2) ** 0.5


@pytest.mark.parametrize("device", DEVICES)
def test_devices__a_full_batch_step_equals_the_cpus(device):
    trained = {}
    for where in ("cpu", device):
        model, x, y = case("resnet18", where)
        setup = Setup(lambda model=model: model, x, y, lr=0.05, batch_size=12, weight_decay=1e-3)
        state = fresh_state(setup, 0)
        state.model.train()
        for _ in range(3):
            training_step(state.model, state.optimizer, x, y, clip=1.0)
        trained[where] = flat_parameters(state.model).cpu()
    assert_close(trained[device], trained["cpu"], 1e-8, 1e-10)


@pytest.mark.parametrize("device", DEVICES)
def test_devices__forks_and_resumes_are_those_of_one_run(device, tmp_path):
    torch.use_deterministic_algorithms(True)
    try:
        _, x, y = case("cnn", device)
        x = x.float().repeat(8, 1, 1, 1)
        y, _ = label_noise(y.repeat(8), 0.2, 5, generator(device, 1))
        setup = Setup(NETS["cnn"], x, y, lr=0.05, batch_size=32, augment=crop_and_flip)
        blur = images(gaussian_blur)
        plan = {
            "a": [Phase(1, blur), Phase(2, event=restart_learning_rate)],
            "b": [Phase(1, blur), Phase(2, event=shrink_and_perturb(0.5, 0.1))],
        }

        def ends(plan, **more):
            return {
                name: flat_parameters(state.model).clone()
                for epoch, state, names in sweep(setup, plan, 0, **more) for name in names
                if epoch == 3
            }

        together, file = ends(plan), tmp_path / "half.pt"
        for name in plan:
            assert torch.equal(ends({name: plan[name]})[name], together[name])
        for epoch, *_ in sweep(setup, {"a": plan["a"]}, 0, checkpoint=file, save_every=0.0):
            if epoch == 2:
                break  # as a kill would
        assert torch.equal(ends({"a": plan["a"]}, checkpoint=file)["a"], together["a"])
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_devices__the_first_ten_minutes_say_what_they_left_out():
    """tests/gpu/check.sh with no time to do anything."""
    script = Path(__file__).parent / "gpu" / "check.sh"
    done = subprocess.run(["bash", script, "0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("left out, no time is left") > 20
    assert "achille_blur at paper scale: left out" in done.stdout
