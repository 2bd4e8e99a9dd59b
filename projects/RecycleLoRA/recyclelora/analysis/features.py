"""Changes of features by each adapter, drawn as colours of principal components (Figure 5)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.adapters import active, adapted_layers
from recyclelora.backbone.pyramid import PATCH_SIZE

LONG_SIDE = 512  # pixels of an image for the feature changes


def block_paths(model: nn.Module) -> list[str]:
    """Return the names of the adapted transformer blocks, in the order of the model.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    list[str]
        Names as in ``named_modules()``.
    """
    found: dict[str, None] = {}
    for name in adapted_layers(model):
        if match := re.match(r"(?:.*?\.)?\d+(?=\.)", name):
            found.setdefault(match.group(0))
    return list(found)


def block_path(model: nn.Module, number: int | None = None) -> str:
    """Return the name of an adapted block.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    number : int or None
        The index of the block, or None for the last one.

    Returns
    -------
    str
        The name as in ``named_modules()``.

    Raises
    ------
    ValueError
        If the model has no adapted blocks, or no block of this index. The message names the option
        ``--block``.
    """
    paths = block_paths(model)
    if not paths:
        raise ValueError("expected a model with adapted transformer blocks, got one without")
    chosen = len(paths) - 1 if number is None else number
    if not 0 <= chosen < len(paths):
        raise ValueError(f"--block must be 0 to {len(paths) - 1}, got {number}")
    return paths[chosen]


def change_colors(
    model: nn.Module, pixels: np.ndarray, block: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a photograph in the input size of the model, and the colours of the feature changes.

    Parameters
    ----------
    model : nn.Module
        A segmentor with ``backbone``, ``pixel_mean`` and ``pixel_std``.
    pixels : ndarray
        A photograph (H, W, 3), uint8 RGB.
    block : str
        A block of ``model.backbone`` from :func:`block_paths`.

    Returns
    -------
    image : ndarray
        The photograph (h, w, 3), uint8. The long side is about 512 pixels, and both sides are
        multiples of 32.
    colors : dict[str, ndarray]
        By "main" and "sub", colours (h, w, 3) in [0, 1] that are constant in each patch, see
        :func:`principal_colors`.
    """
    image = _fitted(pixels)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None]
    tensor = (tensor.to(model.pixel_mean.device) - model.pixel_mean) / model.pixel_std
    changes = feature_changes(model.backbone, model.backbone, tensor, block)
    return image, {
        kind: principal_colors(change[0].cpu()).repeat(PATCH_SIZE, 0).repeat(PATCH_SIZE, 1)
        for kind, change in changes.items()
    }


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """Resize a photograph: 512 pixels on the long side, multiples of two patches on both."""
    unit, scale = 2 * PATCH_SIZE, LONG_SIDE / max(pixels.shape[:2])
    height, width = (max(unit, round(side * scale / unit) * unit) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


@torch.no_grad()
def feature_changes(
    model: nn.Module, backbone: nn.Module, images: Tensor, block: str
) -> dict[str, Tensor]:
    """Return the changes that the main and the sub adapter make to the tokens of a block.

    The change by an adapter is the output of the full model minus the output of the model with this
    adapter at its initial value. All blocks up to ``block`` contribute.

    Parameters
    ----------
    model : nn.Module
        The model with the adapters.
    backbone : nn.Module
        The part of ``model`` that is called with ``images``.
    images : Tensor, (B, 3, H, W)
        Normalised images; H and W are multiples of 16.
    block : str
        A name from :func:`block_paths`.

    Returns
    -------
    dict[str, Tensor]
        The changes by "main" and by "sub", (B, H / 16, W / 16, C) each.
    """
    module = model.get_submodule(block)
    with _kept_output(module) as kept:
        backbone(images)
        full = kept.pop()
        changes = {}
        for kind in ("main", "sub"):
            with active(model, **{kind: False}):
                backbone(images)
            changes[kind] = full - kept.pop()
    grid = images.shape[2] // PATCH_SIZE, images.shape[3] // PATCH_SIZE
    return {kind: _patches(change, grid) for kind, change in changes.items()}


@contextmanager
def _kept_output(module: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the patch tokens, which follow class and register tokens, as (B, h, w, C)."""
    if tokens.dim() == 4:
        return tokens
    count = grid[0] * grid[1]
    if tokens.shape[1] < count:
        raise ValueError(
            f"expected at least {count} tokens ({grid[0]} x {grid[1]} patches of {PATCH_SIZE} "
            f"pixels), got {tokens.shape[1]}: choose a block that keeps the size of the patch grid"
        )
    return tokens[:, -count:].unflatten(1, grid)


def principal_colors(features: Tensor) -> np.ndarray:
    """Return the first three principal components of each position as RGB in [0, 1].

    Parameters
    ----------
    features : Tensor, (h, w, C)
        A map of features.

    Returns
    -------
    ndarray, (h, w, 3)
        Each component is scaled to its 1st and 99th percentile. Its sign makes the loading of
        largest magnitude positive, so that the colours are reproducible. The result is grey if all
        positions are equal.
    """
    flat = features.reshape(-1, features.shape[-1]).double()
    centred = flat - flat.mean(dim=0)
    _, s, vt = torch.linalg.svd(centred, full_matrices=False)
    components = (
        centred @ vt[:3].T * torch.sign(vt[:3].gather(1, vt[:3].abs().argmax(1)[:, None]).T)
    )
    colors = np.full((len(flat), 3), 0.5)
    if len(s) and s[0] > 1e-12:
        values = components.numpy()
        low, high = np.percentile(values, [1, 99], axis=0)
        width = np.where(high > low, high - low, 1.0)
        colors[:, : values.shape[1]] = np.clip((values - low) / width, 0, 1)
    return colors.reshape(*features.shape[:2], 3)
