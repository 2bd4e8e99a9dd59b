"""Measurements against other libraries: ``python -m benchmark.NAME``."""
