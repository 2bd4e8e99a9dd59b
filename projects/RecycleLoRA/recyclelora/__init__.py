"""RecycleLoRA on Detectron2: adapters from a rank-revealing QR, for segmentation that generalises.

The names below need PyTorch and SciPy alone; detectron2 is imported by ``recyclelora.backbone``,
``recyclelora.mask2former``, ``recyclelora.data`` and ``recyclelora.engine``.
"""

from .adapters import DualLoRALinear, adapt
from .ops import cmake_path, include_path, library_path, rrqr

__all__ = ["DualLoRALinear", "adapt", "cmake_path", "include_path", "library_path", "rrqr"]
