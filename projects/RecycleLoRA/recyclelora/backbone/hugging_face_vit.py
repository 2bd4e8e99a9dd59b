"""Vision transformers of Hugging Face transformers by name or folder."""

import functools
import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .any_vit import AnyViT
from .pyramid import PATCH_SIZE
from .vision_transformer import patch_map, pyramid_blocks


def hugging_face_vit(
    name: str | os.PathLike,
    *,
    img_size: int | Sequence[int] = 512,
    out_indices: Sequence[int] | None = None,
    checkpointing: bool = False,
    **settings: Any,
) -> AnyViT:
    """Return a plain vision transformer of ``transformers`` as a backbone.

    The backbone has the features ``res2`` .. ``res5``. Its patches must have 16 pixels, because the
    patches of these models cannot be resampled (those of timm can). If the model has a text and a
    vision part, the vision part is used. Pooling heads and the blocks after the last of
    ``out_indices`` are removed. The maps do not contain prefix tokens (cls, registers). Weights are
    random until :func:`load_weights` loads a folder of the same model, or the weights of ``name``
    if its argument is "pretrained". Requires ``pip install transformers``.

    Parameters
    ----------
    name : str or PathLike
        Name of a repository on the Hugging Face hub, or a folder with ``config.json``.
    img_size : int or Sequence[int]
        Size in pixels of the image for the check on the meta device, one number or (height, width).
        Models that interpolate their positions accept images of any size.
    out_indices : Sequence[int], optional
        The four blocks that become res2 .. res5, counted from 0. By default those after 1/3, 1/2,
        2/3 and all of the depth.
    checkpointing : bool
        Whether to recompute each block in the backward pass to save memory.
    **settings
        Changes of the model's configuration, such as ``num_hidden_layers``, or
        ``pos_embed_rescale=None`` for DINOv3, which otherwise rescales positions in training.

    Returns
    -------
    AnyViT
        The backbone.

    Raises
    ------
    ValueError
        If transformers is not installed or cannot build this model, or if the model is not a plain
        ViT with patches of 16 pixels.
    """
    vit, indices = _create(name, out_indices, settings)

    def prepared(vit: nn.Module) -> nn.Module:
        if getattr(vit, "pooler", None) is not None:
            vit.pooler = None  # models skip a pooler that is None
        if checkpointing:
            vit.gradient_checkpointing_enable({"use_reentrant": False})
        return vit

    def pretrained(weights: str | os.PathLike) -> nn.Module:
        source = name if weights == "pretrained" else weights
        return prepared(_create(name, out_indices, settings, source)[0])

    return AnyViT(
        prepared(vit),
        functools.partial(_maps, indices=indices),
        img_size=img_size,
        pretrained=pretrained,
    )


def _create(
    name: str | os.PathLike,
    out_indices: Sequence[int] | None,
    settings: dict[str, Any],
    source: str | os.PathLike | None = None,
) -> tuple[nn.Module, Sequence[int]]:
    """Return the model of ``name`` with the weights of ``source``, and the pyramid's blocks."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ValueError(
            f"{name!r} is a model of transformers, which is not installed: pip install transformers"
        ) from error
    try:
        config = AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
        config.update(settings)
        if config.patch_size not in (PATCH_SIZE, [PATCH_SIZE, PATCH_SIZE]):
            raise ValueError(f"its patches have {config.patch_size} pixels, expected {PATCH_SIZE}")
        indices = pyramid_blocks(out_indices, config.num_hidden_layers)
        config.num_hidden_layers = 1 + max(indices)
        if getattr(config, "vision_use_head", False):
            config.vision_use_head = False
        if source is None:
            return AutoModel.from_config(config), indices
        vit, told = AutoModel.from_pretrained(source, config=config, output_loading_info=True)
        if told["missing_keys"]:
            raise ValueError(f"missing: {', '.join(sorted(told['missing_keys'])[:6])}")
        return vit, indices
    except Exception as error:  # transformers and its network libraries raise many types
        reason = " ".join(str(error).split())[:300]
        what = "build" if source is None else f"load the weights of {os.fspath(source)!r} into"
        raise ValueError(
            f"transformers cannot {what} the vision model of {os.fspath(name)!r} ({reason}): check "
            "the name, the folder and the settings"
        ) from error


def _maps(vit: nn.Module, images: torch.Tensor, *, indices: Sequence[int]) -> list[torch.Tensor]:
    any_size = "interpolate_pos_encoding" in inspect.signature(vit.forward).parameters
    options = {"interpolate_pos_encoding": True} if any_size else {}
    states = vit(images, output_hidden_states=True, **options).hidden_states
    grid = images.shape[2] // PATCH_SIZE, images.shape[3] // PATCH_SIZE
    return [_map(states[1 + index], grid) for index in indices]  # states[0] are the embeddings


def _map(state: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    if state.dim() == 4:  # SAM: (B, rows, columns, dim)
        return state.permute(0, 3, 1, 2).contiguous()
    return patch_map(state, grid)
