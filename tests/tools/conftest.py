"""The tools as modules, and where the benchmarks' results go."""

import importlib
import json
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool_module(monkeypatch):
    """``tool_module("reproduce")``: the module; it finds its neighbours as a script does."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def benchmark_module(monkeypatch):
    """``benchmark_module("rrqr")``, likewise."""
    monkeypatch.syspath_prepend(str(TOOLS / "benchmark"))
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
