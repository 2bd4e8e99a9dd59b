#!/usr/bin/env python
"""Time the rank-revealing QR of pretrained weights: ours, SciPy's, and what PyTorch has.

    python -m benchmark.rrqr --weights dinov2_vits14_focus

The published code calls SciPy in float32 twice a layer, once for each adapter. Without
``--weights`` the comparison of pivots leaves real weights out. Every pivot of ours is compared with
SciPy's in float64, and one that differs ends the run with an error.
"""

import argparse
import functools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg
import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

import recyclelora
from benchmark import measure
from benchmark.measure import R_MAIN, R_SUB, alternate, block_shapes, require, spread
from recyclelora.backbone import dinov2_vit, load_weights, presets
from recyclelora.engine.memory import PeakMemory
from recyclelora.reproduce.environment import environment

PIVOTING = ("published", "SciPy float32", "SciPy float64", "rrqr")
# Width and blocks of the models whose shapes are timed.
MODELS = {
    name: (size["embed_dim"], size["depth"])
    for name, size in (("DINOv2-L", presets.VIT_L), ("DINOv2-S", presets.VIT_S))
}

# A stack of weights (n, d, k) -> their pivots (n, k), or None where it does not pivot.
Decomposition = Callable[[Tensor], Tensor | None]


def scipy_pivots(weights: Tensor, dtype: type, calls: int = 1) -> Tensor:
    """``scipy.linalg.qr`` of each matrix, ``calls`` times over."""
    pivots = []
    for weight in weights.cpu().numpy():
        matrix = weight.astype(dtype, copy=False)
        for _ in range(calls):
            _, _, perm = scipy.linalg.qr(matrix, mode="economic", pivoting=True)
        pivots.append(perm)
    return torch.from_numpy(np.array(pivots, np.int64))


def systems(device: torch.device) -> dict[str, Decomposition]:
    """Everything that is timed. On a GPU the copies there and back belong to the time."""

    def ours(weights: Tensor) -> Tensor:
        m = min(weights.shape[-2:])
        out = recyclelora.rrqr(weights.to(device), min(R_SUB, m), min(R_MAIN, m))
        perm, *_ = [tensor.cpu() for tensor in out]
        return perm

    def torch_qr(weights: Tensor) -> None:
        [tensor.cpu() for tensor in torch.linalg.qr(weights.to(device))]

    def torch_svd(weights: Tensor) -> None:
        [tensor.cpu() for tensor in torch.linalg.svd(weights.to(device), full_matrices=False)]

    return {
        "published": functools.partial(scipy_pivots, dtype=np.float32, calls=2),
        "SciPy float32": functools.partial(scipy_pivots, dtype=np.float32),
        "SciPy float64": functools.partial(scipy_pivots, dtype=np.float64),
        "torch.linalg.qr": torch_qr,
        "torch.linalg.svd": torch_svd,
        "rrqr": ours,
    }


def gaussian(count: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Weights (count, d, k) with entries of variance 1 / k."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator) / shape[1] ** 0.5


def decaying(count: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Weights (count, d, k) whose singular values fall evenly, in logarithms, from 1 to 1e-6."""
    d, k = shape
    m = min(d, k)
    left = torch.linalg.qr(gaussian(count, (d, m), seed).double()).Q
    right = torch.linalg.qr(gaussian(count, (k, m), seed + 1).double()).Q
    return (left * torch.logspace(0, -6, m, dtype=torch.float64) @ right.mT).float()


def check(weights: Tensor, device: torch.device) -> dict[str, float]:
    """All of Q of one matrix a shape: orthonormal, W P = Q R, R upper triangular, R's diagonal."""
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


def time_shapes(args: argparse.Namespace) -> Iterator[dict]:
    """Seconds a matrix for every layer of every model, in a stack of ``args.matrices``."""
    for name, (width, _) in args.models.items():
        for layer, shape in block_shapes(width).items():
            weights = gaussian(args.matrices, shape, seed=0)
            checked = check(weights[:1], args.device)
            calls = {key: functools.partial(f, weights) for key, f in systems(args.device).items()}
            seconds = alternate(
                calls, rounds=args.rounds, warmup=0, device=args.device, what=f"{name} {layer}"
            )
            times = {
                key: spread([s / args.matrices for s in runs]) for key, runs in seconds.items()
            }
            yield {
                "model": name,
                "layer": layer,
                "shape": shape,
                "check": checked,
                "systems": times,
            }


def time_model(args: argparse.Namespace) -> tuple[dict, dict]:
    """Every matrix of the first model by every system that pivots; and how well pivots agree."""
    name, (width, blocks) = next(iter(args.models.items()))
    stacks = {
        layer: gaussian(blocks, shape, seed=1 + i)
        for i, (layer, shape) in enumerate(block_shapes(width).items())
    }
    pivots: dict[str, list[Tensor]] = {}
    memory: dict[str, int] = {}

    def whole(key: str, decompose: Decomposition) -> None:
        with PeakMemory(args.device) as peak:
            pivots[key] = [decompose(weights) for weights in stacks.values()]
        memory[key] = max(memory.get(key, 0), peak.beyond)

    timed = systems(args.device)
    calls = {key: functools.partial(whole, key, timed[key]) for key in PIVOTING}
    seconds = alternate(
        calls, rounds=args.model_rounds, warmup=0, device=args.device, what=f"all of {name}"
    )
    times = {key: {**spread(runs), "peak_bytes": memory[key]} for key, runs in seconds.items()}
    add_speedups(times)
    weights = f"Gaussian, {name}"
    compared = compare_pivots(weights, pivots, stacks.values())
    matrices = blocks * len(stacks)
    return {"model": name, "width": width, "matrices": matrices, "systems": times}, compared


def add_speedups(times: dict[str, dict]) -> None:
    """How many times faster than the published path each system is."""
    for timed in times.values():
        timed["speedup"] = times["published"]["median"] / timed["median"]


def compare_pivots(weights: str, pivots: dict[str, list[Tensor]], stacks) -> dict:
    """The share of pivots equal to SciPy's in float64: of all, and of those main starts from.

    ``last`` are the positions main takes; ``last as a set`` forgets their order.
    """
    limits = [(min(stack.shape[-2:]), len(stack)) for stack in stacks]
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
    """As above for decaying spectra and for the pretrained weights in ``args.weights``."""
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
        print("no --weights: the pivots of real weights are left out")
    timed = systems(args.device)
    for what, stacks in cases.items():
        pivots = {key: [timed[key](stack) for stack in stacks] for key in PIVOTING}
        yield compare_pivots(what, pivots, stacks)


def time_sizes(args: argparse.Namespace) -> Iterator[dict]:
    """Seconds a matrix for square matrices of growing size, two at a time."""
    for n in args.sizes:
        weights = gaussian(2, (n, n), seed=3)
        calls = {key: functools.partial(f, weights) for key, f in systems(args.device).items()}
        seconds = alternate(
            calls, rounds=args.rounds, warmup=0, device=args.device, what=f"size {n}"
        )
        yield {"n": n, "systems": {key: spread([s / 2 for s in v]) for key, v in seconds.items()}}


def time_threads(args: argparse.Namespace) -> Iterator[dict]:
    """One block of the first model, two matrices a shape, with so many threads."""
    _, (width, _) = next(iter(args.models.items()))
    stacks = [gaussian(2, shape, seed=4) for shape in block_shapes(width).values()]
    timed = systems(args.device)

    def whole(decompose: Decomposition) -> None:
        for stack in stacks:
            decompose(stack)

    calls = {key: functools.partial(whole, timed[key]) for key in PIVOTING}
    before = torch.get_num_threads()
    for threads in args.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads, user_api="blas"):
            seconds = alternate(
                calls, rounds=args.rounds, warmup=0, device=args.device, what=f"{threads} threads"
            )
        times = {key: spread(runs) for key, runs in seconds.items()}
        add_speedups(times)
        yield {"threads": threads, "matrices": 2 * len(stacks), "systems": times}
    torch.set_num_threads(before)


def plot(result: dict) -> Figure:
    """Whole model, scaling in size, scaling in threads."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = list(result["shapes"][0]["systems"])
    colours = dict(zip(names, measure.COLOURS))
    times = [result["model"]["systems"][name]["median"] for name in PIVOTING]
    bars = left.barh(PIVOTING, times, color=[colours[name] for name in PIVOTING])
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
    for name in PIVOTING if result["threads"] else ():
        threads = [str(entry["threads"]) for entry in result["threads"]]
        medians = [entry["systems"][name]["median"] for entry in result["threads"]]
        right.plot(threads, medians, "o-", color=colours[name], label=name)
    right.set(title="two blocks", xlabel="threads", ylabel="seconds", ylim=(0, None))
    middle.legend(fontsize="small")
    figure.suptitle(result["environment"]["machine"], fontsize="small")
    return figure


def model_size(text: str) -> tuple[str, tuple[int, int]]:
    """``NAME`` of MODELS, or ``NAME:WIDTHxBLOCKS``."""
    name, _, size = text.partition(":")
    if not size and name not in MODELS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(MODELS)}")
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
    add("--weights", help="real ViT-S weights: a name such as dinov2_vits14_focus, or a file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run all parts, write the JSON and the plot."""
    args = parse(arguments)
    args.models = dict(args.models)
    settings = measure.finish_options(args, "rrqr")
    for decompose in systems(args.device).values():  # libraries loaded, kernels compiled
        decompose(gaussian(2, (96, 64), seed=0))
    by_shape = list(time_shapes(args))
    model, agreement = time_model(args)
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "shapes": by_shape,
        "model": model,
        "pivots": [agreement, *compare_other_weights(args)],
        "sizes": list(time_sizes(args)),
        "threads": [] if args.device.type == "cuda" else list(time_threads(args)),
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
