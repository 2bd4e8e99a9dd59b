"""Merge adapters into one weight per layer, for a single layer and for a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .switches import is_eager


class MergeableLinear(nn.Module):
    """Base class of adapted linear layers whose weight can be merged for inference.

    A subclass implements :meth:`effective_weight`. While ``merged_weight`` is not None, the
    subclass's ``forward`` calls :meth:`forward_merged`.

    Attributes
    ----------
    bias : Parameter, (out,), or None
        The bias of the layer.
    merged_weight : Tensor, (out, in), or None
        The weight in use while the layer is merged. It is not part of the state dict.
    """

    bias: nn.Parameter | None
    merged_weight: Tensor | None
    merged_switches: object = None

    def effective_weight(self) -> Tensor:
        """Return the weight (out, in) that the unmerged layer applies.

        Returns
        -------
        Tensor
            The weight, computed in float64 and cast once.

        Raises
        ------
        NotImplementedError
            If a subclass does not implement the method.
        """
        raise NotImplementedError

    def switches(self) -> object:
        """Return the state, besides the parameters, on which the effective weight depends.

        Returns
        -------
        object
            A value that can be compared.
        """
        return None

    def merge(self) -> None:
        """Compute with one merged weight; parameters and state dict do not change.

        Merging a merged layer again computes the weight from the current factors.
        """
        self.merged_weight = self.effective_weight()
        self.merged_switches = self.switches()

    def unmerge(self) -> None:
        """Undo :meth:`merge` by discarding the merged weight."""
        self.merged_weight = None

    def merged_weight_now(self) -> Tensor:
        """Return the weight with which the merged layer computes in this thread.

        Returns
        -------
        Tensor
            The merged weight, or the effective weight if the switches of this thread are not those
            with which :meth:`merge` was called.
        """
        if self.switches() == self.merged_switches:
            return self.merged_weight
        return self.effective_weight()

    def forward_merged(self, x: Tensor, adapters: Sequence[Tensor]) -> Tensor:
        """Compute the output of the layer with its merged weight.

        Parameters
        ----------
        x : Tensor
            Inputs (..., in).
        adapters : Sequence[Tensor]
            Factors of the adapters. A backward pass to them raises an error.

        Returns
        -------
        Tensor
            Outputs (..., out).
        """
        weight = self.merged_weight_now()
        trained = [factor for factor in adapters if factor.requires_grad]
        if trained and torch.is_grad_enabled() and is_eager():
            # The check acts on the weight, so a gradient of x alone does not trigger it.
            weight = _MergedWeight.apply(weight, *trained)
        return F.linear(x, weight, self.bias)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        # PyTorch calls this for every move of a module: .to(), .cuda(), .half(), .to_empty().
        own = next(self.parameters(recurse=False))
        if own.is_meta and not fn(own).is_meta:
            raise RuntimeError(
                "this adapted model is on the meta device and has no values to move: load a state "
                "dict with load_state_dict(state_dict, assign=True), or adapt a model that has "
                "its weights"
            )
        return super()._apply(fn, recurse)


class _MergedWeight(torch.autograd.Function):
    """Return the merged weight; raise an error if a gradient of the adapters is computed."""

    @staticmethod
    def forward(ctx, weight: Tensor, *adapters: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad: Tensor) -> None:  # type: ignore[no-untyped-def]
        raise RuntimeError(
            "backward() was called through merged adapters, but a merged layer computes no "
            "gradient for them: unmerge the model before training, or set requires_grad=False on "
            "its adapters"
        )


def merge(model: nn.Module) -> None:
    """Merge every adapted layer into one weight, W_res + s B A, for fast inference.

    The sum is computed in float64 and cast once. Parameters and state dict do not change, so
    :func:`unmerge` restores the model bit for bit. A merged model cannot be trained: ``backward()``
    through its adapters raises an error. Call the function again after the factors have changed.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    """
    for layer in _mergeable(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo :func:`merge`, bit for bit.

    Parameters
    ----------
    model : nn.Module
        An adapted model.
    """
    for layer in _mergeable(model):
        layer.unmerge()


@contextmanager
def merged(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager that merges a model, then restores the previous state of each layer.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Yields
    ------
    nn.Module
        ``model``.
    """
    layers = _mergeable(model)
    before = {layer for layer in layers if layer.merged_weight is not None}
    merge(model)
    try:
        yield model
    finally:
        for layer in layers:
            if layer not in before:
                layer.unmerge()


def _mergeable(model: nn.Module) -> list[MergeableLinear]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return [module for module in model.modules() if isinstance(module, MergeableLinear)]
