"""Functions that all benchmarks share: alternating timings, peak memory, options and results."""

import argparse
import importlib.util
import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmark.worker import Timed, seconds_of
from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.command_line import INTERRUPTED, path_argument, tolerate_any_text
from recyclelora.common.devices import pick_device
from recyclelora.common.validation import format_error

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "benchmark"
DOCS = ROOT / "docs"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
R_MAIN, R_SUB = 32, 4  # the ranks of the paper


class WrongResult(RuntimeError):
    """A benchmarked system computed a wrong result, so its time is meaningless."""


def require(correct: bool, sentence: str) -> None:
    """Raise :class:`WrongResult` with a message unless a condition holds."""
    if not correct:
        raise WrongResult(sentence)


def require_finite(losses: Sequence[float], name: str) -> None:
    """Raise :class:`WrongResult` unless all losses are finite."""
    finite = all(map(math.isfinite, losses))
    require(finite, f"a loss of {name} is not finite: {losses}")


def require_packages() -> None:
    """Raise an error if a package of the Hugging Face baseline is missing."""
    for package in ("peft", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"{package} is missing: `pip install peft transformers` installs it")


def exit_with_sentence(main: Callable[[], None]) -> None:
    """Run ``main``; print one line after a wrong result, invalid input or Ctrl-C (code 130)."""
    tolerate_any_text()
    try:
        main()
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except WrongResult as error:
        sys.exit(f"error: {error}")
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"error: {format_error(error)}")


def count(text: str) -> int:
    """Parse an integer of at least 1; used as ``type`` of an option."""
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1,000,000, got {text}")
    return int(text)


def device(text: str) -> torch.device:
    """Parse ``cpu``, ``cuda``, ``cuda:N`` or ``auto``; used as ``type`` of an option."""
    try:
        return pick_device(text, option="--device")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def alternate(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    device: torch.device,
    what: str,
    warmup: int = 1,
) -> dict[str, list[float]]:
    """Time calls in the order A B C A B C ..., so that other load affects all of them equally.

    Parameters
    ----------
    calls : Mapping[str, Callable]
        The calls to time, by name.
    rounds : int
        The number of times that each call is timed.
    device : torch.device
        The device. On a GPU, the time includes the kernels that a call launches.
    what : str
        The label of the progress bar.
    warmup : int
        The number of rounds that run first without being timed.

    Returns
    -------
    dict[str, list[float]]
        The seconds of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with tqdm(total=(warmup + rounds) * len(calls), desc=what, unit="call", delay=1) as bar:
        for i in range(warmup + rounds):
            for name, call in calls.items():
                elapsed, _ = seconds_of(call, device)
                if i >= warmup:
                    seconds[name].append(elapsed)
                bar.update()
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return all times with their median and quartiles, in seconds."""
    low, _, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    )
    return {
        "seconds": list(seconds),
        "median": statistics.median(seconds),
        "quartiles": [low, high],
    }


def summary(runs: Sequence[Timed], parts: int = 1) -> dict[str, Any]:
    """Return the seconds of runs, divided by the number of equal parts, and their peak memory."""
    seconds = spread([run.seconds / parts for run in runs])
    return {**seconds, "peak_bytes": max(run.peak_bytes for run in runs)}


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function`` in a new process with the same number of threads, and return its value."""
    with ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(torch.get_num_threads(),),
    ) as process:
        return process.submit(function, *arguments).result()


def write_results(args: argparse.Namespace, result: Mapping[str, Any], figure: Figure) -> None:
    """Write a result as JSON and its plot as PNG, each atomically."""
    with atomic_write(args.output) as temporary:
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(args.plot) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    print(f"wrote {args.output}\nwrote {args.plot}")


def plot_bars(
    runs: Sequence[Mapping[str, Mapping[str, float]]],
    labels: Sequence[str],
    panels: Sequence[tuple[str, float, str]],
    title: str,
) -> Figure:
    """Draw one group of bars for each run, with one bar for each system.

    Parameters
    ----------
    runs : sequence of mappings
        The values of each system, by name.
    labels : sequence of str
        The label of each run.
    panels : sequence of (key, unit, label)
        For each panel, the key of its value, the divisor of the value, and the label of its axis.
    title : str
        The title of the figure.

    Returns
    -------
    Figure
        The figure.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    names = list(runs[0])
    width = 0.8 / len(names)
    for axes, (key, unit, label) in zip(figure.subplots(1, len(panels)), panels):
        for i, name in enumerate(names):
            places = [j + i * width for j in range(len(runs))]
            heights = [run[name][key] / unit for run in runs]
            axes.bar(places, heights, width, color=COLOURS[i], label=name)
        axes.set_xticks([j + 0.4 - width / 2 for j in range(len(runs))], labels, fontsize="small")
        axes.set_ylabel(label)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize="small")
    figure.suptitle(title, fontsize="small")
    return figure


def block_shapes(width: int) -> dict[str, tuple[int, int]]:
    """Return the shapes (out, in) of the linear layers of one transformer block."""
    return {
        "qkv": (3 * width, width),
        "proj": (width, width),
        "fc1": (4 * width, width),
        "fc2": (width, 4 * width),
    }


def parser_of(description: str, name: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark.

    Parameters
    ----------
    description : str
        The docstring of the module.
    name : str
        The default name of the output files.
    rounds : int
        The default number of times that each call is timed.

    Returns
    -------
    argparse.ArgumentParser
        The parser.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=device, default=torch.device("cpu"))
    add_count(parser, "--rounds", rounds, "how often each call is timed")
    parser.add_argument(
        "--output",
        type=path_argument,
        help=f"default: results/benchmark/{name}.json, _cuda on a GPU",
    )
    parser.add_argument(
        "--plot", type=path_argument, help=f"default: docs/benchmark_{name}.png, likewise"
    )
    return parser


def add_count(
    parser: argparse.ArgumentParser,
    option: str,
    default: int | Sequence[int],
    meaning: str,
    **keywords: Any,
) -> None:
    """Add an option that takes one or several integers of at least 1."""
    values = default if isinstance(default, int) else " ".join(map(str, default))
    meaning = f"{meaning} (default: {values})"
    parser.add_argument(option, type=count, default=default, help=meaning, **keywords)


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the option that compares with an earlier commit."""
    parser.add_argument("--against", metavar="REV", help="an earlier commit, which is timed too")


def finish_options(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Set the default names of the files, and return the settings to record in the result."""
    suffix = "_cuda" if args.device.type == "cuda" else ""
    args.output = args.output or RESULTS / f"{name}{suffix}.json"
    args.plot = args.plot or DOCS / f"benchmark_{name}{suffix}.png"
    for file in (args.output, args.plot):  # fail before the measurement, not after it
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise ValueError(f"expected a file to write, got the folder {file}: name a file in it")
    settings = {key: value for key, value in vars(args).items() if key not in ("output", "plot")}
    return {**settings, "device": str(args.device)}
