"""The benchmarks as modules, and where their results go."""

from ..support.benchmark_runs import benchmark_module, run_benchmark  # noqa: F401
