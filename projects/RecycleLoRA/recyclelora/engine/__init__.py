"""Training and evaluation: parameter groups, schedules, checkpoints and the training loop."""

from .checkpoint import Checkpoints, read_checkpoint, save_checkpoint
from .param_groups import PUBLISHED_RULES, parameter_groups
from .schedules import Poly, PolyWithAnnealedDecay
from .trained import load_trained, save_trained

__all__ = [
    "PUBLISHED_RULES",
    "Checkpoints",
    "Poly",
    "PolyWithAnnealedDecay",
    "load_trained",
    "parameter_groups",
    "read_checkpoint",
    "save_checkpoint",
    "save_trained",
]
