"""Export of the merged DINOv2 backbone as a folder of the official code, timm or transformers."""

import importlib.util
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from recyclelora.adapters import MergeableLinear
from recyclelora.adapters.wrappers import plain_names
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.backbone.rename_keys import to_hugging_face, to_timm
from recyclelora.common.atomic_folder import atomic_folder_write
from recyclelora.common.state_dicts import describe_mismatch

from . import outside_backbones as outside

logger = logging.getLogger(__name__)

# A larger relative difference means a different model. Rounding gives about 1e-6.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.1


class Layout(NamedTuple):
    """The format in which a library stores a DINOv2.

    ``config(settings)`` returns the texts of the files by name. ``rename`` changes the keys.
    ``weights`` is the name of the file of tensors. ``load(folder)`` returns a function from images
    to the normalised tokens (B, 1 + patches, dim) of the library ``library``, class token first.
    """

    library: str
    weights: str
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    load: Callable[[Path, Mapping[str, Any]], Callable[[Tensor], Tensor]]


LAYOUTS = {
    "dinov2": Layout("dinov2", "backbone.pth", dict, outside.dinov2_config, outside.load_dinov2),
    "timm": Layout("timm", "model.safetensors", to_timm, outside.timm_config, outside.load_timm),
    "hugging_face": Layout(
        "transformers",
        "model.safetensors",
        to_hugging_face,
        outside.hugging_face_config,
        outside.load_hugging_face,
    ),
}


class Difference(NamedTuple):
    """The difference between the outputs of the outside library and of the exported backbone.

    ``largest`` is the largest absolute difference of the normalised tokens of the last block.
    ``relative`` is ``largest`` divided by the largest absolute value of these tokens.
    """

    image_size: tuple[int, int]
    largest: float
    relative: float


@torch.no_grad()
def export_backbone(
    backbone: nn.Module, folder: str | Path, *, layout: str
) -> list[Difference] | None:
    """Write a DINOv2 backbone with merged adapters as a folder that another library loads.

    ============== ============================================================================
    layout         loaded by
    ============== ============================================================================
    "dinov2"       ``DinoVisionTransformer(**config["args"])`` of facebookresearch/dinov2 and
                   ``load_state_dict`` of ``backbone.pth``; :func:`load_weights` reads it too
    "timm"         ``timm.create_model("local-dir:FOLDER", pretrained=True)``
    "hugging_face" ``transformers.AutoModel.from_pretrained("FOLDER")``
    ============== ============================================================================

    If the library is installed, it loads the new folder before the folder replaces an earlier one.
    Its output is compared with that of ``backbone`` on random images of two sizes: the size of the
    position embedding, and one and a half times that width. The second difference is larger because
    each library resamples the positions in its own way. The write is atomic, as in
    :func:`~recyclelora.export.save_peft`.

    Parameters
    ----------
    backbone : DinoVisionTransformer
        The backbone: plain or adapted, merged or unmerged.
    folder : str or Path
        The folder. It is created if it does not exist. Other files in it are kept.
    layout : {"dinov2", "timm", "hugging_face"}
        The library's format, see above.

    Returns
    -------
    list of Difference, or None
        One difference for each image size; None if the library is not installed.

    Raises
    ------
    TypeError, ValueError
        If ``backbone`` is not a DINOv2 even after merging, if the layout does not support its
        sizes, or if the library computes a different output. Nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> from recyclelora import adapt
    >>> sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 24, "num_heads": 2}
    >>> backbone = adapt(DinoVisionTransformer(**sizes), r_main=4, r_sub=2)
    >>> _ = export_backbone(backbone, tempfile.mkdtemp(), layout="dinov2")
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if not isinstance(backbone, DinoVisionTransformer):
        raise TypeError(
            f"expected a DinoVisionTransformer, got {type(backbone).__name__}: merge the adapters "
            "of another model with recyclelora.adapters.export(), and save it with its own library"
        )
    kind = LAYOUTS[layout]
    state = merged_state(backbone)
    settings = outside.settings_of(backbone, state)
    with torch.device("meta"):
        expected = DinoVisionTransformer(**settings).state_dict()
    if mismatch := describe_mismatch(expected, state):
        raise ValueError(
            f"after its adapters are merged, the backbone is not a plain DINOv2 ({mismatch}): "
            "only adapters that merge into the weights of its linear layers can be exported"
        )
    if any(tensor.is_meta or not tensor.isfinite().all() for tensor in state.values()):
        raise ValueError(
            "the backbone holds NaN or Inf, or is on the meta device: load its weights"
        )
    config = kind.config(settings)
    tensors = kind.rename(outside.with_defaults(state, settings, layout))
    with atomic_folder_write(folder) as temporary:
        text = json.dumps(config, indent=2) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        (temporary / kind.weights).write_bytes(_serialised(tensors, kind.weights))
        if importlib.util.find_spec(kind.library) is None and layout != "dinov2":
            return None
        try:
            tokens_of = kind.load(temporary, settings)
        except Exception as error:  # other libraries raise errors of many types
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{kind.library} cannot load what was written for it ({reason}): install a newer "
                f"{kind.library}; nothing was written"
            ) from error
        return _compare(backbone, tokens_of, f"{kind.library} of {folder}")


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model with merged weights in plain linear layers, on the CPU.

    Parameters
    ----------
    model : nn.Module
        The model.

    Returns
    -------
    dict
        The tensors by name.
    """
    plain, state = plain_names(model), {}
    layers = [n for n, m in model.named_modules() if isinstance(m, MergeableLinear)]
    for name, module in model.named_modules():
        prefix = f"{plain[name]}." if plain[name] else ""
        if isinstance(module, MergeableLinear):
            tensors = {"weight": module.effective_weight(), "bias": module.bias}
        elif any(name.startswith(f"{layer}.") for layer in layers):  # parameters of inactive pairs
            continue
        else:
            tensors = module._parameters | {
                key: buffer
                for key, buffer in module._buffers.items()
                if key not in module._non_persistent_buffers_set
            }
        for key, tensor in tensors.items():
            if tensor is not None:
                state[prefix + key] = tensor.detach().cpu()
    return state


def _serialised(tensors: dict[str, Tensor], name: str) -> bytes:
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    if name.endswith(".safetensors"):
        return save(tensors, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _compare(
    backbone: DinoVisionTransformer, tokens_of: Callable[[Tensor], Tensor], what: str
) -> list[Difference]:
    like, training = backbone.pos_embed, backbone.training
    height, width = (rows * backbone.patch_size for rows in backbone.patch_embed.grid)
    wider = (backbone.patch_embed.grid[1] * 3 // 2) * backbone.patch_size
    generator = torch.Generator().manual_seed(0)
    differences = []
    backbone.eval()
    try:
        for size in ((height, width), (height, wider)):
            images = torch.randn(1, 3, *size, generator=generator).to(like.dtype)
            ((patches, cls),) = backbone.get_intermediate_layers(
                images.to(like.device), return_class_token=True
            )
            ours = torch.cat([cls[:, None], patches], dim=1).cpu().float()
            largest = (tokens_of(images).float() - ours).abs().max()
            differences.append(Difference(size, float(largest), float(largest / ours.abs().max())))
    finally:
        backbone.train(training)
    allowed = TOLERANCE.get(like.dtype, HALF_TOLERANCE)
    if not differences[0].relative <= allowed:
        raise ValueError(
            f"the output of {what} differs from that of the run: the relative difference is "
            f"{differences[0].relative:.2g}, expected at most {allowed:g}; nothing was written"
        )
    return differences
