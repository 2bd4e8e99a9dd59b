"""Read and write safetensors files with custom metadata; nothing in them can be executed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .atomic_write import atomic_write

# The dtypes that PyTorch and every version of the format support.
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
    """Write tensors and metadata atomically, and flush them to the disk.

    Parameters
    ----------
    path : str or Path
        The file. Its folder must exist.
    tensors : Mapping[str, Tensor]
        Contiguous tensors on the CPU that share no memory.
    metadata : Mapping[str, str]
        With a single entry, equal content gives identical files.

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
    """Open a safetensors file, whose tensors are read on demand.

    Parameters
    ----------
    path : str or Path
        The file.

    Yields
    ------
    safe_open
        The open file. A tensor must be cloned if it is used after the context ends.

    Raises
    ------
    ValueError
        If the file is not a safetensors file, is truncated, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"{path} is not a safetensors file, or it is damaged or truncated: use another copy of "
            f"it (safetensors reported: {reason})"
        ) from error
