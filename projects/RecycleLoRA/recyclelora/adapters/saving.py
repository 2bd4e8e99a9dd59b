"""Save adapters as a safetensors file, without the base weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recyclelora.common.digests import tensor_digest
from recyclelora.common.safetensors_file import write_safetensors

from . import decomposition
from .file_content import AdapterFile, check_values, initial_digest
from .file_header import METADATA_KEY, FileHeader, LayerHeader
from .initialisers import Factors
from .layer import DualLoRALinear
from .other_tensors import select_tensors
from .pair import AdapterPair
from .selection import Patterns
from .sharding import full_parameters, full_tensor, is_sharded, run_on_all
from .state import adapted_layers
from .wrappers import by_plain_name


def save_adapters(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    also: Patterns = None,
    initial_factors: bool = True,
) -> None:
    """Write a pair of adapters of all layers to a safetensors file, without the base.

    The file contains the factors, the initial factors, and a JSON header. The header has the
    settings, and the dtype and SHA-256 digest of each W0, which :func:`load_adapters` compares with
    the base. Names are those of the model without wrappers (``torch.compile``, DDP, FSDP,
    ``DataParallel``). All processes of a model under FSDP must call this function; the first one
    writes. The write is atomic.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    path : str or Path
        The file to write.
    name : str, optional
        The pair to save; by default the active one.
    also : str or iterable of str, optional
        Glob patterns on names of other parameters, persistent buffers or modules to save, such as
        "head".
    initial_factors : bool
        Whether to save initial factors that can be computed from the base weight. False makes the
        file smaller, but it may be rejected on another machine or with another version of PyTorch,
        because decompositions round differently there.

    Raises
    ------
    ValueError
        If the model has no adapters or is on the meta device, if there is no pair ``name``, if a
        pattern matches nothing, if initial factors that would be left out differ from those of a
        decomposition on the CPU, or if ``path`` is a folder.
    FileNotFoundError
        If the folder of ``path`` does not exist.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import copy, tempfile
    >>> from recyclelora import adapt
    >>> from recyclelora.adapters import load_adapters
    >>> base = nn.ModuleDict({"body": nn.Linear(16, 16), "head": nn.Linear(16, 3)})
    >>> model = adapt(copy.deepcopy(base), r_main=3, r_sub=1, exclude="head")
    >>> file = Path(tempfile.mkdtemp(), "adapters.safetensors")
    >>> save_adapters(model, file, also="head")
    >>> loaded = load_adapters(base, file)
    """
    layers, path = by_plain_name(model, adapted_layers(model)), Path(path)
    if not layers:
        raise ValueError("the model has no adapters to save: call adapt() first")
    sharded = is_sharded(model)
    writes = not sharded or torch.distributed.get_rank() == 0
    run_on_all(lambda: _check_path(path) if writes else None, sharded=sharded)
    with full_parameters(model):
        others = select_tensors(model, also)
        content = _content(layers, name, others, keep_initial=initial_factors)
    metadata = {METADATA_KEY: content.header.to_json()}
    run_on_all(
        lambda: write_safetensors(path, content.tensors, metadata) if writes else None,
        sharded=sharded,
    )


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"cannot save adapters to {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save adapters to {path}: there is no folder {path.parent}")


def _content(
    layers: Mapping[str, DualLoRALinear],
    name: str | None,
    others: Mapping[str, Tensor],
    *,
    keep_initial: bool,
) -> AdapterFile:
    from recyclelora import __version__

    pairs = {key: _pair_of(layer, name, key) for key, layer in layers.items()}
    digests = {} if keep_initial else _recomputable(layers, pairs)
    headers, tensors = {}, {}
    for key, layer in tqdm(layers.items(), desc="saving adapters", delay=1, leave=False):
        weight = layer.pretrained_weight()
        headers[key] = LayerHeader(
            pairs[key].settings,
            tuple(weight.shape),
            weight.dtype,
            tensor_digest([weight]),
            digests.get(key),
        )
        own = {
            part: _stored(tensor)
            for part, tensor in pairs[key].tensors().items()
            if key not in digests or part in AdapterPair.FACTORS
        }
        try:
            check_values(own, headers[key])
        except ValueError as error:
            raise ValueError(f"cannot save adapters: {error} in layer {key!r}") from None
        tensors |= {f"{key}.{part}" if key else part: tensor for part, tensor in own.items()}
    also, first = {}, {}
    for key, tensor in others.items():
        also[key] = first.setdefault(id(tensor), key)
        if also[key] == key:
            tensors[key] = _stored(tensor)
    return AdapterFile(FileHeader(__version__, headers, also), tensors)


def _pair_of(layer: DualLoRALinear, name: str | None, key: str) -> AdapterPair:
    if layer.residual.is_meta:
        raise ValueError(
            f"layer {key!r} is on the meta device and has no values to save: load them first"
        )
    if layer.residual.shape != (layer.out_features, layer.in_features):
        raise ValueError(
            f"layer {key!r} holds only a shard of its weight: pass the whole model that FSDP wraps"
        )
    if name is None or name == layer.pair_name:
        return layer
    if name not in layer.pairs:
        known = ", ".join(sorted({layer.pair_name, *layer.pairs}))
        raise ValueError(f"there is no adapter pair {name!r} to save; the pairs are: {known}")
    return layer.pairs[name]


def _recomputable(
    layers: Mapping[str, DualLoRALinear], pairs: Mapping[str, AdapterPair]
) -> dict[str, str]:
    """Return the digests, by layer, of the initial factors that can be recomputed from W0."""
    settings = {key: pair.settings for key, pair in pairs.items() if not pair.settings.random}
    found = {}
    for key, factors in decomposition.initial_factors(
        {key: layers[key] for key in settings},
        lambda layer: layer.pretrained_weight().cpu(),
        settings,
        description="decomposing the base",
    ):
        pair = pairs[key]
        own = initial_digest(Factors(pair.initial_A, pair.initial_B, pair.columns))
        if own != initial_digest(factors):
            raise ValueError(
                f"the initial factors of layer {key!r} differ from a decomposition of its weight "
                "on this CPU (they were made on another device, or before a cast): save them with "
                "initial_factors=True"
            )
        found[key] = own
    return found


def _stored(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU that shares no memory with other tensors."""
    whole = full_tensor(tensor.detach())
    return whole.to("cpu", copy=True, memory_format=torch.contiguous_format)
