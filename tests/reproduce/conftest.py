"""The modules of recyclelora.reproduce, and its command line."""

import importlib

import pytest

from ..support.benchmark_runs import benchmark_module, run_benchmark  # noqa: F401


@pytest.fixture
def tool_module():
    """``tool_module("runs")``: the module."""

    def load(name):
        package = "tools" if name == "reproduce" else "recyclelora.reproduce"
        return importlib.import_module(f"{package}.{name}")

    return load
