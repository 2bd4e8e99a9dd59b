import pytest
import torch
import torch.nn.functional as F

from recyclelora.ops import dual_lora_linear

# (rows, in, out): few and many rows for forward and backward, so every path is taken.
SIZES = [(3, 12, 10), (40, 12, 10), (20, 6, 40), (20, 40, 6), (1, 5, 5), (0, 6, 4)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def make(rows, inn, out, sparse=False, dtype=torch.float64, r=4, bias=True):
    """x, weight, bias, A, B, scaling, columns."""
    columns = torch.randperm(inn)[:r] if sparse else None
    inputs = r if sparse else inn

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()

    x, weight, A, B = randn(rows, inn), randn(out, inn), randn(r, inputs), randn(out, r)
    return x, weight, randn(out) if bias else None, A, B, 0.25, columns


def formula(x, weight, bias, A, B, scaling, columns=None):
    """Two branches, as the published layer."""
    inputs = x if columns is None else x[..., columns]
    return F.linear(x, weight, bias) + scaling * F.linear(F.linear(inputs, A), B)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradients_are_those_of_the_formula(size, sparse):
    arguments = make(*size, sparse=sparse)
    *tensors, _, _ = arguments
    out, expected = dual_lora_linear(*arguments), formula(*arguments)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    weighting = torch.randn_like(out)
    grads = torch.autograd.grad(out, tensors, weighting)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, tensors, weighting)):
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=0)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", SIZES[:4])
def test_gradcheck(size, sparse):
    *tensors, scaling, columns = make(*size, sparse=sparse, r=2)

    def function(*tensors):
        return dual_lora_linear(*tensors, scaling, columns)

    torch.autograd.gradcheck(function, tensors, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_operators_are_well_registered(size, sparse):
    arguments = make(*size, sparse=sparse, dtype=torch.float32)
    torch.library.opcheck(torch.ops.recyclelora.dual_lora_linear, arguments)
    x, weight, _, A, B, scaling, columns = [
        a.detach() if isinstance(a, torch.Tensor) else a for a in arguments
    ]
    out, kept = torch.ops.recyclelora.dual_lora_linear(x, weight, None, A, B, scaling, columns)
    for wanted in ([True] * 4, [False] * 4, [True, False, False, True]):
        torch.library.opcheck(
            torch.ops.recyclelora.dual_lora_linear_backward,
            (torch.randn_like(out), x, kept, weight, A, B, scaling, columns, wanted),
        )
