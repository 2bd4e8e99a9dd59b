"""Configurations of DINOv2 in other libraries, and functions that load a folder with them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recyclelora.backbone import DinoVisionTransformer, load_weights

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def settings_of(backbone: DinoVisionTransformer, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of :class:`DinoVisionTransformer` that fit the merged ``state``.

    Parameters
    ----------
    backbone : DinoVisionTransformer
        The backbone.
    state : Mapping[str, Tensor]
        Its merged state dict.

    Returns
    -------
    dict
        The arguments.
    """
    grid, patch = backbone.patch_embed.grid, backbone.patch_size
    swiglu = "blocks.0.mlp.w3.weight" in state
    second = state.get(f"blocks.0.mlp.{'w3' if swiglu else 'fc2'}.weight")
    hidden = 4 * backbone.embed_dim if second is None else second.shape[1]
    registers = backbone.register_tokens
    return {
        "img_size": [grid[0] * patch, grid[1] * patch],
        "patch_size": patch,
        "embed_dim": backbone.embed_dim,
        "depth": len(backbone.blocks),
        "num_heads": backbone.blocks[0].attn.num_heads,
        "mlp_ratio": _mlp_ratio(hidden, backbone.embed_dim, swiglu),
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "proj_bias": "blocks.0.attn.proj.bias" in state,
        "ffn_bias": f"blocks.0.mlp.{'w3' if swiglu else 'fc2'}.bias" in state,
        "ffn_layer": "swiglu" if swiglu else "mlp",
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "num_register_tokens": 0 if registers is None else registers.shape[1],
        "interpolate_offset": backbone.interpolate_offset,
        "interpolate_antialias": backbone.interpolate_antialias,
        "layer_norm_eps": backbone.norm.eps,
    }


def _mlp_ratio(hidden: int, dim: int, swiglu: bool) -> float:
    """Return a ratio that gives this hidden width, if possible a whole number."""
    for ratio in range(1, 33):
        if hidden == (_swiglu_width(dim * ratio) if swiglu else dim * ratio):
            return ratio
    return exact_ratio((hidden - 4) * 3 // 2 if swiglu else hidden, dim)


def _swiglu_width(nominal: int) -> int:
    """Return two thirds of the nominal SwiGLU width, rounded up to a multiple of 8 as in DINOv2.

    >>> _swiglu_width(6144)
    4096
    """
    return (int(nominal * 2 / 3) + 7) // 8 * 8


def exact_ratio(hidden: int, dim: int) -> float:
    """Return a number r with ``int(dim * r) == hidden``.

    Parameters
    ----------
    hidden : int
        The hidden width of the MLP.
    dim : int
        The width of the tokens.

    Returns
    -------
    float
        The number.
    """
    return (hidden + 0.5) / dim


def with_defaults(
    state: dict[str, Tensor], settings: Mapping[str, Any], layout: str
) -> dict[str, Tensor]:
    """Add the tensors that the layout requires and this model lacks: factors 1, biases 0.

    Parameters
    ----------
    state : dict
        The merged state dict.
    settings : Mapping
        The result of :func:`settings_of`.
    layout : str
        The layout of the folder.

    Returns
    -------
    dict
        The complete state dict.
    """
    if layout == "dinov2":
        return state
    state, first = dict(state), "w12" if settings["ffn_layer"] == "swiglu" else "fc1"
    second = "w3" if first == "w12" else "fc2"
    for index in range(settings["depth"]):
        block = f"blocks.{index}."
        for name in ("attn.proj.bias", f"mlp.{first}.bias", f"mlp.{second}.bias"):
            weight = state[block + name.replace("bias", "weight")]
            state.setdefault(block + name, weight.new_zeros(len(weight)))
        if layout == "hugging_face":
            for name in ("ls1.gamma", "ls2.gamma"):
                state.setdefault(block + name, state["cls_token"].new_ones(settings["embed_dim"]))
    return state


def dinov2_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the official class, whose epsilon is fixed.

    Parameters
    ----------
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    dict
        The arguments.
    """
    _check_epsilon(settings, "the official DINOv2")
    args = {key: value for key, value in settings.items() if key != "layer_norm_eps"}
    return {"model": "DinoVisionTransformer", "args": args | {"block_chunks": 0}}


def timm_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of timm's ``config.json``.

    Parameters
    ----------
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    dict
        The content.
    """
    _check_epsilon(settings, "timm")
    swiglu, dim = settings["ffn_layer"] == "swiglu", settings["embed_dim"]
    hidden = int(dim * settings["mlp_ratio"])
    if swiglu:
        hidden = 2 * _swiglu_width(hidden)  # timm's number includes both halves
    registers = settings["num_register_tokens"]
    args = {key: settings[key] for key in ("img_size", "patch_size", "embed_dim", "depth")}
    args |= {"num_heads": settings["num_heads"], "mlp_ratio": exact_ratio(hidden, dim)}
    args |= {"qkv_bias": settings["qkv_bias"], "init_values": settings["init_values"]}
    args |= {"reg_tokens": registers, "no_embed_class": bool(registers), "dynamic_img_size": True}
    size = [3, *settings["img_size"]]
    data = {"input_size": size, "interpolation": "bicubic", "crop_pct": 1.0, **IMAGENET}
    names = {"first_conv": "patch_embed.proj", "classifier": "head", "num_classes": 0}
    return {
        "architecture": f"vit_{'giant' if swiglu else 'small'}_patch14_dinov2",
        "num_classes": 0,
        "num_features": dim,
        "global_pool": "token",
        "model_args": args,
        "pretrained_cfg": {"tag": "recyclelora", "custom_load": False, **data, **names},
    }


def hugging_face_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config.json`` of Dinov2Model or Dinov2WithRegistersModel.

    Parameters
    ----------
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    dict
        The content.
    """
    height, width = settings["img_size"]
    if height != width:
        raise ValueError(
            f"transformers needs positions of a square image, got {height}x{width}: build the "
            "backbone with a square img_size, or choose another layout"
        )
    if settings["mlp_ratio"] != int(settings["mlp_ratio"]):
        raise ValueError(
            f"transformers needs a whole mlp_ratio, got {settings['mlp_ratio']:g}: choose another "
            "layout"
        )
    registers = settings["num_register_tokens"]
    kind = "dinov2_with_registers" if registers else "dinov2"
    config = {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": kind,
        "hidden_size": settings["embed_dim"],
        "num_hidden_layers": settings["depth"],
        "num_attention_heads": settings["num_heads"],
        "mlp_ratio": int(settings["mlp_ratio"]),
        "hidden_act": "gelu",
        "layer_norm_eps": settings["layer_norm_eps"],
        "image_size": height,
        "patch_size": settings["patch_size"],
        "num_channels": 3,
        "qkv_bias": settings["qkv_bias"],
        "layerscale_value": 1.0,
        "drop_path_rate": 0.0,
        "use_swiglu_ffn": settings["ffn_layer"] == "swiglu",
    }
    return config | ({"num_register_tokens": registers} if registers else {})


def load_dinov2(folder: Path, settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Load the official layout with this package; no package index has the official code.

    Parameters
    ----------
    folder : Path
        The folder.
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    Callable
        Function from images to the normalised tokens of the last block.
    """
    model = load_weights(DinoVisionTransformer(**settings), folder / "backbone.pth").eval()

    def tokens(images: Tensor) -> Tensor:
        ((patches, cls),) = model.to(images.dtype).get_intermediate_layers(
            images, return_class_token=True
        )
        return torch.cat([cls[:, None], patches], dim=1)

    return tokens


def load_timm(folder: Path, settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Load the folder with timm.

    Parameters
    ----------
    folder : Path
        The folder.
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    Callable
        Function from images to the normalised tokens of the last block.
    """
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return lambda images: _without_registers(
        model.to(images.dtype).forward_features(images), settings
    )


def load_hugging_face(folder: Path, settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Load the folder with transformers.

    Parameters
    ----------
    folder : Path
        The folder.
    settings : Mapping
        The result of :func:`settings_of`.

    Returns
    -------
    Callable
        Function from images to the normalised tokens of the last block.
    """
    from transformers import AutoModel

    model, told = AutoModel.from_pretrained(str(folder), output_loading_info=True)
    if told["missing_keys"] or told["unexpected_keys"]:
        raise ValueError(
            f"transformers does not load all weights: missing {sorted(told['missing_keys'])[:3]}, "
            f"unexpected {sorted(told['unexpected_keys'])[:3]}"
        )
    model.eval()
    return lambda images: _without_registers(
        model.to(images.dtype)(images).last_hidden_state, settings
    )


def _without_registers(tokens: Tensor, settings: Mapping[str, Any]) -> Tensor:
    return torch.cat([tokens[:, :1], tokens[:, 1 + settings["num_register_tokens"] :]], dim=1)


def _check_epsilon(settings: Mapping[str, Any], library: str) -> None:
    if settings["layer_norm_eps"] != 1e-6:
        raise ValueError(
            f"{library} has layer_norm_eps=1e-6, this backbone {settings['layer_norm_eps']:g}: "
            "choose the layout hugging_face"
        )
