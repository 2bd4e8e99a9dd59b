"""PyTorch files from strangers: tensors and plain types come out of them, or one sentence."""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_tensor_file(path: str | Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; nothing in the file is executed.

    Raises:
        ValueError: the file is damaged, holds Python objects, claims to be larger than it is, or
            holds tensors that are no plain arrays (sparse, quantised, without values).
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(record.file_size for record in archive.infolist())
            if size > path.stat().st_size:  # torch never compresses: it would unpack a bomb
                raise ValueError(f"its parts claim {size:,} bytes, more than the file has")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storages and pickles that only torch knows
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for damaged or refused files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read as tensors only: it is damaged, cut off, or holds Python "
            f"objects, which are not loaded because they could run code; get it again, or save its "
            f"tensors alone (torch said: {reason})"
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
    # A view may repeat a few numbers to any size, and take all memory once it is copied.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, with the name of the entry that holds it."""
    seen: set[int] = set()  # a container may hold itself
    waiting: list[tuple[str, Any]] = [("the file's content", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(str(key), item) for key, item in items]
