"""State dicts of DINOv2 and EVA-02, renamed from and to the keys of other libraries."""

import re

import torch

# The parameter by which a ViT is found in a checkpoint, under its name in each layout.
PATCH_KERNELS = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")

# Parts of names: the official one, the one in files of transformers, and where it differs the one
# in the state dicts of its models since transformers 5. Parts without a dot in front begin a name.
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
# Of timm: registers, and the SwiGLU, which it names like an MLP.
TIMM_REGISTERS = ("register_tokens", "reg_token")
TIMM_SWIGLU = [(".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2.")]
# Matrices that the official layout stacks into one, in this order.
FUSED_QKV = (".attn.qkv.", (".attn.query.", ".attn.key.", ".attn.value."))
FUSED_SWIGLU = (".mlp.w12.", (".mlp.gate_proj.", ".mlp.up_proj."))


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
    pairs = [(other, official) for official, *others in HUGGING_FACE for other in others]
    renamed = {_replace(name, pairs): tensor for name, tensor in tensors.items()}
    for fused, parts in (FUSED_QKV, FUSED_SWIGLU):
        for first in [name for name in renamed if parts[0] in name]:
            names = [first.replace(parts[0], part) for part in parts]
            if all(name in renamed for name in names):  # else they are reported as unexpected
                stacked = torch.cat([renamed.pop(name) for name in names])
                renamed[first.replace(parts[0], fused)] = stacked
    return renamed


def to_hugging_face(tensors: State, *, in_memory: bool = False) -> State:
    """Rename a DINOv2's official keys to those in files of Hugging Face transformers.

    ``in_memory`` gives the keys of its models in transformers 5 instead.
    """
    tensors = dict(tensors)
    for fused, parts in (FUSED_QKV, FUSED_SWIGLU) if in_memory else (FUSED_QKV,):
        for name in [name for name in tensors if fused in name]:
            pieces = tensors.pop(name).chunk(len(parts))
            tensors |= {name.replace(fused, part): piece for part, piece in zip(parts, pieces)}
    pairs = [(official, others[-1 if in_memory else 0]) for official, *others in HUGGING_FACE]
    return {_replace(name, pairs): tensor for name, tensor in tensors.items()}


def _from_timm(tensors: State) -> State:
    """timm's layout is the official one, except for registers and SwiGLU."""
    tensors = dict(tensors)
    registers, in_timm = TIMM_REGISTERS
    if {in_timm, "cls_token", "pos_embed"} <= tensors.keys():
        tensors[registers] = tensors.pop(in_timm)
        # With registers timm adds the cls token's position to the cls token itself.
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
    """Rename a DINOv2's official keys to those of timm, which has no mask token."""
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
