"""Pretrained weights into a backbone: completely, or not at all."""

import logging
import math
import os
from collections.abc import Collection
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from .any_vit import AnyViT
from .files import read_checkpoint, some_of
from .plain_vit import PatchEmbed
from .resample import resample_patch_kernel, resample_position_embedding
from .weights import locate_weights

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)


@runtime_checkable
class ReadsCheckpoints(Protocol):
    """What a backbone has so that pretrained weights can be loaded into it.

    ``read_layout`` renames a checkpoint's tensors to the backbone's own names, and returns them,
    the layout's name, and the names of tensors that were left out (heads); it raises ``ValueError``
    where there is no such model. ``optional_weights`` names what a file may lack.
    """

    patch_size: int
    patch_embed: PatchEmbed
    optional_weights: Collection[str]

    def read_layout(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], str, list[str]]: ...


def load_weights(module: Module, weights: str | os.PathLike | None) -> Module:
    """Load pretrained weights into a backbone of this package and return it.

    For DINOv2 reads official ``.pth`` files and models converted from them, Hugging Face and timm
    state dicts (PyTorch or safetensors files) and ONNX exports; for EVA-02 official ``.pt`` files
    and timm state dicts; and checkpoints that hold such a backbone under a prefix. A patch kernel
    of another size and a position embedding of another grid are resampled (bicubic, no
    antialiasing) to those of ``module``. What :func:`timm_vit` and :func:`hugging_face_vit` make is
    loaded, and resampled, by those libraries. To be called before ``recyclelora.adapt``.

    Args:
        module: a :class:`DinoVisionTransformer`, an :class:`Eva02VisionTransformer`, an
            :class:`AnyViT` or another backbone that :class:`ReadsCheckpoints`; on the meta device
            it is returned as it is, nothing is read.
        weights: a path, a name in ``recyclelora.backbone.WEIGHTS``, or None to keep the random
            initialisation; for an :class:`AnyViT` a path, or "pretrained" for what its library
            downloads under its name.

    Raises:
        TypeError: another kind of module, or weights that are no path.
        FileNotFoundError: no such file or name.
        ValueError: the file cannot be read or belongs to another model; then the sentence lists
            what is missing, unexpected or of another shape, and ``module`` is as it was.

    >>> from recyclelora.backbone import dinov2_vits
    >>> backbone = load_weights(dinov2_vits(patch_size=16, img_size=512), None)
    """
    if not isinstance(module, ReadsCheckpoints | AnyViT):
        raise TypeError(
            "weights go into a DinoVisionTransformer, an Eva02VisionTransformer or an AnyViT, got "
            f"{type(module).__name__}"
        )
    if weights is None:
        return module
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights must be a path, a known name or None, got {weights!r}")
    if any(parameter.is_meta for parameter in module.parameters()):
        logger.info("weights %s not read: the backbone is on the meta device", weights)
        return module
    if isinstance(module, AnyViT):
        module.load_pretrained(weights)
        return module
    path = locate_weights(weights)
    tensors = read_checkpoint(path)
    try:
        state, layout, left_out = module.read_layout(tensors)
        resampled = _resample(state, module)
        absent = _check(state, module)
    except ValueError as error:
        raise ValueError(f"{path} does not fit this {type(module).__name__}: {error}") from error
    module.load_state_dict(state, strict=not absent)
    logger.info(
        "loaded %d tensors (%s layout) from %s; resampled: %s; not in the file: %s; left out: %s",
        len(state),
        layout,
        path,
        ", ".join(resampled) or "nothing",
        ", ".join(absent) or "nothing",
        some_of(left_out) or "nothing",
    )
    return module


def _resample(state: dict[str, torch.Tensor], module: nn.Module) -> list[str]:
    """Bring patch kernel and position embedding to the module's sizes; say what was changed."""
    done = []
    kernel, patch_size = state["patch_embed.proj.weight"], module.patch_size
    if kernel.dim() == 4 and kernel.shape[-1] != patch_size:
        state["patch_embed.proj.weight"] = resample_patch_kernel(kernel, patch_size)
        done.append(f"patch {kernel.shape[-1]} -> {patch_size}")
    pos_embed, target = state.get("pos_embed"), module.patch_embed.grid
    if pos_embed is None or pos_embed.dim() != 3 or pos_embed.shape[1] < 2:
        return done  # _check tells
    source = _grid(pos_embed.shape[1] - 1, target)
    if source != target:
        state["pos_embed"] = resample_position_embedding(pos_embed, source, target)
        done.append(f"positions {source[0]}x{source[1]} -> {target[0]}x{target[1]}")
    return done


def _grid(patches: int, target: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a checkpoint's patches, whose files keep their number only."""
    side = math.isqrt(patches)
    square, as_target = side * side == patches, patches == math.prod(target)
    if square and as_target and target != (side, side):
        raise ValueError(
            f"its {patches} positions may be a grid of {side}x{side} or of {target[0]}x{target[1]}:"
            f" choose an img_size with another number of patches"
        )
    if not square and not as_target:
        raise ValueError(f"its {patches} positions are no square grid, so cannot be resampled")
    return target if as_target else (side, side)


def _check(state: dict[str, torch.Tensor], module: nn.Module) -> list[str]:
    """Raise unless ``state`` is exactly the module's; return which optional tensors it lacks."""
    own = module.state_dict()
    missing = [name for name in own if name not in state and name not in module.optional_weights]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    fractions = {name for name in own if name in state and state[name].is_floating_point()}
    broken = [name for name in fractions if not state[name].isfinite().all()]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "wrong shape": shapes,
        "not finite": broken,
        "not floating point": [name for name in own if name in state and name not in fractions],
    }
    if any(problems.values()):
        told = [f"{what}: {some_of(names)}" for what, names in problems.items() if names]
        raise ValueError(
            "; ".join(told) + "; take the file of this model, or build the model of this file"
        )
    return [name for name in own if name not in state]
