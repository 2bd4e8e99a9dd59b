"""Read the weights of a vision transformer from an ONNX graph."""

from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_onnx(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights of an ONNX file under their names before the export.

    An export preserves the names of most parameters. The names of two kinds are lost, and are
    recovered from the graph:

    - The weight of a linear layer becomes ``onnx::MatMul_123`` (in, out), the right operand of a
      MatMul to whose result the bias of the layer is added. It is returned as (out, in) under the
      name of the layer.
    - A position embedding that is resampled in the graph is cut into the part of the cls token
      (1, 1, dim) and the part of the patches (1, N, dim). The parts are returned concatenated, as
      ``position_embeddings``.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict[str, torch.Tensor]
        The tensors by name.

    Raises
    ------
    ValueError
        If the file is damaged, is not an ONNX file, or stores tensors in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(f"{path} is not an ONNX file, or is damaged or cut off") from error
    outside = [i.name for i in graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise ValueError(
            f"{path} stores {len(outside)} tensors in other files: save it as a single file"
        )
    try:
        return _join_positions(_named(graph))
    except Exception as error:  # names, lengths, shapes and types in a file may be anything
        raise ValueError(
            f"{path} is damaged, or has tensors of an unsupported type ({str(error)[:200]}): "
            "export the model again in float32"
        ) from error


def _named(graph: Any) -> dict[str, torch.Tensor]:
    """Return the initialisers; a linear weight is named after the bias added to its product."""
    tensors = {initialiser.name: _tensor(initialiser) for initialiser in graph.initializer}
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and len(node.input) == 2 and len(node.output) == 1
        if node.input[1] in tensors and tensors[node.input[1]].dim() == 2
    }
    for node in graph.node:
        if node.op_type != "Add":
            continue
        product = next((name for name in node.input if name in products), None)
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        if product and bias:
            weight = products[product]
            tensors[bias.removesuffix("bias") + "weight"] = tensors[weight].T.contiguous()
    used = set(products.values())
    return {name: tensor for name, tensor in tensors.items() if name not in used}


def _tensor(initialiser: Any) -> torch.Tensor:
    from onnx import numpy_helper

    array = numpy_helper.to_array(initialiser)
    if array.dtype.name == "bfloat16":  # NumPy itself does not support it
        array = array.astype(np.float32)
    return torch.from_numpy(array.copy())


def _join_positions(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Concatenate the two nameless parts of a position embedding, if they exist, under one name."""
    nameless = {n: t for n, t in tensors.items() if n.startswith("onnx::") and t.dim() == 3}
    cls = [n for n, t in nameless.items() if t.shape[:2] == (1, 1)]
    patches = [n for n, t in nameless.items() if t.shape[0] == 1 and t.shape[1] > 1]
    if len(cls) != 1 or len(patches) != 1:
        return tensors
    token = next((n for n in tensors if n.endswith("cls_token")), "cls_token")
    name = token.removesuffix("cls_token") + "position_embeddings"
    joined = torch.cat([tensors[cls[0]], tensors[patches[0]]], dim=1)
    return {n: t for n, t in tensors.items() if n not in (*cls, *patches)} | {name: joined}
