"""The benchmarks as modules, and where their results go."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "tools" / "benchmark"


@pytest.fixture
def benchmark_module(monkeypatch):
    """``benchmark_module("rrqr")``: the module; it finds its neighbours as a script does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


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
