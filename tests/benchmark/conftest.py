"""Runs of a benchmark into a temporary folder."""

from ..support.benchmark_runs import run_benchmark, without_processes  # noqa: F401
