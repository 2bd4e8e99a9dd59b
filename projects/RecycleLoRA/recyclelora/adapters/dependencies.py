"""The parameters on which a model's output depends, found by one forward pass.

It shows which linear layers adapters can affect, and which parameters fine-tuning can train.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from .layer import DualLoRALinear
from .selection import is_conv1d
from .state import active, adapted_layers


def unreached_linears(module: nn.Module, *inputs: Any, **kwargs: Any) -> list[str]:
    """Return the names of the linear layers in which adapters have, or would have, no effect.

    The output of ``module(*inputs, **kwargs)`` does not depend on the weights of these layers. The
    function runs one forward pass on the meta device, which computes only shapes and needs no
    memory for weights. If the forward pass depends on values of tensors, as with routed experts, it
    runs on the values instead, and the result is valid for these inputs. ``module`` and ``inputs``
    do not change. For adapted layers, the function considers the active pair, even if the layers
    are merged or their adapters are off.

    Parameters
    ----------
    module : nn.Module
        An adapted or unadapted model.
    *inputs, **kwargs
        The arguments of the call.

    Returns
    -------
    list[str]
        Names as in ``named_modules()``.

    Raises
    ------
    RuntimeError
        If the forward pass depends on values and ``module`` is on the meta device.

    Examples
    --------
    >>> import torch
    >>> class Spare(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return self.used(x)
    >>> unreached_linears(Spare(), torch.zeros(1, 4))
    ['spare']
    """
    with _unmerged_active_pair(module):
        used = _used(module, _trainable, inputs, kwargs)
    names = {id(p): name for name, p in _named(module)}
    linears = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear | DualLoRALinear) or is_conv1d(child)
    }

    def is_used(linear: nn.Module) -> bool:
        keys = linear.FACTORS if isinstance(linear, DualLoRALinear) else ("weight",)
        return any(names.get(id(getattr(linear, key))) in used for key in keys)

    return [name for name, linear in linears.items() if not is_used(linear)]


@contextmanager
def _unmerged_active_pair(module: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, adapted layers compute with their trainable factors."""
    names = ("merged_weight", "mixture")
    layers = adapted_layers(module).values()
    before = [(layer, name, getattr(layer, name)) for layer in layers for name in names]
    try:
        for layer, name, _ in before:
            setattr(layer, name, None)
        with active(module):
            yield
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)


def parameters_in_use(module: nn.Module, *inputs: Any, **kwargs: Any) -> set[str]:
    """Return the names of the parameters on which ``module(*inputs, **kwargs)`` depends.

    Like :func:`unreached_linears`, the function runs one forward pass on the meta device.

    Parameters
    ----------
    module : nn.Module
        The model.
    *inputs, **kwargs
        The arguments of the call.

    Returns
    -------
    set[str]
        Names as in ``named_parameters()``.

    Examples
    --------
    >>> import torch
    >>> bypassed = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> bypassed.spare = nn.Parameter(torch.zeros(4))
    >>> bypassed.forward = lambda x: bypassed[0](x)
    >>> parameters_in_use(bypassed, torch.zeros(1, 4))
    {'0.weight'}
    """
    return _used(module, _trainable, inputs, kwargs)


def _used(module: nn.Module, candidates: Callable, inputs: tuple, kwargs: dict) -> set[str]:
    probe = _MadeFrom(module, candidates)
    try:
        return call_on_meta(probe, *inputs, **kwargs)
    except (RuntimeError, TypeError) as error:  # TypeError: NumPy cannot read a meta tensor
        if any(tensor.is_meta for tensor in module.parameters()):
            raise RuntimeError(
                f"the forward pass of this {type(module).__name__} cannot run on the meta device "
                f"({_first_line(error)}): give the model its weights first, so that the pass can "
                "run on values"
            ) from error
    return call_on_copies(probe, *inputs, **kwargs)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_parameters())


def _trainable(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


class _MadeFrom(nn.Module):
    """A module that returns the names of the tensors on which the output of ``module`` depends.

    Only tensors of ``candidates(module)``, pairs of name and tensor, are considered. The function
    is called after ``module``. The class is a module so that checkpointed blocks find their meta
    weights again in the backward pass.
    """

    def __init__(
        self, module: nn.Module, candidates: Callable[[nn.Module], list[tuple[str, Tensor]]]
    ) -> None:
        super().__init__()
        self.module = module
        self.candidates = candidates

    def forward(self, *inputs: Any, **kwargs: Any) -> set[str]:
        result = self.module(*inputs, **kwargs)
        named = self.candidates(self.module)
        total = sum(tensor.float().sum() for tensor in _tensors(result) if tensor.requires_grad)
        if not named or not isinstance(total, Tensor):
            return set()
        gradients = torch.autograd.grad(total, [tensor for _, tensor in named], allow_unused=True)
        return {name for (name, _), gradient in zip(named, gradients) if gradient is not None}


def call_on_meta(module: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    """Call a module on the meta device, where every parameter requires grad and nothing is copied.

    Parameters
    ----------
    module : nn.Module
        The module.
    *inputs, **kwargs
        The arguments of the call.

    Returns
    -------
    object
        The result of the call.
    """
    return _call(module, lambda tensor: tensor.to("meta"), inputs, kwargs)


def call_on_copies(module: nn.Module, *inputs: Any, **kwargs: Any) -> Any:
    """Call a module on copies of its tensors, where every parameter requires grad.

    Parameters
    ----------
    module : nn.Module
        The module.
    *inputs, **kwargs
        The arguments of the call.

    Returns
    -------
    object
        The result of the call.
    """
    return _call(module, lambda tensor: tensor.detach().clone(), inputs, kwargs)


@torch.inference_mode(False)
@torch.enable_grad()
def _call(
    module: nn.Module, convert: Callable[[Tensor], Tensor], inputs: tuple, kwargs: dict
) -> Any:
    tensors = {
        name: convert(parameter.detach()).requires_grad_(parameter.is_floating_point())
        for name, parameter in module.named_parameters()
    }
    tensors |= {name: convert(buffer) for name, buffer in module.named_buffers()}
    inputs, kwargs = tree_map_only(Tensor, convert, (inputs, kwargs))
    return functional_call(module, tensors, inputs, kwargs)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping) or dataclasses.is_dataclass(result):
        values = result if isinstance(result, Mapping) else vars(result)
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(result, Sequence) and not isinstance(result, str):
        for value in result:
            yield from _tensors(value)
