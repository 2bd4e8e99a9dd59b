"""Vision transformers of timm by name: DINOv3, SigLIP, SAM's encoder and many more."""

import difflib
import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .any_vit import AnyViT
from .pyramid import PATCH_SIZE
from .vision_transformer import pyramid_blocks
from .weight_files import read_weight_file
from .weights import locate_weights

logger = logging.getLogger(__name__)


def timm_vit(
    name: str,
    *,
    img_size: int | Sequence[int] = 512,
    out_indices: Sequence[int] | None = None,
    checkpointing: bool = False,
    **options: Any,
) -> AnyViT:
    """Return a plain vision transformer of timm, with patches of 16 pixels, as a backbone.

    The backbone has the features ``res2`` .. ``res5``. Heads, the final norm and the blocks after
    the last of ``out_indices`` are removed. The maps do not contain prefix tokens (cls, registers).
    Weights are random until :func:`load_weights` loads a file that timm can read, or the weights
    that timm downloads for ``name`` if its argument is "pretrained". timm resamples patch kernels
    and position embeddings to 16 pixels and ``img_size``. Requires ``pip install
    'recyclelora[timm]'``.

    Parameters
    ----------
    name : str
        Name of a model in timm, such as "vit_large_patch16_dinov3.lvd1689m".
    img_size : int or Sequence[int]
        Size in pixels for which position embeddings are made, one number or (height, width). Images
        of other sizes work if timm's model supports them.
    out_indices : Sequence[int], optional
        The four blocks that become res2 .. res5, counted from 0. By default those after 1/3, 1/2,
        2/3 and all of the depth.
    checkpointing : bool
        Whether to recompute each block in the backward pass to save memory.
    **options
        Further arguments of ``timm.create_model``, such as ``depth`` or ``drop_path_rate``.

    Returns
    -------
    AnyViT
        The backbone.

    Raises
    ------
    ValueError
        If timm is not installed, has no such model or cannot build it at this size, if the model is
        not a plain ViT, or if adapters would have no effect on some of its linear layers.
    """
    options |= {"img_size": img_size, "patch_size": PATCH_SIZE}
    vit = _create(name, options)
    if not hasattr(vit, "blocks") or not hasattr(vit, "forward_intermediates"):
        raise ValueError(
            f"expected a plain vision transformer, whose blocks all have maps of one size, got "
            f"{name!r} ({type(vit).__name__}): choose another model, such as vit_base_patch16_224"
        )
    indices = pyramid_blocks(out_indices, len(vit.blocks))

    def trimmed(vit: nn.Module) -> nn.Module:
        vit.prune_intermediate_layers(sorted(set(indices)), prune_norm=True, prune_head=True)
        _call_projections(vit)
        vit.set_grad_checkpointing(checkpointing)
        return vit

    return AnyViT(
        trimmed(vit),
        functools.partial(_maps, indices=indices),
        img_size=img_size,
        pretrained=lambda weights: trimmed(_create_pretrained(name, options, weights)),
    )


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"{name!r} is a model of timm, which is not installed: pip install 'recyclelora[timm]'"
        ) from error
    if not isinstance(name, str) or not timm.is_model(name):
        close = difflib.get_close_matches(str(name).partition(".")[0], timm.list_models(), n=3)
        guess = f": did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"expected the name of a model in timm, got {name!r}{guess}")
    try:
        try:
            return timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            return timm.create_model(name, **options)  # supports only images of img_size
    except Exception as error:  # timm, torch and network libraries raise many types
        reason = " ".join(str(error).split())[:300]
        what = "load weights into" if options.get("pretrained") else "build"
        raise ValueError(
            f"timm cannot {what} {name!r} at patch {PATCH_SIZE} and img_size "
            f"{options['img_size']} ({reason}): choose another model, size or file"
        ) from error


def _create_pretrained(name: str, options: dict[str, Any], weights: str | os.PathLike) -> nn.Module:
    options = options | {"pretrained": True}
    if weights != "pretrained":
        tensors = read_weight_file(locate_weights(weights))
        options["pretrained_cfg_overlay"] = {"state_dict": tensors}
    vit = _create(name, options)
    vit.pretrained_cfg.pop("state_dict", None)  # otherwise the file's tensors stay in memory
    logger.info("loaded weights %s into %s of timm", weights, name)
    return vit


def _call_projections(vit: nn.Module) -> None:
    """Let attention call ``qkv`` as a module and add the biases afterwards, if timm supports this.

    Otherwise EVA and BEiT multiply by ``qkv.weight`` without calling the adapted layer.
    """
    for module in vit.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True


def _maps(vit: nn.Module, images: torch.Tensor, *, indices: Sequence[int]) -> list[torch.Tensor]:
    ascending = sorted(set(indices))
    maps = vit.forward_intermediates(
        images, indices=ascending, norm=False, output_fmt="NCHW", intermediates_only=True
    )
    by_block = dict(zip(ascending, maps))
    return [by_block[index] for index in indices]
