"""The pairs of adapters of one layer: store, activate and mix them."""

from .layer import DualLoRALinear
from .mixtures import Mixture, check_one_weight
from .pair import AdapterPair


def check_pair(layer: DualLoRALinear, name: str) -> None:
    """Raise an error if a layer has no pair of this name.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    name : str
        The name of the pair.

    Raises
    ------
    ValueError
        If there is no such pair. The message lists the pairs of the layer.
    """
    if name != layer.pair_name and name not in layer.pairs:
        known = ", ".join(sorted({layer.pair_name, *layer.pairs}))
        raise ValueError(f"there is no adapter pair {name!r}; the pairs are: {known}")


def put_pair(layer: DualLoRALinear, name: str, pair: AdapterPair) -> None:
    """Store a pair in a layer. An existing pair of this name, also the active one, is replaced.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    name : str
        The name of the pair.
    pair : AdapterPair
        The pair. Its tensors are exchanged for those of a pair that it replaces.
    """
    pair.requires_grad_(False)
    if name in layer.pairs or name == layer.pair_name:
        layer.pair(name).exchange(pair)
    else:
        layer.pairs[name] = pair


def needs_new_parameters(layer: DualLoRALinear, name: str) -> bool:
    """Return whether activating a pair replaces the parameters of a layer.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    name : str
        The name of the pair.

    Returns
    -------
    bool
        True if the settings of the pair differ from those of the active pair. Otherwise only the
        values of the parameters change.
    """
    return layer.pair(name).settings != layer.settings


def make_active(layer: DualLoRALinear, name: str) -> None:
    """Activate a pair of a layer, and store the previous one in ``layer.pairs``.

    The residual is computed from W0. The values of both pairs are exchanged or, if the settings
    differ, their parameters. The previous pair is frozen. A merged layer stays merged, with the new
    pair.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    name : str
        The name of the pair.

    Raises
    ------
    ValueError
        If there is no pair of this name.
    """
    check_pair(layer, name)
    if layer.merged_weight is not None:
        check_one_weight(layer)
    mix(layer, None)
    if name == layer.pair_name:
        return
    pair = layer.pairs.pop(name)
    layer.exchange(pair)
    layer.pairs[layer.pair_name] = pair
    layer.pair_name = name


def mix(layer: DualLoRALinear, mixture: Mixture | None) -> None:
    """Compute with a weighted sum of pairs, or with the active pair again.

    A merged layer stays merged, with the new weight.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    mixture : Mixture or None
        The weighted sum, or None for the active pair.
    """
    if mixture == layer.mixture:
        return
    if layer.merged_weight is not None:
        check_one_weight(layer)
    layer.mixture = mixture
    if layer.merged_weight is not None:
        layer.merge()
