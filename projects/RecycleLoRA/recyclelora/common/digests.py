"""SHA-256 digests of files and of weights."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def tensor_digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of the values of several tensors, in their order and own precision.

    Shapes are not part of it.

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
    """Return the SHA-256 of the names and bytes of a state dict, in the order of its names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(_bytes(state[name]))
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:  # hashlib.file_digest needs Python 3.11
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> np.ndarray:
    """The values of a tensor as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
