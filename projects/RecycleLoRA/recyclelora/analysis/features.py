"""Changes of features by each adapter, drawn as colours of principal components (Figure 5)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.adapters import active, adapted_layers
from recyclelora.backbone.pyramid import PATCH_SIZE


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
