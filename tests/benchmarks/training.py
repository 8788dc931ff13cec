"""What training costs here beside what a user would write by hand, and what measuring adds.

    python tests/benchmarks/training.py [--device cuda] [--threads 1] [--repeats 5] [--markdown]

The ways of one row are timed in turn in every round (CPU seconds of the process; on CUDA seconds
with the device waited for), so that a busy machine disturbs them alike; printed are the median of
each round's ratio, its range, and n.
"""

import argparse
import os
import platform
import statistics
import time
from functools import partial

import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import DataLoader, Dataset

from clp_min import models
from clp_min.augment import crop_and_flip
from clp_min.deficits import downsample_blur, gaussian_blur, images
from clp_min.fisher import fisher_trace
from clp_min.information import READINGS, binned_mutual_information
from clp_min.schedule import Phase, sweep
from clp_min.train import Setup, training_step

NETS = {  # name -> (net, examples, side)
    "small_cnn": (models.small_cnn, 1024, 16),
    "all_cnn, a quarter wide": (partial(models.all_cnn, width=24), 512, 32),
    "resnet18, a quarter wide": (partial(models.resnet18, width=16), 256, 32),
}
BATCH, EPOCHS = 128, 2
LAST, HALF = dict(channels_last=True), dict(autocast=torch.bfloat16)
ARITHMETIC = {"channels last": LAST, "bfloat16": HALF, "both": LAST | HALF}


class Cropped(Dataset):
    """The usual transforms, one image at a time: pad by four, crop at random, flip at random."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        side = self.x.shape[-1]
        top, left = torch.randint(9, (2,)).tolist()
        image = pad(self.x[i], (4, 4, 4, 4))[:, top : top + side, left : left + side]
        return (image.flip(2) if torch.rand(()) < 0.5 else image), self.y[i]


def ours(setup):
    for _ in sweep(setup, {"run": [Phase(EPOCHS)]}, 0):
        pass


def by_hand(setup, batches):
    """Net and optimizer as ``Setup`` has them, ``batches`` a function that makes an epoch's."""
    model = setup.model().to(setup.x.device)
    optimizer = setup.optimizer(model.parameters(), lr=setup.lr, weight_decay=setup.weight_decay)
    model.train()
    for _ in range(EPOCHS):
        for x, y in batches():
            optimizer.zero_grad()
            cross_entropy(model(x.to(setup.x.device)), y.to(setup.x.device)).backward()
            optimizer.step()


def bare(setup):
    """The shortest loop that trains."""

    def batches():
        order = torch.randperm(len(setup.x), device=setup.x.device)
        return ((setup.x[i], setup.y[i]) for i in order.split(BATCH))

    by_hand(setup, batches)


def loader(setup):
    """A DataLoader with the usual transforms."""
    data = Cropped(setup.x.cpu(), setup.y.cpu())
    by_hand(setup, lambda: DataLoader(data, BATCH, shuffle=True))


def passes(make, shape, device, channels_last=False, **flags):
    """(forward, forward and backward, whole training step with clipping) of a net on one batch,
    each a function that does it ten times."""
    x, y = torch.randn(BATCH, *shape, device=device), torch.arange(BATCH, device=device) % 10
    model = make(shape).to(device).train()
    if channels_last:
        model, x = (one.to(memory_format=torch.channels_last) for one in (model, x))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def both():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()

    step = partial(
        training_step, model, optimizer, x, y, clip=2.0, channels_last=channels_last, **flags
    )
    ways = partial(model, x), both, step
    return [lambda way=way: [way() for _ in range(10)] for way in ways]


def alone(setup, plan):
    for name, phases in plan.items():
        for _ in sweep(setup, {name: phases}, 0):
            pass


def together(setup, plan):
    for _ in sweep(setup, plan, 0):
        pass


def clock(device):
    """Seconds: of the CPU's work; where a GPU works, of the wall after waiting for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def ratios(device, repeats, *ways):
    """(rows of each round's seconds, one for each way), without the first round, which warms up."""
    rounds = []
    for _ in range(repeats + 1):
        seconds = []
        for way in ways:
            began = clock(device)
            way()
            seconds.append(clock(device) - began)
        rounds.append(seconds)
    return rounds[1:]


def row(arguments, label, rounds, unit="times", scale=1.0):
    """Print one row: the first way over the last (or, alone, its milliseconds)."""
    values = [scale * (one[0] / one[-1] if len(one) > 1 else 1e3 * one[0]) for one in rounds]
    numbers = (f"{statistics.median(values):.3g}", f"{min(values):.3g} .. {max(values):.3g}")
    if arguments.markdown:
        print(f"| {label} | {numbers[0]} {unit} | {numbers[1]} | {len(values)} |", flush=True)
    else:
        print(f"  {label:76} {numbers[0]:>6} {unit}  ({numbers[1]}, n = {len(values)})", flush=True)


def where_a_step_goes(arguments, timed):
    """And what other arithmetic makes of it."""
    device = arguments.device
    for net, (make, _, side) in NETS.items():
        shape = 3, side, side
        forward, both, step = passes(make, shape, device, **LAST)  # as achille.py has it
        row(arguments, f"{net}: forward pass, % of a training step", timed(forward, step), "%", 100)
        row(arguments, f"{net}: forward and backward pass, % of a training step",
            timed(both, step), "%", 100)
        step = passes(make, shape, device)[-1]
        for name, flags in ARITHMETIC.items():
            other = passes(make, shape, device, **flags)[-1]
            row(arguments, f"{net}: a training step, {name}, over a plain one", timed(other, step))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--steps", action="store_true", help="only where a training step goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, timed = arguments.device, partial(ratios, arguments.device, arguments.repeats)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{name}, {os.cpu_count()} cores, {arguments.threads} thread(s) used, torch"
          f" {torch.__version__}, python {platform.python_version()}")
    if arguments.markdown:
        print("\n| what | median | range | n |\n|---|---|---|---|")
    where_a_step_goes(arguments, timed)
    if arguments.steps:
        return
    # training
    for net, (make, n, side) in NETS.items():
        torch.manual_seed(0)
        x = torch.randn(n, 3, side, side, device=device)
        y = torch.arange(n, device=device) % 10
        setup = Setup(partial(make, (3, side, side)), x, y, lr=0.01, batch_size=BATCH)
        cropped = Setup(
            partial(make, (3, side, side)), x, y, lr=0.01, batch_size=BATCH, augment=crop_and_flip
        )
        row(arguments, f"{net}: an epoch, over the shortest loop",
            timed(lambda: ours(setup), lambda: bare(setup)))
        row(arguments, f"{net}: with crop and flip, over a DataLoader",
            timed(lambda: ours(cropped), lambda: loader(cropped)))
        model, per_epoch = make((3, side, side)).to(device).eval(), n * EPOCHS / 50_000
        for labels in ("expected", "signs"):
            row(arguments, f"{net}: Tr F ({labels}) of 1,000, % of an epoch of 50,000",
                timed(lambda: fisher_trace(model, x[:100], labels), lambda: ours(setup)),
                "%", 100 * 10 * per_epoch)
    # one sweep
    make, n, side = NETS["small_cnn"]
    x, y = torch.randn(n, 3, side, side, device=device), torch.arange(n, device=device) % 10
    setup, blur = Setup(partial(make, (3, side, side)), x, y, lr=0.01), images(gaussian_blur)
    plan = {d: [Phase(d, blur), Phase(2)] for d in (0, 2, 4, 6)}
    row(arguments, "sweep of four schedules (14 epochs) over each alone (20)",
        timed(lambda: together(setup, plan), lambda: alone(setup, plan)))
    # what an epoch may call once
    logits, labels = torch.randn(50_000, 10, device=device), torch.arange(50_000) % 10
    for reading in READINGS:
        call = partial(binned_mutual_information, logits, reading, labels)
        row(arguments, f"information of 50,000 x 10 logits, {reading}", timed(call), "ms")
    pictures = torch.randn(1000, 3, 32, 32, device=device)
    calls = {
        "Gaussian blur": gaussian_blur, "down and up": partial(downsample_blur, size=8),
        "crop and flip": lambda p: crop_and_flip(p, torch.Generator(device)),
    }
    for what, call in calls.items():
        row(arguments, f"{what}, 1,000 images of 32x32", timed(partial(call, pictures)), "ms")


if __name__ == "__main__":
    main()
