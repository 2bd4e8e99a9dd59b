"""What an adapted model may be switched to, and back: off, another pair, plain linears."""

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
from .pair import AdapterPair
from .settings import AdapterSettings
from .sharding import full_parameters
from .switches import Switches, of_this_thread, set_in_this_thread
from .wrappers import warn_of_new_parameters


class AdapterParameters(NamedTuple):
    """Parameters of the active pairs by their name in the model; see :func:`adapter_parameters`."""

    main: dict[str, nn.Parameter]
    sub: dict[str, nn.Parameter]


def adapted_layers(model: nn.Module) -> dict[str, DualLoRALinear]:
    """The dual-adapter layers of ``model`` by name, each once; empty if it is not adapted."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return {n: m for n, m in model.named_modules() if isinstance(m, DualLoRALinear)}


def adapter_parameters(model: nn.Module) -> AdapterParameters:
    """The factors of the active main and sub adapters, as optimiser groups want them.

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
    """Inside the ``with``, let only the chosen adapters act with what they have learned.

    An adapter that is off acts with its initial factors, so that it adds back what its
    initialisation took out of W0. Hence main alone is W_res + s(B_main A_main + B_sub_init
    A_sub_init), and with both off the weights are W0, bit for bit. The choice belongs to the
    running thread; a backward pass with checkpointing has to run in it too.

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
    """The active pair's name and the names of all pairs, sorted."""
    layers = _layers_or_raise(model).values()
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
    """Give every adapted layer a further pair of adapters, initialised from the same W0.

    It waits, frozen, until :func:`activate_pair`. The settings are those of :func:`adapt` and may
    differ from the other pairs'.

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
    layers = _layers_or_raise(model)
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
            layer.put_pair(name, AdapterPair(factors, layer.in_features, settings))


def activate_pair(model: nn.Module, name: str) -> None:
    """Let every adapted layer compute with, and train, the pair of this name.

    The residual is derived from W0. Where the settings of both pairs match, values are copied into
    the parameters that are there, so that optimisers, DDP and averages of weights stay valid; reset
    the state of the optimiser. Otherwise the layers get new parameters, with a warning.

    Raises
    ------
    ValueError
        If there is no pair of this name.
    RuntimeError
        If the layers would get new parameters while DDP or FSDP holds the old ones.
    """
    layers = list(_layers_or_raise(model).values())
    for layer in layers:
        if name not in {layer.pair_name, *layer.pairs}:
            layer.activate_pair(name)  # raises, naming the pairs there are
    with full_parameters(model, writeback=True):
        warn_of_new_parameters([layer for layer in layers if layer.needs_new_parameters(name)])
        for layer in layers:
            layer.activate_pair(name)


@torch.no_grad()
def export(model: nn.Module, copy: bool = True) -> nn.Module:
    """Return ``model`` with plain, frozen linear layers: the adapters are merged for good.

    Its state dict has the keys and shapes of the model before :func:`adapt`.

    Parameters
    ----------
    model : nn.Module
    copy : bool
        Whether to leave ``model`` as it is. False converts it in place, one layer after the other,
        and needs no second copy of the weights.
    """
    if copy:
        originals = adapted_layers(model)
        model = deepcopy(model)
        pairs = dict(zip(adapted_layers(model).values(), originals.values()))
        return _to_plain(model, lambda layer: pairs[layer].effective_weight())
    return _to_plain(model, DualLoRALinear.effective_weight)


@torch.no_grad()
def remove_adapters(model: nn.Module) -> nn.Module:
    """Convert ``model`` in place to plain, frozen linear layers with their pretrained weights W0.

    Returns ``model``; if it is itself an adapted layer, the linear that replaces it.
    """
    return _to_plain(model, DualLoRALinear.pretrained_weight)


def _to_plain(model: nn.Module, weight_of: Callable[[DualLoRALinear], Tensor]) -> nn.Module:
    for layer in adapted_layers(model).values():
        linear = layer.plain_linear(weight_of(layer))
        model = replace_modules(model, {layer: linear.requires_grad_(False).train(layer.training)})
    return model


def _layers_or_raise(model: nn.Module) -> dict[str, DualLoRALinear]:
    layers = adapted_layers(model)
    if not layers:
        raise ValueError("the model has no adapters: call adapt() first")
    return layers
