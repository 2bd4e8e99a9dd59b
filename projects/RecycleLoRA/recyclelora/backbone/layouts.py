"""State dicts of DINOv2 in the key layouts of other libraries, renamed to the official one."""

import re

import torch

# The one parameter that tells where in a checkpoint a ViT is, under its name in each layout.
PATCH_KERNELS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")

# Pattern -> official name. Files have the first of two names; a model in the memory of
# transformers 5, and so torch.save(model.state_dict()), the second.
HUGGING_FACE = [
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.(attention\.query|q_proj)\.", ".attn.query."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attn.key."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attn.value."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.w3."),
]
# Matrices that are one in the official layout, stacked in this order.
FUSED = {
    ".attn.qkv.": (".attn.query.", ".attn.key.", ".attn.value."),
    ".mlp.w12.": (".mlp.gate_proj.", ".mlp.up_proj."),
}


def to_official(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], str, list[str]]:
    """Rename a ViT's tensors to the keys of facebookresearch/dinov2.

    Understands the official layout (chunked blocks too, as in training checkpoints), Hugging Face
    transformers' and timm's, under any prefix ("backbone.", "dinov2.", "module.", ...).

    Returns:
        the tensors; the layout's name; the names outside the prefix, which were left out (heads).

    Raises:
        ValueError: there is no ViT, or more than one.
    """
    inside, left_out = the_one_vit(tensors)
    if PATCH_KERNELS[1] in inside:
        return _from_hugging_face(inside), "Hugging Face", left_out
    chunked = r"^blocks\.\d+\.(\d+\.)"
    inside = {re.sub(chunked, r"blocks.\1", name): tensor for name, tensor in inside.items()}
    return _from_timm(inside), "official or timm", left_out


def the_one_vit(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors under the ViT's prefix, without it, and the names of those outside.

    Raises:
        ValueError: there is no ViT, or more than one.
    """
    kernels = [name for name in tensors if name.endswith(PATCH_KERNELS)]
    if len(kernels) != 1:
        found = (
            ", ".join(kernels) or f"none among {len(tensors)} names such as {next(iter(tensors))}"
        )
        raise ValueError(f"expected the weights of one ViT, with one patch kernel, found {found}")
    prefix = next(kernels[0].removesuffix(k) for k in PATCH_KERNELS if kernels[0].endswith(k))
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return inside, [name for name in tensors if not name.startswith(prefix)]


def _from_hugging_face(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, official in HUGGING_FACE:
            name = re.sub(pattern, official, name)
        renamed[name] = tensor
    for fused, parts in FUSED.items():
        for first in [name for name in renamed if parts[0] in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in renamed for name in names):  # else they are reported as unexpected
                stacked = torch.cat([renamed.pop(name) for name in names])
                renamed[first.replace(parts[0], fused)] = stacked
    return renamed


def _from_timm(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's layout is the official one but for registers and SwiGLU."""
    tensors = dict(tensors)
    if {"reg_token", "cls_token", "pos_embed"} <= tensors.keys():
        tensors["register_tokens"] = tensors.pop("reg_token")
        # With registers timm adds the cls token's position to the cls token itself.
        zero = torch.zeros_like(tensors["cls_token"])
        tensors["pos_embed"] = torch.cat([zero, tensors["pos_embed"]], dim=1)
    for name in [name for name in tensors if name.endswith(".mlp.fc1.weight")]:
        block = name.removesuffix("fc1.weight")
        second = tensors.get(block + "fc2.weight")
        if second is not None and len(tensors[name]) == 2 * second.shape[1]:  # gate and value
            for old, new in (("fc1", "w12"), ("fc2", "w3")):
                for part in ("weight", "bias"):
                    if f"{block}{old}.{part}" in tensors:
                        tensors[f"{block}{new}.{part}"] = tensors.pop(f"{block}{old}.{part}")
    return tensors
