"""Export of adapters as a LoRA folder of Hugging Face peft, for the original base weights."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from recyclelora.adapters import DualLoRALinear, adapted_layers
from recyclelora.adapters.selection import is_out_of_reach
from recyclelora.adapters.wrappers import plain_names
from recyclelora.common.atomic_folder import atomic_folder_write
from recyclelora.common.state_dicts import join_names
from recyclelora.common.validation import check_integer

from .weight_readers import layers_read_by_parents

PREFIX = "base_model.model."  # prefix of every key in a file of peft
# Singular values below this fraction of the largest one are rounding errors of float64.
NEGLIGIBLE = 1e-12


class LowRank(NamedTuple):
    """A low-rank change ``B A`` of a weight: B (out, rank), A (rank, in) and squared norms."""

    B: Tensor
    A: Tensor
    squared_norm: float
    squared_error: float


@torch.no_grad()
def save_peft(
    model: nn.Module, folder: str | Path, *, rank: int | None = None, layout: str | None = None
) -> float:
    r"""Write the active adapters as a LoRA folder of peft, for the **original** base weights.

    ``peft.PeftModel.from_pretrained(base, folder)`` returns a model that computes the same function
    as ``model``. Here ``base`` is the model before :func:`recyclelora.adapt`, which subtracts the
    initial factors from the base. They are therefore part of the change of each weight:

    .. math:: \Delta W = s\,(B A - B_{init} A_{init})

    The rank of the change is at most 2 (r_main + r_sub). An SVD in float64 factorises it into
    ``lora_B`` and ``lora_A`` with equal norms, and the scaling in peft is 1 (lora_alpha = r).
    Layers whose rank differs from the most frequent one are listed in ``rank_pattern`` and
    ``alpha_pattern``. Other modules that were trained, such as a head, become ``modules_to_save``.
    :func:`~recyclelora.adapters.active` determines which adapters are exported. Factors are
    float32, or float64 for a base in float64.

    peft changes the output of a layer when the layer is called. Code that reads ``layer.weight``
    instead, such as some attention layers of timm and torchvision, gets the base weight. In a model
    adapted by this package it gets the adapted weight. A warning lists such layers.

    The folder contains ``adapter_config.json`` and ``adapter_model.safetensors``. Both are replaced
    together or not at all (see :func:`~recyclelora.common.atomic_folder.atomic_folder_write`).
    Other files in the folder are kept. peft need not be installed.

    Parameters
    ----------
    model : nn.Module
        An adapted model, merged or unmerged, possibly inside DDP or torch.compile.
    folder : str or Path
        The folder. It is created if it does not exist.
    rank : int, optional
        The largest rank in the folder. For changes of a larger rank, only the largest singular
        values are kept. None keeps all of them.
    layout : {"timm", "hugging_face"}, optional
        For a :class:`~recyclelora.backbone.DinoVisionTransformer` only: the library whose DINOv2 is
        the base of the folder and whose names are written. In transformers (5 or later), queries,
        keys and values are separate layers. None keeps the names of ``model``.

    Returns
    -------
    float
        The relative error of the changes that ``rank`` causes, in the Frobenius norm over all
        layers. It is about 0 without ``rank``.

    Raises
    ------
    TypeError, ValueError
        If the model has no adapters, if their values are not finite or not available (meta device,
        sharded), if peft cannot adapt the same layers or save everything that was trained, or if
        the names are not those of a DINOv2 although ``layout`` is given. Nothing is written.

    Examples
    --------
    >>> import tempfile
    >>> from recyclelora import adapt
    >>> model = adapt(nn.Sequential(nn.Linear(16, 8)), r_main=3, r_sub=1)
    >>> _ = nn.init.normal_(model[0].lora_B_main)  # in place of a training
    >>> save_peft(model, tempfile.mkdtemp()) < 1e-9
    True
    """
    if rank is not None:
        check_integer("rank", rank, least=1)
    layers = _layers_by_name(model)
    modules = _trained_modules(model, layers)
    parts = {name: _parts(name, layer, layout) for name, layer in layers.items()}
    if layout is not None and modules:
        raise ValueError(
            f"expected to train only adapters, got also {join_names(list(modules), 3)}, which "
            "layout= does not rename: set requires_grad=False on parameters that have their "
            "pretrained values"
        )
    _warn_of_read_weights(model, layers)
    changes = {
        part: _change(layers[name], rows, rank)
        for name, rows_of in parts.items()
        for part, rows in rows_of.items()
    }
    tensors = {}
    for name, change in changes.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = change.A
        tensors[f"{PREFIX}{name}.lora_B.weight"] = change.B
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            tensors[f"{PREFIX}{name}.{key}"] = tensor.detach().cpu().clone()
    others = plain_names(model).values() if layout is None else ()
    config = _config({name: len(change.A) for name, change in changes.items()}, modules, others)
    config["fan_in_fan_out"] = any(layer.source_type is not None for layer in layers.values())
    if layout is None:
        config["base_model_name_or_path"] = getattr(model, "name_or_path", None) or None
    with atomic_folder_write(folder) as temporary:
        text = json.dumps(config, indent=2) + "\n"
        (temporary / "adapter_config.json").write_text(text, encoding="utf-8")
        content = save({k: t.contiguous() for k, t in tensors.items()}, metadata={"format": "pt"})
        (temporary / "adapter_model.safetensors").write_bytes(content)
    total = sum(change.squared_norm for change in changes.values())
    error = sum(change.squared_error for change in changes.values())
    return (error / total) ** 0.5 if total else 0.0


def _layers_by_name(model: nn.Module) -> dict[str, DualLoRALinear]:
    """Return the adapted layers by name in the base; raise if peft could not adapt them."""
    adapted = adapted_layers(model)  # raises an error unless model is a module
    plain = plain_names(model)
    layers = {plain[name]: layer for name, layer in adapted.items()}
    if not layers:
        raise ValueError("the model has no adapters to save: call adapt() first")
    if "" in layers:
        raise ValueError(
            "the model is itself an adapted layer, and peft adapts layers inside a model: put it "
            "into one, such as nn.Sequential(layer)"
        )
    parents: dict[int, set[int]] = {}
    for parent in model.modules():
        for child in parent._modules.values():
            parents.setdefault(id(child), set()).add(id(parent))
            if isinstance(parent, nn.MultiheadAttention) and isinstance(child, DualLoRALinear):
                name = next(name for name, layer in layers.items() if layer is child)
                raise ValueError(
                    f"layer {name!r} belongs to an nn.MultiheadAttention, which reads its weight "
                    "and would not call peft's adapter: adapt the model without it (exclude=...)"
                )
    for name, layer in layers.items():
        if len(parents[id(layer)]) > 1:
            raise ValueError(
                f"layer {name!r} is part of several modules, of which peft would adapt only the "
                "first: save it with save_adapters(), or export() the merged model"
            )
        for key, tensor in layer.tensors().items():
            if tensor.is_meta or is_out_of_reach(tensor):
                raise ValueError(
                    f"{key} of layer {name!r} is on the meta device or sharded: save_peft needs "
                    "its values; load or gather them first"
                )
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{key} of layer {name!r} holds NaN or Inf: nothing was saved")
    return layers


def _warn_of_read_weights(model: nn.Module, layers: Mapping[str, DualLoRALinear]) -> None:
    read = layers_read_by_parents(model, layers.values())
    names = [name for name, layer in layers.items() if layer in read]
    if names:
        warnings.warn(
            f"the model's code reads the weight of {len(names)} adapted layers "
            f"({join_names(names, 3)}); where it does not call them, peft's adapters have no "
            "effect: compare the outputs, or exclude these layers in adapt()",
            stacklevel=3,
        )


def _parts(name: str, layer: DualLoRALinear, layout: str | None) -> dict[str, Tensor]:
    """Return the names of a layer in the base with the output rows that belong to each name."""
    rows = torch.arange(layer.out_features)
    if layout is None:
        return {name: rows}
    if layout not in ("timm", "hugging_face"):
        raise ValueError(f"layout must be timm, hugging_face or None, got {layout!r}")
    if not re.match(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2|w12|w3))$", name):
        raise ValueError(
            f"layout={layout!r} renames the layers of a DinoVisionTransformer, got the layer "
            f"{name!r}: give the backbone itself, or leave layout out"
        )
    # This imports detectron2, as the backbone itself does.
    from recyclelora.backbone.rename_keys import to_hugging_face, to_timm

    key = f"{name}.weight"
    renamed = (
        to_timm({key: rows}) if layout == "timm" else to_hugging_face({key: rows}, in_memory=True)
    )
    return {part.removesuffix(".weight"): some for part, some in renamed.items()}


def _change(layer: DualLoRALinear, rows: Tensor, limit: int | None) -> LowRank:
    """Return rows of s (B A - B_init A_init) as factors of equal norm, of rank <= ``limit``."""
    A_main, B_main, A_sub, B_sub = (
        factor.detach().cpu().double() for factor in layer.factors(*layer.switches())
    )
    A, B = torch.cat([A_main, A_sub]), torch.cat([B_main, B_sub], dim=1)
    initial_A, initial_B = (
        factor.detach().cpu().double() for factor in (layer.initial_rows(), layer.initial_B)
    )
    # Differences are computed first, because B and B_init are large compared with the change.
    left = layer.scaling * torch.cat([B - initial_B, initial_B], dim=1)[rows]
    right = torch.cat([A, A - initial_A])
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, s, vt = torch.linalg.svd(r_left @ r_right.T)
    kept = max(1, int((s > NEGLIGIBLE * s[0]).sum()))
    kept = min(kept, limit or kept)
    root = s[:kept].sqrt()
    B = (q_left @ u[:, :kept]) * root
    A = root[:, None] * (q_right @ vt[:kept].T).T
    if layer.settings.sparse_a:  # A covers only the pivot columns
        A = A.new_zeros(kept, layer.in_features).index_copy(1, layer.columns.cpu(), A)
    dtype = layer.initial_B.dtype
    squares = s.square()
    return LowRank(B.to(dtype), A.to(dtype), float(squares.sum()), float(squares[kept:].sum()))


def _trained_modules(
    model: nn.Module, layers: Mapping[str, DualLoRALinear]
) -> dict[str, nn.Module]:
    """Return the modules for peft's ``modules_to_save``: those with trainable parameters."""
    plain = plain_names(model)
    named = {plain[name]: module for name, module in model.named_modules()}
    trained = {}
    for name, module in named.items():
        keys = [key for key, p in module.named_parameters(recurse=False) if p.requires_grad]
        keys = ["bias"] if "bias" in keys and name in layers else keys
        is_pair = name in layers or any(name.startswith(f"{layer}.") for layer in layers)
        if keys and (not is_pair or keys == ["bias"]):
            trained[name] = keys
    lost = [name for name in trained if not name or _holds(name, layers)]
    if lost:
        names = [f"{name}.{key}" if name else key for name in lost for key in trained[name]]
        raise ValueError(
            f"expected to train only adapters, got also {join_names(names, 3)}, which peft cannot "
            "save: set requires_grad=False on parameters that have their pretrained values, or "
            "export() the model"
        )
    outer = [name for name in trained if not _is_inside(name, trained)]
    # peft saves every module whose name ends in this way.
    matched = {name: named[name] for name in named if name.endswith(tuple(outer))}
    for name in matched:
        if _holds(name, layers) or _is_inside(name, matched):
            raise ValueError(
                f"peft would also save the module {name!r}, because its name ends like that of a "
                f"trained module ({join_names(outer, 3)}): rename one of them"
            )
    return matched


def _is_inside(name: str, others: Collection[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in others)


def _holds(name: str, layers: Collection[str]) -> bool:
    return any(layer == name or layer.startswith(f"{name}.") for layer in layers)


def _config(
    ranks: Mapping[str, int], modules: Collection[str], all_modules: Iterable[str]
) -> dict[str, Any]:
    """Return the content of ``adapter_config.json`` without the base."""
    ((usual, _),) = Counter(ranks.values()).most_common(1)
    # A pattern is a regular expression that peft matches against the end of names.
    other = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": _targets(ranks, all_modules),
        "modules_to_save": sorted(modules) or None,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def _targets(layers: Collection[str], modules: Iterable[str]) -> list[str] | str:
    """Return the layers' names, or a regular expression if peft would match further modules."""
    endings = tuple(f".{name}" for name in layers)
    if any(name not in layers and name.endswith(endings) for name in modules):
        return "|".join(map(re.escape, layers))
    return list(layers)
