"""Read PyTorch files from untrusted sources: tensors and plain types only."""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .state_dicts import join_names


def read_tensor_file(path: str | Path) -> Any:
    """Load a file that ``torch.save`` wrote on the CPU, without executing anything in it.

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
        If the file is damaged, contains Python objects, declares a larger size than it has, or
        contains tensors that are not dense arrays in memory (sparse, quantised, expanded, on
        "meta").
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(record.file_size for record in archive.infolist())
            if size > path.stat().st_size:  # torch.save never compresses, so this is a zip bomb
                raise ValueError(f"its parts declare {size:,} bytes, more than the file has")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations of storage classes and pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged or refused files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read as tensors only: it is damaged, truncated, or contains Python "
            "objects, which are not loaded because they could run code; use another copy, or "
            f"save only its tensors (torch reported: {reason})"
        ) from error
    for name, tensor in _tensors(content):
        if not _is_plain(tensor):
            raise ValueError(
                f"{path}: {name} is not a dense array with values ({tensor.layout}, "
                f"{tensor.dtype}, {tensor.device}): save it as a dense tensor on the CPU"
            )
    return content


def check_finite(content: Any, source: str) -> None:
    """Raise an error if a tensor in nested containers contains NaN or infinity.

    Parameters
    ----------
    content : Any
        The result of :func:`read_tensor_file`, or a part of it.
    source : str
        Origin of the tensors, for the message.

    Raises
    ------
    ValueError
        If a value is not finite. The message names the first such tensors.

    Examples
    --------
    >>> check_finite({"model": {"bias": torch.tensor([1.0, float("nan")])}}, "a.pth")
    Traceback (most recent call last):
    ValueError: a.pth: bias holds NaN or infinity, expected finite values; use another copy or \
an earlier checkpoint
    """
    names = [name for name, tensor in _tensors(content) if not is_finite(tensor)]
    if names:
        verb = "holds" if len(names) == 1 else "hold"
        raise ValueError(
            f"{source}: {join_names(names)} {verb} NaN or infinity, expected finite values; use "
            "another copy or an earlier checkpoint"
        )


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values of a tensor are finite.

    Parameters
    ----------
    tensor : Tensor
        The tensor.

    Returns
    -------
    bool
        False if a value is NaN or infinite. Tensors on "meta" are finite.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    if tensor.is_meta:
        return True
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = values.float() if values.element_size() == 1 else values  # float8 lacks comparisons
    # isfinite() would allocate a copy. NaN is propagated.
    return all(bool(bound.isfinite()) for bound in values.detach().aminmax())


def _is_plain(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    # Copying an expanded view of a few numbers would exhaust the memory.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Return all tensors in nested containers, each with its key or index."""
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
