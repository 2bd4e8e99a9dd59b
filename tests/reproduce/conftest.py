"""Fixtures of the benchmarks, whose results the README's tables show."""

from ..support.benchmark_runs import run_benchmark, without_processes  # noqa: F401
