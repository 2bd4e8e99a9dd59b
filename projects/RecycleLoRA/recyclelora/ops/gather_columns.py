"""A few columns of many rows: what an adapter on chosen columns reads, and all it needs to keep."""

import torch
from torch import Tensor

from . import reference
from .library import load


def gather_columns(x: Tensor, columns: Tensor) -> Tensor:
    """``x[..., columns]``, in one pass over the rows; x may be strided.

    Differentiable in x any number of times; works on CPU and CUDA tensors, under
    ``torch.compile`` and on fake and meta tensors.

    Parameters
    ----------
    x : Tensor, (..., k), floating
    columns : Tensor, (n,), int64, each 0..k - 1

    Returns
    -------
    Tensor, (..., n), contiguous

    Raises
    ------
    ValueError
        If a shape or dtype is another.
    IndexError
        If a column is out of range (on CUDA a device-side assertion).

    Examples
    --------
    >>> gather_columns(torch.arange(6.0).view(2, 3), torch.tensor([2, 0]))
    tensor([[2., 0.],
            [5., 3.]])
    """
    return torch.ops.recyclelora.gather_columns(x, columns)


if not load():
    torch.library.define("recyclelora::gather_columns", "(Tensor x, Tensor columns) -> Tensor")
# For every device that has no compiled kernel.
torch.library.impl(
    "recyclelora::gather_columns", "CompositeExplicitAutograd", reference.gather_columns
)


@torch.library.register_fake("recyclelora::gather_columns")
def _shape(x: Tensor, columns: Tensor) -> Tensor:
    reference.check_gather_columns(x, columns)
    return x.new_empty((*x.shape[:-1], columns.shape[0]))


def _keep(ctx, inputs, output: Tensor) -> None:  # type: ignore[no-untyped-def]
    x, columns = inputs
    ctx.save_for_backward(columns)
    ctx.shape = x.shape


def _backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
    (columns,) = ctx.saved_tensors
    return grad.new_zeros(ctx.shape).index_add(-1, columns, grad), None


torch.library.register_autograd("recyclelora::gather_columns", _backward, setup_context=_keep)
