"""The content of an adapter file: reading and validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recyclelora.common.digests import tensor_digest
from recyclelora.common.safetensors_file import open_safetensors

from .checks import DTYPES
from .file_header import METADATA_KEY, FileHeader, LayerHeader
from .initialisers import Factors


class AdapterFile(NamedTuple):
    """The content of an adapter file."""

    header: FileHeader
    tensors: dict[str, Tensor]

    def layer_tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a layer by their names in the layer."""
        prefix = f"{name}." if name else ""
        shapes = self.header.layers[name].tensor_shapes()
        return {key: self.tensors[f"{prefix}{key}"] for key in shapes}


def read_adapter_file(path: Path) -> AdapterFile:
    """Read a file of :func:`save_adapters`; the tensors are those that its header states.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter file {path}")
    with open_safetensors(path) as file:
        try:
            header = FileHeader.from_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        shapes, names = header.tensor_shapes(), set(file.keys())
        if wrong := sorted(names ^ shapes.keys()):
            where = "lacks" if wrong[0] in shapes else "holds, but its header does not name,"
            raise ValueError(
                f"{path} is damaged: it {where} the tensor {wrong[0]!r}; save the adapters again"
            )
        for key, shape in shapes.items():
            stored = tuple(file.get_slice(key).get_shape())
            if shape is not None and stored != shape:
                raise ValueError(
                    f"{path} is damaged: the tensor {key!r} is {stored}, expected {shape}; save "
                    "the adapters again"
                )
        content = AdapterFile(header, {key: file.get_tensor(key).clone() for key in shapes})
    for name, layer in header.layers.items():
        try:
            check_values(content.layer_tensors(name), layer)
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged: {error} in layer {name!r}; save the adapters again"
            ) from None
    return content


def check_values(tensors: Mapping[str, Tensor], layer: LayerHeader) -> None:
    """Raise an error if a tensor of a layer has a wrong dtype, or values that are not valid.

    The message ends before "in layer NAME".
    """
    for key, tensor in tensors.items():
        if key != "columns":
            if tensor.dtype not in DTYPES or not tensor.isfinite().all():
                raise ValueError(f"{key} is no floating-point tensor, or holds NaN or Inf")
            continue
        valid = tensor.dtype == torch.int64 and len(tensor.unique()) == len(tensor)
        if not valid or not ((tensor >= 0) & (tensor < layer.shape[1])).all():
            raise ValueError(f"its pivot columns are not different ones of 0..{layer.shape[1] - 1}")


def initial_digest(factors: Factors) -> str:
    """The SHA-256 of initial factors."""
    return tensor_digest(tensor for tensor in factors if tensor is not None)
