"""A run of a benchmark into a temporary folder."""

from ..support.benchmark_runs import run_benchmark  # noqa: F401
