"""SHA-256 digests of files and of weights."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def tensor_digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 digest of the values of several tensors.

    The digest depends on the order and the precision of the values, but not on their shapes.

    Parameters
    ----------
    tensors : Iterable[Tensor]
        The tensors.

    Returns
    -------
    str
        The digest as a hexadecimal number.

    Examples
    --------
    >>> weight = torch.ones(2, 3)
    >>> tensor_digest([weight]) == tensor_digest([weight.T])
    True
    >>> tensor_digest([weight]) == tensor_digest([weight.double()])
    False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 digest of the names and values of a state dict.

    Parameters
    ----------
    state : Mapping[str, Tensor]
        The state dict. Its order does not matter.

    Returns
    -------
    str
        The digest as a hexadecimal number.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(_bytes(state[name]))
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 digest of a file, as ``sha256sum`` prints it.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    str
        The digest as a hexadecimal number.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:  # hashlib.file_digest needs Python 3.11
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
