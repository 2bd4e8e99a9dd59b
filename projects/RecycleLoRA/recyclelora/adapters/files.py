"""Adapters as files: a few megabytes that turn one pretrained base into another model."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.digests import weight_digest
from recyclelora.common.tensor_file import check_finite, read_tensor_file

from .checks import check_linear, check_pair_name
from .initialisers import Factors, factor_dtype
from .inject import find_linears, replace_modules
from .layer import DualLoRALinear, plain_weight
from .pair import AdapterPair
from .settings import AdapterSettings
from .state import activate_pair, adapted_layers
from .wrappers import plain_names, warn_of_new_parameters

FORMAT = "recyclelora adapters 1"


def save_adapters(model: nn.Module, path: str | Path) -> None:
    """Write the active pair of every adapted layer to ``path``, without the base.

    The file holds tensors and plain types: per layer the factors, the initial factors, the
    settings, and the SHA-256 of W0, by which :func:`load_adapters` recognises the base. The
    write is atomic.

    Raises
    ------
    ValueError
        If the model has no adapters, or ``path`` is a folder.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    """
    layers, path = _by_plain_name(model, adapted_layers(model)), Path(path)
    if not layers:
        raise ValueError("the model has no adapters to save: call adapt() first")
    if path.is_dir():
        raise ValueError(f"cannot save adapters to {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save adapters to {path}: there is no folder {path.parent}")
    content: dict[str, Any] = {"format": FORMAT, "layers": {}}
    for name, layer in tqdm(layers.items(), desc="saving adapters", delay=1, leave=False):
        content["layers"][name] = {
            "shape": list(layer.residual.shape),
            "settings": asdict(layer.settings),
            "tensors": {key: tensor.cpu() for key, tensor in layer.tensors().items()},
            "weight_sha256": weight_digest(layer.pretrained_weight()),
        }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def load_adapters(module: nn.Module, path: str | Path, name: str = "default") -> nn.Module:
    """Put saved adapters on the base they were trained on, and make them the active pair.

    In a plain ``module`` the linears that the file names are replaced as by :func:`adapt`, but
    nothing is decomposed, and all other parameters keep their requires_grad. On a model that is
    adapted already they become the pair ``name``, or take that pair's place.

    Parameters
    ----------
    module : nn.Module
        The base, with the very weights the adapters were saved on; cast it afterwards.
    path : str or Path
    name : str
        The pair's name, a plain word.

    Returns
    -------
    nn.Module
        ``module``; if it is itself an ``nn.Linear``, the layer that replaces it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds no adapters, or if the layers or the base weights differ.
        Nothing is changed then.
    """
    check_pair_name(name, taken=())
    path = Path(path)
    saved = _read(path)
    adapted = _by_plain_name(module, adapted_layers(module))
    targets = adapted or _by_plain_name(module, find_linears(module))
    missing = sorted(saved.keys() - targets.keys()) or sorted(adapted.keys() - saved.keys())
    if missing:
        where, other = ("file", "model") if missing[0] in saved else ("model", "file")
        raise ValueError(
            f"the adapters of {path} belong to another model: layer {missing[0]!r} is in the "
            f"{where} but not in the {other}"
        )
    pairs = {}  # all of them, before the first layer is changed
    for key, entry in tqdm(saved.items(), desc="comparing the base", delay=1, leave=False):
        _check_base(targets[key], entry, f"layer {key!r}", path)
        pairs[key] = _pair(entry, _base_of(targets[key]), f"layer {key!r}", path)

    replaced = [
        target
        for key, target in targets.items()
        if isinstance(target, DualLoRALinear)
        and target.pair_name == name
        and target.settings != pairs[key].settings
    ]
    warn_of_new_parameters(replaced)
    for key, pair in pairs.items():
        target = targets[key]
        if not isinstance(target, DualLoRALinear):
            factors = Factors(pair.initial_A, pair.initial_B, pair.columns)
            layer = DualLoRALinear.from_factors(target, factors, pair.settings)
            layer.pair_name = name
            module = replace_modules(module, {target: layer})
            layer.exchange(pair)
        else:
            target.put_pair(name, pair)
    activate_pair(module, name)
    return module


def _by_plain_name(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    plain = plain_names(model)
    return {plain[name]: layer for name, layer in layers.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter file {path}")
    content = read_tensor_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds no adapters: expected a file that save_adapters() wrote ({FORMAT!r})"
        )
    layers = content.get("layers")
    whole = isinstance(layers, dict) and layers and all(map(_is_entry, layers.values()))
    if not whole:
        raise ValueError(f"{path} is not whole: a layer lacks a part; save the adapters again")
    for name, entry in layers.items():
        check_finite(entry["tensors"], f"{path}: layer {name!r}")
    return layers


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("tensors"), dict):
        return False
    settings = entry.get("settings")
    return (
        isinstance(settings, dict)
        and set(settings) == {field.name for field in fields(AdapterSettings)}
        and {"shape", "weight_sha256"} <= entry.keys()
        and "initial_B" in entry["tensors"]
        and all(isinstance(tensor, Tensor) for tensor in entry["tensors"].values())
    )


def _check_base(target: nn.Module, entry: dict[str, Any], name: str, path: Path) -> None:
    try:
        settings = AdapterSettings(**entry["settings"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name} is damaged: {error}; save the adapters again") from error
    if isinstance(target, DualLoRALinear):
        weight = target.pretrained_weight()
    else:
        try:
            check_linear(target, settings, name)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the adapters of {path} do not fit: {error}") from error
        weight = plain_weight(target)
    if list(weight.shape) != entry["shape"]:
        raise ValueError(
            f"the adapters of {path} belong to another model: {name} is {list(weight.shape)} "
            f"here and {entry['shape']} in the file"
        )
    if weight_digest(weight) != entry["weight_sha256"]:
        raise ValueError(
            f"the adapters of {path} were trained on other base weights: {name} differs; load "
            "the very weights they started from (and cast the model afterwards)"
        )


def _pair(entry: dict[str, Any], like: Tensor, name: str, path: Path) -> AdapterPair:
    """The saved pair, on the device and in the dtype of the weight ``like``."""
    tensors = {
        key: tensor.to(like.device, _dtype(tensor, like))
        for key, tensor in entry["tensors"].items()
    }
    factors = Factors(tensors.get("initial_A"), tensors["initial_B"], tensors.get("columns"))
    try:
        settings = AdapterSettings(**entry["settings"])
        _check_factors(factors, like, settings)
        pair = AdapterPair(factors, like.shape[1], settings)
        with torch.no_grad():
            for key, parameter in pair.named_parameters():
                if key not in tensors:
                    raise ValueError(f"it lacks {key}")
                if tensors[key].shape != parameter.shape or not tensors[key].isfinite().all():
                    raise ValueError(f"{key} is of another shape, or holds NaN or Inf")
                parameter.copy_(tensors[key])
    except ValueError as error:
        raise ValueError(f"{path}: {name} is damaged: {error}; save the adapters again") from error
    return pair


def _base_of(target: nn.Module) -> Tensor:
    return target.residual if isinstance(target, DualLoRALinear) else plain_weight(target)


def _check_factors(factors: Factors, weight: Tensor, settings: AdapterSettings) -> None:
    """Raise if ``factors`` are not the initial ones of a weight (out, in) with these settings."""
    (out_features, in_features), rank = weight.shape, settings.rank
    shapes = {"B": (out_features, rank)}
    shapes |= {"columns": (rank,)} if settings.init == "rrqr" else {"A": (rank, in_features)}
    for name, factor in factors._asdict().items():
        shape = None if factor is None else tuple(factor.shape)
        if shape != shapes.get(name):
            raise ValueError(f"initial {name} is {shape}, expected {shapes.get(name)}")
    columns = factors.columns
    if columns is not None and columns.numel():
        is_integer = columns.dtype == torch.int64
        if not is_integer or int(columns.min()) < 0 or int(columns.max()) >= in_features:
            raise ValueError(f"its pivot columns are not 0..{in_features - 1}")


def _dtype(tensor: Tensor, like: Tensor) -> torch.dtype:
    return factor_dtype(like) if tensor.is_floating_point() else tensor.dtype
