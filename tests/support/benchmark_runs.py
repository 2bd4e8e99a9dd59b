"""Pytest fixtures that run a benchmark in a temporary folder, with candidates in this process."""

import gc
import json
from contextlib import contextmanager

import pytest
from benchmark import adapter, roofline, rrqr, step


@pytest.fixture
def run_benchmark(tmp_path):
    """``run_benchmark(rrqr, *arguments)``: run the module, check its plot, return its JSON."""

    def run(module, *arguments):
        name = module.__name__.rpartition(".")[2]
        output, plot = tmp_path / f"{name}.json", tmp_path / f"{name}.png"
        module.main([*arguments, "--output", str(output), "--plot", str(plot)])
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, plot.name]
        return json.loads(output.read_text())

    return run


class InThisProcess:
    """Replacement for a :class:`benchmark.worker.Worker`, whose start takes seconds."""

    def __init__(self, system):
        self.system = system

    def __call__(self, function, *arguments):
        return function(*arguments)


@pytest.fixture
def without_processes(monkeypatch):
    """Run candidates in this process, and measure rates on little data."""

    @contextmanager
    def workers(systems, threads, earlier):
        yield {system: InThisProcess(system) for system in systems}

    monkeypatch.setattr(roofline, "SIZE", 64)
    monkeypatch.setattr(roofline, "BYTES", 1 << 16)
    for module in (adapter, rrqr, step):
        monkeypatch.setattr(module, "workers", workers)
    # Every measurement of memory collects garbage, which takes a second with all tests' modules.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
