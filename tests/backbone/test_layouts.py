"""The loader reads a model from all layouts: official weights in the formats of other libraries."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from recyclelora.backbone import load_weights

State = dict[str, torch.Tensor]


def hugging_face(state: State) -> State:
    """Return the keys of transformers' Dinov2Model and Dinov2WithRegistersModel."""
    renamed = {}
    for name, tensor in state.items():
        if "attn.qkv" in name:
            stem, part = name.split("attn.qkv.")
            stem = stem.replace("blocks.", "encoder.layer.")
            for which, third in zip(("query", "key", "value"), tensor.chunk(3)):
                renamed[f"{stem}attention.attention.{which}.{part}"] = third.clone()
            continue
        name = re.sub(r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1", name)
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        name = re.sub(r"^norm\.", "layernorm.", name)
        name = name.replace("blocks.", "encoder.layer.").replace(
            "attn.proj", "attention.output.dense"
        )
        name = re.sub(r"ls(\d)\.gamma", r"layer_scale\1.lambda1", name)
        name = name.replace("mlp.w12", "mlp.weights_in").replace("mlp.w3", "mlp.weights_out")
        renamed[name] = tensor
    return renamed


def timm(state: State) -> State:
    """Return the keys of timm's vit_*_patch14_dinov2 and vit_*_patch14_reg4_dinov2."""
    renamed = {
        name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): tensor
        for name, tensor in state.items()
        if name != "mask_token"
    }
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        renamed["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        renamed["pos_embed"] = state["pos_embed"][:, 1:]
    return renamed


def chunked(state: State) -> State:
    """Return a training checkpoint of DINOv2 whose four blocks are in two chunks."""

    def into_chunk(name: str) -> str:
        return re.sub(
            r"^blocks\.(\d+)", lambda block: f"blocks.{int(block[1]) // 2}.{block[1]}", name
        )

    return {f"backbone.{into_chunk(name)}": tensor for name, tensor in state.items()}


def save_onnx(state: State, path: Path) -> Path:
    """Return a Hugging Face model after torch.onnx.export, with nameless (in, out) matrices."""
    state = hugging_face(state)
    state.pop("embeddings.mask_token")
    positions = state.pop("embeddings.position_embeddings")
    tensors = {"onnx::Concat_1": positions[:, :1], "onnx::Reshape_2": positions[:, 1:]}
    nodes = []
    for number, (name, tensor) in enumerate(state.items()):
        if re.search(r"(attention|mlp)\..*weight$", name):
            tensors[f"onnx::MatMul_{number}"] = tensor.T
            nodes.append(
                helper.make_node("MatMul", ["x", f"onnx::MatMul_{number}"], [f"p{number}"])
            )
            bias = "backbone." + name.removesuffix("weight") + "bias"
            # Exporters write the bias as the left or the right operand.
            sides = [bias, f"p{number}"] if number % 2 else [f"p{number}", bias]
            nodes.append(helper.make_node("Add", sides, [f"s{number}"]))
        else:
            tensors["backbone." + name] = tensor
    tensors["decoder.final_conv.weight"] = torch.ones(1, 2, 1, 1)
    initialisers = [
        numpy_helper.from_array(np.ascontiguousarray(tensor.detach().numpy()), name)
        for name, tensor in tensors.items()
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "exported", [value], [], initialisers)
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    ("rewrite", "file"),
    [
        (dict, "official.pth"),
        (hugging_face, "hugging_face.safetensors"),
        (hugging_face, "pytorch_model.bin"),
        (lambda s: {f"dinov2.{n}": t for n, t in hugging_face(s).items()}, "task.bin"),
        (timm, "timm.safetensors"),
        (lambda s: {"teacher": chunked(s)}, "teacher_checkpoint.pth"),
        (lambda s: {"state_dict": {f"backbone.{n}": t for n, t in s.items()}}, "segmentor.pth"),
        (lambda s: {f"module.{n}": t for n, t in s.items()}, "ddp.pth"),
        (dict, "exported.onnx"),
    ],
)
@pytest.mark.parametrize(
    "variant", [{}, {"num_register_tokens": 4}, {"ffn_layer": "swiglu"}], ids=["s", "reg", "g"]
)
def test_every_layout_gives_the_same_features(
    tiny, tmp_path, save, features, rewrite, file, variant
):
    source = tiny(**variant)
    if file.endswith(".onnx"):
        path = save_onnx(source.state_dict(), tmp_path / file)
    else:
        path = save(rewrite(source.state_dict()), tmp_path / file)
    target = tiny(**variant)
    assert not torch.allclose(features(target), features(source))
    assert load_weights(target, path) is target
    torch.testing.assert_close(features(target), features(source), atol=1e-5, rtol=1e-5)


def test_truncated_onnx_file_raises(tiny, tmp_path):
    path = save_onnx(tiny().state_dict(), tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_weights(tiny(), path)
