"""Adapted models for other libraries: peft's LoRA folders, and the backbone of each ViT library.

The function that merges adapters into a plain model is :func:`recyclelora.adapters.export`.
"""

from typing import Any

from .peft_folder import save_peft
from .peft_init import init_peft

__all__ = ["export_backbone", "init_peft", "save_peft"]


def __getattr__(name: str) -> Any:
    if name == "export_backbone":  # it imports detectron2, which peft's functions do not need
        from .backbone import export_backbone

        return export_backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
