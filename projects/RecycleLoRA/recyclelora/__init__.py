"""RecycleLoRA on Detectron2: adapters from a rank-revealing QR, for segmentation that generalises.

The names below need PyTorch, NumPy, SciPy, threadpoolctl and tqdm alone; every package but
``recyclelora.adapters`` and ``recyclelora.ops`` imports detectron2.
"""

from .adapters import DualLoRALinear, adapt, adapter_table
from .ops import cmake_path, include_path, library_path, rrqr

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
