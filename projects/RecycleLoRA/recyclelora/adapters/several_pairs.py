"""Computing with several pairs of adapters at once: a weighted sum, or a pair for each sample."""

import math
import numbers
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from .layer import DualLoRALinear
from .layer_pairs import check_pair, mix
from .mixtures import Mixture, Samples
from .state import layers_or_raise
from .switches import samples_of_this_thread, set_samples_in_this_thread

_COUNTING = threading.Lock()


def activate_pairs(model: nn.Module, weights: Mapping[str, float]) -> None:
    r"""Activate a weighted sum of pairs in every adapted layer.

    .. math:: W = W_0 + \sum_i w_i\, \Delta W_i, \quad
              \Delta W_i = s_i (B_i A_i - B_{i,init} A_{i,init})

    The pairs may have different ranks, scalings and initialisers. Every forward pass computes the
    sum, without a gradient of the factors; :func:`merge` computes it once. Inside :func:`active`,
    the change of an adapter that is off is omitted from every pair. Parameters and state dict do
    not change. :func:`activate_pair` activates a single pair again, which can be trained and saved.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    weights : mapping of str to float
        A finite weight for each pair, by name. If empty, the layers compute with W0.

    Raises
    ------
    TypeError, ValueError
        If a pair does not exist, or if a weight is not a finite number. The model is unchanged.

    Examples
    --------
    >>> import torch
    >>> from recyclelora import adapt
    >>> from recyclelora.adapters import add_pair
    >>> linear, x = nn.Linear(16, 8), torch.randn(2, 16)
    >>> model = adapt(linear, r_main=3, r_sub=1)
    >>> add_pair(model, "night", r_main=2, r_sub=2)
    >>> activate_pairs(model, {"default": 0.3, "night": 0.7})
    >>> torch.allclose(model(x), linear(x), atol=1e-5)  # nothing learned yet
    True
    """
    layers = list(layers_or_raise(model).values())
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"weights must map names of pairs to numbers, as in {{'night': 0.7}}, got {weights!r}"
        )
    for name, weight in weights.items():
        for layer in layers:
            check_pair(layer, name)
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight):
            raise ValueError(f"the weight of pair {name!r} must be a finite number, got {weight!r}")
    mixture = Mixture.of({name: float(weight) for name, weight in weights.items()})
    for layer in layers:
        mix(layer, mixture)


@contextmanager
def pairs_per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Context manager that computes each sample of a batch with its own pair, for inference.

    Dimension 0 of the model's input, and of the input of every adapted layer, must be the samples.
    A layer whose input has another size in dimension 0 raises an error. If another dimension, such
    as the tokens, is moved to dimension 0 and happens to have the same size, the mistake cannot be
    detected. The factors get no gradient. The choice applies to the running thread, so several
    threads can use one model. It takes precedence over :func:`activate_pairs` and :func:`merge`. A
    layer then has no single weight, so reading, merging or exporting it raises an error.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    names : sequence of str or None
        The name of a pair for each sample, or None for the pretrained weights.

    Yields
    ------
    nn.Module
        ``model``.

    Raises
    ------
    ValueError
        If a pair does not exist. In a forward pass, if dimension 0 of a layer's input does not have
        the size ``len(names)``.

    Examples
    --------
    >>> import torch
    >>> from recyclelora import adapt
    >>> from recyclelora.adapters import add_pair
    >>> linear, x = nn.Linear(16, 8), torch.randn(3, 16)
    >>> model = adapt(linear, r_main=3, r_sub=1)
    >>> add_pair(model, "night", r_main=2, r_sub=2)
    >>> with torch.inference_mode(), pairs_per_sample(model, ["night", "default", None]):
    ...     out = model(x)
    >>> torch.allclose(out, linear(x), atol=1e-5)  # nothing learned yet
    True
    """
    layers = list(layers_or_raise(model).values())
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise TypeError(
            f"names must be a list with the name of a pair, or None, for each sample, got {names!r}"
        )
    for name in dict.fromkeys(names):
        for layer in layers if name is not None else ():
            check_pair(layer, name)
    before = samples_of_this_thread()
    set_samples_in_this_thread({**before, **dict.fromkeys(layers, Samples.of(names))})
    _count(layers, 1)
    try:
        yield model
    finally:
        _count(layers, -1)
        set_samples_in_this_thread(before)


def _count(layers: Sequence[DualLoRALinear], step: int) -> None:
    with _COUNTING:
        for layer in layers:
            layer.sample_contexts += step
