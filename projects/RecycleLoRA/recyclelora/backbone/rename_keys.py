"""State dicts of DINOv2 and EVA-02 as other libraries save them, renamed to our keys."""

import re

import torch

# The parameter by which a ViT is found in a checkpoint, under its name in each layout.
PATCH_KERNELS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")

# Pattern -> official name. Where there are two names, the files of transformers 5 have the first,
# the state dicts of its models the second.
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
# Matrices that the official layout stacks into one, in this order.
FUSED = {
    ".attn.qkv.": (".attn.query.", ".attn.key.", ".attn.value."),
    ".mlp.w12.": (".mlp.gate_proj.", ".mlp.up_proj."),
}


# Pattern -> our name, of EVA-02. From the official layout only the biases differ.
EVA02 = [
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.mlp\.fc1_g\.", ".mlp.w1."),
    (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.mlp\.fc2\.", ".mlp.w3."),
]
# In EVA-02's files but not in the backbone: tables of cosines and sines, which an official file
# repeats for every attention, and the heads of pretraining and classification with their norms.
NOT_IN_EVA02 = r"(.*\.)?rope\.freqs_(cos|sin)|mask_token|(norm|fc_norm|lm_head|head)\.(weight|bias)"

State = dict[str, torch.Tensor]


def rename_dinov2(tensors: State) -> tuple[State, str, list[str]]:
    """Rename a DINOv2's tensors to the keys of facebookresearch/dinov2.

    Parameters
    ----------
    tensors : dict of Tensor
        In the official layout (also with chunked blocks, as in training checkpoints), that of
        Hugging Face transformers or that of timm, under any prefix ("backbone.", "module.", ...).

    Returns
    -------
    tensors : dict of Tensor
    layout : str
        Name of the layout.
    left_out : list of str
        Names outside the prefix, as of heads.

    Raises
    ------
    ValueError
        If there is no ViT, or more than one.
    """
    inside, left_out = find_vit(tensors)
    if PATCH_KERNELS[1] in inside:
        return _from_hugging_face(inside), "Hugging Face", left_out
    inside = _rename(inside, [(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1")])  # chunked
    return _from_timm(inside), "official or timm", left_out


def rename_eva02(tensors: State) -> tuple[State, str, list[str]]:
    """Rename an EVA-02's tensors to the keys of :class:`Eva02VisionTransformer`.

    Parameters, returns and raises as :func:`rename_dinov2`, for the layouts of baaivision/EVA and
    timm; ``left_out`` also has the names of heads and rotary tables.
    """
    inside, left_out = find_vit(tensors)
    left_out += [name for name in inside if re.fullmatch(NOT_IN_EVA02, name)]
    kept = {n: tensor for n, tensor in inside.items() if not re.fullmatch(NOT_IN_EVA02, n)}
    timm = any(".mlp.fc1_g." in name for name in inside)
    return _rename(kept, EVA02), "timm" if timm else "official", left_out


def find_vit(tensors: State) -> tuple[State, list[str]]:
    """The tensors under the ViT's prefix, without it, and the names of those outside.

    Raises
    ------
    ValueError
        If there is no ViT, or more than one.
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


def _rename(tensors: State, patterns: list[tuple[str, str]]) -> State:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in patterns:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def _from_hugging_face(tensors: State) -> State:
    renamed = _rename(tensors, HUGGING_FACE)
    for fused, parts in FUSED.items():
        for first in [name for name in renamed if parts[0] in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in renamed for name in names):  # else they are reported as unexpected
                stacked = torch.cat([renamed.pop(name) for name in names])
                renamed[first.replace(parts[0], fused)] = stacked
    return renamed


def _from_timm(tensors: State) -> State:
    """timm's layout is the official one, except for registers and SwiGLU."""
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
