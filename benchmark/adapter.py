#!/usr/bin/env python
"""Time one adapted linear layer, forward and backward, against the frozen one.

    python -m benchmark.adapter

The four layers of a DINOv2-L block: frozen `nn.Linear`, the published layer (two branches beside
it), peft with two LoRA adapters, and `DualLoRALinear` with dense and with sparse A. Every candidate
runs in a process of its own, with the same number of pinned threads, and the candidates alternate;
``--against REV`` adds the layers of an earlier commit. The outputs and
all gradients of each are first compared with float64 formulas. Saved activations are counted by
PyTorch's hooks for saved tensors, without parameters, each storage once. ``host`` times layers so
small that only the work of the host counts, on one thread; it bounds a fast GPU.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from benchmark import measure
from benchmark.adapter_systems import PRECISIONS, build, describe, errors, peft, run, time_one
from benchmark.measure import require, spread, summary
from benchmark.worker import Worker, alternate, source_tree, workers
from recyclelora.reproduce.environment import environment

OURS = ("ours, dense", "ours, sparse")
HOST_WIDTH, HOST_CALLS = 16, 10  # width of the layers, and calls timed together


def check(found: dict[str, dict[str, float]], dtype: torch.dtype, what: str) -> None:
    """Raise an error if a system's error is over twice the published layer's in the same dtype."""
    for system, by_name in found.items():
        for name, error in by_name.items():
            limit = 2 * found["published"][name] + torch.finfo(dtype).eps
            require(
                error <= limit,
                f"{what}: {system} is off by {error:.1e} of the largest entry in {name}, more than "
                f"{limit:.1e}",
            )


def time_layer(
    args: argparse.Namespace,
    processes: Mapping[str, Worker],
    name: str,
    rows: int,
    precision: str,
) -> dict:
    """Check and time one layer at one precision, and count its saved bytes."""
    shape, what = args.layers[name], f"{name} {precision} {rows} rows"
    arguments = (shape, rows, precision, str(args.device))
    found = {
        key: process(describe, process.system, *arguments) for key, process in processes.items()
    }
    dtype, autocast_dtype = PRECISIONS[precision]
    check({key: one["errors"] for key, one in found.items()}, autocast_dtype or dtype, what)
    runs = alternate(processes, time_one, *arguments, rounds=1 + args.rounds, what=what)
    systems = {key: {**summary(timed[1:]), **found[key]} for key, timed in runs.items()}
    return {"layer": name, "shape": shape, "systems": systems}


def repeat(call: Callable[[], Any], times: int) -> None:
    """Call a function ``times`` times."""
    for _ in range(times):
        call()


def time_host(args: argparse.Namespace) -> Iterator[dict]:
    """Yield the seconds per call of layers so small that only the host's work counts.

    The host's work is Python and dispatch. All systems alternate in this process, on one thread.
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
        seconds = measure.alternate(calls, rounds=args.host_rounds, device=args.device, what=what)
        systems = {key: spread([s / HOST_CALLS for s in seconds[key]]) for key in modules}
        yield {"precision": precision, "bias": bias, "systems": systems}
    torch.set_num_threads(threads)


def sum_block(layers: list[dict], blocks: int) -> dict[str, dict]:
    """Sum the times of the four layers by round, and compute the ratios to the frozen ones."""
    block = {}
    for name in layers[0]["systems"]:
        parts = [layer["systems"][name] for layer in layers]
        rounds = zip(*(part["seconds"] for part in parts), strict=True)
        block[name] = {
            **spread([sum(seconds) for seconds in rounds]),
            "saved_bytes": blocks * sum(part["saved_bytes"] for part in parts),
            "peak_bytes": max(part["peak_bytes"] for part in parts),
        }
    for times in block.values():
        times["ratio"] = times["median"] / block["frozen"]["median"]
    return block


def time_blocks(args: argparse.Namespace, processes: Mapping[str, Worker]) -> Iterator[dict]:
    """Yield the times of a block for every number of rows and every precision."""
    for rows in args.rows:
        for precision in args.precisions:
            layers = [time_layer(args, processes, name, rows, precision) for name in args.layers]
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
    measure.add_against(parser)
    known = list(PRECISIONS)
    parser.add_argument("--precisions", nargs="+", default=known, choices=PRECISIONS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "adapter")
    args.layers = measure.block_shapes(args.width)
    if peft is None:
        print("peft is not measured; `pip install peft transformers` installs it")
    host = list(time_host(args))
    earlier, names = {}, ["frozen", "published", *["peft"] * bool(peft), *OURS]
    with ExitStack() as stack:
        if args.against:
            cuda = args.device.type == "cuda"
            tree = stack.enter_context(source_tree(args.against, cuda=cuda))
            earlier = {f"{name}, {args.against}": (name, tree) for name in OURS}
        threads = torch.get_num_threads()
        processes = stack.enter_context(workers(names, threads, earlier))
        runs = list(time_blocks(args, processes))
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "left_out": [] if peft else ["peft"],
        "host": host,
        "runs": runs,
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
