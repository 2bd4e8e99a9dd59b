"""Atomic writes, validation of input, tensor files and devices: what every floor uses."""
