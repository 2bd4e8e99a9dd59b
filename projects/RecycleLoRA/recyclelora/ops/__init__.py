"""Operators on plain tensors; they know nothing of modules."""

from .library import cmake_path, include_path, library_path
from .rrqr import RRQR, rrqr

__all__ = ["RRQR", "cmake_path", "include_path", "library_path", "rrqr"]
