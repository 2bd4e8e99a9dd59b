"""RecycleLoRA on Detectron2: adapters from a rank-revealing QR, for segmentation that generalises.

The names below need only PyTorch, NumPy, SciPy, safetensors, threadpoolctl and tqdm. All packages
except ``recyclelora.adapters``, ``recyclelora.ops`` and ``recyclelora.export`` import Detectron2.
``recyclelora.export`` and ``recyclelora.Segmentor`` are imported when they are first used.
"""

import importlib
from typing import Any

from .common.user import ensure_user_name

ensure_user_name()  # before torchvision is imported

from .adapters import DualLoRALinear, adapt, adapter_table  # noqa: E402
from .ops import cmake_path, include_path, library_path, rrqr  # noqa: E402

__version__ = "0.2.0"

__all__ = [
    "DualLoRALinear",
    "adapt",
    "adapter_table",
    "cmake_path",
    "include_path",
    "library_path",
    "rrqr",
]


def __getattr__(name: str) -> Any:
    if name == "export":
        return importlib.import_module(".export", __name__)
    if name == "Segmentor":
        return importlib.import_module(".export.segmentor", __name__).Segmentor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
