"""Resample patch kernels and position embeddings of a ViT for another patch or image size."""

import torch
from torch.nn import functional as F


def resample_patch_kernel(kernel: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Resize a patch kernel to another patch size.

    The interpolation is bicubic in float32, without antialiasing. The values are not rescaled by (p
    / patch_size)^2, because the published ViT/16 models were made from DINOv2 in this way.

    Parameters
    ----------
    kernel : Tensor
        The kernel (dim, channels, p, p).
    patch_size : int
        The new size. If equal to p, ``kernel`` is returned.

    Returns
    -------
    Tensor
        The kernel (dim, channels, patch_size, patch_size) in the dtype of ``kernel``.

    Examples
    --------
    >>> resample_patch_kernel(torch.zeros(8, 3, 14, 14), 16).shape
    torch.Size([8, 3, 16, 16])
    """
    if tuple(kernel.shape[-2:]) == (patch_size, patch_size):
        return kernel
    resized = F.interpolate(
        kernel.float(), size=(patch_size, patch_size), mode="bicubic", align_corners=False
    )
    return resized.to(kernel.dtype)


def resample_position_embedding(
    pos_embed: torch.Tensor,
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    offset: float = 0.0,
    antialias: bool = False,
) -> torch.Tensor:
    """Resample the position embedding of a grid of patches to another grid.

    Parameters
    ----------
    pos_embed : torch.Tensor
        (1, 1 + source rows * source columns, dim). The position of the cls token comes first and is
        not resampled.
    source : tuple[int, int]
        Rows and columns of the grid of ``pos_embed``.
    target : tuple[int, int]
        Rows and columns of the result. If equal to ``source``, ``pos_embed`` is returned.
    offset : float
        0 resizes to the exact size. Otherwise positions are sampled with the factor (target +
        offset) / source, at slightly different positions. The DINOv2 models without registers, Rein
        and later segmentors have 0.1.
    antialias : bool
        Whether to smooth when shrinking, as in the DINOv2 models with registers.

    Returns
    -------
    torch.Tensor
        (1, 1 + target rows * target columns, dim) in the dtype of ``pos_embed``. The bicubic
        interpolation uses float32 for every dtype.

    Examples
    --------
    >>> resample_position_embedding(torch.zeros(1, 1 + 37 * 37, 8), (37, 37), (20, 28)).shape
    torch.Size([1, 561, 8])
    """
    if source == target:
        return pos_embed
    cls, patches = pos_embed.float().split([1, source[0] * source[1]], dim=1)
    grid = patches.unflatten(1, source).permute(0, 3, 1, 2)
    if offset:
        factors = tuple((new + offset) / old for old, new in zip(source, target))
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=antialias)
    else:
        grid = F.interpolate(grid, size=target, mode="bicubic", antialias=antialias)
    return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1).to(pos_embed.dtype)
