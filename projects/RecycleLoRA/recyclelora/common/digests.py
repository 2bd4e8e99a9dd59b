"""SHA-256 digests by which files recognise the pretrained weights that they belong to."""

import hashlib
from collections.abc import Iterable

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
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()
