"""Fixtures of the benchmarks, whose results the README's tables show."""

from ..support.benchmark_runs import benchmark_module, run_benchmark  # noqa: F401
