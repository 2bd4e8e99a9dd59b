"""Export of models: `Segmentor`, LoRA folders of peft, and backbones for other ViT libraries.

The function that merges adapters into a plain model is :func:`recyclelora.adapters.export`.
"""

import importlib
from typing import Any

from .peft_folder import save_peft
from .peft_init import init_peft

__all__ = ["Segmentation", "Segmentor", "export_backbone", "init_peft", "save_peft"]

# These names import detectron2, which the functions for peft do not need.
_NEED_DETECTRON2 = {
    "Segmentation": ".segmentation",
    "Segmentor": ".segmentor",
    "export_backbone": ".backbone",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_DETECTRON2:
        return getattr(importlib.import_module(_NEED_DETECTRON2[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
