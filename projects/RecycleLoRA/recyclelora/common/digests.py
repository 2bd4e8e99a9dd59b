"""SHA-256 digests by which files recognise the pretrained weights that they belong to.

Two file formats store a digest of weights, and both must stay readable: adapter files hold one
digest per layer (``weight_sha256``, of :func:`weight_digest`), exported training results hold one
for the whole base (``base_sha256``, of :func:`base_digest`).
"""

import hashlib
from collections.abc import Iterable

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
