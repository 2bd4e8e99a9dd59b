"""The folder of a segmentor: ``config.json`` and ``model.safetensors``, both plain data."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recyclelora.common.atomic_folder import atomic_folder_write
from recyclelora.common.atomic_write import write_json
from recyclelora.common.digests import file_digest
from recyclelora.common.safetensors_file import open_safetensors, write_safetensors
from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.tensor_file import check_finite
from recyclelora.common.validation import check_integer, check_number, short_repr
from recyclelora.evaluation import Protocol
from recyclelora.mask2former import MaskFormer

from .segmentor_adapters import describe_base, read_adapter_weights, write_adapter_weights
from .segmentor_settings import MOST_CLASSES, build_empty

FORMAT, VERSION = "recyclelora-segmentor", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_MOST_BYTES = 10**6  # limit of config.json
_KEYS = ("backbone", "head", "normalisation", "inference", "classes", "colors", "protocol")


@dataclasses.dataclass(frozen=True)
class SegmentorContent:
    """A segmentor with the data that is stored with it.

    Parameters
    ----------
    model : MaskFormer
        The plain model, in eval mode.
    settings : Mapping
        The result of :func:`recyclelora.export.segmentor_settings.describe`.
    classes, colors : tuple
        The names and RGB colours of the classes.
    protocol : Protocol
        The protocol of the run's evaluation.
    provenance : Mapping
        Plain data about the origin of the weights.
    temperature : float
        The temperature of the confidences, from 0.01 to 100.
    """

    model: MaskFormer
    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    protocol: Protocol
    provenance: Mapping[str, Any]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, least=0.01, most=100)


def check_classes(classes: object, colors: object) -> None:
    """Raise an error unless the arguments are names of classes and a colour for each class.

    Parameters
    ----------
    classes : object
        The names.
    colors : object
        The RGB colours.

    Raises
    ------
    ValueError
        If they are invalid.
    """
    if (
        not isinstance(classes, list | tuple)
        or not 1 <= len(classes) <= MOST_CLASSES
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(f"classes must be 1 to {MOST_CLASSES} names, got {short_repr(classes)}")
    if not isinstance(colors, list | tuple) or len(colors) != len(classes):
        raise ValueError(f"colors must be one RGB colour for each of {len(classes)} classes")
    for color in colors:
        if not isinstance(color, list | tuple) or len(color) != 3:
            raise ValueError(f"each color must be 3 numbers, got {short_repr(color)}")
        for value in color:
            check_integer("each value of a color", value, most=255)


def write_segmentor(
    folder: str | Path,
    content: SegmentorContent,
    *,
    dtype: torch.dtype = torch.float32,
    adapted: MaskFormer | None = None,
    base: str | None = None,
) -> None:
    """Write the folder of a segmentor atomically; other files in it are kept.

    Parameters
    ----------
    folder : str or Path
        The folder.
    content : SegmentorContent
        The segmentor.
    dtype : torch.dtype
        The dtype of floating-point tensors in the file.
    adapted : MaskFormer, optional
        The model whose merged weights are ``content.model``. If given, its adapters and head are
        written instead of the merged weights.
    base : str, optional
        The name or the file of the base weights of ``adapted``.

    Raises
    ------
    TypeError, ValueError
        If the provenance is not plain data, if a weight is not finite in ``dtype``, or if the
        adapters do not belong to the base. Nothing is written.
    OSError
        If the folder cannot be written.
    """
    state = content.model.state_dict()
    config = {
        "format": FORMAT,
        "version": VERSION,
        **content.settings,
        "classes": list(content.classes),
        "colors": [list(color) for color in content.colors],
        "protocol": content.protocol.as_dict(),
        "temperature": content.temperature,
        "provenance": dict(content.provenance),
        "dtype": str(dtype).removeprefix("torch."),
    }
    with atomic_folder_write(folder) as temporary:
        if adapted is None:
            tensors = {
                n: tensor.detach().cpu().to(dtype).contiguous() for n, tensor in state.items()
            }
            check_finite(tensors, f"the segmentor in {config['dtype']}")
            write_safetensors(temporary / WEIGHTS, tensors, {"format": "pt"})
        else:
            config["base"] = describe_base(base)
            write_adapter_weights(temporary / WEIGHTS, adapted, dtype)
        config["weights_sha256"] = file_digest(temporary / WEIGHTS)
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        if adapted is not None:
            _compare(read_segmentor(temporary, base=base).model.state_dict(), state, dtype)


def _compare(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Raise an error unless the weights that were read equal those that were written."""
    kind = torch.finfo(dtype)
    most = max(1e-5, 2 * kind.eps)
    for name, tensor in expected.items():
        tensor = tensor.cpu()
        difference = (found[name] - tensor).abs().max() / tensor.abs().max().clamp_min(kind.tiny)
        if not difference <= most:
            raise ValueError(
                f"adapters, head and base do not reproduce the merged weights ({name} differs by "
                f"{difference:.2g}): save the merged form"
            )


def read_segmentor(folder: Path, *, base: str | None = None) -> SegmentorContent:
    """Read a folder of :func:`write_segmentor` without executing code from it.

    Parameters
    ----------
    folder : Path
        The folder.
    base : str, optional
        The name or the file of the base weights, for a folder of adapters.

    Returns
    -------
    SegmentorContent
        The segmentor.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files does not exist.
    ValueError
        If a file is damaged, has another format, or does not match the other file.
    """
    config = _read_config(folder)
    file = folder / CONFIG
    try:
        check_classes(config["classes"], config["colors"])
        content = SegmentorContent(
            model=build_empty(config, len(config["classes"])),
            settings={name: config[name] for name in _KEYS[:4]},
            classes=tuple(config["classes"]),
            colors=tuple(map(tuple, config["colors"])),
            protocol=Protocol(**config["protocol"]),
            provenance=config["provenance"],
            temperature=config.get("temperature", 1.0),
        )
    except Exception as error:  # constructors raise many types for invalid values
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{file} does not describe a segmentor ({reason}): export the run again"
        ) from error
    weights, model = folder / WEIGHTS, content.model
    _check_digest(weights, config["weights_sha256"])
    if "base" in config:
        with_base = build_empty(config, len(config["classes"]))
        tensors = read_adapter_weights(weights, with_base, config["base"], base)
    else:
        tensors = _read_weights(weights, model.state_dict(), config.get("dtype", "float32"))
    model.load_state_dict(tensors, assign=True)
    model.requires_grad_(False)
    return content


def set_temperature(folder: Path, temperature: float) -> None:
    """Replace the temperature in the config of a folder, atomically.

    Parameters
    ----------
    folder : Path
        The folder.
    temperature : float
        The temperature.

    Raises
    ------
    FileNotFoundError, ValueError
        As in :func:`read_segmentor`, or if the temperature is not between 0.01 and 100.
    """
    config = _read_config(folder)
    check_number("temperature", temperature, least=0.01, most=100)
    write_json(folder / CONFIG, config | {"temperature": temperature})


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no segmentor at {folder}: expected a folder that tools/export_segmentor.py wrote"
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no {name} in {folder}: expected a folder that tools/export_segmentor.py wrote"
            )
    file = folder / CONFIG
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file} is larger than 1 MB, so it is not the config of a segmentor")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged or is not JSON ({error}): export the run again"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(
            f"{file} is not the config of a segmentor: expected a folder that "
            "tools/export_segmentor.py wrote"
        )
    if config.get("version") != VERSION or isinstance(config["version"], bool):
        raise ValueError(
            f"{file}: expected version {VERSION}, got {short_repr(config.get('version'))}: install "
            "a newer recyclelora"
        )
    missing = [name for name in (*_KEYS, "provenance", "weights_sha256") if name not in config]
    if missing or not isinstance(config["provenance"], dict):
        raise ValueError(
            f"{file} is incomplete ({', '.join(missing) or 'provenance'}): export the run again"
        )
    return config


def _check_digest(path: Path, digest: object) -> None:
    with open_safetensors(path):  # raises its own error if this is not a safetensors file
        pass
    if file_digest(path) != digest:
        raise ValueError(
            f"{path} is damaged, or is not the file that {CONFIG} belongs to: its SHA-256 "
            "differs; use another copy of the folder"
        )


def _read_weights(path: Path, expected: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return merged weights, converted from the dtype of the file to the expected dtype."""
    with open_safetensors(path) as file:
        names = list(file.keys())
        shapes = {name: _Header(file.get_slice(name)) for name in names}
        if mismatch := describe_mismatch(expected, shapes):
            raise ValueError(f"{path} does not match {CONFIG} ({mismatch}): export the run again")
        tensors = {name: file.get_tensor(name).clone() for name in names}
    for name, tensor in tensors.items():
        if str(tensor.dtype) != f"torch.{dtype}":
            raise ValueError(f"{path}: {name} is {tensor.dtype}, expected {dtype}: export it again")
    check_finite(tensors, str(path))
    return {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}


class _Header:
    """The shape of a tensor in a file whose content has not been read."""

    def __init__(self, part: Any):
        self.shape = tuple(part.get_shape())
