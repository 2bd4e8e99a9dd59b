"""The parts of ``benchmark.gpu``: their commands, time limits and results."""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch

from benchmark.measure import ROOT
from recyclelora.ops import library

SMALLEST = "benchmark.smallest_cases"


class Skipped(Exception):
    """A part cannot run here; the message is the reason."""


class Command(NamedTuple):
    """The words of a command, and the environment variables that it needs."""

    words: Sequence[str]
    variables: Mapping[str, str] = {}


class Part(NamedTuple):
    """A part of the run.

    ``commands`` returns its commands, or raises :class:`Skipped`. ``details`` returns plain values
    for ``summary.json``; a true value of ``failed`` makes the part fail.
    """

    name: str
    seconds: int
    commands: Callable[[argparse.Namespace], Sequence[Command]]
    details: Callable[[argparse.Namespace], Mapping[str, Any]] = lambda args: {}


def capability(device: torch.device) -> str:
    """Return the architecture of a GPU as in TORCH_CUDA_ARCH_LIST, such as "9.0"."""
    return "{}.{}".format(*torch.cuda.get_device_capability(device))


def is_built(device: torch.device) -> bool:
    """Return whether the library is newer than its sources and runs on this device and torch."""
    built = library.library_path()
    if not built.is_file():
        return False
    sources = [path for path in (ROOT / "csrc").rglob("*.*") if path.suffix != ".md"]
    info = library.build_info()
    newest = max(path.stat().st_mtime for path in (*sources, ROOT / "setup.py"))
    current = built.stat().st_mtime >= newest
    if not current or library.built_for_another(info):
        return False
    return device.type == "cpu" or capability(device) in re.findall(
        r"\d+\.\d+", info["architectures"]
    )


def build(args: argparse.Namespace) -> list[Command]:
    """Build the extension in place, on a GPU for its architecture alone."""
    if is_built(args.device):
        info = library.build_info()
        raise Skipped(f"the extension is built already, for CUDA {info['architectures']}")
    variables = {"RECYCLELORA_NO_CUDA": "1"}
    if args.device.type == "cuda":
        variables = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": capability(args.device)}
    return [Command([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], variables)]


def report(args: argparse.Namespace) -> Path:
    """Return the file in which pytest reports the tests."""
    return args.output / "tests.xml"


def tests(args: argparse.Namespace) -> list[Command]:
    """Run the tests that need a GPU; only the files that have some are imported."""
    report(args).unlink(missing_ok=True)
    files = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.gpu" in path.read_text(encoding="utf-8")
    )
    options = ["-q", "-m", "gpu", "--continue-on-collection-errors", f"--junitxml={report(args)}"]
    return [Command([sys.executable, "-m", "pytest", *options, *files])]


def count_tests(args: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers of tests. On a GPU, a run in which no test passes is a failure."""
    (suite,) = ElementTree.parse(report(args)).getroot().iter("testsuite")
    found = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
    passed = found["tests"] - found["failures"] - found["errors"] - found["skipped"]
    on_gpu = args.device.type == "cuda"
    return {**found, "passed": passed, "failed": on_gpu and passed == 0}


def sanitizer(args: argparse.Namespace) -> list[Command]:
    """Run the smallest cases under compute-sanitizer, which finds invalid accesses and races.

    Without PyTorch's cache every tensor is an allocation of its own, so that an access beyond its
    end is found.
    """
    cases = [sys.executable, "-m", SMALLEST, "--device", str(args.device)]
    if args.device.type == "cpu":
        return [Command(cases)]
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if tool is None:
        raise Skipped("compute-sanitizer is not installed; it is a part of the CUDA toolkit")
    variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    checks = ("memcheck", "racecheck")
    return [
        Command([tool, "--tool", check, "--error-exitcode", "1", *cases], variables)
        for check in checks
    ]


def benchmark(
    name: str, module: str, real: Sequence[str], tiny: Sequence[str], seconds: int
) -> Part:
    """Return the part of a benchmark, with its options for a real and for a tiny run."""

    def commands(args: argparse.Namespace) -> list[Command]:
        files = [f"--output={args.output / name}.json", f"--plot={args.output / name}.png"]
        options = tiny if args.tiny else real
        words = [sys.executable, "-m", f"benchmark.{module}", "--device", str(args.device)]
        # The log line counts the matrices that a GPU gives to the CPU.
        return [Command([*words, *options, *files], {"TORCH_CPP_LOG_LEVEL": "INFO"})]

    return Part(name, seconds, commands)


def training_input(args: argparse.Namespace) -> list[Command]:
    """Read training samples on one core, from enlarged drawn streets instead of photographs."""
    streets = ROOT / "build" / "gpu_streets"
    draw = ["tools/draw_streets.py", str(streets), "--count", "2", "--workers", "1"]
    size = ["--height", "256", "--width", "512"]
    options = ["--kinds", "GTAV", "BDD100K", "--images", "1", "--rounds", "3"]
    if args.tiny:
        options = ["--kinds", "BDD100K", "--images", "1", "--rounds", "1", "--samples", "1"]
    measured = benchmark("input", "input", [*options, "--photos", str(streets)], [], 0)
    on_cpu = argparse.Namespace(output=args.output, tiny=False, device="cpu")
    return [Command([sys.executable, *draw, *size]), *measured.commands(on_cpu)]


def only_real(part: Part) -> Part:
    """Return a part that a tiny run leaves out, because another part tests the same code."""

    def commands(args: argparse.Namespace) -> Sequence[Command]:
        if args.tiny:
            raise Skipped("left out of tiny runs")
        return part.commands(args)

    return part._replace(commands=commands)


LARGE = ["--backbone", "dinov2_l", "--head", "full", "--crop", "512", "--batch", "4"]
SMALL = ["--backbone", "tiny", "--head", "tiny", "--crop", "64", "--batch", "2"]
STREETS = ["--images", "2", "--height", "96", "--width", "160", "--iterations", "2"]
HOST = ["--width", "48", "--rows", "20", "--rounds", "1", "--host-rounds", "1"]
BOTH = ["bfloat16", "float32"]
# Seconds: 530 in total, so that the whole run ends within nine minutes.
PARTS = {
    part.name: part
    for part in (
        Part("build", 150, build),
        Part("tests", 45, tests, count_tests),
        Part("sanitizer", 30, sanitizer),
        benchmark("rrqr", "whole_model", [], ["--width", "32", "--blocks", "1"], 35),
        benchmark(
            "adapter", "adapter", ["--precisions", *BOTH],
            [*HOST, "--precisions", "bfloat16"], 40,
        ),
        benchmark(
            "step_bfloat16", "step", [*LARGE, "--precisions", "bfloat16"],
            [*SMALL, "--rounds", "2", "--precisions", "bfloat16"], 60,
        ),
        benchmark(
            "evaluation", "evaluation_rate", [],
            ["--backbone", "tiny", "--head", "tiny", "--images", "2", "--height", "64"], 25,
        ),
        benchmark("training", "training", [*LARGE], [*SMALL, *STREETS], 30),
        Part("input", 20, training_input),
        only_real(
            benchmark("step_float32", "step", [*LARGE, "--precisions", "float32"], [], 50)
        ),
        benchmark(
            "compiled", "training", [*LARGE, "--compile"], [*SMALL, *STREETS, "--compile"], 45
        ),
    )
}  # fmt: skip
