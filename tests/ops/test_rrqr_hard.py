"""The compiled rrqr compared with its reference for pivots that are difficult to distinguish."""

import math

import pytest
import torch
from tests.support.hard_matrices import kahan_matrix, with_spectrum

from recyclelora import rrqr
from recyclelora.ops import reference
from recyclelora.ops.library import load

pytestmark = pytest.mark.skipif(not load(), reason="compares the compiled operators, not built")

# Sizes around the limits of blocks, panels, pools and the Gram matrix.
SHAPES = [
    (63, 64), (64, 65), (127, 128), (129, 128), (128, 129), (130, 129), (129, 130),
    (193, 192), (257, 191), (191, 257), (400, 131), (131, 400), (90, 513), (1, 300), (300, 1),
]  # fmt: skip


def assert_equals_reference(weight: torch.Tensor) -> None:
    m = min(weight.shape)
    tolerance = 1e-12 if weight.dtype == torch.float64 else 1e-6
    out = rrqr(weight, min(m, 4), min(m, 32))
    perm, q_major, q_minor, r_diag = reference.rrqr(weight, min(m, 4), min(m, 32))
    assert torch.equal(out.perm, perm)
    scale = max(r_diag.max().item(), 1e-300)
    assert ((out.r_diag - r_diag).abs() <= tolerance * scale).all()
    assert (out.r_diag.diff() <= 0).all()
    # Rounding rotates a direction in inverse proportion to its residual.
    conditioned = m == 0 or r_diag[-1] > 1e-4 * scale
    for mine, theirs in ((out.q_major, q_major), (out.q_minor, q_minor)):
        eye = torch.eye(mine.shape[1], dtype=mine.dtype)
        torch.testing.assert_close(mine.T @ mine, eye, atol=tolerance, rtol=0)
        if conditioned:
            torch.testing.assert_close(mine, theirs, atol=max(tolerance, 1e-10), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_near_block_sizes_equal_the_reference(shape, dtype):
    torch.manual_seed(sum(shape))
    assert_equals_reference(torch.randn(shape, dtype=dtype))


@pytest.mark.parametrize("decades", [0, 3, 6, 10, 14])
@pytest.mark.parametrize("shape", [(300, 200), (200, 200), (150, 300)])
def test_decaying_spectra_equal_the_reference(shape, decades):
    torch.manual_seed(decades)
    weight = with_spectrum(*shape, decades)
    # Float32 rounding dominates spectra below its precision, and gives another full-rank matrix.
    for dtype in (torch.float64, torch.float32):
        assert_equals_reference(weight.to(dtype))


@pytest.mark.parametrize("shape", [(300, 200), (150, 300)])
@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9])
def test_nearly_equal_columns_equal_the_reference(shape, distance):
    torch.manual_seed(1)
    weight = torch.randn(shape, dtype=torch.float64)
    copies = torch.arange(0, 60, 2)
    noise = torch.randn(shape[0], len(copies), dtype=torch.float64)
    weight[:, copies + 1] = weight[:, copies] + distance * noise
    assert torch.equal(rrqr(weight, 0, 0).perm, reference.rrqr(weight, 0, 0)[0])


@pytest.mark.parametrize("shape", [(300, 200), (200, 200), (150, 300)])
@pytest.mark.parametrize("rank", [0, 1, 70, 149])
def test_rank_deficient_weight_equals_the_reference(shape, rank):
    torch.manual_seed(rank)
    weight = torch.randn(shape[0], rank).double() @ torch.randn(rank, shape[1]).double()
    m = min(shape)
    out = rrqr(weight, m, m)
    assert torch.equal(out.perm, reference.rrqr(weight, 0, 0)[0])
    eye = torch.eye(m, dtype=torch.float64)
    torch.testing.assert_close(out.q_major.T @ out.q_major, eye, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(256, 256), (256, 200), (150, 256)])
def test_weight_full_of_ties_equals_the_reference(shape):
    signs = torch.tensor([[1.0]])
    while len(signs) < 256:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    weight = signs[: shape[0], torch.randperm(256)[: shape[1]]]
    assert torch.equal(rrqr(weight, 0, 0).perm, reference.rrqr(weight, 0, 0)[0])


@pytest.mark.parametrize("shape", [(300, 200), (150, 300)])
@pytest.mark.parametrize("scale", [1e-290, 1e-30, 1e30, 1e290])
def test_scale_does_not_change_pivots(shape, scale):
    torch.manual_seed(2)
    weight = torch.randn(shape, dtype=torch.float64)
    expected = rrqr(weight, 3, 5)
    exact = 2.0 ** round(math.log2(scale))
    out = rrqr(weight * exact, 3, 5)
    assert torch.equal(out.perm, expected.perm) and torch.equal(out.q_minor, expected.q_minor)
    assert torch.equal(out.r_diag, expected.r_diag * exact)


@pytest.mark.parametrize("shape", [(300, 200), (150, 300)])
def test_graded_and_zero_columns_equal_the_reference(shape):
    torch.manual_seed(3)
    graded = torch.randn(shape).double() * torch.logspace(0, -30, shape[1]).double()
    assert_equals_reference(graded)
    graded[:, ::7] = 0
    assert torch.equal(rrqr(graded, 0, 0).perm, reference.rrqr(graded, 0, 0)[0])


@pytest.mark.parametrize("shape", [(300, 200), (150, 300), (40, 30)])
def test_bits_depend_only_on_the_matrix(shape):
    torch.manual_seed(4)
    weight = torch.randn(5, *shape)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(rrqr(weight, 4, 32 if min(shape) > 32 else 8))
            results.append(
                [
                    torch.stack(t)
                    for t in zip(
                        *(rrqr(w, *(results[0][i].shape[-1] for i in (1, 2))) for w in weight)
                    )
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(result, results[0]))


@pytest.mark.parametrize("seed", range(12))
def test_small_integers_and_mixtures_equal_the_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    d, k = torch.randint(1, 220, (2,), generator=generator).tolist()
    integers = torch.randint(-2, 3, (d, k), generator=generator).double()
    assert torch.equal(rrqr(integers, 0, 0).perm, reference.rrqr(integers, 0, 0)[0])
    chosen = torch.randint(0, max(1, k // 2), (k,), generator=generator)
    repeated = torch.randn(d, k, generator=generator, dtype=torch.float64)[:, chosen]
    assert torch.equal(rrqr(repeated, 0, 0).perm, reference.rrqr(repeated, 0, 0)[0])


@pytest.mark.parametrize("c", [0.1, 0.3, 0.35, 0.4, 0.5])
def test_kahan_matrix_equals_the_reference(c):
    """Errors of the Gram matrix grow as fast as they can, also within one block of pivots."""
    for perturbation in (1e-8, 1e-7, 1e-5, 1e-3):
        weight = kahan_matrix(130, c, perturbation)
        for exact in (weight, weight.float()):
            out, expected = rrqr(exact, 4, 32), reference.rrqr(exact, 4, 32)
            assert torch.equal(out.perm, expected[0])
            for mine, theirs in zip(out[1:3], expected[1:3], strict=True):
                torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
