"""What an adapted model may be switched to, and back: off, another pair, plain linears."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from .checks import check_pair_name, check_weight
from .decomposition import initial_factors
from .inject import replace_modules
from .layer import DualLoRALinear
from .pair import AdapterPair
from .settings import AdapterSettings


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
                group[f"{name}.{key}" if name else key] = getattr(layer, key)
    return groups


@contextmanager
def active(model: nn.Module, main: bool = True, sub: bool = True) -> Iterator[nn.Module]:
    """Inside the ``with``, let only the chosen adapters act with what they have learned.

    An adapter that is off acts with its initial factors, so that it adds back what its
    initialisation took out of W0. Hence main alone is W_res + s(B_main A_main + B_sub_init
    A_sub_init), and with both off the weights are W0, bit for bit.

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
    layers = adapted_layers(model).values()
    before = [(layer, layer.main_on, layer.sub_on) for layer in layers]
    try:
        for layer in layers:
            layer.set_active(main, sub)
        yield model
    finally:
        for layer, main_before, sub_before in before:
            layer.set_active(main_before, sub_before)


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
    for layer_name, layer in layers.items():
        check_pair_name(name, taken={layer.pair_name, *layer.pairs})
        check_weight(layer.pretrained_weight(), settings, f"layer {layer_name!r}")
    decomposed = initial_factors(
        layers, DualLoRALinear.pretrained_weight, settings, description=f"pair {name}"
    )
    for layer_name, factors in decomposed:
        layer = layers[layer_name]
        layer.put_pair(name, AdapterPair(factors, layer.in_features, settings))


def activate_pair(model: nn.Module, name: str) -> None:
    """Let every adapted layer compute with, and train, the pair of this name.

    The residual is derived from W0. Parameters move with their pair and stay the same objects:
    an optimiser made before goes on with the pair it was made for.
    """
    layers = _layers_or_raise(model).values()
    for layer in layers:
        if name not in {layer.pair_name, *layer.pairs}:
            layer.activate_pair(name)  # raises, naming the pairs there are
    for layer in layers:
        layer.activate_pair(name)


@torch.no_grad()
def export(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with plain, frozen ``nn.Linear`` layers: adapters merged for good.

    Its state dict has the keys and shapes of the model before :func:`adapt`.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    plain = copy.deepcopy(model)
    for layer in adapted_layers(plain).values():
        linear = nn.Linear(
            layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
        )
        linear.weight = nn.Parameter(layer.effective_weight())
        linear.bias = layer.bias
        replacements[layer] = linear.requires_grad_(False).train(layer.training)
    return replace_modules(plain, replacements)


def _layers_or_raise(model: nn.Module) -> dict[str, DualLoRALinear]:
    layers = adapted_layers(model)
    if not layers:
        raise ValueError("the model has no adapters: call adapt() first")
    return layers
