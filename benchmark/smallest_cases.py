"""The operators on the smallest inputs that reach every kernel, to run under compute-sanitizer.

compute-sanitizer python -m benchmark.smallest_cases --device cuda
"""

import argparse
import itertools

import torch

from benchmark import measure, whole_model
from benchmark.measure import require
from recyclelora.ops import dual_lora_linear, rrqr

# Tall, wide, one panel of 64 pivots and more than one, and a batch.
SHAPES = ((2, 5, 3), (2, 3, 5), (66, 65), (1, 40, 70))


def decompose(device: torch.device) -> None:
    """Compare rrqr with the CPU on every shape, in both precisions, and for a column of zeros."""
    for shape, dtype in itertools.product(SHAPES, (torch.float32, torch.float64)):
        weight = torch.randn(shape, dtype=dtype)
        counts = min(shape[-2:]) // 2, min(shape[-2:]) // 2
        for case in (weight, weight.index_fill(-1, torch.tensor([1]), 0.0)):
            found, expected = rrqr(case.to(device), *counts), rrqr(case, *counts)
            whole_model.check(f"rrqr of {tuple(shape)} in {dtype}", found, expected)


def adapt(device: torch.device) -> None:
    """Compare the gradients of the adapted layer with the CPU, for few and for many rows."""
    for rows in (2, 70):
        results = []
        for place in (device, torch.device("cpu")):
            torch.manual_seed(0)
            shapes = ((rows, 12), (10, 12), (10,), (3, 12), (10, 3), (1, 12), (10, 1))
            tensors = [torch.randn(shape).to(place).requires_grad_() for shape in shapes]
            out = dual_lora_linear(*tensors, 0.25)
            grads = torch.autograd.grad(out.square().sum(), tensors)
            results.append([tensor.detach().cpu() for tensor in (out, *grads)])
        for mine, other in zip(*results, strict=True):
            require(
                torch.allclose(mine, other, atol=1e-3, rtol=1e-4),
                f"dual_lora_linear with {rows} rows differs from the CPU",
            )


def main(arguments: list[str] | None = None) -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=measure.device, default=torch.device("cpu"))
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    decompose(args.device)
    adapt(args.device)
    print("all cases are correct")


if __name__ == "__main__":
    measure.exit_with_sentence(main)
