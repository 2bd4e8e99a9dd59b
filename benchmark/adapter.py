#!/usr/bin/env python
"""Time one adapted linear layer, forward and backward, against the frozen one.

    python -m benchmark.adapter

The four layers of a DINOv2-L block: frozen `nn.Linear`, the published layer (two branches beside
it), peft with two LoRA adapters, and `DualLoRALinear` with dense and with sparse A. The outputs and
all gradients of each are first compared with float64 formulas. Saved activations are counted by
PyTorch's hooks for saved tensors, without parameters, each storage once. ``host`` times layers so
small that only the work of the host counts, on one thread; it bounds a fast GPU.
"""

import argparse
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmark import measure
from benchmark.measure import R_MAIN, R_SUB, alternate, require, spread
from recyclelora import DualLoRALinear
from recyclelora.reproduce.environment import environment

try:
    import peft
except ModuleNotFoundError:
    peft = None

# Dtype of weights and inputs, and of autocast if any.
PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast": (torch.float32, torch.bfloat16),
}
HOST_WIDTH, HOST_CALLS = 16, 10  # of the layers of time_host, and calls timed together
FACTORS = ("A_main", "B_main", "A_sub", "B_sub")


class PublishedLayer(nn.Module):
    """What the published layer computes while it trains: each adapter is a branch of its own."""

    def __init__(self, layer: DualLoRALinear):
        super().__init__()
        self.weight, self.bias, self.scaling = layer.residual, layer.bias, layer.scaling
        for name in FACTORS:
            value = getattr(layer, f"lora_{name}").detach().to(self.weight.dtype, copy=True)
            setattr(self, name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        out = out + (x @ self.A_main.T @ self.B_main.T) * self.scaling
        return out + (x @ self.A_sub.T @ self.B_sub.T) * self.scaling


def peft_layer(layer: DualLoRALinear) -> nn.Module:
    """The same function by peft: two LoRA adapters on one linear, both active."""
    out_features, in_features = layer.residual.shape
    base = nn.Linear(in_features, out_features, bias=layer.bias is not None)
    base.weight, base.bias = layer.residual, layer.bias
    ranks = {"main": layer.settings.r_main, "sub": layer.settings.r_sub}
    configs = {
        name: peft.LoraConfig(r=rank, lora_alpha=layer.scaling * rank, target_modules=["0"])
        for name, rank in ranks.items()
    }
    model = peft.get_peft_model(
        nn.Sequential(base), configs["main"], "main", autocast_adapter_dtype=False
    )
    model.add_adapter("sub", configs["sub"], autocast_adapter_dtype=False)
    model.base_model.set_adapter(["main", "sub"])
    (adapted,) = model.base_model.model
    for name in ranks:
        for factor, linears in (("A", adapted.lora_A), ("B", adapted.lora_B)):
            value = getattr(layer, f"lora_{factor}_{name}").detach()
            linears[name].weight = nn.Parameter(value.to(base.weight.dtype, copy=True))
    return adapted


def build(linear: nn.Linear, r_main: int = R_MAIN, r_sub: int = R_SUB) -> dict[str, nn.Module]:
    """Every system for one pretrained linear, its factors a little away from the initial ones."""
    layers = {}
    for name, sparse_a in (("dense", False), ("sparse", True)):
        layer = DualLoRALinear.from_linear(linear, r_main, r_sub, sparse_a=sparse_a)
        with torch.no_grad():
            for factor in FACTORS:
                parameter = getattr(layer, f"lora_{factor}")
                parameter += 0.02 * torch.randn_like(parameter)
        layers[name] = layer
    systems = {"frozen": linear, "published": PublishedLayer(layers["dense"])}
    if peft is not None:
        systems["peft"] = peft_layer(layers["dense"])
    return {**systems, "ours, dense": layers["dense"], "ours, sparse": layers["sparse"]}


def factors(module: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters under our names, whoever's module it is; none if frozen."""
    if isinstance(module, DualLoRALinear):
        return {name: getattr(module, f"lora_{name}") for name in FACTORS}
    if isinstance(module, PublishedLayer):
        return {name: getattr(module, name) for name in FACTORS}
    if isinstance(module, nn.Linear):
        return {}
    linears = {"A": module.lora_A, "B": module.lora_B}
    return {name: linears[name[0]][name[2:]].weight for name in FACTORS}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context in which a forward pass of that precision runs."""
    dtype = PRECISIONS[precision][1]
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def run(module: nn.Module, x: Tensor, grad: Tensor, precision: str) -> tuple[Tensor, list[Tensor]]:
    """Forward, and backward to x and to the factors."""
    with autocast(x.device, precision):
        out = module(x)
    return out, torch.autograd.grad(out, [x, *factors(module).values()], grad.to(out.dtype))


@torch.no_grad()
def exact(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of x and the factors, by their formulas in float64."""
    x, grad = x.double(), grad.double()
    base = module.base_layer if hasattr(module, "base_layer") else module
    bias = None if base.bias is None else base.bias.double()
    weight = (base.residual if isinstance(base, DualLoRALinear) else base.weight).double()
    out, grad_x, grads = F.linear(x, weight, bias), grad @ weight, []
    values = {name: value.double() for name, value in factors(module).items()}
    scaling = 1 / sum(len(values[name]) for name in ("A_main", "A_sub")) if values else 0
    sparse = isinstance(module, DualLoRALinear) and module.settings.sparse_a
    columns = module.columns if sparse else None
    for name in ("main", "sub") if values else ():
        A, B = values[f"A_{name}"], values[f"B_{name}"]
        seen = x if columns is None else x[:, columns]
        hidden = seen @ A.T
        back = scaling * grad @ B
        out = out + scaling * hidden @ B.T
        grad_seen = back @ A
        grad_x = grad_x + grad_seen if columns is None else grad_x.index_add(1, columns, grad_seen)
        grads += [back.T @ seen, scaling * grad.T @ hidden]
    return [out, grad_x, *grads]


def errors(module: nn.Module, x: Tensor, grad: Tensor, precision: str) -> dict[str, float]:
    """Largest error of the output and of each gradient, relative to its largest entry."""
    out, grads = run(module, x, grad, precision)
    names = ["output", "x", *factors(module)]
    return {
        name: float((mine.detach().double() - true).abs().max() / true.abs().max())
        for name, mine, true in zip(names, [out, *grads], exact(module, x, grad), strict=True)
    }


def check(found: dict[str, dict[str, float]], dtype: torch.dtype, what: str) -> None:
    """No system may be off by more than twice what the published layer is in the same dtype."""
    for system, by_name in found.items():
        for name, error in by_name.items():
            limit = 2 * found["published"][name] + torch.finfo(dtype).eps
            require(
                error <= limit,
                f"{what}: {system} is off by {error:.1e} of the largest entry in {name}, more than "
                f"{limit:.1e}",
            )


def saved_bytes(module: nn.Module, x: Tensor, precision: str) -> int:
    """Bytes that the forward pass keeps for the backward pass, parameters and buffers apart."""
    own = [*module.parameters(), *module.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, autocast(x.device, precision):
        out = module(x)  # alive while its storages are counted
    del out
    return sum(saved.values())


def time_layer(args: argparse.Namespace, name: str, rows: int, precision: str) -> dict:
    """One layer at one precision: checked, counted, timed."""
    shape = args.layers[name]
    dtype, autocast_dtype = PRECISIONS[precision]
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0]).to(args.device, dtype).requires_grad_(False)
    modules = build(linear)
    x = torch.randn(rows, shape[1], device=args.device, dtype=dtype, requires_grad=True)
    grad = torch.randn(rows, shape[0], device=args.device, dtype=dtype)
    what = f"{name} {precision} {rows} rows"
    found = {key: errors(module, x, grad, precision) for key, module in modules.items()}
    check(found, autocast_dtype or dtype, what)
    saved = {key: saved_bytes(module, x, precision) for key, module in modules.items()}
    calls = {
        key: functools.partial(run, module, x, grad, precision) for key, module in modules.items()
    }
    seconds = alternate(calls, rounds=args.rounds, device=args.device, what=what)
    return {
        "layer": name,
        "shape": shape,
        "systems": {
            key: {**spread(seconds[key]), "saved_bytes": saved[key], "errors": found[key]}
            for key in modules
        },
    }


def repeat(call: Callable[[], Any], times: int) -> None:
    """Call ``times`` times."""
    for _ in range(times):
        call()


def time_host(args: argparse.Namespace) -> Iterator[dict]:
    """Seconds a call of a layer so small that its time is that of the host: Python and dispatch.

    All systems alternate in this process, on one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for precision, bias in itertools.product(args.precisions, (True, False)):
        dtype, autocast_dtype = PRECISIONS[precision]
        torch.manual_seed(0)
        linear = nn.Linear(HOST_WIDTH, HOST_WIDTH, bias).to(args.device, dtype)
        modules = build(linear.requires_grad_(False), r_main=3, r_sub=1)
        x, grad = torch.randn(2, 4, HOST_WIDTH, device=args.device, dtype=dtype)
        x.requires_grad_()
        what = f"host {precision}{'' if bias else ' without bias'}"
        found = {key: errors(module, x, grad, precision) for key, module in modules.items()}
        check(found, autocast_dtype or dtype, what)
        runs = {key: functools.partial(run, m, x, grad, precision) for key, m in modules.items()}
        calls = {key: functools.partial(repeat, call, HOST_CALLS) for key, call in runs.items()}
        seconds = alternate(calls, rounds=args.host_rounds, device=args.device, what=what)
        systems = {key: spread([s / HOST_CALLS for s in seconds[key]]) for key in modules}
        yield {"precision": precision, "bias": bias, "systems": systems}
    torch.set_num_threads(threads)


def sum_block(layers: list[dict], blocks: int) -> dict[str, dict]:
    """The four layers together, round by round, and the ratios to the frozen ones."""
    block = {}
    for name in layers[0]["systems"]:
        parts = [layer["systems"][name] for layer in layers]
        rounds = zip(*(part["seconds"] for part in parts), strict=True)
        block[name] = {
            **spread([sum(seconds) for seconds in rounds]),
            "saved_bytes": blocks * sum(part["saved_bytes"] for part in parts),
        }
    for times in block.values():
        times["ratio"] = times["median"] / block["frozen"]["median"]
    return block


def time_blocks(args: argparse.Namespace) -> Iterator[dict]:
    """Every number of rows at every precision."""
    for rows in args.rows:
        for precision in args.precisions:
            layers = [time_layer(args, name, rows, precision) for name in args.layers]
            block = sum_block(layers, args.blocks)
            yield {"rows": rows, "precision": precision, "layers": layers, "block": block}


def plot(result: dict) -> Figure:
    """Draw the time relative to the frozen layers, and the saved bytes."""
    runs = result["runs"]
    labels = [f"{run['precision']}\n{run['rows']} rows" for run in runs]
    panels = (("ratio", 1, "time / frozen nn.Linear"), ("saved_bytes", 1e9, "saved, GB"))
    machine = result["environment"]["machine"]
    figure = measure.plot_bars([run["block"] for run in runs], labels, panels, machine)
    left, right = figure.axes
    left.axhline(1, color="black", linewidth=0.8)
    left.set_title("four linears of a block, forward + backward")
    right.set_title(f"their activations over {result['settings']['blocks']} blocks")
    return figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "adapter", rounds=9)
    measure.add_count(parser, "--width", 1024, "of the block; that of DINOv2-L is 1024")
    measure.add_count(parser, "--blocks", 24, "over which saved bytes are summed")
    measure.add_count(parser, "--rows", [1025, 4 * 1025], "tokens in a batch", nargs="+")
    measure.add_count(parser, "--host-rounds", 100, "how often each tiny layer is timed")
    known = list(PRECISIONS)
    parser.add_argument("--precisions", nargs="+", default=known, choices=PRECISIONS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Time all of it, write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "adapter")
    args.layers = measure.block_shapes(args.width)
    if peft is None:
        print("peft is left out: `pip install peft transformers` installs it")
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "left_out": [] if peft else ["peft"],
        "host": list(time_host(args)),
        "runs": list(time_blocks(args)),
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
