"""Procedural streets: drawn scenes with pixel-exact labels of the 19 Cityscapes classes."""

from .dataset import streets_in, write_streets
from .domains import DOMAINS, Domain
from .generate import GENERATOR_VERSION, draw_street

__all__ = ["DOMAINS", "GENERATOR_VERSION", "Domain", "draw_street", "streets_in", "write_streets"]
