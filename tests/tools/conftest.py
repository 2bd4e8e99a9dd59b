"""The tools as modules, and where the benchmarks' results go."""

import importlib

import pytest


@pytest.fixture
def tool_module():
    """``tool_module("predict")``: a command line of tools/ as a module."""
    return lambda name: importlib.import_module(f"tools.{name}")
