"""States of an adapted model: adapters off, another pair, or plain linear layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import check_pair_name, check_weight
from .decomposition import initial_factors
from .inject import replace_modules
from .layer import DualLoRALinear
from .layer_pairs import check_pair, make_active, needs_new_parameters, put_pair
from .pair import AdapterPair
from .settings import AdapterSettings
from .sharding import full_parameters
from .switches import Switches, of_this_thread, set_in_this_thread
from .wrappers import warn_of_new_parameters


class AdapterParameters(NamedTuple):
    """The parameters of the active pairs.

    Attributes
    ----------
    main, sub : dict[str, nn.Parameter]
        Parameters of this adapter by their names in the model, see :func:`adapter_parameters`.
    """

    main: dict[str, nn.Parameter]
    sub: dict[str, nn.Parameter]


def adapted_layers(model: nn.Module) -> dict[str, DualLoRALinear]:
    """Return the dual-adapter layers of a model.

    Parameters
    ----------
    model : nn.Module
        A model, adapted or not.

    Returns
    -------
    dict[str, DualLoRALinear]
        The layers by name; empty if the model is not adapted.

    Raises
    ------
    TypeError
        If ``model`` is not an ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return {n: m for n, m in model.named_modules() if isinstance(m, DualLoRALinear)}


def adapter_parameters(model: nn.Module) -> AdapterParameters:
    """Return the factors of the active main and sub adapters, for optimiser groups.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    AdapterParameters
        The parameters of main and of sub by name.

    Examples
    --------
    >>> from recyclelora import adapt
    >>> main, sub = adapter_parameters(adapt(nn.Linear(16, 8), r_main=3, r_sub=1))
    >>> optimizer = torch.optim.AdamW(
    ...     [{"params": main.values(), "lr": 1e-4}, {"params": sub.values(), "lr": 5e-5}],
    ...     weight_decay=0.0,
    ... )
    """
    groups = AdapterParameters({}, {})
    for name, layer in adapted_layers(model).items():
        for kind, group in zip(groups._fields, groups):
            for key in (f"lora_A_{kind}", f"lora_B_{kind}"):
                if getattr(layer, key) is not None:
                    group[f"{name}.{key}" if name else key] = getattr(layer, key)
    return groups


@contextmanager
def active(model: nn.Module, main: bool = True, sub: bool = True) -> Iterator[nn.Module]:
    """Context manager in which only the chosen adapters use their trained factors.

    An adapter that is off uses its initial factors, which are subtracted from W0 in the residual.
    Main alone is therefore W_res + s(B_main A_main + B_sub_init A_sub_init). With both adapters
    off, the weights are W0, bit for bit. The choice applies to the running thread. A backward pass
    with checkpointing must run inside the context too.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    main, sub : bool
        Whether this adapter uses its trained factors.

    Yields
    ------
    nn.Module
        ``model``.

    Examples
    --------
    The feature change that the main adapter makes: the full model minus the model with main at
    its initial value.

    >>> from recyclelora import adapt
    >>> model, x = adapt(nn.Linear(16, 8), r_main=3, r_sub=1), torch.randn(2, 16)
    >>> with active(model, main=False):
    ...     without = model(x)
    >>> torch.allclose(model(x) - without, torch.zeros(2, 8), atol=1e-6)  # nothing learned yet
    True
    """
    layers = list(adapted_layers(model).values())
    before = of_this_thread()
    switches = Switches(bool(main), bool(sub))
    latest = [layer._last_switches for layer in layers]
    set_in_this_thread({**(before or {}), **dict.fromkeys(layers, switches)})
    for layer in layers:
        layer._last_switches = switches
    try:
        yield model
    finally:
        set_in_this_thread(before)
        for layer, last in zip(layers, latest):
            layer._last_switches = last
            if layer.merged_weight is not None and layer.merged_switches != layer.switches():
                layer.merge()


def pair_names(model: nn.Module) -> tuple[str, list[str]]:
    """Return the name of the active pair and the names of all pairs.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    active : str
        The active pair.
    names : list of str
        All pairs, sorted.
    """
    layers = layers_or_raise(model).values()
    layer = next(iter(layers))
    return layer.pair_name, sorted({layer.pair_name, *layer.pairs})


def add_pair(
    model: nn.Module,
    name: str,
    r_main: int = 32,
    r_sub: int = 4,
    alpha: float = 1.0,
    init: str = "rrqr",
    sparse_a: bool = False,
) -> None:
    """Add a pair of adapters to every adapted layer, initialised from the same W0.

    The pair is frozen until :func:`activate_pair` activates it. The settings are arguments as in
    :func:`adapt` and may differ from those of other pairs.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    name : str
        The new pair's name, an identifier such as ``"night"``.
    r_main, r_sub, alpha, init, sparse_a
        See :func:`adapt`.

    Raises
    ------
    TypeError, ValueError
        If the name is taken or invalid, or if a setting is out of range. The model is unchanged.

    Examples
    --------
    >>> from recyclelora import adapt
    >>> model = adapt(nn.Linear(16, 8), r_main=3, r_sub=1)
    >>> add_pair(model, "night", r_main=2, r_sub=2)
    >>> activate_pair(model, "night")
    >>> pair_names(model)
    ('night', ['default', 'night'])
    """
    settings = AdapterSettings(r_main, r_sub, alpha, init, sparse_a)
    layers = layers_or_raise(model)
    with full_parameters(model):
        for layer_name, layer in layers.items():
            check_pair_name(name, taken={layer.pair_name, *layer.pairs})
            check_weight(layer.pretrained_weight(), settings, f"layer {layer_name!r}")
        decomposed = initial_factors(
            layers,
            DualLoRALinear.pretrained_weight,
            dict.fromkeys(layers, settings),
            description=f"pair {name}",
        )
        for layer_name, factors in decomposed:
            layer = layers[layer_name]
            put_pair(layer, name, AdapterPair(factors, layer.in_features, settings))


def activate_pair(model: nn.Module, name: str) -> None:
    """Make a pair the active one, which computes and is trained.

    The residual is computed from W0. If the settings of both pairs are equal, values are copied
    into the existing parameters. Optimisers, DDP and averages of weights then stay valid; reset the
    state of the optimiser. Otherwise the layers get new parameters, and a warning is issued.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    name : str
        The pair to activate.

    Raises
    ------
    ValueError
        If there is no pair of this name.
    RuntimeError
        If the layers would get new parameters while DDP or FSDP holds the old ones.
    """
    layers = list(layers_or_raise(model).values())
    for layer in layers:
        check_pair(layer, name)
    with full_parameters(model, writeback=True):
        warn_of_new_parameters([layer for layer in layers if needs_new_parameters(layer, name)])
        for layer in layers:
            make_active(layer, name)


@torch.no_grad()
def export(model: nn.Module, copy: bool = True) -> nn.Module:
    """Return ``model`` with its adapters merged into plain, frozen linear layers.

    Its state dict has the keys and shapes of the model before :func:`adapt`.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    copy : bool
        Whether to convert a copy. False converts ``model`` in place, one layer after the other,
        without a second copy of the weights.

    Returns
    -------
    nn.Module
        The converted model.
    """
    if copy:
        originals = adapted_layers(model)
        model = deepcopy(model)
        pairs = dict(zip(adapted_layers(model).values(), originals.values()))
        return _to_plain(model, lambda layer: pairs[layer].effective_weight())
    return _to_plain(model, DualLoRALinear.effective_weight)


@torch.no_grad()
def remove_adapters(model: nn.Module) -> nn.Module:
    """Convert a model in place to plain, frozen linear layers with their pretrained weights W0.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    nn.Module
        ``model``, or the linear layer that replaces it if it is itself an adapted layer.
    """
    return _to_plain(model, DualLoRALinear.pretrained_weight)


def _to_plain(model: nn.Module, weight_of: Callable[[DualLoRALinear], Tensor]) -> nn.Module:
    for layer in adapted_layers(model).values():
        linear = _plain_linear(layer, weight_of(layer))
        model = replace_modules(model, {layer: linear.requires_grad_(False).train(layer.training)})
    return model


def _plain_linear(layer: DualLoRALinear, weight: Tensor) -> nn.Module:
    """Return a layer of the type that ``layer`` replaced, with this weight (out, in)."""
    linear = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    if layer.source_type is not None:
        linear = layer.source_type(layer.out_features, layer.in_features)
        weight = weight.T.contiguous()
    linear.weight = nn.Parameter(weight.detach())
    linear.bias = layer.bias
    return linear


def layers_or_raise(model: nn.Module) -> dict[str, DualLoRALinear]:
    """Return the dual-adapter layers of a model that must be adapted.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    dict[str, DualLoRALinear]
        The layers by name.

    Raises
    ------
    ValueError
        If there are none.
    """
    layers = adapted_layers(model)
    if not layers:
        raise ValueError("the model has no adapters: call adapt() first")
    return layers
