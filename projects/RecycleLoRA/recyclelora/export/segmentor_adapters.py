"""Compact files of a segmentor: adapters and head, with a reference to the base weights.

The format is that of :func:`recyclelora.adapters.save_adapters` without initial factors. A file
contains the factors of the adapted layers and every other tensor of the model. Only the pretrained
weights W0 of the adapted layers are taken from the base. When a file is read, the SHA-256 of each
W0 is compared, the initial factors are computed from W0, and their SHA-256 is compared.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters import adapted_layers, load_adapters, save_adapters
from recyclelora.adapters.file_content import read_adapter_file
from recyclelora.adapters.merging import MergeableLinear
from recyclelora.backbone import WEIGHTS, load_weights
from recyclelora.common.safetensors_file import open_safetensors, write_safetensors
from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.tensor_file import check_finite
from recyclelora.common.validation import short_repr
from recyclelora.mask2former import MaskFormer

from .segmentor_settings import segmentor_state

# Tensors of save_adapters that the base determines. All other tensors were trained or are small.
_INITIAL = ("initial_A", "initial_B", "columns")


def describe_base(base: str) -> dict[str, Any]:
    """Return the entry of ``config.json`` for a base.

    Parameters
    ----------
    base : str
        A known name or a file, of which only the name is stored.

    Returns
    -------
    dict
        The entry.
    """
    if base in WEIGHTS:
        return {"weights": base}
    return {"file": Path(base).name}


def write_adapter_weights(path: Path, model: MaskFormer, dtype: torch.dtype) -> None:
    """Write the adapters of a model and its other tensors.

    Parameters
    ----------
    path : Path
        The file.
    model : MaskFormer
        The adapted model.
    dtype : torch.dtype
        The dtype of floating-point tensors in the file.

    Raises
    ------
    ValueError
        If the model has no adapters, if they were not created by :func:`recyclelora.adapt`, if the
        initial factors cannot be recomputed, or if values are not finite in ``dtype``.
    """
    layers = adapted_layers(model)
    other = [
        name
        for name, module in model.named_modules()
        if isinstance(module, MergeableLinear) and name not in layers
    ]
    if other or not layers:
        found = f"{len(other)} of another kind" if other else "none"
        raise ValueError(
            f"expected adapters of recyclelora.adapt alone, got {found}: save the merged form"
        )
    others = segmentor_state(model).keys() - {f"{name}.weight" for name in layers}
    try:
        save_adapters(model, path, also=sorted(others), initial_factors=False)
    except ValueError as error:
        message = str(error).replace("save them with initial_factors=True", "save the merged form")
        raise ValueError(message) from error
    if dtype == torch.float32:
        return
    with open_safetensors(path) as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    tensors = {
        name: tensor
        if name.rpartition(".")[2] in _INITIAL or not tensor.is_floating_point()
        else tensor.to(dtype)
        for name, tensor in tensors.items()
    }
    check_finite(tensors, f"the segmentor in {str(dtype).removeprefix('torch.')}")
    write_safetensors(path, tensors, metadata)


def read_adapter_weights(
    path: Path, model: MaskFormer, record: object, base: str | None
) -> dict[str, Tensor]:
    """Read a file of :func:`write_adapter_weights` and merge the adapters.

    Parameters
    ----------
    path : Path
        The file.
    model : MaskFormer
        A model of :func:`build_empty`. It receives the base and the adapters.
    record : object
        The entry of :func:`describe_base` in the config.
    base : str, optional
        The base weights to use instead of those of the record.

    Returns
    -------
    dict
        The merged weights.

    Raises
    ------
    FileNotFoundError, ValueError
        If the base is missing or different, or the file does not belong to it.
    """
    source = _base(record, base, path)
    state, file = model.state_dict(), read_adapter_file(path)
    adapted = {f"{name}.weight" for name in file.header.layers}
    expected = {name: tensor for name, tensor in state.items() if name not in adapted}
    found = {name: file.tensors[key] for name, key in file.header.also.items()}
    # Before memory is allocated, because a damaged config can name any size.
    if mismatch := describe_mismatch(expected, found):
        raise ValueError(
            f"the weights in {path} do not match its config ({mismatch}): export the run again"
        )
    for part in (model.backbone, model.sem_seg_head):
        _allocate(part)
    load_weights(model.backbone, source)
    load_adapters(model, path)
    return segmentor_state(model)


def _allocate(module: nn.Module) -> None:
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()


def _base(record: object, given: str | None, path: Path) -> str:
    if given is not None:
        return given
    if not isinstance(record, Mapping) or not all(isinstance(v, str) for v in record.values()):
        raise ValueError(
            f"{path}: base must be an object with the name of weights, got {short_repr(record)}: "
            "export the run again"
        )
    if record.get("weights") in WEIGHTS:
        return record["weights"]
    known = record.get("file") or record.get("weights")
    raise ValueError(
        f"{path} holds adapters of the base weights {short_repr(known)}, which is not a known "
        "name: pass the path of that file to from_pretrained as base"
    )
