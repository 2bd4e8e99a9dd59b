"""Fixtures of the benchmarks whose results are in the README's tables."""

from ..support.benchmark_runs import run_benchmark, without_processes  # noqa: F401
