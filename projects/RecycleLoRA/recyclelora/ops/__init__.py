"""Operators on plain tensors; they know nothing of modules."""

from .rrqr import RRQR, rrqr

__all__ = ["RRQR", "rrqr"]
