"""rrqr on a GPU compared with rrqr on the CPU, which test_rrqr.py tests."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from tests.support.exact_rrqr import assert_equals_exact, exact_rrqr
from tests.support.hard_matrices import KINDS, hard_matrix

from recyclelora import rrqr

pytestmark = pytest.mark.gpu

F32, F64 = torch.float32, torch.float64


@contextlib.contextmanager
def waits():
    """Collect a warning whenever the host waits for the GPU."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found += [w for w in caught if "synchronizing operation" in str(w.message)]


def assert_like_cpu(weight, n_major, n_minor):
    """Decompose the same matrices on both devices, on the GPU without the CPU's help."""
    on_gpu = weight.cuda()
    with waits() as found:
        out = rrqr(on_gpu, n_major, n_minor)
    # One after each method and one for the indices between them. The CPU's help would need more.
    assert len(found) <= 3
    expected = rrqr(weight, n_major, n_minor)
    assert all(mine.is_cuda for mine in out)
    out = type(out)(*(mine.cpu() for mine in out))
    assert [t.dtype for t in out] == [t.dtype for t in expected]
    assert torch.equal(out.perm, expected.perm)
    tolerance = 1e-6 if weight.dtype == F32 else 1e-11
    torch.testing.assert_close(out.q_major, expected.q_major, atol=tolerance, rtol=0)
    torch.testing.assert_close(out.q_minor, expected.q_minor, atol=tolerance, rtol=0)
    scale = expected.r_diag.amax().item() if expected.r_diag.numel() else 1
    torch.testing.assert_close(out.r_diag, expected.r_diag, atol=tolerance * scale, rtol=0)
    assert (out.r_diag >= 0).all() and (out.r_diag.diff(dim=-1) <= 0).all()
    for q in (out.q_major.double(), out.q_minor.double()):
        eye = torch.eye(q.shape[-1], dtype=F64).expand(*q.shape[:-2], -1, -1)
        torch.testing.assert_close(q.mT @ q, eye, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "shape",
    [
        (3, 48, 32),
        (2, 32, 48),
        (40, 40),
        (1, 9),
        (9, 1),
        (1, 1),
        (2, 3, 130, 7),
        (12, 65, 64),
        (200, 150),
        (70, 1100),
        (513, 1537),
        (1025, 512),
        (2, 768, 768),
    ],
)
def test_cuda_equals_cpu(shape, dtype):
    weight = torch.randn(shape, dtype=dtype)
    m = min(shape[-2:])
    assert_like_cpu(weight, min(4, m), min(32, m))
    assert_like_cpu(weight, 0, 0)
    if m < 200:
        assert_like_cpu(weight, m, m)
        assert_like_cpu(weight, m // 2 + 1, m // 2 + 1)


@pytest.mark.parametrize("shape", [(3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096)])
def test_cuda_equals_cpu_on_shapes_of_dinov2_l(shape):
    assert_like_cpu(torch.randn(2, *shape), 4, 32)


@pytest.mark.parametrize("decay", [1e-1, 1e-3, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("shape", [(160, 120), (120, 160)])
def test_decaying_spectra_equal_cpu(shape, decay):
    m = min(shape)
    left = torch.linalg.qr(torch.randn(2, shape[0], m, dtype=F64)).Q
    right = torch.linalg.qr(torch.randn(2, shape[1], m, dtype=F64)).Q
    weight = left * torch.logspace(0, np.log10(decay), m, dtype=F64) @ right.mT
    on_gpu = rrqr(weight.cuda(), 4, 32)
    expected = rrqr(weight, 4, 32)
    assert torch.equal(on_gpu.perm.cpu(), expected.perm)
    # For wide spectra, the last columns of Q are uncertain in every algorithm.
    tolerance = 1e-13 / decay
    torch.testing.assert_close(on_gpu.q_major.cpu(), expected.q_major, atol=tolerance, rtol=0)
    torch.testing.assert_close(on_gpu.q_minor.cpu(), expected.q_minor, atol=tolerance, rtol=0)
    rounded = weight.float()
    assert torch.equal(rrqr(rounded.cuda(), 4, 32).perm.cpu(), rrqr(rounded, 4, 32).perm)


DOUBTFUL = {
    "zero": torch.zeros(6, 8),
    "one": torch.ones(6, 6),
    "rank1": torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 9.0)),
    "rank3": torch.arange(36.0).sin().reshape(12, 3) @ torch.arange(27.0).cos().reshape(3, 9),
    "duplicates": torch.arange(24.0).sin().reshape(6, 4).repeat(1, 2),
    "opposite": torch.tensor([[1.0, -1.0], [2.0, -2.0]]),
    "identity": torch.eye(70),
    "almost": torch.tensor([1.0, 1 + 1e-12], dtype=F64).diag(),
    "decay": torch.logspace(0, -10, 40, dtype=F64) * torch.arange(1600.0).sin().reshape(40, 40),
    "float_max": torch.full((3, 3), 3e38),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_hard_cases_equal_cpu(name):
    """The CPU decomposes matrices that the GPU cannot verify; other matrices do not change."""
    hard = DOUBTFUL[name]
    easy = torch.randn_like(hard)
    out = rrqr(torch.stack([easy, hard, easy]).cuda(), 2, 2)
    expected = rrqr(hard, 2, 2)
    assert torch.equal(out.perm[1].cpu(), expected.perm)
    torch.testing.assert_close(out.r_diag[1].cpu(), expected.r_diag)
    for q in (out.q_major[1], out.q_minor[1]):
        torch.testing.assert_close(q.mT @ q, torch.eye(2).to(q), atol=1e-6, rtol=0)
    for i in (0, 2):
        assert torch.equal(out.perm[i].cpu(), rrqr(easy, 2, 2).perm)


@pytest.mark.parametrize("shape", [(0, 5, 7), (2, 0, 3, 4), (5, 0), (0, 5), (3, 0, 4)])
def test_empty_weight_equals_cpu(shape):
    assert_like_cpu(torch.empty(shape), min(shape[-2:]), 0)


@pytest.mark.parametrize("scale", [1e-315, 1e-300, 1e300])
def test_huge_and_tiny_weights_equal_cpu(scale):
    assert_like_cpu(torch.randn(6, 4, dtype=F64) * scale, 4, 4)


def test_scale_of_every_column_equals_cpu():
    weight = torch.randn(3, 90, 70, dtype=F64)
    weight *= 10.0 ** torch.empty(3, 1, 70, dtype=F64).uniform_(-300, 300)
    with waits() as found:
        out = rrqr(weight.cuda(), 4, 20)
    assert len(found) == 1
    expected = rrqr(weight, 4, 20)
    assert torch.equal(out.perm.cpu(), expected.perm)
    torch.testing.assert_close(out.q_minor.cpu(), expected.q_minor, atol=1e-10, rtol=0)
    torch.testing.assert_close(out.r_diag.cpu(), expected.r_diag, atol=0, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scales_equal_the_exact_result(kind):
    for seed in range(6):
        weight = hard_matrix(kind, seed, 6)
        out = rrqr(weight.cuda(), *[min(weight.shape)] * 2)
        assert_equals_exact([mine.cpu() for mine in out], exact_rrqr(weight))


def test_more_matrices_than_blocks_of_a_grid_equal_cpu():
    weight = torch.randn(70_000, 3, 2)
    out, expected = rrqr(weight.cuda(), 1, 1), rrqr(weight, 1, 1)
    assert torch.equal(out.perm.cpu(), expected.perm)
    torch.testing.assert_close(out.r_diag.cpu(), expected.r_diag, atol=1e-6, rtol=1e-6)


def test_little_free_memory_does_not_change_the_result():
    weight = torch.randn(64, 300, 200).cuda()
    expected = rrqr(weight, 4, 5)
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved() + 96 * 2**20
    total = torch.cuda.get_device_properties("cuda").total_memory
    torch.cuda.set_per_process_memory_fraction(used / total)
    try:
        out = rrqr(weight, 4, 5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(out.perm, expected.perm)
    torch.testing.assert_close(out.q_minor, expected.q_minor, atol=1e-6, rtol=0)


def test_batch_has_the_pivots_of_its_matrices():
    weight = torch.randn(2, 5, 90, 70).cuda()
    batch = rrqr(weight, 4, 5)
    for i, j in np.ndindex(2, 5):
        alone = rrqr(weight[i, j], 4, 5)
        assert torch.equal(batch.perm[i, j], alone.perm)
        torch.testing.assert_close(batch.q_minor[i, j], alone.q_minor, atol=1e-6, rtol=0)


def test_strided_input_is_not_modified():
    weight = torch.randn(120, 90).cuda().T[::2, ::3]
    before = weight.clone()
    assert torch.equal(rrqr(weight, 2, 2).perm, rrqr(before, 2, 2).perm)
    assert torch.equal(weight, before)


def test_repeated_call_gives_identical_bits():
    weight = torch.randn(3, 200, 150).cuda()
    for first, second in zip(rrqr(weight, 4, 32), rrqr(weight, 4, 32)):
        assert torch.equal(first, second)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weight_with_nan_or_inf_raises(value):
    weight = torch.randn(2, 80, 70)
    weight[1, 2, 3] = value
    with pytest.raises(ValueError, match="rrqr: weight holds NaN or Inf; expected finite values"):
        rrqr(weight.cuda(), 1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_inf_in_any_column_raises(value):
    weight = torch.randn(70, 5, 70)
    weight[torch.arange(70), 2, torch.arange(70)] = value
    with pytest.raises(ValueError, match="NaN or Inf"):
        rrqr(weight.cuda(), 1, 1)


@pytest.mark.parametrize(
    ("weight", "n_major"),
    [(torch.randn(4, 4).half(), 1), (torch.randn(4), 1), (torch.randn(5, 4), 5)],
)
def test_invalid_input_raises_the_message_of_the_cpu(weight, n_major):
    with pytest.raises(ValueError) as on_cpu:
        torch.ops.recyclelora.rrqr(weight, n_major, 0)
    with pytest.raises(ValueError) as on_gpu:
        torch.ops.recyclelora.rrqr(weight.cuda(), n_major, 0)
    assert str(on_gpu.value) == str(on_cpu.value)


def test_current_stream_is_used():
    weight = torch.randn(3, 200, 150)
    on_gpu, zeros = weight.cuda(), torch.zeros_like(weight).cuda()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # for 0.1 s, in which other streams would read zeros
        zeros.add_(on_gpu)
        with waits() as found:
            out = rrqr(zeros, 4, 5)
    stream.synchronize()
    assert len(found) <= 1  # a result computed from zeros would be decided on the CPU
    assert torch.equal(out.perm.cpu(), rrqr(weight, 4, 5).perm)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_device_of_the_weight_is_used():
    weight = torch.randn(3, 100, 70)
    with torch.cuda.device(0):
        out = rrqr(weight.to("cuda:1"), 4, 5)
    assert {mine.device for mine in out} == {torch.device("cuda:1")}
    assert torch.equal(out.perm.cpu(), rrqr(weight, 4, 5).perm)


def test_host_synchronises_once():
    weight = torch.randn(3, 400, 300).cuda()
    with waits() as found:
        weight[0, 0, 0].item()
    assert len(found) == 1  # the wait is detected
    with waits() as found:
        rrqr(weight, 4, 5)
    assert len(found) == 1


def test_autocast_does_not_change_the_result():
    weight = torch.randn(100, 70).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        out = rrqr(weight, 4, 5)
    for mine, expected in zip(out, rrqr(weight, 4, 5)):
        assert torch.equal(mine, expected)


def test_deterministic_algorithms_are_supported(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    weight = torch.randn(100, 70).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        out = rrqr(weight, 4, 5)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(out.perm, rrqr(weight, 4, 5).perm)


def test_opcheck_passes():
    torch.library.opcheck(torch.ops.recyclelora.rrqr, (torch.randn(2, 9, 6).cuda(), 2, 3))
