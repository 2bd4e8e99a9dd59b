import pytest
import torch

from recyclelora.ops import gather_columns
from recyclelora.ops.library import load

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9,), (4, 9), (2, 3, 9), (0, 9), (3000, 9)])
def test_takes_the_columns(shape, dtype):
    x, columns = torch.randn(shape).to(dtype), torch.tensor([7, 0, 7, 3])
    for one in (x, torch.randn(9, *shape[:-1]).to(dtype).movedim(0, -1), x[..., ::2]):
        chosen = columns % one.shape[-1]
        out = gather_columns(one, chosen)
        assert torch.equal(out, one[..., chosen]) and out.is_contiguous()
    assert gather_columns(x, columns[:0]).shape == (*shape[:-1], 0)


def test_is_well_registered_and_differentiable():
    x, columns = torch.randn(4, 9, dtype=torch.float64, requires_grad=True), torch.tensor([7, 0, 7])
    torch.library.opcheck(torch.ops.recyclelora.gather_columns, (x, columns))
    torch.autograd.gradcheck(lambda x: gather_columns(x, columns), x)
    torch.autograd.gradgradcheck(lambda x: gather_columns(x, columns), x)


def test_bad_input_gets_a_sentence():
    x = torch.randn(4, 9)
    with pytest.raises(ValueError, match=r"columns must be .* int64"):
        gather_columns(x, torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"x must be .* floating"):
        gather_columns(torch.ones(4, 9, dtype=torch.int32), torch.tensor([1]))


@pytest.mark.skipif(not load(), reason="the compiled operator's words")
def test_columns_out_of_range_get_a_sentence():
    x = torch.randn(4, 9)
    with pytest.raises(IndexError, match=r"0\.\.8, the columns of x, got 9"):
        gather_columns(x, torch.tensor([1, 9]))
    with pytest.raises(IndexError, match="got -1"):
        gather_columns(x, torch.tensor([-1]))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_takes_them_too(dtype):
    x, columns = torch.randn(9, 3000).to(dtype).T, torch.tensor([7, 0, 7, 3])
    assert torch.equal(gather_columns(x.cuda(), columns.cuda()).cpu(), x[:, columns])
