"""The benchmarks as modules, and a run of one into a temporary folder: pytest fixtures."""

import importlib
import json

import pytest


@pytest.fixture
def benchmark_module():
    """``benchmark_module("rrqr")``: the module."""
    return lambda name: importlib.import_module(f"benchmark.{name}")


@pytest.fixture
def run_benchmark(benchmark_module, tmp_path):
    """``run_benchmark("rrqr", *arguments)`` -> the JSON that it wrote; the plot is checked."""

    def run(name, *arguments):
        output, plot = tmp_path / f"{name}.json", tmp_path / f"{name}.png"
        files = ["--output", str(output), "--plot", str(plot)]
        benchmark_module(name).main([*arguments, *files])
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, plot.name]
        return json.loads(output.read_text())

    return run
