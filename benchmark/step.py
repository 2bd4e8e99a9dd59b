#!/usr/bin/env python
"""Time a whole training step of the segmentor: ours against Hugging Face's with peft.

    python -m benchmark.step
    python -m benchmark.step --device cuda --backbone dinov2_l --head full --crop 512

Both get the same backbone weights, the same drawn streets, heads of the same size and AdamW. Every
system runs in a process of its own, with the same number of pinned threads, and the systems
alternate. Before the timing, the backbones must give the same features and the heads must have as
many parameters. After it, every loss must be finite and lower than at the start. The memory of each
system is measured in another process.
"""

import argparse
from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmark import measure, segmentor
from benchmark.measure import require, spread
from benchmark.step_systems import BASELINE, SYSTEMS, Settings, describe, memory, time_step
from benchmark.worker import Worker, alternate, workers
from recyclelora.reproduce.environment import environment

WARMUP = 2  # steps of each system that are not timed


def check(found: dict[str, dict]) -> None:
    """Compare features, head sizes and numbers of adapter parameters with the expected ones."""
    reference = found[BASELINE]
    for name, system in found.items():
        counts, adapters = system["trained"], system["adapters"]
        require(
            counts["adapters"] == adapters and adapters > 0,
            f"{name} trains {counts['adapters']:,} adapter parameters, not {adapters:,}",
        )
        require(
            counts["head"] == reference["trained"]["head"],
            f"the head of {name} has {counts['head']:,} parameters, that of {BASELINE} "
            f"{reference['trained']['head']:,}",
        )
        for mine, theirs in zip(system["features"], reference["features"], strict=True):
            error = float((mine - theirs).abs().max() / theirs.abs().max())
            require(error < 1e-3, f"the features of {name} are off by {error:.1e}")


def check_losses(losses: dict[str, list[float]], precision: str) -> None:
    """Raise an error unless all losses are finite and the last ones are lower than the first."""
    for name, values in losses.items():
        measure.require_finite(values, f"{name} in {precision}")
        require(
            min(values[-2:]) < values[0],
            f"the loss of {name} in {precision} does not fall: {values[0]:.2f}, ..., "
            f"{values[-1]:.2f}",
        )


def time_precision(
    args: argparse.Namespace, processes: Mapping[str, Worker], precision: str
) -> dict:
    """Check, time and measure the systems of the processes at one precision."""
    print(f"{precision}: building and checking {len(processes)} systems", flush=True)
    arguments = (Settings(*(getattr(args, name) for name in Settings._fields)), precision)
    found = {
        name: process(describe, process.system, *arguments) for name, process in processes.items()
    }
    check(found)
    runs = alternate(
        processes, time_step, *arguments, rounds=WARMUP + args.rounds, what=f"{precision} steps"
    )
    losses = {name: [run.value for run in timed] for name, timed in runs.items()}
    check_losses(losses, precision)
    systems = {}
    for name in tqdm(processes, desc=f"{precision} memory", unit="system"):
        systems[name] = {
            **spread([run.seconds for run in runs[name][WARMUP:]]),
            **measure.in_new_process(memory, name, *arguments),
            "trained": found[name]["trained"],
            "losses": losses[name],
        }
    for system in systems.values():
        system["speedup"] = systems[BASELINE]["median"] / system["median"]
    return {"precision": precision, "systems": systems}


def plot(result: dict) -> Figure:
    """Draw the time and the memory of a step."""
    settings, runs = result["settings"], result["runs"]
    title = (
        f"{settings['backbone']}, head {settings['head']}, {settings['batch']} x "
        f"{settings['crop']} x {settings['crop']} pixels; {result['environment']['machine']}"
    )
    panels = (("median", 1, "seconds a step"), ("peak_bytes", 1e9, "peak memory, GB"))
    labels = [run["precision"] for run in runs]
    return measure.plot_bars([run["systems"] for run in runs], labels, panels, title)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "step", rounds=7)
    parser.add_argument("--backbone", choices=segmentor.BACKBONES, default="dinov2_s")
    segmentor.add_segmentor_options(parser, head="demo", crop=256)
    measure.add_count(parser, "--batch", 4, "images")
    known = segmentor.PRECISIONS
    parser.add_argument("--precisions", nargs="+", choices=known, default=list(known))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Time every precision, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "step")
    measure.require_packages()
    with workers(SYSTEMS, torch.get_num_threads(), {}) as processes:
        runs = [time_precision(args, processes, precision) for precision in args.precisions]
    result = {"environment": environment(args.device), "settings": settings, "runs": runs}
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
