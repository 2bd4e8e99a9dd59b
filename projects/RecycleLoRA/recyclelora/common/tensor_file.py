"""Read PyTorch files from untrusted sources: tensors and plain types only."""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_tensor_file(path: str | Path) -> Any:
    """Load a file that ``torch.save`` wrote, on the CPU, without executing anything in it.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Any
        The content: tensors and containers of plain types.

    Raises
    ------
    ValueError
        The file is damaged, holds Python objects, declares a larger size than it has, or holds
        tensors that are not dense arrays in memory (sparse, quantised, expanded, on "meta").
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(record.file_size for record in archive.infolist())
            if size > path.stat().st_size:  # torch.save never compresses, so this is a zip bomb
                raise ValueError(f"its parts claim {size:,} bytes, more than the file has")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations of storage classes and pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged or refused files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read as tensors only: it is damaged, cut off, or holds Python "
            f"objects, which are not loaded because they could run code; get it again, or save its "
            f"tensors alone (torch reported: {reason})"
        ) from error
    for name, tensor in _tensors(content):
        if not _is_plain(tensor):
            raise ValueError(
                f"{path}: {name} is no plain array of numbers ({tensor.layout}, {tensor.dtype}, "
                f"{tensor.device}); save it dense, with its values"
            )
    return content


def _is_plain(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    # An expanded view of a few numbers would exhaust the memory when it is copied.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers, each with the key or index under which it is stored."""
    seen: set[int] = set()  # a container may contain itself
    waiting: list[tuple[str, Any]] = [("the file's content", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(str(key), item) for key, item in items]
