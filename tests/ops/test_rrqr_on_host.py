"""The code of the CUDA operator on the host: real tensor operations, emulated kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.exact_rrqr import assert_equals_exact, exact_rrqr
from tests.support.hard_matrices import KINDS, hard_matrix, kahan_matrix, with_spectrum
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode

from recyclelora import rrqr
from recyclelora.ops import reference

HERE = Path(__file__).parent
CUDA = HERE.parents[1] / "csrc" / "cuda"
GENEROUS = 2**30

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Load the operators on the host, and return their file."""
    folder = tmp_path_factory.mktemp("build")
    cpp_extension.load(
        "recyclelora_on_host",
        [str(HERE / "rrqr_on_host.cpp"), *map(str, CUDA.glob("rrqr_*.cpp"))],
        extra_cflags=["-O2", "-Wno-unknown-pragmas"],
        build_directory=str(folder),
        is_python_module=False,
    )
    return folder / "recyclelora_on_host.so"


@pytest.fixture
def on_host(library):
    """``on_host(weight, n_major, n_minor)``: the result of the CUDA operator, and a count.

    The count is the number of matrices that the CPU's operator decomposed.
    """

    class Doubts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.recyclelora.rrqr.default:
                self.count += len(args[0])
            return func(*args, **(kwargs or {}))

    def run(weight, n_major, n_minor, memory=GENEROUS):
        with Doubts() as doubts:
            out = torch.ops.recyclelora_on_host.rrqr(weight, n_major, n_minor, memory)
        return out, doubts.count

    return run


def close(out, expected, dtype):
    """Assert equal pivots, and other results equal to the precision of dtype."""
    tolerance = 1e-7 if dtype == torch.float32 else 1e-13
    assert torch.equal(out[0], expected[0])
    for mine, theirs in zip(out[1:3], expected[1:3]):
        torch.testing.assert_close(mine.double(), theirs, atol=tolerance, rtol=0)
    scale = expected[3].amax() if expected[3].numel() else 1
    diagonal = expected[3].to(dtype).double()  # the norm of a column may overflow
    torch.testing.assert_close(out[3].double(), diagonal, atol=tolerance * scale, rtol=0)
    assert (out[3].diff(dim=-1) <= 0).all()


SHAPES = [
    (3, 48, 32),
    (2, 32, 48),
    (40, 40),
    (1, 9),
    (9, 1),
    (1, 1),
    (2, 3, 130, 7),
    (200, 150),  # three panels
    (70, 1100),  # three stripes of the Gram matrix
    (150, 600),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_weights_equal_the_reference_without_doubt(on_host, shape, dtype):
    weight = torch.randn(shape, dtype=dtype)
    m = min(shape[-2:])
    for n_major, n_minor in [(m, m), (m // 3, m // 2), (m // 16, m // 6), (0, 0)]:
        out, doubts = on_host(weight, n_major, n_minor)
        assert doubts == 0
        assert [t.dtype for t in out] == [torch.int64, dtype, dtype, dtype]
        close(out, reference.rrqr(weight.double(), n_major, n_minor), dtype)


@pytest.mark.parametrize(
    "shape", [(1, 65, 64), (2, 129, 129), (3, 300, 130), (90, 400), (1, 257, 260), (512, 384)]
)
def test_gram_matrix_alone_proves_random_weights(on_host, shape):
    """The sizes need triangles of one, two, four and eight blocks, with and without padding."""
    weight = torch.randn(shape)
    *out, states = torch.ops.recyclelora_on_host.by_gram(weight.reshape(-1, *shape[-2:]), 3, 9)
    assert not states.any()
    whole, _ = on_host(weight, 3, 9)
    for mine, theirs in zip(out, whole):
        assert torch.equal(mine.reshape(theirs.shape), theirs)
    close(whole, reference.rrqr(weight.double(), 3, 9), torch.float32)


def weights_of_all_kinds():
    """Yield matrices with small gaps, ties, small residual norms and columns of all scales."""
    for decades in range(10):
        yield with_spectrum(100, 80, decades).float()
    for gap in (0, 1e-7, 3e-7, 1e-6, 1e-4):
        weight = torch.randn(96, 70)
        weight[:, 1::2] = weight[:, ::2].roll(1, 0) * (1 - gap)
        yield weight
    for c, perturbation in np.ndindex(4, 3):
        yield kahan_matrix(60, 0.2 + 0.1 * c, 10.0 ** (-7 + 2 * perturbation)).float()
    for name in TIES:
        yield TIES[name].float()
    for seed in range(12):
        yield hard_matrix("float32", seed, 40)


def test_proof_by_the_gram_matrix_is_never_wrong(on_host):
    proven = 0
    for weight in weights_of_all_kinds():
        perm, _, q, r_diag, states = torch.ops.recyclelora_on_host.by_gram(weight[None], 0, 1)
        expected = reference.rrqr(weight.double(), 0, 1)
        if not states.item():
            proven += 1
            close((perm[0], q[0, :, :0], q[0], r_diag[0]), expected, torch.float32)
        assert torch.equal(on_host(weight, 0, 1)[0][0], expected[0])
    assert proven >= 5


def test_doubt_about_the_gram_matrix_does_not_need_the_cpu(on_host):
    weight = torch.stack([torch.randn(100, 80), with_spectrum(100, 80, 5).float()])
    states = torch.ops.recyclelora_on_host.by_gram(weight, 2, 8)[-1]
    assert states.tolist() == [0, 1]
    out, doubts = on_host(weight, 2, 8)
    assert doubts == 0
    close(out, reference.rrqr(weight.double(), 2, 8), torch.float32)


@pytest.mark.parametrize("decay", [1e-2, 1e-4, 1e-6, 1e-10])
def test_decaying_spectra_equal_the_reference(on_host, decay):
    scales = torch.logspace(0, np.log10(decay), 90, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(90, 90, dtype=torch.float64)).Q
    weight = torch.randn(120, 90, dtype=torch.float64) * scales
    out, doubts = on_host(weight, 4, 32)
    assert doubts == 0  # each column has its own scale, so no column loses digits
    close(out, reference.rrqr(weight, 4, 32), torch.float64)
    out, doubts = on_host(weight @ rotation, 4, 32)
    expected = reference.rrqr(weight @ rotation, 4, 32)
    assert torch.equal(out[0], expected[0])
    assert decay == 1e-6 or doubts == (decay < 1e-6)  # between these values, both are right


def test_kahan_matrix_equals_the_cpu(on_host):
    """Errors grow as fast as they can, and all norms are nearly equal."""
    for perturbation in (0, 1e-13, 1e-10, 1e-7, 1e-4):
        weight = kahan_matrix(90, 0.285, perturbation)
        out, _ = on_host(weight, 3, 3)
        close(out, rrqr(weight, 3, 3), torch.float64)


TIES = {
    "duplicates": torch.arange(24.0).sin().reshape(6, 4).repeat(1, 2),
    "zero": torch.zeros(6, 8),
    "orthogonal": torch.eye(8)[2:],
    "rank": torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 9.0)),
    "almost": torch.tensor([1.0, 1 + 1e-12]).double().diag(),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_decided_by_the_cpu(on_host, name):
    weight = TIES[name]
    out, doubts = on_host(weight, 2, 2)
    assert doubts == 1
    for mine, cpu in zip(out, rrqr(weight, 2, 2)):
        assert torch.equal(mine, cpu)


def test_doubt_affects_only_one_matrix_of_a_batch(on_host):
    weight = torch.randn(2, 3, 6, 8)
    weight[1, 0] = TIES["rank"]
    out, doubts = on_host(weight, 3, 4)
    assert doubts == 1
    for i, j in np.ndindex(2, 3):
        for mine, alone in zip(out, on_host(weight[i, j], 3, 4)[0]):
            torch.testing.assert_close(mine[i, j], alone)


def test_memory_limit_does_not_change_the_result(on_host):
    weight = torch.randn(7, 12, 10)
    whole, _ = on_host(weight, 3, 4)
    for memory in (1, 40_000):
        for mine, expected in zip(on_host(weight, 3, 4, memory)[0], whole):
            torch.testing.assert_close(mine, expected)


def test_failed_allocation_halves_the_chunk(on_host):
    operators = torch.ops.recyclelora_on_host
    weight = torch.randn(7, 60, 50, dtype=torch.float64)
    expected, _ = on_host(weight, 4, 5)
    arguments = (weight, 4, 5, GENEROUS)
    try:
        operators.limit_memory(2 * 60 * 60 * 8)  # two matrices
        out = operators.rrqr(*arguments)
        operators.limit_memory(60 * 40 * 8)
        with pytest.raises(torch.OutOfMemoryError):
            operators.rrqr(*arguments)
    finally:
        operators.limit_memory(2**62)
    for mine, theirs in zip(out, expected):
        torch.testing.assert_close(mine, theirs)


def test_log_counts_the_matrices_of_the_cpu(library):
    code = (
        "import sys, torch, recyclelora; torch.ops.load_library(sys.argv[1]);"
        "weight = torch.randn(3, 6, 5); weight[1] = 1;"
        "torch.ops.recyclelora_on_host.rrqr(weight, 1, 1, 2**30)"
    )
    for level, count in (("INFO", 1), ("WARNING", 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, library],
            env={**os.environ, "TORCH_CPP_LOG_LEVEL": level},
            capture_output=True,
            text=True,
            check=True,
        )
        sentence = "rrqr: 1 of 3 matrices of shape (6, 5) were decomposed on the CPU"
        assert done.stderr.count(sentence) == count


@pytest.mark.parametrize("scale", [1e-315, 1e-300, 1e300])
def test_huge_and_tiny_weights_equal_the_reference(on_host, scale):
    weight = torch.randn(6, 4, dtype=torch.float64)
    out, doubts = on_host(weight * scale, 4, 4)
    assert doubts == 0
    close(out, reference.rrqr(weight * scale, 4, 4), torch.float64)


@pytest.mark.parametrize("shape", [(0, 5, 7), (2, 0, 3, 4), (5, 0), (0, 5), (3, 0, 4)])
def test_empty_weight_equals_the_reference(on_host, shape):
    m = min(shape[-2:])
    out, _ = on_host(torch.empty(shape), m, 0)
    for mine, expected in zip(out, reference.rrqr(torch.empty(shape), m, 0)):
        assert torch.equal(mine, expected)


def test_strided_input_is_not_modified(on_host):
    for weight in (torch.randn(12, 10).T[::2, ::3], torch.randn(10, 6).double().T):
        before = weight.clone()
        out, _ = on_host(weight, 2, 2)
        assert torch.equal(out[2], on_host(before, 2, 2)[0][2])
        assert torch.equal(weight, before)


@pytest.mark.parametrize("shape", [(90, 70), (70, 90)])
@pytest.mark.parametrize("low", [-300, -40])
def test_scale_of_every_column_equals_the_reference(on_host, shape, low):
    weight = torch.randn(2, *shape, dtype=torch.float64)
    weight *= 10.0 ** torch.empty(2, 1, shape[1], dtype=torch.float64).uniform_(low, -low)
    out, doubts = on_host(weight, 4, 20)
    assert doubts == 0
    expected = reference.rrqr(weight, 4, 20)
    assert torch.equal(out[0], expected[0])
    for mine, theirs in zip(out[1:3], expected[1:3]):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)
    torch.testing.assert_close(out[3], expected[3], atol=0, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scales_equal_the_exact_result(on_host, kind):
    for seed in range(6):
        weight = hard_matrix(kind, seed, 6)
        out, _ = on_host(weight, *[min(weight.shape)] * 2)
        assert_equals_exact(out, exact_rrqr(weight))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weight_with_nan_or_inf_raises(on_host, value):
    weight = torch.randn(2, 5, 4)
    weight[1, 2, 3] = value
    with pytest.raises(ValueError, match="NaN or Inf"):
        on_host(weight, 1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_inf_in_any_column_raises(on_host, value):
    weight = torch.randn(70, 5, 70)
    weight[torch.arange(70), 2, torch.arange(70)] = value
    with pytest.raises(ValueError, match="NaN or Inf"):
        on_host(weight, 1, 1)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_kernels_pass_the_sanitizers(tmp_path, sanitizer):
    program = tmp_path / "rrqr_sanitized"
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-std=c++17", "-g", "-O1"]
    source = HERE / "rrqr_sanitized.cpp"
    subprocess.run(
        ["g++", *flags, "-Wno-unknown-pragmas", source, "-pthread", "-o", program], check=True
    )
    # If a column with NaN makes the threads of a warp diverge, the program does not end.
    done = subprocess.run([program], capture_output=True, text=True, timeout=600)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this compiler's ThreadSanitizer cannot run on this kernel")
    assert (done.returncode, done.stdout) == (0, "greedy\n"), done.stderr
