"""The examples in the docstrings run and print what they say."""

import doctest
import importlib

import pytest
import torch


@pytest.mark.parametrize(
    "module", ["ops.rrqr", "adapters.layer", "adapters.inject", "adapters.state"]
)
def test_examples(module):
    found = importlib.import_module(f"recyclelora.{module}")
    results = doctest.testmod(found, extraglobs={"torch": torch})
    assert results.attempted > 0 and results.failed == 0
