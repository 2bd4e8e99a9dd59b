"""The methods to which the paper compares; each is a function of a backbone, like ``adapt``.

The frozen backbone, LoRA and PiSSA are settings of ``adapt``.

To add a baseline NAME, write ``baselines/NAME.py`` with a function (or module) that takes a
backbone, export it here, and set ``model.backbone`` to it in ``configs/NAME_dinov2l_g2cbm.py``. No
other code changes. If the paper's tables have a row for it, ``reproduce/published.json`` names its
config.
"""

from .dora import DoRALinear, dora
from .full import fine_tune
from .rein import Rein
from .soma import SplitProjection, soma

__all__ = ["DoRALinear", "Rein", "SplitProjection", "dora", "fine_tune", "soma"]
