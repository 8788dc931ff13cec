"""One epoch of each paper's net at its published size, on random images: examples per second, in
float32, with TF32, and in bfloat16; memory at its peak; and what a Fisher trace costs.

    python tests/gpu/throughput.py [--device cuda] [--examples 50000]

On a CPU a few steps stand for the epoch. Prints a Markdown table. What the flags change is the
largest difference of a trained net's logits from float32's, relative to their largest.
"""

import argparse
import time
from functools import partial

import torch

from clp_min import models
from clp_min.fisher import fisher_trace
from clp_min.schedule import Phase, sweep
from clp_min.train import Setup, predict
from clp_min.transformer import DeiT

NETS = {  # name -> (net, batch size)
    "All-CNN": (models.all_cnn, 128), "VGG-16": (models.vgg, 256),
    "ResNet-18": (models.resnet18, 256),
    "ResNet-32x4": (models.resnet32x4, 128), "DeiT": (DeiT, 256),
    "MLP 9x512": (partial(models.mlp, (3, 32, 32), 10, (512,) * 8), 100),
}
MODES = {"float32": (False, None), "TF32": (True, None), "bfloat16": (False, torch.bfloat16)}


def epoch(make, x, y, batch_size, tf32, autocast):
    """(seconds of one epoch, logits of the trained net in float32) under one mode."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    setup = Setup(make, x, y, lr=1e-3, batch_size=batch_size, autocast=autocast, channels_last=True)
    for done, state, _ in sweep(setup, {"run": [Phase(1)]}, 0):
        if x.is_cuda:
            torch.cuda.synchronize()
        if done == 0:
            began = time.perf_counter()
    seconds = time.perf_counter() - began
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return seconds, predict(state.model, x[:100])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--examples", type=int, help="of an epoch (50,000; on a CPU 32)")
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    arguments = parser.parse_args()
    device = arguments.device
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "CPU"
    print(f"\n{name}, torch {torch.__version__}; Tr F in seconds for 1,000 examples\n")
    columns = [f"{mode}, examples/s" for mode in MODES] + ["TF32 moves", "bfloat16 moves"]
    columns += ["peak GB", "Tr F exact", "Tr F signs"]
    print(f"| net | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for net in arguments.nets:
        make, batch = NETS[net]
        n = arguments.examples or (50_000 if cuda else 32)
        batch = min(batch, n)
        x, y = torch.randn(n, 3, 32, 32, device=device), torch.arange(n, device=device) % 10
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            epoch(make, x[: 4 * batch], y[: 4 * batch], batch, False, None)  # warm up
        cells, logits = [], {}
        for mode, flags in MODES.items():
            seconds, logits[mode] = epoch(make, x, y, batch, *flags)
            cells.append(f"{n / seconds:,.0f}")
        plain = logits["float32"]
        for mode in ("TF32", "bfloat16"):
            cells.append(f"{float((logits[mode] - plain).abs().max() / plain.abs().max()):.1e}")
        cells.append(f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if cuda else "–")
        model, few = make().to(device).eval(), 1000 if cuda else 4
        for labels in ("expected", "signs"):
            fisher_trace(model, x[:8], labels)  # the comparison of a new model with autograd
            began = time.perf_counter()
            fisher_trace(model, x[:few], labels)  # ends on the host
            cells.append(f"{1000 / few * (time.perf_counter() - began):.2f}")
        print(f"| {net} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
