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
    """The content of an adapter file.

    Attributes
    ----------
    header : FileHeader
        The header.
    tensors : dict[str, Tensor]
        All tensors by their names in the file.
    """

    header: FileHeader
    tensors: dict[str, Tensor]

    def layer_tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one layer.

        Parameters
        ----------
        name : str
            Name of the layer.

        Returns
        -------
        dict[str, Tensor]
            The tensors by their names in the layer.
        """
        prefix = f"{name}." if name else ""
        shapes = self.header.layers[name].tensor_shapes()
        return {key: self.tensors[f"{prefix}{key}"] for key in shapes}


def read_adapter_file(path: Path) -> AdapterFile:
    """Read a file that :func:`save_adapters` wrote, and validate its content.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    AdapterFile
        The header, and the tensors that the header lists.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or is not an adapter file.
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
            where = "missing from the file" if wrong[0] in shapes else "not listed in its header"
            raise ValueError(
                f"{path} is damaged: the tensor {wrong[0]!r} is {where}; save the adapters again"
            )
        for key, shape in shapes.items():
            stored = tuple(file.get_slice(key).get_shape())
            if shape is not None and stored != shape:
                raise ValueError(
                    f"{path} is damaged: the tensor {key!r} has shape {stored}, expected {shape}; "
                    "save the adapters again"
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
    """Raise an error if a tensor of a layer has a wrong dtype or invalid values.

    Parameters
    ----------
    tensors : Mapping[str, Tensor]
        The tensors by their names in the layer.
    layer : LayerHeader
        The layer's part of the header.

    Raises
    ------
    ValueError
        If a tensor is invalid. The message ends before "in layer NAME".
    """
    for key, tensor in tensors.items():
        if key != "columns":
            if tensor.dtype not in DTYPES or not tensor.isfinite().all():
                raise ValueError(f"{key} is not a floating-point tensor, or contains NaN or Inf")
            continue
        valid = tensor.dtype == torch.int64 and len(tensor.unique()) == len(tensor)
        if not valid or not ((tensor >= 0) & (tensor < layer.shape[1])).all():
            last = layer.shape[1] - 1
            raise ValueError(f"its pivot columns are not distinct numbers from 0 to {last}")


def initial_digest(factors: Factors) -> str:
    """Return the SHA-256 digest of initial factors.

    Parameters
    ----------
    factors : Factors
        The factors.

    Returns
    -------
    str
        The digest as a hexadecimal number.
    """
    return tensor_digest(tensor for tensor in factors if tensor is not None)
