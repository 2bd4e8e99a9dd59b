"""A pytest fixture that runs a benchmark in a temporary folder."""

import json

import pytest


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
