"""SHA-256 digests of files and weights.

Two file formats store a digest of weights, and both must stay readable: adapter files hold one
digest per layer (``weight_sha256``, of :func:`weight_digest`), exported training results hold one
for the whole base (``base_sha256``, of :func:`base_digest`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor


def weight_digest(weight: Tensor) -> str:
    """Return the SHA-256 of a weight's values, independent of its precision.

    Values are hashed as float32 (float64 stays float64), so a half precision weight and its float32
    copy have the same digest.
    """
    values = weight.detach().cpu()
    values = values if values.dtype == torch.float64 else values.float()
    return hashlib.sha256(values.contiguous().numpy()).hexdigest()


def base_digest(weights: Iterable[Tensor]) -> str:
    """Return the SHA-256 of the bytes of several weights, in their order and own precision."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names and bytes of a state dict, in the order of its names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        value = state[name].detach().cpu().contiguous()
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:  # hashlib.file_digest needs Python 3.11
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
