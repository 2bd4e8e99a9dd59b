"""Initialisation of a Hugging Face peft LoRA with minor and major directions of its base."""

import dataclasses
import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from recyclelora.adapters.checks import check_weight
from recyclelora.adapters.decomposition import initial_factors
from recyclelora.adapters.initialisers import Factors
from recyclelora.adapters.selection import is_out_of_reach
from recyclelora.adapters.settings import AdapterSettings
from recyclelora.common.state_dicts import join_names
from recyclelora.common.validation import check_integer

NOT_LINEAR = (nn.Embedding, _ConvNd)
DIRECTIONS = ("both", "minor", "major")
MAJOR_PART = 9  # for "both": one direction in 9 is major, as in the paper's 32 + 4


@torch.no_grad()
def init_peft(
    peft_model: nn.Module,
    init: str = "rrqr",
    *,
    directions: str = "both",
    r_sub: int | None = None,
) -> nn.Module:
    r"""Fill a fresh LoRA of peft with directions of its base weights, and subtract them there.

    As in PiSSA, which uses singular vectors, every LoRA layer gets factors B A that are a part of
    its pretrained weight, and the base weight becomes the residual

    .. math:: W_{res} = W_0 - s\,B A

    with peft's own scaling s (``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with
    ``use_rslora``). The output of the model is the same as before. The decomposition is that of
    :func:`recyclelora.adapt`: minor directions are those of the main adapter, and major directions
    those of the sub adapter. The optimiser, dropout, ``modules_to_save``, ``rank_pattern`` and
    ``alpha_pattern`` are left to peft and work as before. With ``lora_dropout`` above 0, the output
    in training mode equals that of before only on average.

    A model whose adapter is disabled computes with W_res. Adapter files also refer to W_res.
    Therefore peft saves adapters for the original base in two steps, as for PiSSA: call
    ``save_pretrained("init/before")`` after this function, and after the training call
    ``save_pretrained("lora", path_initial_model_for_weight_conversion="init/before")``.

    Parameters
    ----------
    peft_model : nn.Module
        A result of ``peft.get_peft_model`` with one plain LoRA on linear layers.
    init : {"rrqr", "svd"}
        The decomposition: pivoted QR or singular value decomposition.
    directions : {"both", "minor", "major"}
        The directions that the factors contain.
    r_sub : int, optional
        The number of major directions among the rank r of each layer, only with "both". The default
        is r / 9, rounded and at least 1: the paper's 32 + 4 for r = 36.

    Returns
    -------
    nn.Module
        ``peft_model``, changed in place.

    Raises
    ------
    TypeError, ValueError
        If the LoRA is not fresh (trained, merged, or initialised by PiSSA), not the only adapter or
        not a plain one, or if a base weight is quantised, shared, not finite or too small for the
        rank. Nothing is changed.

    Examples
    --------
    >>> from peft import LoraConfig, get_peft_model  # doctest: +SKIP
    >>> lora = LoraConfig(r=36, lora_alpha=36, target_modules="all-linear")  # doctest: +SKIP
    >>> model = init_peft(get_peft_model(model, lora))  # doctest: +SKIP
    """
    if init not in ("rrqr", "svd"):
        raise ValueError(f"init must be rrqr or svd, got {init!r}")
    if directions not in DIRECTIONS:
        raise ValueError(f"directions must be one of {', '.join(DIRECTIONS)}, got {directions!r}")
    if r_sub is not None:
        check_integer("r_sub", r_sub, least=1)
        if directions != "both":
            raise ValueError(
                f"r_sub splits the rank between both kinds of directions, but directions is "
                f"{directions!r}: leave r_sub out"
            )
    layers = _fresh_layers(peft_model)
    (adapter,) = next(iter(layers.values())).lora_A
    settings = {}
    for name, layer in layers.items():
        settings[name] = _settings(layer, adapter, name, init, directions, r_sub)
        check_weight(_weight(layer), settings[name], f"layer {name!r}")
    for name, factors in initial_factors(
        layers, _weight, settings, description=f"initialising peft ({init})"
    ):
        _take_out(layers[name], adapter, factors)
    return peft_model


def _fresh_layers(model: nn.Module) -> dict[str, Any]:
    """Return the LoRA layers by name; raise unless all are plain, fresh and of one adapter."""
    try:
        from peft.tuners.lora import Linear, LoraLayer
    except ImportError as error:
        raise ValueError(
            "init_peft needs peft, which is not installed: pip install peft"
        ) from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"peft_model must be an nn.Module, got {type(model).__name__}")
    found = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    layers = {n: m for n, m in found.items() if not isinstance(m.get_base_layer(), NOT_LINEAR)}
    if not layers:
        raise ValueError(
            f"this {type(model).__name__} has no LoRA on linear layers: expected what "
            "peft.get_peft_model returned for a LoraConfig"
        )
    parameters = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for name, layer in layers.items():
        _check_layer(layer, f"layer {name!r}", is_plain=type(layer) is Linear)
        if parameters[id(layer.get_base_layer().weight)] > 1:
            raise ValueError(
                f"the base weight of layer {name!r} is shared with another module, which would "
                "change too: leave the layer out of target_modules, or untie the weights"
            )
    others = [name for name in found if name not in layers]
    if others:
        warnings.warn(
            f"{len(others)} LoRA layers are not linear and stay as peft initialised them: "
            f"{join_names(others, 3)}",
            stacklevel=3,
        )
    return layers


def _check_layer(layer: Any, name: str, *, is_plain: bool) -> None:
    """Raise an error unless a linear layer of peft has one fresh and active adapter."""
    adapters = list(layer.lora_A)
    weight = getattr(layer.get_base_layer(), "weight", None)
    if len(adapters) != 1:
        raise ValueError(
            f"{name} has {len(adapters)} adapters ({', '.join(adapters)}), all of which would get "
            "another base: call init_peft() before you add the second one"
        )
    (adapter,) = adapters
    if not is_plain or layer.lora_variant:
        kind = next((type(v).__name__ for v in layer.lora_variant.values()), type(layer).__name__)
        raise ValueError(
            f"{name} is not a plain LoRA on a linear layer ({kind}): expected a base that is not "
            "quantised, without DoRA or other variants"
        )
    if layer.merged:
        raise ValueError(f"{name} is merged: call unmerge_adapter() before init_peft()")
    if list(layer.active_adapters) != adapters or layer.disable_adapters:
        raise ValueError(f"the adapter {adapter!r} of {name} is not active: activate it first")
    if is_out_of_reach(weight) or weight.is_meta or layer.lora_A[adapter].weight.is_meta:
        raise ValueError(
            f"{name} has a quantised, sharded or meta weight: call init_peft() on a plain model "
            "that has its weights"
        )
    if layer.lora_B[adapter].weight.count_nonzero():
        raise ValueError(
            f"the LoRA of {name} is trained or initialised already: expected a fresh one, whose "
            "lora_B is zero (init_lora_weights=True)"
        )


def _settings(
    layer: Any, adapter: str, name: str, init: str, directions: str, r_sub: int | None
) -> AdapterSettings:
    rank, scaling = layer.r[adapter], float(layer.scaling[adapter])
    major = {"minor": 0, "major": rank}.get(directions)
    if major is None:
        major = r_sub if r_sub is not None else max(1, round(rank / MAJOR_PART))
        if major >= rank:
            raise ValueError(
                f"layer {name!r} has rank {rank}, which leaves no minor direction in addition to "
                f"{major} major: raise r, or choose directions 'minor' or 'major'"
            )
    try:
        settings = AdapterSettings(rank - major, major, 1.0, init)
        return dataclasses.replace(settings, alpha=scaling * rank)  # gives peft's scaling
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}; its lora_alpha must be above 0") from error


def _weight(layer: Any) -> Tensor:
    """Return the base weight as (out, in)."""
    weight = layer.get_base_layer().weight.detach()
    return weight.T if layer.fan_in_fan_out else weight


def _take_out(layer: Any, adapter: str, factors: Factors) -> None:
    """Set the LoRA to these factors, and subtract their product from the base."""
    A, B = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    rows = factors.A
    if rows is None:
        rows = A.new_zeros(A.shape).scatter(1, factors.columns[:, None].to(A.device), 1.0)
    A.copy_(rows)
    B.copy_(factors.B)
    # The product is that of the stored values: in half precision, of the rounded factors.
    product = layer.scaling[adapter] * (B.double() @ A.double())
    weight = _weight(layer)
    weight.copy_(weight.double() - product)
