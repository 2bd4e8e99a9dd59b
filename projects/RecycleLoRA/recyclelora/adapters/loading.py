"""Load adapters that were saved on the same pretrained base."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recyclelora.common.digests import tensor_digest

from .checks import check_linear, check_pair_name
from .decomposition import initial_factors
from .file_content import AdapterFile, initial_digest, read_adapter_file
from .initialisers import Factors, factor_dtype
from .inject import find_linears, replace_modules
from .layer import DualLoRALinear
from .layer_pairs import make_active, put_pair
from .other_tensors import check_other_tensors, other_tensors
from .pair import AdapterPair
from .selection import plain_weight
from .sharding import copy_values, full_parameters, is_sharded, run_on_all
from .state import adapted_layers
from .wrappers import by_plain_name, holders, warn_of_new_parameters


def load_adapters(module: nn.Module, path: str | Path, name: str = "default") -> nn.Module:
    """Load saved adapters into their pretrained base, and make them the active pair.

    In a model without adapters, the linear layers that are listed in the file are replaced, as
    :func:`adapt` does; all other parameters keep their ``requires_grad``. In a model with adapters,
    the loaded ones become the pair ``name``, or replace the pair of this name. If the settings
    equal those of the active pair, values are copied into the existing parameters. Optimisers, DDP
    and FSDP then stay valid; reset the state of the optimiser. Parameters and buffers that
    ``save_adapters(..., also=...)`` saved are loaded too.

    ``module`` may be wrapped by ``torch.compile``, DDP, FSDP or ``DataParallel``. All processes of
    a model under FSDP must call this function.

    Parameters
    ----------
    module : nn.Module
        The base with the weights on which the adapters were trained. Cast it after loading, not
        before.
    path : str or Path
        A file of :func:`save_adapters`.
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
        If the file is damaged or contains no adapters, or if layers, base weights or other tensors
        differ. ``module`` is unchanged.
    RuntimeError
        If the layers would get new parameters while DDP or FSDP holds the old ones.

    Warns
    -----
    UserWarning
        If the base equals the recorded base only after a cast to the recorded dtype, or if
        parameters are replaced that an optimiser or DDP may refer to.
    """
    check_pair_name(name, taken=())
    path = Path(path)
    adapted = by_plain_name(module, adapted_layers(module))
    sharded = is_sharded(module)
    with full_parameters(module, writeback=True):
        file = run_on_all(lambda: read_adapter_file(path), sharded=sharded)
        targets = adapted or by_plain_name(module, find_linears(module))
        _check_names(file, targets, bool(adapted), path)
        held = holders([] if adapted else [targets[key] for key in file.header.layers])
        if "FSDP" in held:
            raise RuntimeError(
                f"FSDP holds the weights that the adapters of {path} would replace: load them "
                "before wrapping the model"
            )
        _check_bases(file, targets, path)
        pairs = _pairs(file, targets, path)
        saved = {key: file.tensors[tensor] for key, tensor in file.header.also.items()}
        _check_others(module, file, saved, path)
        warn_of_new_parameters(_replaced(targets, pairs))
        if held:
            warnings.warn(
                "DDP holds the weights that the adapters replace and does not synchronise the new "
                "parameters: wrap the model again before training",
                stacklevel=2,
            )
        for key, pair in pairs.items():
            module = _put(module, targets[key], pair, name)
        others = other_tensors(module)
        for key, value in saved.items():
            copy_values(others[key], value)
    return module


def _check_names(
    file: AdapterFile, targets: Mapping[str, nn.Module], adapted: bool, path: Path
) -> None:
    saved = file.header.layers
    missing = sorted(saved.keys() - targets.keys())
    missing = missing or (sorted(targets.keys() - saved.keys()) if adapted else [])
    if missing:
        where, other = ("file", "model") if missing[0] in saved else ("model", "file")
        raise ValueError(
            f"the adapters of {path} belong to another model: layer {missing[0]!r} is in the "
            f"{where} but not in the {other}"
        )


def _check_bases(file: AdapterFile, targets: Mapping[str, nn.Module], path: Path) -> None:
    cast = {}
    layers = file.header.layers
    for key, saved in tqdm(layers.items(), desc="comparing the base", delay=1, leave=False):
        name = f"layer {key!r}"
        if not isinstance(targets[key], DualLoRALinear):
            try:
                check_linear(targets[key], saved.settings, name)
            except (TypeError, ValueError) as error:
                raise ValueError(f"the adapters of {path} do not fit: {error}") from error
        weight = _base_of(targets[key])
        if tuple(weight.shape) != saved.shape:
            raise ValueError(
                f"the adapters of {path} belong to another model: {name} has shape "
                f"{list(weight.shape)} here and {list(saved.shape)} in the file"
            )
        if weight.is_meta:
            raise ValueError(
                f"the adapters of {path} cannot be compared with {name}, which is on the meta "
                "device and has no values: load the weights of the base first"
            )
        if tensor_digest([weight.to(saved.weight_dtype)]) != saved.weight_sha256:
            raise ValueError(
                f"the adapters of {path} were trained on other base weights: {name} differs; load "
                "the weights they were trained on (and cast the model afterwards)"
            )
        if weight.dtype != saved.weight_dtype:
            cast[key] = (weight.dtype, saved.weight_dtype)
    if cast:
        here, there = next(iter(cast.values()))
        warnings.warn(
            f"the adapters of {path} were trained on base weights in {there}; those of this model "
            f"are in {here} and equal them only after a cast to {there}, so outputs may differ by "
            "rounding",
            stacklevel=3,
        )


def _base_of(target: nn.Module) -> Tensor:
    if isinstance(target, DualLoRALinear):
        return target.pretrained_weight()
    return plain_weight(target)


def _pairs(
    file: AdapterFile, targets: Mapping[str, nn.Module], path: Path
) -> dict[str, AdapterPair]:
    """Return the saved pairs, on the devices and in the dtypes of the bases."""
    recomputed, pairs = _recomputed(file, targets, path), {}
    for key, saved in file.header.layers.items():
        tensors, like = file.layer_tensors(key), _device_and_dtype(targets[key])
        factors = recomputed.get(key) or Factors(
            tensors.get("initial_A"), tensors["initial_B"], tensors.get("columns")
        )
        moved = (None if t is None else t.to(like.device, _dtype(t, like)) for t in factors)
        pairs[key] = AdapterPair(Factors(*moved), saved.shape[1], saved.settings)
        for part, parameter in pairs[key].named_parameters():
            copy_values(parameter, tensors[part])
    return pairs


def _recomputed(
    file: AdapterFile, targets: Mapping[str, nn.Module], path: Path
) -> dict[str, Factors]:
    """Return the initial factors that the file does not contain, computed from the base."""
    left_out = {k: v for k, v in file.header.layers.items() if v.initial_sha256 is not None}
    dtypes = {targets[key]: saved.weight_dtype for key, saved in left_out.items()}
    found = {}
    for key, factors in initial_factors(
        {key: targets[key] for key in left_out},
        lambda target: _base_of(target).to("cpu", dtypes[target]),
        {key: saved.settings for key, saved in left_out.items()},
        description="decomposing the base",
    ):
        if initial_digest(factors) != left_out[key].initial_sha256:
            raise ValueError(
                f"the initial factors, which {path} does not contain, cannot be recomputed here: "
                f"those of layer {key!r} differ, because this machine or this version of PyTorch "
                "rounds differently; save the adapters with initial_factors=True where they were "
                "trained"
            )
        found[key] = factors
    return found


def _device_and_dtype(target: nn.Module) -> Tensor:
    return target.residual if isinstance(target, DualLoRALinear) else target.weight


def _dtype(tensor: Tensor, like: Tensor) -> torch.dtype:
    return factor_dtype(like) if tensor.is_floating_point() else tensor.dtype


def _check_others(
    module: nn.Module, file: AdapterFile, saved: Mapping[str, Tensor], path: Path
) -> None:
    found = other_tensors(module)
    for key in file.header.layers:
        found.pop(f"{key}.weight" if key else "weight", None)
    try:
        check_other_tensors(found, saved)
    except ValueError as error:
        raise ValueError(f"the other tensors of {path} do not fit this model: {error}") from None


def _replaced(
    targets: Mapping[str, nn.Module], pairs: Mapping[str, AdapterPair]
) -> list[DualLoRALinear]:
    """Return the layers whose active pair has other settings than the pair that replaces it."""
    layers = {key: t for key, t in targets.items() if isinstance(t, DualLoRALinear)}
    return [layer for key, layer in layers.items() if layer.settings != pairs[key].settings]


def _put(module: nn.Module, target: nn.Module, pair: AdapterPair, name: str) -> nn.Module:
    if isinstance(target, DualLoRALinear):
        put_pair(target, name, pair)
        make_active(target, name)
        return module
    factors = Factors(pair.initial_A, pair.initial_B, pair.columns)
    layer = DualLoRALinear.from_factors(target, factors, pair.settings)
    layer.pair_name = name
    layer.exchange(pair)
    return replace_modules(module, {target: layer})
