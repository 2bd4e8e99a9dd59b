import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from recyclelora import rrqr
from recyclelora.ops import reference

SHAPES = [(48, 32), (32, 48), (40, 40), (1, 9), (9, 1), (1, 1), (130, 7)]


def whole(weight):
    """Return all of Q, and R = Q' W P."""
    m = min(weight.shape[-2:])
    out = rrqr(weight, m, m)
    permuted = torch.gather(weight, -1, out.perm.unsqueeze(-2).expand(weight.shape))
    return out, permuted, out.q_major.mT @ permuted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_result_reconstructs_and_is_orthonormal(shape, dtype):
    weight = torch.randn(3, *shape, dtype=dtype)
    out, permuted, r = whole(weight)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    m = min(shape)
    torch.testing.assert_close(out.q_major @ r, permuted, atol=tolerance, rtol=0)
    eye = torch.eye(m, dtype=dtype).expand(3, m, m)
    torch.testing.assert_close(out.q_major.mT @ out.q_major, eye, atol=tolerance, rtol=0)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal, out.r_diag, atol=tolerance, rtol=0)
    assert (out.r_diag >= 0).all() and (out.r_diag.diff(dim=-1) <= 0).all()
    assert (r.tril(-1).abs() < tolerance).all()
    assert torch.equal(out.perm.sort(-1).values, torch.arange(shape[1]).expand(3, -1))
    assert (out.perm[:, m:].diff(dim=-1) > 0).all()
    assert [t.dtype for t in out] == [torch.int64, dtype, dtype, dtype]


def test_every_pivot_is_the_greedy_choice():
    weight = torch.randn(20, 30, dtype=torch.float64) * torch.logspace(0, -6, 30).double()
    perm = rrqr(weight, 0, 0).perm.tolist()
    for step in range(20):
        basis = np.linalg.qr(weight[:, perm[:step]].numpy())[0]
        residual = weight.numpy() - basis @ (basis.T @ weight.numpy())
        norms = np.linalg.norm(residual, axis=0)
        norms[perm[:step]] = -1
        assert norms[perm[step]] >= norms.max() * (1 - 1e-9)


@pytest.mark.parametrize("shape", [(48, 32), (32, 48)])
def test_result_equals_scipy(shape):
    weight = torch.randn(*shape, dtype=torch.float64)
    q, r, perm = scipy.linalg.qr(weight.numpy(), mode="economic", pivoting=True)
    out = rrqr(weight, 5, 7)
    signs = np.sign(np.diag(r))
    assert out.perm[:32].tolist() == perm[:32].tolist()
    np.testing.assert_allclose(out.q_major.numpy(), (q * signs)[:, :5], atol=1e-12)
    np.testing.assert_allclose(out.q_minor.numpy(), (q * signs)[:, -7:], atol=1e-12)
    np.testing.assert_allclose(out.r_diag.numpy(), np.abs(np.diag(r)), atol=1e-12)


@pytest.mark.parametrize(
    "case",
    ["tall_48x32", "wide_32x48", "rank_deficient_48x32_rank20", "ties_duplicate_columns_48x32"],
)
def test_result_equals_golden_file(golden, case):
    reference = golden("recyclelora_linear.pt")[case]
    expected = reference["rrqr"]
    weight = reference["weight_pretrained"]
    out, permuted, r = whole(weight)
    rank = expected["numerical_rank_float64"]
    # If columns tie, the reference takes the lowest index, but LAPACK's P may differ.
    assert out.perm[:rank].tolist() == expected["greedy_order_float64"][:rank]
    torch.testing.assert_close(
        out.r_diag, expected["R_diag_float64"].abs().float(), atol=2e-6, rtol=0
    )
    q = expected["Q_float64"][:, :rank]
    signs = (q * out.q_major[:, :rank]).sum(0).sign()
    torch.testing.assert_close(out.q_major[:, :rank], (q * signs).float(), atol=2e-6, rtol=0)
    torch.testing.assert_close(out.q_major @ r, permuted, atol=1e-5, rtol=0)


def test_ties_take_the_lowest_index():
    columns = torch.randn(24, 8)
    weight = columns.repeat(1, 3)  # columns i, i + 8 and i + 16 are equal
    perm = rrqr(weight, 0, 0).perm
    assert (perm[:8] < 8).all()
    assert perm[8:].tolist() == list(range(8, 24))
    # Other columns of equal length: opposite, orthogonal, and with another order of entries.
    assert rrqr(torch.stack([-columns[:, 0], columns[:, 0]], 1), 0, 0).perm.tolist() == [0, 1]
    shuffled = torch.eye(32)[:, torch.randperm(32)]
    assert rrqr(shuffled, 0, 0).perm.tolist() == list(range(32))
    circulant = torch.stack([columns[:, 0].roll(i) for i in range(24)], 1)
    assert rrqr(circulant, 0, 0).perm[0] == 0
    hadamard = torch.tensor(scipy.linalg.hadamard(32)).float()[:, torch.randperm(32)]
    assert rrqr(hadamard, 0, 0).perm.tolist() == list(range(32))


def test_tiny_columns_are_not_ties():
    weight = torch.diag(torch.tensor([1.0, 1e-14, 1e-13, 1e-20, 1e-18], dtype=torch.float64))
    assert rrqr(weight, 0, 0).perm.tolist() == [0, 2, 1, 4, 3]


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(7, 5),
        torch.zeros(5, 7),
        torch.ones(6, 6),
        torch.randn(12, 3) @ torch.randn(3, 9),
        (torch.randn(12, 3).double() @ torch.randn(3, 9).double()),
        torch.randn(6, 4).double() * 1e300,
        torch.randn(6, 4).double() * 1e-300,
        torch.full((3, 3), 3e38),
    ],
    ids=["zero", "wide_zero", "ones", "rank3", "rank3_f64", "huge", "tiny", "float_max"],
)
def test_degenerate_weight_gives_orthonormal_q(weight):
    m = min(weight.shape)
    out = rrqr(weight, m, m)
    gram = out.q_major.double().T @ out.q_major.double()
    torch.testing.assert_close(gram, torch.eye(m).double(), atol=1e-6, rtol=0)
    assert torch.equal(out.q_major, out.q_minor)
    assert torch.isfinite(out.r_diag).all() or weight.max() > 1e38
    if not weight.any():
        assert out.perm.tolist() == list(range(weight.shape[1])) and not out.r_diag.any()


@pytest.mark.parametrize("shape", [(0, 5, 7), (2, 0, 3, 4), (5, 0), (0, 5), (3, 0, 4)])
def test_empty_weight_gives_empty_results(shape):
    m = min(shape[-2:])
    out = rrqr(torch.empty(shape), m, 0)
    assert out.perm.shape == (*shape[:-2], shape[-1])
    assert out.q_major.shape == (*shape[:-1], m)
    assert out.q_minor.shape == (*shape[:-1], 0)
    assert out.r_diag.shape == (*shape[:-2], m)


def test_batch_equals_its_matrices():
    weight = torch.randn(2, 3, 9, 6)
    out = rrqr(weight, 4, 5)
    for i, j in np.ndindex(2, 3):
        alone = rrqr(weight[i, j], 6, 6)
        assert torch.equal(out.perm[i, j], alone.perm)
        assert torch.equal(out.q_major[i, j], alone.q_major[:, :4])
        assert torch.equal(out.q_minor[i, j], alone.q_major[:, 1:])
        assert torch.equal(out.r_diag[i, j], alone.r_diag)


def test_more_matrices_than_blocks_of_a_cuda_grid():
    weight = torch.randn(70_000, 3, 2)
    out = rrqr(weight, 1, 1)
    largest = weight.norm(dim=1).argmax(1)
    assert torch.equal(out.perm[:, 0], largest)
    assert torch.equal(out.q_minor[-1], rrqr(weight[-1], 1, 1).q_minor)


def test_strided_input_is_not_modified():
    weight = torch.randn(12, 10).T[::2, ::3]
    before = weight.clone()
    assert torch.equal(rrqr(weight, 2, 2).q_minor, rrqr(before, 2, 2).q_minor)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weight_with_nan_or_inf_raises(value):
    weight = torch.randn(2, 5, 4)
    weight[1, 2, 3] = value
    with pytest.raises(ValueError, match="NaN or Inf"):
        rrqr(weight, 1, 1)


def nested(layout):
    with warnings.catch_warnings():  # the strided layout is a prototype
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.eye(4), torch.ones(3, 4)], layout=layout)


@pytest.mark.parametrize(
    ("weight", "n_major", "n_minor", "error", "words"),
    [
        (torch.randn(4, 4).half(), 1, 1, ValueError, "float32 or float64, got torch.float16"),
        (torch.randn(4, 4).bfloat16(), 1, 1, ValueError, "rrqr\\(weight.float"),
        (torch.ones(4, 4, dtype=torch.int64), 1, 1, ValueError, "torch.int64"),
        (torch.eye(4).to(torch.complex64), 1, 1, ValueError, r"complex64; pass a real matrix"),
        (
            torch.quantize_per_tensor(torch.eye(4), 1, 0, torch.qint8),
            1,
            1,
            ValueError,
            "dequantize",
        ),
        (torch.eye(4) > 0, 1, 1, ValueError, r"torch.bool; convert it first"),
        (torch.eye(4).to_sparse(), 1, 1, ValueError, r"torch.sparse_coo; call to_dense\(\) first"),
        (torch.eye(4).to_sparse_csr(), 1, 1, ValueError, "torch.sparse_csr"),
        (nested(torch.strided), 1, 1, ValueError, r"got a nested one; .* weight.unbind\(\)"),
        (nested(torch.jagged), 1, 1, ValueError, r"got a nested one; .* weight.unbind\(\)"),
        (torch.randn(4), 1, 1, ValueError, r"\(..., d, k\)"),
        (torch.randn(5, 4), 5, 1, ValueError, r"n_major must be 0..min\(d, k\) = 0..4.*got 5"),
        (torch.randn(5, 4), 1, -1, ValueError, "n_minor.*got -1"),
        (torch.randn(5, 4), 1.0, 1, TypeError, "n_major must be an int"),
        (np.zeros((4, 4)), 1, 1, TypeError, "torch.Tensor, got ndarray"),
    ],
)
def test_invalid_input_raises_with_message(weight, n_major, n_minor, error, words):
    with pytest.raises(error, match=words):
        rrqr(weight, n_major, n_minor)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.float16, torch.float64])
def test_reference_raises_the_message_of_the_operator(dtype):
    weight = torch.eye(4).to(dtype)
    n_major = 5 if dtype == torch.float64 else 1
    with pytest.raises(ValueError) as of_operator:
        torch.ops.recyclelora.rrqr(weight, n_major, 1)
    with pytest.raises(ValueError) as of_reference:
        reference.rrqr(weight, n_major, 1)
    assert str(of_reference.value) == str(of_operator.value)


def test_backward_raises_not_implemented():
    weight = torch.randn(5, 4, requires_grad=True)
    out = rrqr(weight, 2, 2)
    assert not out.perm.requires_grad
    with pytest.raises(NotImplementedError, match="no derivative"):
        out.q_minor.sum().backward()
    with torch.no_grad():
        assert not rrqr(weight, 2, 2).r_diag.requires_grad


def test_forward_mode_raises_not_implemented():
    weight = torch.randn(5, 4)
    with pytest.raises(NotImplementedError, match="no derivative"):
        torch.func.jvp(lambda w: rrqr(w, 2, 2).q_minor, (weight,), (weight,))


@pytest.mark.parametrize("shape", [(9, 6), (2, 6, 9), (0, 4, 4)])
def test_opcheck_passes(shape):
    torch.library.opcheck(torch.ops.recyclelora.rrqr, (torch.randn(shape), 2, 3))


def test_meta_and_compile_give_the_shapes():
    out = rrqr(torch.empty(3, 9, 6, device="meta"), 2, 4)
    assert [tuple(t.shape) for t in out] == [(3, 6), (3, 9, 2), (3, 9, 4), (3, 6)]
    weight = torch.randn(9, 6)
    compiled = torch.compile(lambda w: rrqr(w, 2, 4), fullgraph=True, backend="aot_eager")
    for mine, eager in zip(compiled(weight), rrqr(weight, 2, 4)):
        assert torch.equal(mine, eager)
