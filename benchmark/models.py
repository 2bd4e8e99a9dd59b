#!/usr/bin/env python
"""Adapt a small model of each of many families, and check what `adapt` promises.

    python -m benchmark.models
    python -m benchmark.models --families Swin BERT

Every model has random weights and is treated alike. Layers smaller than the ranks are left out, the
others adapted. The outputs must not change by more than ``LARGEST_CHANGE``, relative to the largest
one. Each adapter must get a gradient, unless `unreached_linears` names its layer. A family whose
library is not installed is left out.
"""

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.measure import R_MAIN, R_SUB, RESULTS, exit_with_sentence, require
from benchmark.model_families import FAMILIES, Family
from recyclelora import adapt
from recyclelora.adapters import adapted_layers, unreached_linears
from recyclelora.common.atomic_write import atomic_write
from recyclelora.reproduce.environment import environment

# Rounding of W_res is relative to s B A, which is larger than a head that its library scales down.
LARGEST_CHANGE = {torch.float32: 1e-5, torch.float64: 1e-12}


def fill_zeros(model: nn.Module) -> None:
    """Replace matrices that start at zero (heads) by random values, so that every layer matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and not parameter.any():
                parameter.normal_(std=0.02)


def tensors_of(result: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a result of nested mappings and sequences."""
    if isinstance(result, Tensor):
        if result.is_floating_point():
            yield result
    elif hasattr(result, "values"):
        for value in result.values():
            yield from tensors_of(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from tensors_of(value)


def outputs(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Return the tensors that the model computes, with the same random numbers in every call."""
    torch.manual_seed(1)
    return list(tensors_of(model(**inputs)))


def largest_change(before: list[Tensor], after: list[Tensor]) -> float:
    """Return the largest difference of two results, relative to each tensor's largest entry."""
    return max(float((b - a).abs().max() / b.abs().max()) for b, a in zip(before, after))


def too_small(model: nn.Module) -> list[str]:
    """Return the names of the linear layers that are smaller than the ranks."""
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    return [name for name, m in linears.items() if min(m.weight.shape) < R_MAIN + R_SUB]


def change_by_adapting(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[float, int]:
    """Adapt ``model`` in place; return the change of its outputs and the number of warnings."""
    with torch.no_grad():
        before = outputs(model, inputs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapt(model, R_MAIN, R_SUB, exclude=too_small(model))
        change = largest_change(before, outputs(model, inputs))
    found = (re.search(r"cannot reach (\d+) weights", str(one.message)) for one in caught)
    return change, sum(int(match[1]) for match in found if match)


def layers_without_gradient(model: nn.Module, inputs: dict[str, Tensor]) -> list[str]:
    """Return the names of the adapted layers with a factor that gets no gradient."""
    results = [out for out in outputs(model, inputs) if out.requires_grad]
    torch.autograd.backward(results, [torch.randn_like(out) for out in results])
    factors = {
        name: [getattr(layer, key) for key in layer.FACTORS]
        for name, layer in adapted_layers(model).items()
    }
    return [name for name, of in factors.items() if any(factor.grad is None for factor in of)]


def measure_family(name: str, family: Family) -> dict[str, Any]:
    """Adapt one model in float64 and in float32, and check the result."""
    torch.manual_seed(0)
    model, inputs = family.build()
    model.eval()
    fill_zeros(model)
    changes: dict[str, float | None] = {}
    wide = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
    for dtype, arguments in ((torch.float64, wide), (torch.float32, inputs)):
        adapted = copy.deepcopy(model).to(dtype)
        key = str(dtype).removeprefix("torch.")
        try:
            changes[key], warned = change_by_adapting(adapted, arguments)
        except RuntimeError as error:  # grouped products of experts have no float64 kernel
            require("mat_a to be" in str(error) and dtype == torch.float64, f"{name}: {error}")
            changes[key] = None
            continue
        limit = LARGEST_CHANGE[dtype]
        require(changes[key] <= limit, f"{name}: outputs changed by {changes[key]:.1e} in {key}")
    unreached = unreached_linears(adapted, **inputs)
    without = set(layers_without_gradient(adapted, inputs)) - set(unreached)
    require(
        not without,
        f"{name}: no gradient in {sorted(without)}, but unreached_linears does not list these "
        "layers",
    )
    adapted_names = adapted_layers(adapted).keys()
    return {
        "library": family.library,
        "family": name,
        "layers": len(adapted_names),
        "too_small": len(too_small(model)),
        "warned": warned,
        "unreached": len(adapted_names & set(unreached)),
        "change": changes,
    }


def main(arguments: list[str] | None = None) -> None:
    """Adapt all families, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--output", type=Path, default=RESULTS / "models.json")
    args = parser.parse_args(arguments)
    families = {name: FAMILIES[name] for name in args.families}
    libraries = {family.library for family in families.values()}
    missing = sorted(name for name in libraries if importlib.util.find_spec(name) is None)
    runs = []
    for name, family in families.items():
        if family.library in missing:
            continue
        runs.append(measure_family(name, family))
        print(f"{family.library} {name}: {runs[-1]['change']}")
    ran_on = environment(torch.device("cpu"))
    used = (libraries - set(missing)) & {"timm", "torchvision"}  # environment() does not list these
    ran_on["versions"] |= {name: importlib.metadata.version(name) for name in sorted(used)}
    result = {
        "environment": ran_on,
        "ranks": [R_MAIN, R_SUB],
        "left_out": missing,
        "runs": runs,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    exit_with_sentence(main)
