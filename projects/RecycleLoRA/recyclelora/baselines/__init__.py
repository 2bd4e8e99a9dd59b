"""What the paper compares with, on the same code: each made of a backbone, as by ``adapt``.

The frozen backbone, LoRA and PiSSA are ``adapt`` itself, with other settings.
"""

from .dora import DoRALinear, dora
from .full import fine_tune
from .rein import Rein
from .soma import SplitProjection, soma

__all__ = ["DoRALinear", "Rein", "SplitProjection", "dora", "fine_tune", "soma"]
