"""Rename the state dicts of DINOv2 and EVA-02 from and to the keys of other libraries."""

import re

import torch

# Names, in each layout, of the parameter that identifies a ViT in a checkpoint.
PATCH_KERNELS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")

# Parts of names: the official one, the one in files of transformers, and, if different, the one in
# the state dicts of its models since transformers 5. Parts without a leading dot begin a name.
HUGGING_FACE = [
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("pos_embed", "embeddings.position_embeddings"),
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("blocks.", "encoder.layer."),
    ("norm.", "layernorm."),
    (".attn.query.", ".attention.attention.query.", ".attention.q_proj."),
    (".attn.key.", ".attention.attention.key.", ".attention.k_proj."),
    (".attn.value.", ".attention.attention.value.", ".attention.v_proj."),
    (".attn.proj.", ".attention.output.dense.", ".attention.o_proj."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
    (".mlp.w12.", ".mlp.weights_in."),
    (".mlp.w3.", ".mlp.weights_out.", ".mlp.down_proj."),
]
# Names in timm of registers and of the SwiGLU, which has the names of an MLP.
TIMM_REGISTERS = ("register_tokens", "reg_token")
TIMM_SWIGLU = [(".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2.")]
# Matrices that the official layout concatenates, in this order.
FUSED_QKV = (".attn.qkv.", (".attn.query.", ".attn.key.", ".attn.value."))
FUSED_SWIGLU = (".mlp.w12.", (".mlp.gate_proj.", ".mlp.up_proj."))


# Patterns and our names for EVA-02. Only the biases differ from the official layout.
EVA02 = [
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.mlp\.fc1_g\.", ".mlp.w1."),
    (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.mlp\.fc2\.", ".mlp.w3."),
]
# Tensors of EVA-02's files that the backbone does not have: tables of cosines and sines, which
# official files repeat for every attention, and heads of pretraining and classification.
NOT_IN_EVA02 = r"(.*\.)?rope\.freqs_(cos|sin)|mask_token|(norm|fc_norm|lm_head|head)\.(weight|bias)"

State = dict[str, torch.Tensor]


def rename_dinov2(tensors: State) -> tuple[State, str, list[str]]:
    """Rename the tensors of a DINOv2 model to the keys of facebookresearch/dinov2.

    Parameters
    ----------
    tensors : dict of Tensor
        Tensors in the official layout (also with chunked blocks, as in training checkpoints) or in
        the layout of Hugging Face transformers or timm, under any prefix ("backbone.", "module.",
        ...).

    Returns
    -------
    tensors : dict of Tensor
        The renamed tensors.
    layout : str
        Name of the layout.
    left_out : list of str
        Names outside the prefix, such as those of heads.

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
    """Rename the tensors of an EVA-02 model to the keys of :class:`Eva02VisionTransformer`.

    Parameters
    ----------
    tensors : dict of Tensor
        Tensors in the layout of baaivision/EVA or timm, under any prefix.

    Returns
    -------
    tensors : dict of Tensor
        The renamed tensors.
    layout : str
        Name of the layout.
    left_out : list of str
        Names outside the prefix, and those of heads and rotary tables.

    Raises
    ------
    ValueError
        If there is no ViT, or more than one.
    """
    inside, left_out = find_vit(tensors)
    left_out += [name for name in inside if re.fullmatch(NOT_IN_EVA02, name)]
    kept = {n: tensor for n, tensor in inside.items() if not re.fullmatch(NOT_IN_EVA02, n)}
    timm = any(".mlp.fc1_g." in name for name in inside)
    return _rename(kept, EVA02), "timm" if timm else "official", left_out


def find_vit(tensors: State) -> tuple[State, list[str]]:
    """Find a ViT among the tensors of a checkpoint.

    Parameters
    ----------
    tensors : State
        The tensors of the checkpoint.

    Returns
    -------
    inside : dict of Tensor
        The tensors of the ViT, without its prefix.
    outside : list of str
        The names of all other tensors.

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
        raise ValueError(f"expected the weights of one ViT, with one patch kernel, got {found}")
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
    pairs = [(other, official) for official, *others in HUGGING_FACE for other in others]
    renamed = {_replace(name, pairs): tensor for name, tensor in tensors.items()}
    for fused, parts in (FUSED_QKV, FUSED_SWIGLU):
        for first in [name for name in renamed if parts[0] in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in renamed for name in names):  # otherwise they are reported as unexpected
                stacked = torch.cat([renamed.pop(name) for name in names])
                renamed[first.replace(parts[0], fused)] = stacked
    return renamed


def to_hugging_face(tensors: State, *, in_memory: bool = False) -> State:
    """Rename the official keys of a DINOv2 model to those of Hugging Face transformers.

    Parameters
    ----------
    tensors : State
        Tensors in the official layout.
    in_memory : bool
        Whether to use the keys of models in memory since transformers 5, not those in files.

    Returns
    -------
    State
        The renamed tensors.
    """
    tensors = dict(tensors)
    for fused, parts in (FUSED_QKV, FUSED_SWIGLU) if in_memory else (FUSED_QKV,):
        for name in [name for name in tensors if fused in name]:
            pieces = tensors.pop(name).chunk(len(parts))
            tensors |= {name.replace(fused, part): piece for part, piece in zip(parts, pieces)}
    pairs = [(official, others[-1 if in_memory else 0]) for official, *others in HUGGING_FACE]
    return {_replace(name, pairs): tensor for name, tensor in tensors.items()}


def _from_timm(tensors: State) -> State:
    """Rename registers and SwiGLU, in which timm's layout differs from the official one."""
    tensors = dict(tensors)
    registers, in_timm = TIMM_REGISTERS
    if {in_timm, "cls_token", "pos_embed"} <= tensors.keys():
        tensors[registers] = tensors.pop(in_timm)
        # timm adds the position of the cls token to the token itself if there are registers.
        zero = torch.zeros_like(tensors["cls_token"])
        tensors["pos_embed"] = torch.cat([zero, tensors["pos_embed"]], dim=1)
    pairs = [(other, official) for official, other in TIMM_SWIGLU]
    for name in [name for name in tensors if name.endswith(".mlp.fc1.weight")]:
        second = tensors.get(name.replace(".fc1.", ".fc2."))
        if second is not None and len(tensors[name]) == 2 * second.shape[1]:  # gate and value
            block = name.removesuffix("fc1.weight")
            for old in [other for other in tensors if other.startswith(block)]:
                tensors[_replace(old, pairs)] = tensors.pop(old)
    return tensors


def to_timm(tensors: State) -> State:
    """Rename the official keys of a DINOv2 model to those of timm, which has no mask token.

    Parameters
    ----------
    tensors : State
        Tensors in the official layout.

    Returns
    -------
    State
        The renamed tensors.
    """
    tensors = {_replace(n, TIMM_SWIGLU): t for n, t in tensors.items() if n != "mask_token"}
    registers, in_timm = TIMM_REGISTERS
    if registers in tensors:
        tensors[in_timm] = tensors.pop(registers)
        cls, patches = tensors["pos_embed"].tensor_split([1], dim=1)
        tensors |= {"cls_token": tensors["cls_token"] + cls, "pos_embed": patches}
    return tensors


def _replace(name: str, pairs: list[tuple[str, str]]) -> str:
    """Replace the parts of a name, one after the other."""
    for old, new in pairs:
        if old.startswith("."):
            name = name.replace(old, new)
        elif name.startswith(old):
            name = new + name.removeprefix(old)
    return name
