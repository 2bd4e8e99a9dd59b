"""The dual-adapter linear layer as one operator, forward and backward."""

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from . import reference
from .library import define_operators, reference_kernel


def dual_lora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A_main: Tensor,
    B_main: Tensor,
    A_sub: Tensor,
    B_sub: Tensor,
    scaling: float,
    columns: Tensor | None = None,
) -> Tensor:
    r"""Compute ``x weight' + bias + scaling x A' B'``; A and B join both adapters' factors.

    For many rows of x, the effective weight ``weight + scaling B A`` is formed temporarily in
    float32 or wider and rounded once. For few rows, ``x A' B'`` is added to the product instead. In
    both cases, x and ``x A'`` are saved for the backward pass, and no weights other than the
    parameters. With ``columns``, only ``x[..., columns]`` is saved.

    Derivatives with respect to x, weight, bias and the factors are supported to any order, in
    backward and forward mode, and under ``torch.compile``, checkpointing, autocast and
    ``torch.func``. If a tensor is changed in place between forward and backward pass, PyTorch
    raises its usual error.

    Parameters
    ----------
    x : Tensor, (..., in)
        The input. Its dtype is float16, bfloat16, float32 or float64, equal to that of the other
        tensors. Under autocast, x is cast, the other tensors may be float32, and the effective
        weight is rounded.
    weight : Tensor, (out, in)
        The residual weight.
    bias : Tensor, (out,), or None
        The bias.
    A_main, A_sub : Tensor, (r, in), or (r, len(columns)) if ``columns`` is given
        The first factors. The two ranks r may differ, and one may be 0.
    B_main, B_sub : Tensor, (out, r)
        The second factors.
    scaling : float
        The scaling of the adapters.
    columns : Tensor, int64, optional
        The columns of x that both A read, without duplicates.

    Returns
    -------
    Tensor, (..., out)
        The output, in the dtype of x or of autocast.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match.

    Examples
    --------
    >>> x, weight, bias = torch.randn(2, 5, 8), torch.randn(6, 8), torch.randn(6)
    >>> main = torch.randn(3, 8, requires_grad=True), torch.zeros(6, 3, requires_grad=True)
    >>> sub = torch.randn(1, 8, requires_grad=True), torch.zeros(6, 1, requires_grad=True)
    >>> out = dual_lora_linear(x, weight, bias, *main, *sub, scaling=1 / 4)
    >>> torch.allclose(out, torch.nn.functional.linear(x, weight, bias), atol=1e-5)
    True
    """
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        if x.dtype != torch.float64:  # as autocast does
            x = x.to(torch.get_autocast_dtype(device))
    elif x.dtype != weight.dtype:
        raise ValueError(
            f"dual_lora_linear: x must have the dtype of weight, got {x.dtype} and {weight.dtype}"
        )
    # torch.func refuses an operator's autograd, and forward mode would drop the tangents there. The
    # plain formula supports every derivative. Tracers and FLOP counters can also process it.
    transformed = torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()
    if transformed or forward_ad._current_level >= 0:
        arguments = (x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns)
        return reference.dual_lora_linear(*arguments)[0]
    return torch.ops.recyclelora.dual_lora_linear(
        x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns
    )[0]


FORWARD = "recyclelora::dual_lora_linear"
BACKWARD = "recyclelora::dual_lora_linear_backward"

_compiled = define_operators()
for _name, _function in (
    (FORWARD, reference.dual_lora_linear),
    (BACKWARD, reference.dual_lora_linear_backward),
):
    # This kernel serves every device without a compiled one.
    torch.library.impl(_name, "CompositeExplicitAutograd", reference_kernel(_function))
    if not _compiled:  # autograd differentiates the formula
        torch.library.impl(_name, "Autograd", reference_kernel(_function))


@torch.library.register_fake(FORWARD)
def _shapes(x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns=None):  # type: ignore[no-untyped-def]
    reference.check_dual_lora_linear(x, weight, bias, A_main, B_main, A_sub, B_sub, columns)
    rows = x.numel() // x.shape[-1]
    rank = A_main.shape[0] + A_sub.shape[0]
    out = x.new_empty((*x.shape[:-1], weight.shape[0]))
    return out, x.new_empty((rows, rank if columns is None else columns.shape[0]))


@torch.library.register_fake(BACKWARD)
def _shapes_of_gradients(grad, x, kept, weight, A, B, scaling, columns, wanted):  # type: ignore[no-untyped-def]
    wants_x, wants_bias, wants_A, wants_B = wanted
    return (
        grad.new_empty((*grad.shape[:-1], weight.shape[1]) if wants_x else 0),
        weight.new_empty(weight.shape[0] if wants_bias else 0),
        A.new_empty(A.shape if wants_A else 0),
        B.new_empty(B.shape if wants_B else 0),
    )


@register_flop_formula(torch.ops.recyclelora.dual_lora_linear)
def _flops(x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns=None, **_) -> int:  # type: ignore[no-untyped-def]
    """Return the number of operations of x W' + s (x A') B'; the arguments are shapes."""
    rows, rank = math.prod(x[:-1]), A_main[0] + A_sub[0]
    return 2 * rows * (math.prod(weight) + rank * (A_main[1] + weight[0]))


@register_flop_formula(torch.ops.recyclelora.dual_lora_linear_backward)
def _flops_of_backward(grad, x, kept, weight, A, B, scaling, columns, wanted, **_) -> int:  # type: ignore[no-untyped-def]
    rows, (rank, inputs), outputs = math.prod(grad[:-1]), A, weight[0]
    wants_x, _, wants_A, wants_B = wanted
    hidden = outputs * rank if wants_x or wants_A else 0
    products = wants_x * (math.prod(weight) + rank * inputs) + wants_A * rank * inputs
    return 2 * rows * (hidden + products + wants_B * rank * outputs)
