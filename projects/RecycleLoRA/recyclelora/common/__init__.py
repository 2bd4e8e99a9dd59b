"""Atomic writes, input validation, tensor files and devices, which all other packages use."""
