"""The sizes of a segmentor as plain data, and construction of such a segmentor without weights."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer
from recyclelora.baselines import SplitProjection
from recyclelora.common.validation import check_integer, check_number, short_repr
from recyclelora.mask2former import (
    MaskFormer,
    MSDeformAttnPixelDecoder,
    MultiScaleMaskedTransformerDecoder,
    build_segmentor,
)

from .backbone import merged_state
from .outside_backbones import exact_ratio, settings_of

BACKBONES = {cls.__name__: cls for cls in (DinoVisionTransformer, Eva02VisionTransformer)}
# Arguments of build_segmentor, with the largest value that a file may contain.
HEAD = {
    "hidden_dim": 8192,
    "nheads": 1024,
    "enc_layers": 100,
    "enc_dim_feedforward": 65_536,
    "dec_layers": 100,
    "dec_dim_feedforward": 65_536,
    "num_queries": 10_000,
}
MOST_CLASSES = 255  # class maps are uint8, and 255 stands for no class


def segmentor_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the merged weights that inference needs, on the CPU.

    Parameters
    ----------
    model : nn.Module
        The model.

    Returns
    -------
    dict
        The tensors by name.
    """
    state = {k: v.clone() for k, v in merged_state(model).items() if k.split(".")[0] != "criterion"}
    for name, module in model.named_modules():
        if isinstance(module, SplitProjection):  # SoMA's separate layers for q, k and v
            for kind in ("weight", "bias"):
                parts = [state.pop(f"{name}.{part}.{kind}", None) for part in "qkv"]
                if parts[0] is not None:
                    state[f"{name}.{kind}"] = torch.cat(parts)
    return state


def describe(model: MaskFormer, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes and the normalisation of a segmentor.

    Parameters
    ----------
    model : MaskFormer
        The segmentor.
    state : Mapping[str, Tensor]
        Its merged weights.

    Returns
    -------
    dict
        The settings.

    Raises
    ------
    TypeError
        If the backbone or the head has another class.
    """
    if not isinstance(model, MaskFormer):
        raise TypeError(f"expected a MaskFormer, got {type(model).__name__}: unwrap the model")
    backbone, head = model.backbone, model.sem_seg_head
    if type(backbone) not in BACKBONES.values():
        raise TypeError(
            f"expected a backbone of {' or '.join(BACKBONES)}, got {type(backbone).__name__}, "
            "which a Segmentor cannot hold: keep the checkpoint and the config of this model"
        )
    parts = head.pixel_decoder, head.predictor
    known = MSDeformAttnPixelDecoder, MultiScaleMaskedTransformerDecoder
    if any(type(part) is not cls for part, cls in zip(parts, known, strict=True)):
        raise TypeError("expected the head of recyclelora.mask2former.build_segmentor")
    return {
        "backbone": {"type": type(backbone).__name__, **_backbone_settings(backbone, state)},
        "head": _head_settings(*parts),
        "normalisation": {
            "pixel_mean": model.pixel_mean.flatten().tolist(),
            "pixel_std": model.pixel_std.flatten().tolist(),
        },
        "inference": {
            "size_divisibility": model.size_divisibility,
            "sem_seg_postprocess_before_inference": model.sem_seg_postprocess_before_inference,
        },
    }


def build_empty(settings: Mapping[str, Any], num_classes: int) -> MaskFormer:
    """Build the segmentor of a description, on the meta device and without a criterion.

    Only its pixel mean and standard deviation have values.

    Parameters
    ----------
    settings : Mapping
        The result of :func:`describe`.
    num_classes : int
        The number of classes.

    Returns
    -------
    MaskFormer
        The segmentor.

    Raises
    ------
    ValueError
        If the settings are invalid.
    """
    head = _section(settings, "head", HEAD)
    for name, most in HEAD.items():
        check_integer(f"head.{name}", head[name], least=1, most=most)
    norm = _section(settings, "normalisation", ("pixel_mean", "pixel_std"))
    for name, least in (("pixel_mean", -1e6), ("pixel_std", 1e-6)):
        if not isinstance(norm[name], list) or len(norm[name]) != 3:
            raise ValueError(f"{name} must be a list of 3 numbers, got {short_repr(norm[name])}")
        for value in norm[name]:
            check_number(f"each value of {name}", value, least=least)
    before = "sem_seg_postprocess_before_inference"
    inference = _section(settings, "inference", ("size_divisibility", before))
    check_integer("size_divisibility", inference["size_divisibility"], most=4096)
    _check_bool(before, inference[before])
    with torch.device("meta"):
        backbone = _empty_backbone(settings["backbone"])
        model = build_segmentor(backbone, num_classes, **head, **inference)
    model.criterion = None  # needed only in a training
    for name, values in norm.items():
        setattr(model, name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))
    return model.eval()


def _backbone_settings(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    prefix = "backbone."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    blocks = {"out_indices": list(backbone.out_indices)}
    if isinstance(backbone, DinoVisionTransformer):
        return settings_of(backbone, own) | blocks
    patch, dim = backbone.patch_size, backbone.embed_dim
    return {
        "img_size": [rows * patch for rows in backbone.patch_embed.grid],
        "patch_size": patch,
        "embed_dim": dim,
        "depth": len(backbone.blocks),
        "num_heads": backbone.blocks[0].attn.num_heads,
        "mlp_ratio": exact_ratio(own["blocks.0.mlp.w1.weight"].shape[0], dim),
        "pt_hw_seq_len": backbone.pt_hw_seq_len,
        "interpolate_antialias": backbone.interpolate_antialias,
        "layer_norm_eps": backbone.blocks[0].norm1.eps,
    } | blocks


def _head_settings(
    pixel_decoder: MSDeformAttnPixelDecoder, predictor: MultiScaleMaskedTransformerDecoder
) -> dict[str, int]:
    encoder = pixel_decoder.transformer.encoder["layers"]
    feed_forward = predictor.transformer_ffn_layers
    return {
        "hidden_dim": predictor.class_embed.in_features,
        "nheads": predictor.transformer_self_attention_layers[0].self_attn.n_heads,
        "enc_layers": len(encoder),
        "enc_dim_feedforward": encoder[0].linear1.out_features,
        "dec_layers": len(feed_forward),
        "dec_dim_feedforward": feed_forward[0].linear1.out_features,
        "num_queries": predictor.num_queries,
    }


def _section(settings: Mapping[str, Any], name: str, keys: object) -> dict[str, Any]:
    section = settings[name]
    if not isinstance(section, dict) or set(section) != set(keys):
        raise ValueError(
            f"{name} must be an object of {', '.join(keys)}, got {short_repr(section)}"
        )
    return section


def _empty_backbone(settings: object) -> nn.Module:
    if not isinstance(settings, dict) or settings.get("type") not in BACKBONES:
        raise ValueError(
            f"backbone must be an object with a type of {', '.join(BACKBONES)}, got "
            f"{short_repr(settings)}"
        )
    arguments = {name: value for name, value in settings.items() if name != "type"}
    kind = BACKBONES[settings["type"]]
    expected = _VIT | (_DINO if kind is DinoVisionTransformer else _EVA)
    if arguments.keys() != expected.keys():
        wrong = sorted(arguments.keys() ^ expected.keys())
        raise ValueError(f"backbone: {', '.join(wrong)} is missing or unknown")
    for name, check in expected.items():
        check(f"backbone.{name}", arguments[name])
    return kind(**arguments)


def _checked_by_constructor(name: str, value: object) -> None:
    """Accept a value that the constructor of the backbone validates."""


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {short_repr(value)}")


def _check_indices(name: str, value: object) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} must be a list of numbers of blocks, got {short_repr(value)}")
    for index in value:
        check_integer(f"each of {name}", index, most=1000)


def _check_scale(name: str, value: object) -> None:
    if value is not None:
        check_number(name, value, most=1e3)


# The arguments of the backbones. Constructors validate those that determine shapes. Errors in the
# others would only show in a prediction, or not at all.
_VIT: dict[str, Callable[[str, object], None]] = {
    **dict.fromkeys(("img_size", "patch_size", "embed_dim", "depth"), _checked_by_constructor),
    **dict.fromkeys(("num_heads", "mlp_ratio"), _checked_by_constructor),
    "interpolate_antialias": _check_bool,
    "layer_norm_eps": partial(check_number, most=1),
    "out_indices": _check_indices,
}
_DINO = {
    **dict.fromkeys(("qkv_bias", "proj_bias", "ffn_bias"), _check_bool),
    **dict.fromkeys(("ffn_layer", "num_register_tokens"), _checked_by_constructor),
    "init_values": _check_scale,
    "interpolate_offset": partial(check_number, most=1),
}
_EVA = {"pt_hw_seq_len": partial(check_integer, least=1, most=10_000)}
