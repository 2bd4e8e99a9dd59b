"""Several pairs of adapters at once in one layer: a weighted sum, or a pair for each sample."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pair import new_serial
from .switches import Switches, samples_of_this_thread, tie_to_state


class Mixture(NamedTuple):
    """A weighted sum of pairs of adapters.

    Attributes
    ----------
    weights : tuple[tuple[str, float], ...]
        The name and the weight of each pair.
    serial : int
        The serial number of the mixture, see :func:`new_serial`.
    """

    weights: tuple[tuple[str, float], ...]
    serial: int

    @classmethod
    def of(cls, weights: dict[str, float]) -> "Mixture":
        """Return a mixture with a new serial number.

        Parameters
        ----------
        weights : dict[str, float]
            The weight of each pair by name.

        Returns
        -------
        Mixture
            The mixture.
        """
        return cls(tuple(weights.items()), new_serial())


class Samples(NamedTuple):
    """The assignment of the samples of a batch to pairs of adapters.

    Attributes
    ----------
    count : int
        The number of samples.
    rows : dict[str, Tensor]
        Indices (n,) of the samples by the name of their pair.
    serial : int
        The serial number of the assignment, see :func:`new_serial`.
    """

    count: int
    rows: dict[str, Tensor]
    serial: int

    @classmethod
    def of(cls, names: Sequence[str | None]) -> "Samples":
        """Return the assignment for a list of names.

        Parameters
        ----------
        names : Sequence[str | None]
            The name of the pair of each sample, or None for a sample without adapters.

        Returns
        -------
        Samples
            The assignment, with a new serial number.
        """
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            if name is not None:
                rows.setdefault(name, []).append(i)
        tensors = {name: torch.tensor(indices) for name, indices in rows.items()}
        return cls(len(names), tensors, new_serial())


def mixed_weight(layer: Any, switches: Switches, dtype: torch.dtype) -> Tensor:
    """Return the weight of a layer whose pairs are mixed: W0 + sum of w_i dW_i.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    switches : Switches
        Which adapters are on.
    dtype : torch.dtype
        The dtype of the computation.

    Returns
    -------
    Tensor
        The weight (out, in), without gradient.
    """
    weight = layer.pretrained_weight()
    changes = [(w, layer.pair(name).change(*switches)) for name, w in layer.mixture.weights]
    rows = [A.to(dtype) for _, (A, _) in changes]
    columns = [w * B.to(dtype) for w, (_, B) in changes]
    if not sum(len(A) for A in rows):
        return weight
    with torch.autocast(weight.device.type, enabled=False):
        change = torch.cat(columns, dim=1) @ torch.cat(rows)
        return (weight.to(dtype) + change).to(weight.dtype)


def forward_per_sample(layer: Any, x: Tensor) -> Tensor | None:
    """Compute the output of a layer, each sample with its own pair of adapters.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.
    x : Tensor
        Inputs (n, ..., in).

    Returns
    -------
    Tensor or None
        Outputs (n, ..., out), or None if this thread has not assigned pairs to samples.

    Raises
    ------
    ValueError
        If dimension 0 of ``x`` does not have one entry for each sample.
    """
    samples = _samples_of(layer)
    if samples is None:
        return None
    if x.is_nested or x.dim() < 2 or len(x) != samples.count:
        shape = "a nested tensor" if x.is_nested else f"an input of shape {tuple(x.shape)}"
        raise ValueError(
            f"pairs_per_sample() needs inputs of size {samples.count}, the number of names, in "
            f"dimension 0 of every adapted layer, got {shape}: run models that move samples out "
            "of dimension 0 (window attention) with one pair at a time"
        )
    switches = layer.switches()
    (x,) = tie_to_state(layer, samples.serial, switches, [x])
    out = _pretrained_output(layer, x)
    for name, rows in samples.rows.items():
        rows = rows.to(x.device)
        change = layer.pair(name).apply_change(x.index_select(0, rows), *switches)
        out = out.index_add(0, rows, change.to(out.dtype))
    return out


def _pretrained_output(layer: Any, x: Tensor) -> Tensor:
    """Return ``x W0' + bias``, without forming W0 if W_res differs from it in few columns."""
    if layer.columns is None:
        return F.linear(x, layer.pretrained_weight(), layer.bias)
    out, dtype = F.linear(x, layer.residual, layer.bias), layer.initial_B.dtype
    lost = layer.pretrained.to(dtype) - layer.residual.index_select(1, layer.columns).to(dtype)
    return out + F.linear(x.index_select(-1, layer.columns).to(dtype), lost).to(out.dtype)


def check_one_weight(layer: Any) -> None:
    """Raise an error if this thread has assigned pairs to samples, so that no single weight exists.

    Parameters
    ----------
    layer : DualLoRALinear
        The layer.

    Raises
    ------
    RuntimeError
        If the layer has a weight for each sample.
    """
    if _samples_of(layer) is not None:
        raise RuntimeError(
            "inside pairs_per_sample() a layer has a weight for each sample and no single weight "
            "to read, merge or export (nn.MultiheadAttention reads out_proj.weight): adapt the "
            "model without the layers whose weight is read, or run one pair at a time"
        )


def _samples_of(layer: Any) -> Samples | None:
    if torch.compiler.is_compiling():
        # Compiled code depends on the layer's attributes, not on those of a thread.
        if layer.sample_contexts:
            raise RuntimeError(
                "pairs_per_sample() has no effect on a model compiled with fullgraph=True: compile "
                "without fullgraph=True, or call the model that is not compiled"
            )
        return None
    return samples_of_this_thread().get(layer)
