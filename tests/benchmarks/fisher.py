"""Cost of the Fisher trace, as multiples of one forward + backward pass of the same batch, beside
what a user would otherwise take.

    python tests/benchmarks/fisher.py [--threads 1] [--repeats 5] [--nets small_cnn resnet18]

All methods of a net are timed in turn in every round (CPU seconds of the process), so that a busy
machine disturbs them alike; printed are the median of each round's ratio, its range, and n. Values
are checked against each other. nngeometry, BackPACK and curvlinops are timed if they are installed;
none of them is needed by the project.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clp_min import models
from clp_min.fisher import fisher_trace

NETS = {
    "small_cnn": (models.small_cnn, (128, 3, 16, 16)),
    "mlp": (lambda: models.mlp((3, 32, 32), 10, (512,) * 8), (128, 3, 32, 32)),
    "all_cnn": (models.all_cnn, (64, 3, 32, 32)), "resnet18": (models.resnet18, (64, 3, 32, 32)),
}


def forward_backward(model, x, y):
    model.zero_grad()
    cross_entropy(model(x), y).backward()


def loop_sampled(model, x, y):
    """One label y ~ p(y|x) and one backward pass for each example: the plain way."""
    total = 0.0
    for one in x:
        logits = model(one[None])
        label = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
        model.zero_grad()
        cross_entropy(logits, label).backward()
        total += sum(p.grad.square().sum().item() for p in model.parameters())
    return total / len(x)


def vmap_sampled(model, x, y, chunk_size=8):
    """torch.func: per-example gradients of drawn labels."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    labels = torch.multinomial(model(x).detach().softmax(1), 1)[:, 0]

    def loss(parameters, one, label):
        return cross_entropy(
            torch.func.functional_call(model, (parameters, buffers), one[None]), label[None]
        )

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), chunk_size=chunk_size)(
        {k: p.detach() for k, p in parameters.items()}, x, labels
    )
    return sum(g.square().sum().item() for g in gradients.values()) / len(x)


def peers():
    """name -> method, for the packages that can be imported."""
    found = {}
    try:
        from nngeometry.metrics import FIM
        from nngeometry.object import PMatImplicit

        def nngeometry(model, x, y):
            loader = torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(x, y), batch_size=len(x)
            )
            return float(
                FIM(model, loader, PMatImplicit, variant="classif_logits", device="cpu").trace()
            )

        found["nngeometry exact"] = nngeometry
    except ImportError:
        pass
    try:
        import copy

        from backpack import backpack, extend
        from backpack.extensions import BatchL2Grad

        def backpack_sampled(model, x, y):
            if not hasattr(model, "_extended"):
                model._extended = [
                    extend(
                        copy.deepcopy(model), use_converter=not isinstance(model, nn.Sequential)
                    ),
                    extend(nn.CrossEntropyLoss(reduction="sum")),
                ]
            net, loss = model._extended
            logits = net(x)
            labels = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
            with backpack(BatchL2Grad()):
                loss(logits, labels).backward()
            return sum(p.batch_l2.sum().item() for p in net.parameters()) / len(x)

        found["BackPACK sampled"] = backpack_sampled
    except ImportError:
        pass
    try:
        from curvlinops import GGNLinearOperator, hutchinson_trace

        def curvlinops_one_probe(model, x, y):
            return float(
                hutchinson_trace(
                    GGNLinearOperator(
                        model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)],
                        check_deterministic=False,
                    ),
                    num_matvecs=1,
                )
            )

        found["curvlinops GGN, 1 probe"] = curvlinops_one_probe
    except ImportError:
        pass
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    methods = {
        "ours sampled": lambda m, x, y: fisher_trace(m, x, "sampled").total,
        "ours signs": lambda m, x, y: fisher_trace(m, x, "signs").total,
        "ours exact": lambda m, x, y: fisher_trace(m, x).total, "loop sampled": loop_sampled,
        "vmap sampled": vmap_sampled, **peers(),
    }
    for name in arguments.nets:
        make, shape = NETS[name]
        torch.manual_seed(0)
        model, x, y = make().eval(), torch.randn(shape), torch.arange(shape[0]) % 10
        ratios, values = {}, {}
        for round_ in range(arguments.repeats + 1):  # the first round warms up
            forward_backward(model, x, y)
            began = time.process_time()
            forward_backward(model, x, y)
            base = time.process_time() - began
            for label, method in list(methods.items()):
                if ratios.get(label) == "failed":
                    continue
                try:
                    began = time.process_time()
                    values[label] = method(model, x, y)
                    if round_:
                        ratios.setdefault(label, []).append((time.process_time() - began) / base)
                except Exception as error:  # a peer may not cover a layer: that is a result
                    ratios[label], values[label] = (
                        "failed", f"{type(error).__name__}: {str(error)[:80]}",
                    )
        print(
            f"{name} {tuple(shape)}, {arguments.threads} thread(s), one forward + backward"
            f" {base:.3f} s"
        )
        for label, ratio in ratios.items():
            if ratio == "failed":
                print(f"  {label:24} {values[label]}")
            else:
                print(
                    f"  {label:24} x{statistics.median(ratio):6.2f}  ({min(ratio):.2f} .."
                    f" {max(ratio):.2f}, n = {len(ratio)})   Tr F {values[label]:.5g}"
                )


if __name__ == "__main__":
    main()
