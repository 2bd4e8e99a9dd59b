"""RecycleLoRA on Detectron2: adapters from a rank-revealing QR, for segmentation that generalises.

The names below need PyTorch, NumPy, SciPy, threadpoolctl and tqdm alone; every package but
``recyclelora.adapters`` and ``recyclelora.ops`` imports detectron2.
"""

from .common.user import ensure_user_name

ensure_user_name()  # before torchvision is imported

from .adapters import DualLoRALinear, adapt  # noqa: E402
from .ops import cmake_path, include_path, library_path, rrqr  # noqa: E402

__version__ = "0.2.0"

__all__ = ["DualLoRALinear", "adapt", "cmake_path", "include_path", "library_path", "rrqr"]
