"""The small form of a segmentor's weights: adapters and head, with a reference to the base.

The file is one of :func:`recyclelora.adapters.save_adapters` without initial factors. It holds the
factors of the adapted layers and every other tensor of the model; only the pretrained weights W0 of
the adapted layers come from the base. Reading it compares the SHA-256 of each W0, computes the
initial factors from it, and compares their SHA-256.
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
from recyclelora.common.state_dicts import join_names
from recyclelora.common.tensor_file import check_finite
from recyclelora.common.validation import short_repr
from recyclelora.mask2former import MaskFormer

from .segmentor_settings import segmentor_state

# What save_adapters stores of the base; everything else was trained or is small.
_INITIAL = ("initial_A", "initial_B", "columns")


def describe_base(base: str) -> dict[str, Any]:
    """Return the entry of ``config.json`` for a base: a known name, or the name of a file."""
    if base in WEIGHTS:
        return {"weights": base}
    return {"file": Path(base).name}


def write_adapter_weights(path: Path, model: MaskFormer, dtype: torch.dtype) -> None:
    """Write the adapters of ``model`` and its other tensors, floating-point ones in ``dtype``.

    Raises
    ------
    ValueError
        If the model has no adapters, other ones than those of :func:`recyclelora.adapt`, initial
        factors that cannot be computed again, or values that are not finite in ``dtype``.
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
    """Return the merged weights of a file of :func:`write_adapter_weights`.

    Parameters
    ----------
    path : Path
    model : MaskFormer
        Of :func:`build_empty`. It gets the base and the adapters.
    record : object
        The entry of :func:`describe_base` in the config.
    base : str, optional
        The base's weights in place of those of the record.

    Raises
    ------
    FileNotFoundError, ValueError
        One sentence if the base is absent or another one, or the file does not belong to it.
    """
    source = _base(record, base, path)
    names = set(model.state_dict())
    header = read_adapter_file(path).header
    expected = names - {f"{name}.weight" for name in header.layers}
    if wrong := sorted(expected ^ header.also.keys()):
        raise ValueError(
            f"{path} is no weights of its config ({join_names(wrong)}): export the run again"
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
        f"{path} holds adapters of the base weights {short_repr(known)}, which is no known name: "
        "give from_pretrained the path of that file as base"
    )
