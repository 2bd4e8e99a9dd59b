"""Atomic writes, validation of input, tensor files and devices, used by all other packages."""
