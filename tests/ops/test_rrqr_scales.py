"""rrqr for scales of columns or entries that differ by more than squares in float64 can."""

import numpy as np
import pytest
import torch
from tests.support.exact_rrqr import assert_equals_exact, exact_rrqr
from tests.support.hard_matrices import KINDS, hard_matrix, powers

from recyclelora import rrqr
from recyclelora.ops import reference


def assert_both_equal_exact(weight: torch.Tensor) -> int:
    exact = exact_rrqr(weight)
    for function in (rrqr, reference.rrqr):
        assert_equals_exact(function(weight, *[min(weight.shape)] * 2), exact)
    return exact.resolved


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scales_equal_the_exact_result(kind):
    resolved = [assert_both_equal_exact(hard_matrix(kind, seed, 6)) for seed in range(6)]
    assert sum(resolved) > 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_extreme_scales_equal_the_exact_result(kind):
    for seed in range(2000 if kind == "columns" else 100):
        weight = hard_matrix(kind, 10 + seed, 10)
        resolved = assert_both_equal_exact(weight)
        assert kind != "columns" or resolved == min(weight.shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(140, 131), (24, 200)])
def test_large_matrix_of_extreme_scales_equals_the_exact_result(shape):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape) * powers(rng, -300, 300, shape[1])
    assert assert_both_equal_exact(torch.tensor(weight)) == min(shape)


# The paths of the compiled operator: plain, Gram matrix, screened; one panel and several.
SHAPES = [(60, 50), (300, 200), (200, 200), (150, 300)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_scales_of_column_groups_change_only_r_diag(shape, dtype):
    """Three groups 2^45 apart have the same pivots and bits of Q as groups much further apart."""
    group = torch.randint(0, 3, (shape[1],))
    near = torch.tensor([15.0, -30.0, -75.0], dtype=torch.float64)[group]
    exponents = [110.0, 0.0, -95.0] if dtype == torch.float32 else [1000.0, 0.0, -1000.0]
    far = torch.tensor(exponents, dtype=torch.float64)[group]
    weight = torch.randn(shape, dtype=dtype).double()
    n_major, n_minor = 4, min(shape) // 5
    expected = rrqr((weight * 2**near).to(dtype), n_major, n_minor)
    out = rrqr((weight * 2**far).to(dtype), n_major, n_minor)
    for mine, theirs in zip(out[:3], expected[:3]):
        assert torch.equal(mine, theirs)
    shift = (far - near)[out.perm[: min(shape)]]
    assert torch.equal(out.r_diag, (expected.r_diag.double() * 2**shift).to(dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tiny", [0.0, 1e-40, 1e-200, 1e-310])
def test_dead_columns_come_last_and_change_nothing(shape, tiny):
    weight = torch.randn(shape, dtype=torch.float64)
    dead = torch.arange(3, shape[1], 4)
    alive = torch.tensor(sorted({*range(shape[1])} - {*dead.tolist()}))
    n = min(shape[0], len(alive))
    weight[:, dead] *= tiny
    out, alone = rrqr(weight, n, 0), rrqr(weight[:, alive], n, 0)
    assert torch.equal(out.perm[:n], alive[alone.perm[:n]])
    torch.testing.assert_close(out.q_major, alone.q_major, atol=1e-12, rtol=0)
    torch.testing.assert_close(out.r_diag[:n], alone.r_diag[:n])


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_of_every_column_equals_the_reference(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    weight *= 10.0 ** torch.empty(shape[1], dtype=torch.float64).uniform_(-300, 300)
    out, expected = rrqr(weight, 4, 20), reference.rrqr(weight, 4, 20)
    assert torch.equal(out.perm, expected[0])
    for mine, theirs in zip(out[1:3], expected[1:3]):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)
    torch.testing.assert_close(out.r_diag, expected[3], atol=0, rtol=1e-10)


@pytest.mark.parametrize("function", [rrqr, reference.rrqr])
def test_equal_scales_of_an_identity_take_the_lowest_index(function):
    exponents = torch.randint(-4, 4, (200,)).double() * 250
    weight = torch.eye(200, dtype=torch.float64)[:, torch.randperm(200)] * 2.0**exponents
    perm, _, _, r_diag = function(weight, 0, 0)
    assert torch.equal(perm, exponents.argsort(descending=True, stable=True))
    assert torch.equal(r_diag, 2.0 ** exponents.sort(descending=True).values)


@pytest.mark.parametrize("function", [rrqr, reference.rrqr])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_beyond_the_dtype_is_infinite(function, dtype):
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps
    weight = torch.tensor([[info.max, 0, tiny], [info.max, 0, -tiny]], dtype=dtype)
    perm, q, _, r_diag = function(weight, 2, 0)
    assert perm.tolist() == [0, 2, 1]
    # sqrt(2) times the smallest subnormal number rounds to this number.
    assert r_diag.tolist() == [float("inf"), tiny]
    torch.testing.assert_close(q.mT @ q, torch.eye(2, dtype=dtype))
