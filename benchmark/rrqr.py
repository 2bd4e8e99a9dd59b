#!/usr/bin/env python
"""Time the rank-revealing QR of pretrained weights: ours, SciPy's, MKL's, and what PyTorch has.

    python -m benchmark.rrqr --weights dinov2_vits14_focus

The published code calls SciPy in float32 twice a layer, once for each adapter. Every candidate runs
in a process of its own, with the same number of pinned threads, and the candidates alternate. SciPy
and Intel MKL (`pip install mkl`) decompose one matrix per thread, as ours does; "published" leaves
the threads to its BLAS, as the published code does. Without ``--weights`` the comparison of pivots
leaves real weights out. Every pivot of ours is compared with SciPy's in float64, and one that
differs ends the run with an error. ``--against REV`` adds the operator of an earlier commit.
``roofline`` compares one thread with what its products and its memory allow.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import recyclelora
from benchmark import measure
from benchmark.decompositions import gaussian, systems, time_one
from benchmark.measure import R_MAIN, block_shapes, require, spread, summary
from benchmark.roofline import limit, rates
from benchmark.worker import Timed, Worker, alternate, source_tree, workers
from recyclelora.backbone import dinov2_vit, load_weights, presets
from recyclelora.reproduce.environment import environment

# Candidates that do not pivot have no pivots to compare, and "rrqr, REV" is only timed.
NOT_PIVOTING = ("torch.linalg.qr", "torch.linalg.svd")
COMPARED = ("published", "SciPy float64", "rrqr")
# The width and the number of blocks of the models whose shapes are timed.
MODELS = {
    name: (size["embed_dim"], size["depth"])
    for name, size in (("DINOv2-L", presets.VIT_L), ("DINOv2-S", presets.VIT_S))
}


def decaying(count: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Return weights (count, d, k) with singular values from 1 to 1e-6, evenly in logarithms."""
    d, k = shape
    m = min(d, k)
    left = torch.linalg.qr(gaussian(count, (d, m), seed).double()).Q
    right = torch.linalg.qr(gaussian(count, (k, m), seed + 1).double()).Q
    return (left * torch.logspace(0, -6, m, dtype=torch.float64) @ right.mT).float()


def check(weights: Tensor, device: torch.device) -> dict[str, float]:
    """Check the full Q of one matrix per shape: orthonormal, W P = Q R, R triangular, diagonal."""
    worst = {"orthonormality": 0.0, "reconstruction": 0.0}
    for weight in weights:
        m = min(weight.shape)
        out = [tensor.cpu() for tensor in recyclelora.rrqr(weight.to(device), m, m)]
        perm, q, r_diag = out[0], out[1].double(), out[3].double()
        permuted = weight.double()[:, perm]
        r = (q.T @ permuted).triu()
        diagonal = r.diagonal()
        scale = float(weight.abs().max())
        orthonormality = float((q.T @ q - torch.eye(m, dtype=torch.float64)).abs().max())
        reconstruction = float((permuted - q @ r).abs().max()) / scale
        shape = tuple(weight.shape)
        require(orthonormality < 1e-6, f"Q of {shape}: Q'Q differs from I by {orthonormality:.1e}")
        require(reconstruction < 1e-5, f"{shape}: W P differs from Q R by {reconstruction:.1e}")
        require(
            float((diagonal - r_diag).abs().max()) < 1e-5 * float(r_diag.max())
            and bool((r_diag >= 0).all()),
            f"{shape}: r_diag is not the non-negative diagonal of R",
        )
        worst["orthonormality"] = max(worst["orthonormality"], orthonormality)
        worst["reconstruction"] = max(worst["reconstruction"], reconstruction)
    return worst


def time_shapes(args: argparse.Namespace, processes: Mapping[str, Worker]) -> Iterator[dict]:
    """Yield the seconds per matrix for every layer of every model, in stacks of ``matrices``."""
    for name, (width, _) in args.models.items():
        for layer, shape in block_shapes(width).items():
            checked = check(gaussian(1, shape, seed=0), args.device)
            stack = (args.matrices, shape, 0, str(args.device))
            runs = alternate(
                processes, time_one, *stack, rounds=args.rounds, what=f"{name} {layer}"
            )
            times = {key: summary(timed, args.matrices) for key, timed in runs.items()}
            yield {
                "model": name,
                "layer": layer,
                "shape": shape,
                "check": checked,
                "systems": times,
            }


def pivoting(processes: Mapping[str, Worker]) -> dict[str, Worker]:
    """Return the candidates that pivot."""
    return {name: process for name, process in processes.items() if name not in NOT_PIVOTING}


def sum_stacks(parts: Sequence[Mapping[str, list[Timed]]]) -> dict[str, dict]:
    """Sum the seconds of all stacks by round, and find the largest peak memory."""
    times = {}
    for name in parts[0]:
        rounds = zip(*(part[name] for part in parts), strict=True)
        seconds = [sum(run.seconds for run in stacks) for stacks in rounds]
        peak = max(run.peak_bytes for part in parts for run in part[name])
        times[name] = {**spread(seconds), "peak_bytes": peak}
    add_speedups(times)
    return times


def time_model(args: argparse.Namespace, processes: Mapping[str, Worker]) -> tuple[dict, dict]:
    """Time every matrix of the first model by every pivoting system, and compare the pivots."""
    name, (width, blocks) = next(iter(args.models.items()))
    shapes = list(block_shapes(width).values())
    parts = [
        alternate(
            pivoting(processes), time_one, blocks, shape, 1 + i, str(args.device),
            rounds=args.model_rounds, what=f"all of {name}, {shape}",
        )
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    times = sum_stacks(parts)
    pivots = {key: [part[key][-1].value for part in parts] for key in COMPARED if key in parts[0]}
    compared = compare_pivots(f"Gaussian, {name}", pivots, [(blocks, *shape) for shape in shapes])
    matrices = blocks * len(shapes)
    return {"model": name, "width": width, "matrices": matrices, "systems": times}, compared


def add_speedups(times: dict[str, dict]) -> None:
    """Add the speedup of each system relative to the published code."""
    for timed in times.values():
        timed["speedup"] = times["published"]["median"] / timed["median"]


def compare_pivots(
    weights: str, pivots: Mapping[str, list[Tensor]], shapes: Sequence[tuple[int, int, int]]
) -> dict:
    """Return the share of pivots equal to SciPy's in float64: all, and those of the main adapter.

    ``last`` are the positions of the main adapter. ``last as a set`` ignores their order.
    """
    limits = [(min(d, k), count) for count, d, k in shapes]
    exact = pivots["SciPy float64"]
    shares = {}
    for system in ("published", "rrqr"):
        equal, last, members = [], [], []
        for mine, reference, (m, _) in zip(pivots[system], exact, limits, strict=True):
            same = mine[:, :m] == reference[:, :m]
            tail = slice(max(m - R_MAIN, 0), m)
            equal.append(same.flatten())
            last.append(same[:, tail].flatten())
            pairs = zip(mine[:, tail].tolist(), reference[:, tail].tolist(), strict=True)
            members += [len(set(a) & set(b)) / len(a) for a, b in pairs]
        shares[system] = {
            "all": float(torch.cat(equal).float().mean()),
            "last": float(torch.cat(last).float().mean()),
            "last as a set": sum(members) / len(members),
        }
    require(
        shares["rrqr"]["all"] == 1.0,
        f"{weights}: a share of {1 - shares['rrqr']['all']:.1e} of rrqr's pivots is not that of "
        "SciPy in float64",
    )
    return {"weights": weights, "matrices": sum(count for _, count in limits), **shares}


def compare_other_weights(args: argparse.Namespace) -> Iterator[dict]:
    """Compare pivots for decaying spectra and for the pretrained weights in ``args.weights``."""
    name, (width, _) = next(iter(args.models.items()))
    cases = {
        f"singular values 1 to 1e-6, {name}": [
            decaying(1, shape, seed=9) for shape in block_shapes(width).values()
        ]
    }
    if args.weights:
        backbone = load_weights(dinov2_vit("s"), args.weights)
        linears = [m for m in backbone.modules() if isinstance(m, nn.Linear)]
        cases[args.weights] = [linear.weight.detach()[None] for linear in linears]
    else:
        print("without --weights, the pivots of real weights are not compared")
    decompositions = systems(args.device)
    for what, stacks in cases.items():
        pivots = {key: [decompositions[key](stack) for stack in stacks] for key in COMPARED}
        yield compare_pivots(what, pivots, [tuple(stack.shape) for stack in stacks])


def time_sizes(args: argparse.Namespace, processes: Mapping[str, Worker]) -> Iterator[dict]:
    """Yield the seconds per matrix for pairs of square matrices of increasing size."""
    for n in args.sizes:
        stack = (2, (n, n), 3, str(args.device))
        runs = alternate(processes, time_one, *stack, rounds=args.rounds, what=f"size {n}")
        yield {"n": n, "systems": {key: summary(timed, 2) for key, timed in runs.items()}}


def time_threads(
    args: argparse.Namespace, earlier: Mapping[str, tuple[str, Path]]
) -> Iterator[dict]:
    """Yield the times of one block of the first model, two matrices per shape, by threads."""
    _, (width, _) = next(iter(args.models.items()))
    shapes = list(block_shapes(width).values())
    names = [name for name in args.systems if name not in NOT_PIVOTING]
    for threads in args.threads:
        with workers(names, threads, earlier) as processes:
            parts = [
                alternate(
                    processes, time_one, 2, shape, 4, str(args.device),
                    rounds=args.rounds, what=f"threads: {threads}, {shape}",
                )
                for shape in shapes
            ]  # fmt: skip
        yield {"threads": threads, "matrices": 2 * len(shapes), "systems": sum_stacks(parts)}


def roofline(args: argparse.Namespace) -> dict:
    """Compare the time of one thread with the limit of its rates, for one matrix of each layer."""
    _, (width, _) = next(iter(args.models.items()))
    layers = []
    with workers(["published", "rrqr"], 1, {}) as processes:
        found = processes["rrqr"](rates, "rrqr", args.rounds)
        for layer, shape in block_shapes(width).items():
            runs = alternate(
                processes,
                time_one,
                1,
                shape,
                5,
                "cpu",
                rounds=args.rounds,
                what=f"limit of {layer}",
            )
            times = {name: summary(timed) for name, timed in runs.items()}
            layers.append({"layer": layer, "shape": shape, "limit": limit(shape, found), **times})
    block = {
        "limit": sum(one["limit"] for one in layers),
        **{name: sum(one[name]["median"] for one in layers) for name in ("published", "rrqr")},
    }
    return {"rates": found, "layers": layers, "block": block}


def plot(result: dict) -> Figure:
    """Draw the times of the whole model, by size and by threads."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = list(result["shapes"][0]["systems"])
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    pivoting = list(result["model"]["systems"])
    times = [result["model"]["systems"][name]["median"] for name in pivoting]
    bars = left.barh(pivoting, times, color=[colours[name] for name in pivoting])
    left.bar_label(bars, fmt=" %.3g s")
    left.invert_yaxis()
    left.set(title=f"{result['model']['model']}, {result['model']['matrices']} matrices")
    left.set(xlabel="seconds", xlim=(0, 1.25 * max(times)))
    for name in names:
        sizes = [entry["n"] for entry in result["sizes"]]
        medians = [entry["systems"][name]["median"] for entry in result["sizes"]]
        middle.loglog(sizes, medians, "o-", color=colours[name], label=name)
    middle.set_xticks(sizes, sizes)
    middle.minorticks_off()
    middle.set(title="one n x n matrix of two", xlabel="n", ylabel="seconds")
    for name in pivoting if result["threads"] else ():
        threads = [str(entry["threads"]) for entry in result["threads"]]
        medians = [entry["systems"][name]["median"] for entry in result["threads"]]
        right.plot(threads, medians, "o-", color=colours[name], label=name)
    right.set(title="two blocks", xlabel="threads", ylabel="seconds", ylim=(0, None))
    figure.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(result["environment"]["machine"], fontsize="small")
    return figure


def model_size(text: str) -> tuple[str, tuple[int, int]]:
    """Parse ``NAME`` in MODELS, or ``NAME:WIDTHxBLOCKS``."""
    name, _, size = text.partition(":")
    if not size and name not in MODELS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(MODELS)}, got {name}")
    width, _, blocks = size.partition("x")
    return name, (int(width), int(blocks)) if size else MODELS[name]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "rrqr", rounds=3)
    add = parser.add_argument
    add("--models", type=model_size, nargs="+", default=list(MODELS.items()), metavar="NAME",
        help="a name, or NAME:WIDTHxBLOCKS; the first is decomposed whole")  # fmt: skip
    measure.add_count(parser, "--matrices", 2, "of each shape")
    measure.add_count(parser, "--model-rounds", 2, "how often the whole model is decomposed")
    measure.add_count(parser, "--sizes", [256, 512, 1024, 2048], "of square matrices", nargs="+")
    measure.add_count(parser, "--threads", [1, 2], "for one block", nargs="+")
    add("--systems", nargs="+", metavar="NAME", choices=list(systems(torch.device("cpu"))),
        help="candidates to time; published, SciPy float64 and rrqr always are")  # fmt: skip
    measure.add_against(parser)
    add("--weights", help="real ViT-S weights: a name such as dinov2_vits14_focus, or a file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run all parts, and write the JSON and the plot."""
    args = parse(arguments)
    args.models = dict(args.models)
    known = list(systems(args.device))
    chosen = {*(args.systems or known), *COMPARED}
    args.systems = [name for name in known if name in chosen]
    settings = measure.finish_options(args, "rrqr")
    left_out = [name for name in ("MKL float32", "MKL float64") if name not in known]
    if left_out:
        print("MKL is not measured; `pip install mkl` installs it")
    with ExitStack() as stack:
        earlier = {}
        if args.against:
            tree = stack.enter_context(source_tree(args.against, cuda=args.device.type == "cuda"))
            earlier = {f"rrqr, {args.against}": ("rrqr", tree)}
        processes = stack.enter_context(workers(args.systems, torch.get_num_threads(), earlier))
        # This first call loads libraries and compiles kernels.
        stack_of_two = (2, (96, 64), 0, str(args.device))
        alternate(processes, time_one, *stack_of_two, rounds=1, what="warm-up")
        by_shape = list(time_shapes(args, processes))
        model, agreement = time_model(args, processes)
        result = {
            "environment": environment(args.device),
            "settings": settings,
            "left_out": left_out,
            "shapes": by_shape,
            "model": model,
            "pivots": [agreement, *compare_other_weights(args)],
            "sizes": list(time_sizes(args, processes)),
            "roofline": None if args.device.type == "cuda" else roofline(args),
            "threads": [] if args.device.type == "cuda" else list(time_threads(args, earlier)),
        }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
