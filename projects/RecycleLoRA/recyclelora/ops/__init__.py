"""Operators on plain tensors; they know nothing of modules."""

from .dual_lora_linear import dual_lora_linear
from .gather_columns import gather_columns
from .library import cmake_path, include_path, library_path
from .rrqr import RRQR, rrqr

__all__ = [
    "RRQR",
    "cmake_path",
    "dual_lora_linear",
    "gather_columns",
    "include_path",
    "library_path",
    "rrqr",
]
