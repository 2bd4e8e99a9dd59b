"""What a model's result is computed from: found by one forward pass of shapes.

Which linear layers adapters would reach, and which parameters full fine-tuning would train.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def unreached_linears(module: nn.Module, *inputs: Any) -> list[str]:
    """Names of the ``nn.Linear`` inside ``module`` in which adapters would do nothing.

    ``module(*inputs)`` either does not call them, so that it reads their weights directly or leaves
    them out, or computes nothing from what they give. :func:`recyclelora.adapt` cannot see this
    from the modules alone. The pass runs on the meta device: it computes shapes, no numbers, and
    takes no memory for weights. ``module`` and ``inputs`` stay as they are.

    Parameters
    ----------
    module : nn.Module
        Any model whose forward pass does not depend on the values of tensors.
    *inputs
        What to call it with; only the shapes and dtypes of tensors matter.

    Examples
    --------
    >>> import torch
    >>> class Fused(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.called, self.read = nn.Linear(4, 4), nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return nn.functional.linear(self.called(x), self.read.weight)
    >>> unreached_linears(Fused(), torch.zeros(1, 4))
    ['read']
    """
    linears = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear)}
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        linear.register_forward_hook(lambda *call, name=name: outputs.append((name, call[2])))
        for name, linear in linears.items()
    ]
    try:
        reached = call_on_meta(_MadeFrom(module, lambda _: outputs), *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in linears if name not in reached]


def parameters_in_use(module: nn.Module, *inputs: Any) -> set[str]:
    """Names of the parameters that ``module(*inputs)`` is computed from.

    A pass on the meta device, as that of :func:`unreached_linears`.

    Examples
    --------
    >>> import torch
    >>> bypassed = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> bypassed.spare = nn.Parameter(torch.zeros(4))
    >>> bypassed.forward = lambda x: bypassed[0](x)
    >>> parameters_in_use(bypassed, torch.zeros(1, 4))
    {'0.weight'}
    """
    return call_on_meta(_MadeFrom(module, _trainable), *inputs)


def _trainable(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


class _MadeFrom(nn.Module):
    """The names of those tensors of ``candidates(module)`` from which its result is computed.

    A module, so that checkpointed blocks find their meta weights again in the backward pass.
    ``candidates`` is called after ``module``, and gives names and tensors.
    """

    def __init__(
        self, module: nn.Module, candidates: Callable[[nn.Module], list[tuple[str, Tensor]]]
    ) -> None:
        super().__init__()
        self.module = module
        self.candidates = candidates

    def forward(self, *inputs: Any) -> set[str]:
        result = self.module(*inputs)
        named = self.candidates(self.module)
        total = sum(tensor.float().sum() for tensor in _tensors(result) if tensor.requires_grad)
        if not named or not isinstance(total, Tensor):
            return set()
        gradients = torch.autograd.grad(total, [tensor for _, tensor in named], allow_unused=True)
        return {name for (name, _), gradient in zip(named, gradients) if gradient is not None}


@torch.enable_grad()
def call_on_meta(module: nn.Module, *inputs: Any) -> Any:
    """``module(*inputs)`` on the meta device, every parameter requiring grad; nothing is copied."""
    tensors = {
        name: parameter.detach().to("meta").requires_grad_(parameter.is_floating_point())
        for name, parameter in module.named_parameters()
    }
    tensors |= {name: buffer.to("meta") for name, buffer in module.named_buffers()}
    on_meta = tuple(x.to("meta") if isinstance(x, Tensor) else x for x in inputs)
    return functional_call(module, tensors, on_meta)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from _tensors(value)
    elif isinstance(result, Sequence) and not isinstance(result, str):
        for value in result:
            yield from _tensors(value)
