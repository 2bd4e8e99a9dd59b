"""Operators on plain tensors: Python interface, fake kernels, autograd and reference."""

from .dual_lora_linear import dual_lora_linear
from .interruption import StopFlag, is_interruptible, rrqr_progress
from .library import cmake_path, include_path, library_path
from .ms_deform_attn import ms_deform_attn
from .rrqr import RRQR, rrqr

__all__ = [
    "RRQR",
    "StopFlag",
    "cmake_path",
    "dual_lora_linear",
    "include_path",
    "is_interruptible",
    "library_path",
    "ms_deform_attn",
    "rrqr",
    "rrqr_progress",
]
