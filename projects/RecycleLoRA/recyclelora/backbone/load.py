"""Load pretrained weights into a backbone: either all of them, or none and an error."""

import logging
import math
import os
from typing import TypeVar

import torch
from torch import nn

from recyclelora.common.paths import expand_path, is_expandable
from recyclelora.common.state_dicts import describe_mismatch, join_names
from recyclelora.common.tensor_file import check_finite

from .any_vit import AnyViT
from .resample import resample_patch_kernel, resample_position_embedding
from .vision_transformer import VisionTransformer
from .weight_files import read_weight_file
from .weights import locate_weights

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)


def load_weights(module: Module, weights: str | os.PathLike | None) -> Module:
    """Load pretrained weights into a backbone of this package, before ``recyclelora.adapt``.

    For DINOv2, official ``.pth`` files, models converted from them, state dicts of Hugging Face and
    timm (PyTorch or safetensors files) and ONNX exports are supported. For EVA-02, official ``.pt``
    files and state dicts of timm are supported. Checkpoints that contain such a backbone under a
    prefix are supported too. The patch kernel and the position embedding are resampled (bicubic, no
    antialiasing) to the sizes of ``module``. The weights of :func:`timm_vit` and
    :func:`hugging_face_vit` are loaded and resampled by these libraries.

    Parameters
    ----------
    module : DinoVisionTransformer, Eva02VisionTransformer or AnyViT
        The backbone. A backbone on the meta device is returned unchanged, and no file is read.
    weights : path, str or None
        A path, a name in ``recyclelora.backbone.WEIGHTS`` (downloaded on first use), or None to
        keep the random initialisation. For an :class:`AnyViT`, a path, or "pretrained" for the
        weights that its library downloads for its name.

    Returns
    -------
    nn.Module
        ``module``.

    Raises
    ------
    TypeError
        If ``module`` has another type, or if ``weights`` is not a path.
    FileNotFoundError
        If there is no such file or name.
    ValueError
        If the file cannot be read or belongs to another model. The message lists the tensors that
        are missing, unexpected or of another shape. ``module`` is unchanged.

    Examples
    --------
    >>> from recyclelora.backbone import dinov2_vit
    >>> backbone = load_weights(dinov2_vit("s", patch_size=16, img_size=512), None)
    """
    if not isinstance(module, VisionTransformer | AnyViT):
        raise TypeError(
            "module must be a DinoVisionTransformer, Eva02VisionTransformer or AnyViT, got "
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
        # "pretrained" and other names that the library supports are not paths.
        module.load_pretrained(expand_path(weights) if is_expandable(weights) else weights)
        check_finite(dict(module.named_parameters()), f"weights={os.fspath(weights)!r}")
        return module
    path = locate_weights(weights)
    tensors = read_weight_file(path)
    try:
        state, layout, left_out = module.rename_keys(tensors)
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
        join_names(left_out) or "nothing",
    )
    return module


def _resample(state: dict[str, torch.Tensor], module: VisionTransformer) -> list[str]:
    """Resample patch kernel and position embedding to the module's sizes; describe the changes."""
    done = []
    kernel, patch_size = state["patch_embed.proj.weight"], module.patch_size
    if kernel.dim() == 4 and kernel.shape[-1] != patch_size:
        state["patch_embed.proj.weight"] = resample_patch_kernel(kernel, patch_size)
        done.append(f"patch {kernel.shape[-1]} -> {patch_size}")
    pos_embed, target = state.get("pos_embed"), module.patch_embed.grid
    if pos_embed is None or pos_embed.dim() != 3 or pos_embed.shape[1] < 2:
        return done  # _check reports it
    source = _grid(pos_embed.shape[1] - 1, target)
    if source != target:
        state["pos_embed"] = resample_position_embedding(pos_embed, source, target)
        done.append(f"positions {source[0]}x{source[1]} -> {target[0]}x{target[1]}")
    return done


def _grid(patches: int, target: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of a checkpoint's patches, of which files contain only the number."""
    side = math.isqrt(patches)
    square, as_target = side * side == patches, patches == math.prod(target)
    if square and as_target and target != (side, side):
        raise ValueError(
            f"its {patches} positions may be a grid of {side}x{side} or {target[0]}x{target[1]}: "
            "choose an img_size with another number of patches"
        )
    if not square and not as_target:
        raise ValueError(f"its {patches} positions are not a square grid and cannot be resampled")
    return target if as_target else (side, side)


def _check(state: dict[str, torch.Tensor], module: VisionTransformer) -> list[str]:
    """Raise if ``state`` does not fit the module; return the optional tensors that it lacks."""
    own = module.state_dict()
    absent = [name for name in module.optional_weights if name not in state]
    expected = {name: tensor for name, tensor in own.items() if name not in absent}
    fractions = [name for name in own if name in state and state[name].is_floating_point()]
    problems = {
        "not finite": [name for name in fractions if not state[name].isfinite().all()],
        "not floating point": [n for n in own if n in state and not state[n].is_floating_point()],
    }
    described = [describe_mismatch(expected, state)]
    described += [f"{what}: {join_names(names)}" for what, names in problems.items() if names]
    if any(described):
        raise ValueError(
            "; ".join(filter(None, described))
            + "; use a file for this model, or build the model for this file"
        )
    return absent
