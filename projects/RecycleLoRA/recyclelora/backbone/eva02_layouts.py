"""State dicts of EVA-02 in the official and in timm's key layout, renamed to ours."""

import re

import torch

from .layouts import the_one_vit

# Pattern -> our name. Ours differs from the official layout in the biases alone.
RENAMED = [
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.mlp\.fc1_g\.", ".mlp.w1."),
    (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    (r"\.mlp\.norm\.", ".mlp.ffn_ln."),
    (r"\.mlp\.fc2\.", ".mlp.w3."),
]
# In the files and not in the backbone: tables of cosines and sines, which every attention of an
# official file repeats; the heads of pretraining and classification, and the norms before them.
NOT_OURS = r"(.*\.)?rope\.freqs_(cos|sin)|mask_token|(norm|fc_norm|lm_head|head)\.(weight|bias)"


def to_eva02(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], str, list[str]]:
    """Rename an EVA-02's tensors to the keys of :class:`Eva02VisionTransformer`.

    Understands the layout of baaivision/EVA and timm's, under any prefix.

    Returns:
        the tensors; the layout's name; the names that were left out (heads, rotary tables).

    Raises:
        ValueError: there is no ViT, or more than one.
    """
    inside, left_out = the_one_vit(tensors)
    left_out += [name for name in inside if re.fullmatch(NOT_OURS, name)]
    renamed = {}
    for name, tensor in inside.items():
        if re.fullmatch(NOT_OURS, name):
            continue
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    timm = any(".mlp.fc1_g." in name for name in inside)
    return renamed, "timm" if timm else "official", left_out
