"""What the benchmarks share: alternating timings, peak memory, the record of what they ran on."""

import argparse
import ctypes
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.devices import pick_device
from recyclelora.common.validation import format_error

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "benchmark"
DOCS = ROOT / "docs"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


class WrongResult(RuntimeError):
    """A benchmarked system computed something wrong: its time means nothing."""


def require(correct: bool, sentence: str) -> None:
    """Raise :class:`WrongResult` with ``sentence`` unless ``correct``."""
    if not correct:
        raise WrongResult(sentence)


def exit_with_sentence(main: Callable[[], None]) -> None:
    """Run ``main``; a wrong result or bad input ends it in one sentence and exit code 1."""
    try:
        main()
    except WrongResult as error:
        sys.exit(f"error: {error}")
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"error: {format_error(error)}")


def count(text: str) -> int:
    """A whole number of at least 1, as the type of a command line's option."""
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1,000,000, got {text}")
    return int(text)


def device(text: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto``, as the type of a command line's option."""
    try:
        return pick_device(text, option="--device")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def seconds_of(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """How long ``call`` takes, on a GPU up to the end of what it launched, and what it returns."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        value = call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3, value
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def alternate(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    device: torch.device,
    what: str,
    warmup: int = 1,
) -> dict[str, list[float]]:
    """Time A B C A B C ..., so that whatever else the machine does meets all of them alike.

    Returns the seconds of each round by name; the ``warmup`` rounds before are not among them.
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
    """All runs, their median and their quartiles, in seconds."""
    low, _, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    )
    return {
        "seconds": list(seconds),
        "median": statistics.median(seconds),
        "quartiles": [low, high],
    }


class PeakMemory:
    """How much memory a piece of work needs beyond what is resident before it.

    Bytes in this process, or on the GPU those that tensors occupy:

    >>> with PeakMemory(torch.device("cpu")) as memory:
    ...     work = torch.ones(10_000_000).double()
    >>> memory.beyond > 100e6 and memory.peak > memory.beyond
    True
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.peak = self.beyond = 0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is no longer resident
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
            self._before = _status("VmRSS")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self.peak = _status("VmHWM")
        self.beyond = self.peak - self._before


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the JSON of a run, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"wrote {path}")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a plot as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    print(f"wrote {path}")


def block_shapes(width: int) -> dict[str, tuple[int, int]]:
    """The linear layers (out, in) of one transformer block."""
    return {
        "qkv": (3 * width, width),
        "proj": (width, width),
        "fc1": (4 * width, width),
        "fc2": (width, 4 * width),
    }


def parser_of(description: str, name: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with ``--device``, ``--rounds``, ``--output``, ``--plot``, as every benchmark has.

    Args:
        description: the module's docstring.
        name: of the files that it writes by default.
        rounds: how often by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=device, default=torch.device("cpu"))
    parser.add_argument(
        "--rounds", type=count, default=rounds, help=f"how often each call is timed ({rounds})"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: results/benchmark/{name}.json, _cuda on a GPU"
    )
    parser.add_argument("--plot", type=Path, help=f"default: docs/benchmark_{name}.png, likewise")
    return parser


def add_crop(parser: argparse.ArgumentParser, default: int) -> None:
    """``--crop``, for the benchmarks that run a whole segmentor."""
    meaning = f"pixels, a multiple of 16 (default: {default})"
    parser.add_argument("--crop", type=count, default=default, help=meaning)


def finish_options(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fill in the files' names; returns the settings for the record."""
    suffix = "_cuda" if args.device.type == "cuda" else ""
    args.output = args.output or RESULTS / f"{name}{suffix}.json"
    args.plot = args.plot or DOCS / f"benchmark_{name}{suffix}.png"
    for file in (args.output, args.plot):  # now, and not after an hour
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise ValueError(f"expected a file to write, got the folder {file}: name a file in it")
    settings = {key: value for key, value in vars(args).items() if key not in ("output", "plot")}
    return {**settings, "device": str(args.device)}
