"""Read and write safetensors files with a header of our own; nothing in them can be executed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .atomic_write import atomic_write

# What both PyTorch and every version of the format have.
STORABLE = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and metadata atomically, and sync them.

    Parameters
    ----------
    path : str or Path
        The file. Its folder has to exist.
    tensors : Mapping[str, Tensor]
        Contiguous tensors on the CPU that share no memory.
    metadata : Mapping[str, str]
        With one entry, equal content gives equal files.

    Raises
    ------
    OSError
        If the file cannot be written, for instance because the disk is full.
    """
    content = save(dict(tensors), dict(metadata))
    with atomic_write(path, sync=True) as temporary:
        temporary.write_bytes(content)


@contextmanager
def open_safetensors(path: str | Path) -> Iterator[safe_open]:
    """Yield the open file; its tensors are read on demand, and have to be cloned to outlive it.

    Raises
    ------
    ValueError
        If it is no safetensors file, is cut off, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"{path} is no safetensors file, or it is damaged or cut off: take another copy of it "
            f"(safetensors reported: {reason})"
        ) from error
