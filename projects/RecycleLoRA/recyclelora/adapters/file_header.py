"""The header of an adapter file: the stored tensors, their base, and the version."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .checks import DTYPES
from .settings import AdapterSettings

FORMAT = "recyclelora adapters"
FORMAT_VERSION = 1
METADATA_KEY = "recyclelora"  # the entry of the safetensors metadata with the header as JSON

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


@dataclass(frozen=True)
class LayerHeader:
    """The header's entry for one adapted layer.

    Attributes
    ----------
    settings : AdapterSettings
        Settings of the pair of adapters.
    shape : (int, int)
        (out, in) of the weight.
    weight_dtype : torch.dtype
        The dtype of W0.
    weight_sha256 : str
        SHA-256 digest of W0 in that dtype.
    initial_sha256 : str or None
        SHA-256 digest of the initial factors if the file omits them, so that they have to be
        recomputed from W0. None if the file contains them.
    """

    settings: AdapterSettings
    shape: tuple[int, int]
    weight_dtype: torch.dtype
    weight_sha256: str
    initial_sha256: str | None = None

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the layer's tensors in the file.

        Returns
        -------
        dict[str, tuple[int, ...]]
            Shapes by the tensors' names in the layer.
        """
        (out_features, in_features), settings = self.shape, self.settings
        width = settings.rank if settings.sparse_a else in_features
        shapes: dict[str, tuple[int, ...]] = {}
        for kind, rank in (("main", settings.r_main), ("sub", settings.r_sub)):
            if rank:
                shapes |= {f"lora_A_{kind}": (rank, width), f"lora_B_{kind}": (out_features, rank)}
        if self.initial_sha256 is None:
            rows = {"initial_A": (settings.rank, in_features)}
            if settings.one_hot:
                rows = {"columns": (settings.rank,)}
            shapes |= rows | {"initial_B": (out_features, settings.rank)}
        return shapes


@dataclass(frozen=True)
class FileHeader:
    """The header of a whole file.

    Attributes
    ----------
    version : str
        Version of recyclelora that wrote the file.
    layers : Mapping[str, LayerHeader]
        The entries by the layers' names in the model without wrappers.
    also : Mapping[str, str]
        For other parameters and buffers, by their names in the model, the name of the tensor in the
        file that holds their value. Parameters that the model shares have one tensor.
    """

    version: str
    layers: Mapping[str, LayerHeader]
    also: Mapping[str, str]

    def tensor_shapes(self) -> dict[str, tuple[int, ...] | None]:
        """Return the shapes of all tensors in the file.

        Returns
        -------
        dict[str, tuple[int, ...] | None]
            Shapes by the tensors' names. The shape is None for tensors of ``also``, whose shapes
            are those of the model.
        """
        shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(self.also.values())
        for name, layer in self.layers.items():
            for key, shape in layer.tensor_shapes().items():
                shapes[f"{name}.{key}" if name else key] = shape
        return shapes

    def to_json(self) -> str:
        """Return the header as JSON.

        Returns
        -------
        str
            The text.
        """
        layers = {
            name: dataclasses.asdict(layer)
            | {"weight_dtype": str(layer.weight_dtype).removeprefix("torch.")}
            for name, layer in self.layers.items()
        }
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recyclelora_version": self.version,
            "layers": layers,
            "also": dict(self.also),
        }
        return json.dumps(header)

    @classmethod
    def from_json(cls, text: str) -> "FileHeader":
        """Parse a header that :meth:`to_json` wrote.

        Parameters
        ----------
        text : str
            The JSON.

        Returns
        -------
        FileHeader
            The header.

        Raises
        ------
        ValueError
            If the text is not such a header, or if its format is newer. The message ends the
            sentence "FILE ...".
        """
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("is damaged: its header is not valid JSON") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("contains no adapters: expected a file that save_adapters() wrote")
        version = header.get("recyclelora_version")
        if header.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"has format version {header.get('format_version')!r}, expected {FORMAT_VERSION}: "
                f"install recyclelora {version}, which wrote the file"
            )
        layers, also = header.get("layers"), header.get("also")
        if not isinstance(version, str) or not isinstance(layers, dict) or not layers:
            raise ValueError("is damaged: its header lists no layers or no version")
        names = also.values() if isinstance(also, dict) else [None]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("is damaged: the names of other tensors in its header are not text")
        return cls(version, {name: _layer(name, entry) for name, entry in layers.items()}, also)


def _layer(name: str, entry: Any) -> LayerHeader:
    fields = {field.name for field in dataclasses.fields(LayerHeader)}
    if not isinstance(entry, dict) or entry.keys() != fields:
        raise ValueError(f"is damaged: the header of layer {name!r} is incomplete")
    settings, shape, dtype = entry["settings"], entry["shape"], entry["weight_dtype"]
    keys = {field.name for field in dataclasses.fields(AdapterSettings)}
    digests = (entry["weight_sha256"], entry["initial_sha256"] or "")
    if (
        not isinstance(settings, dict)
        or settings.keys() != keys
        or not isinstance(settings["sparse_a"], bool)
        or not isinstance(shape, list)
        or [type(size) for size in shape] != [int, int]
        or not isinstance(dtype, str)
        or dtype not in _DTYPES
        or not all(isinstance(digest, str) for digest in digests)
    ):
        raise ValueError(f"is damaged: the header of layer {name!r} has an invalid value")
    try:
        checked = AdapterSettings(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is damaged: the settings of layer {name!r} are wrong: {error}") from None
    if checked.rank > min(shape):
        raise ValueError(
            f"is damaged: the ranks of layer {name!r} are above min(out, in) = {min(shape)}"
        )
    return LayerHeader(
        checked, tuple(shape), _DTYPES[dtype], entry["weight_sha256"], entry["initial_sha256"]
    )
