"""Cost of products with the Hessian, its trace and its spectrum, as multiples of one forward +
backward pass of the same batch; and the error of the two trace estimators at equal cost.

    python tests/benchmarks/curvature.py [--threads 1] [--repeats 5] [--nets mlp resnet18]

All methods of a net are timed in turn in every round (CPU seconds of the process), so that a busy
machine disturbs them alike; printed are the median of each round's ratio, its range, and n. Values
are checked against each other. curvlinops is timed if it is installed; the project needs it not.
"""

import argparse
import statistics
import time

import torch
from torch.nn.functional import cross_entropy

from clp_min import models
from clp_min.curvature import hessian_product, hessian_spectrum, hessian_trace
from clp_min.seeding import generator

NETS = {
    "mlp": (lambda: models.mlp((3, 32, 32), 10, (512,) * 8), (128, 3, 32, 32)),
    "resnet18": (lambda: models.resnet18(width=16), (64, 3, 32, 32)),
}


def forward_backward(model, x, y):
    model.zero_grad()
    cross_entropy(model(x), y).backward()


def functional_product(model, x, y, v):
    """torch.func: the derivative of the gradient along v."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]
    tangents = {
        name: part.view_as(p) for (name, p), part in zip(parameters.items(), v.split(sizes))
    }

    def loss(parameters):
        return cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    _, found = torch.func.jvp(torch.func.grad(loss), (parameters,), (tangents,))
    return torch.cat([one.flatten() for one in found.values()])


def curvlinops_product(model, x, y):
    """The operator of curvlinops, or None where it is not installed."""
    try:
        import curvlinops
    except ImportError:
        return None
    parameters = [p for p in model.parameters() if p.requires_grad]
    operator = curvlinops.HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
    )
    return lambda v: operator @ v


def seconds(work):
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.nets:
        make, shape = NETS[name]
        torch.manual_seed(0)
        model, x, y = make().eval(), torch.randn(shape), torch.randint(10, shape[:1])
        v = torch.randn(sum(p.numel() for p in model.parameters()))
        kept = hessian_product(model, x, y)
        methods = {
            "product, graph kept": lambda: kept(v),
            "product, graph built anew": lambda: hessian_product(model, x, y)(v),
            "torch.func": lambda: functional_product(model, x, y, v),
        }
        peer = curvlinops_product(model, x, y)
        if peer is not None:
            methods["curvlinops"] = lambda: peer(v)
        methods["trace, 12 products (hutch++)"] = lambda: hessian_trace(
            model, x, y, 12, method="hutch++"
        )
        methods["spectrum, 12 steps"] = lambda: hessian_spectrum(model, x, y, 12, 1)
        ratios = {method: [] for method in methods}
        for round_ in range(arguments.repeats + 1):  # the first one warms up
            unit, _ = seconds(lambda: forward_backward(model, x, y))
            for method, work in methods.items():
                spent, result = seconds(work)
                if round_:
                    ratios[method].append(spent / unit)
                elif torch.is_tensor(result):
                    apart = (result - kept(v)).norm() / kept(v).norm()
                    assert apart < 1e-3, f"{method} gives another product ({apart:.1e})"
        print(f"{name}, batch {shape[0]}, {arguments.threads} thread(s), n = {arguments.repeats}")
        for method, values in ratios.items():
            low, high = min(values), max(values)
            print(f"  {method:30} {statistics.median(values):7.2f}  ({low:.2f} to {high:.2f})")
        spread = {
            method: statistics.stdev(
                hessian_trace(model, x, y, 12, generator("cpu", i), method=method)[0]
                for i in range(8)
            )
            for method in ("hutchinson", "hutch++")
        }
        print(f"  standard deviation of the trace by 12 products, untrained net: {spread}")


if __name__ == "__main__":
    main()
