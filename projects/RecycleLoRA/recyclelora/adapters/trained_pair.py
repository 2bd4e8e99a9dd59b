"""The trained and initial factors of every adapted layer, as plain tensors in float64."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layer import DualLoRALinear
from .state import adapted_layers


@dataclass(frozen=True)
class Factor:
    """One adapter of a layer: the current and the initial factors B and A.

    Attributes
    ----------
    A, initial_A : Tensor, (r, in)
        The factors A.
    B, initial_B : Tensor, (out, r)
        The factors B.
    pivots : Tensor, (r,), or None
        The columns of A at which its rows were initially one-hot. None for other initialisers.
    """

    A: Tensor
    B: Tensor
    initial_A: Tensor
    initial_B: Tensor
    pivots: Tensor | None

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.A.shape[0]


@dataclass(frozen=True)
class TrainedPair:
    """Both adapters of one layer.

    Attributes
    ----------
    name : str
        The layer's name in the model.
    main, sub : Factor or None
        The adapters. None for an adapter of rank 0.
    scaling : float
        The factor s before B A.
    shape : tuple of int
        (out, in).
    weight_norm : float
        Frobenius norm of the pretrained weight W0.
    """

    name: str
    main: Factor | None
    sub: Factor | None
    scaling: float
    shape: tuple[int, int]
    weight_norm: float

    @property
    def block(self) -> int | None:
        """The index of the transformer block that contains the layer, from the layer's name."""
        found = re.search(r"(?:^|\.)(\d+)\.", self.name)
        return int(found.group(1)) if found else None

    @property
    def factors(self) -> dict[str, Factor]:
        """The adapters above rank 0, by "main" and "sub"."""
        both = {"main": self.main, "sub": self.sub}
        return {kind: factor for kind, factor in both.items() if factor is not None}


def trained_pairs(model: nn.Module) -> list[TrainedPair]:
    """Return the factors of all adapted layers of a model, in the order of the model.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    list[TrainedPair]
        One pair for each layer.

    Raises
    ------
    ValueError
        If the model has no adapters.

    Examples
    --------
    >>> from recyclelora import adapt
    >>> (pair,) = trained_pairs(adapt(nn.Sequential(nn.Linear(16, 8)), r_main=3, r_sub=1))
    >>> pair.name, pair.main.rank, pair.sub.rank, pair.block
    ('0', 3, 1, None)
    """
    layers = adapted_layers(model)
    if not layers:
        raise ValueError(
            "expected a model adapted by adapt() or soma(), got a model without adapters: frozen, "
            "fully fine-tuned and DoRA models have no main or sub adapter to analyze"
        )
    return [trained_pair(name, layer) for name, layer in layers.items()]


@torch.no_grad()
def trained_pair(name: str, layer: DualLoRALinear) -> TrainedPair:
    """Return the factors of one adapted layer.

    Parameters
    ----------
    name : str
        The layer's name in the model.
    layer : DualLoRALinear
        The layer.

    Returns
    -------
    TrainedPair
        The pair.
    """
    now, before = layer.factors(main=True, sub=True), layer.factors(main=False, sub=False)
    r_main, columns = layer.settings.r_main, layer.columns
    pivots = (None, None) if columns is None else (columns[:r_main].cpu(), columns[r_main:].cpu())
    adapters = []
    for i, own in enumerate(pivots):
        A, B = now[2 * i : 2 * i + 2]
        initial_A, initial_B = before[2 * i : 2 * i + 2]
        dense = (layer.dense_rows(A), B, layer.dense_rows(initial_A), initial_B)
        tensors = (tensor.detach().cpu().double() for tensor in dense)
        adapters.append(Factor(*tensors, own) if len(A) else None)
    norm = layer.pretrained_weight().double().norm().item()
    shape = layer.out_features, layer.in_features
    return TrainedPair(name, *adapters, layer.scaling, shape, norm)
