"""The C++ interface: examples/cpp builds outside this repository with its README's commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

import recyclelora

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"
# The cmake that `make setup` installed, or that of the machine.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

pytestmark = pytest.mark.slow


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell in ``folder``."""
    package = str(Path(recyclelora.__file__).parents[1])
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": PATH, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=False,
    )


def block_of_readme(language: str) -> list[str]:
    """Return the lines of the README's block in this language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.S)
    return block.splitlines()


def build(folder: Path) -> None:
    for command in block_of_readme("bash"):
        result = run(command, folder)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """Return a copy of the example's folder that contains the built program."""
    folder = tmp_path_factory.mktemp("cpp") / "example"
    shutil.copytree(EXAMPLE, folder)
    build(folder)
    return folder


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 1), (64, 64)])
def test_example_prints_pivots_and_diagonal_of_lapack(example, tmp_path, shape):
    weight = np.random.default_rng(0).standard_normal(shape)
    np.savetxt(tmp_path / "matrix.txt", weight)
    result = run(f"build/rrqr_of_a_file {tmp_path}/matrix.txt", example)
    assert result.returncode == 0, result.stderr
    pivots, diagonal = (line.split() for line in result.stdout.splitlines()[:2])
    r, perm = scipy.linalg.qr(weight, mode="r", pivoting=True)
    assert [int(word) for word in pivots[1:]] == perm[: min(shape)].tolist()
    values = [float(word) for word in diagonal[3:]]
    np.testing.assert_allclose(values, np.abs(r.diagonal()), rtol=1e-4)  # it prints six digits


def test_readme_session_prints_what_it_shows(example):
    printed = ""
    for line in block_of_readme("console"):
        if line.startswith("$ "):
            assert printed == "", f"not in the README: {printed}"
            printed = run(line.removeprefix("$ "), example).stdout
        else:
            expected, _, printed = printed.partition("\n")
            assert line == expected
    assert printed == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 nan\n2 3\n", "error: rrqr: weight holds NaN or Inf; expected finite values only"),
        ("1 2\n3\n", "error: line 2: expected 2 numbers as in the first row, got 1"),
        ("1, two\n", "error: line 1: expected a number, got two"),
        ("\n", "error: expected a matrix in "),
        (None, "error: cannot open "),
    ],
)
def test_example_with_invalid_file_prints_one_sentence(example, tmp_path, text, sentence):
    path = tmp_path / "matrix.txt"
    if text is not None:
        path.write_text(text)
    result = run(f"build/rrqr_of_a_file {path}", example)
    assert result.returncode == 1
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("built", "sentence"),
    [(None, "_C.abi3.so is absent"), (b"1.13.1", "was built for libtorch 1.13")],
)
def test_cmake_with_unfit_library_fails_with_message(tmp_path, built, sentence):
    """A package without its library, or with the library of another libtorch."""
    package = tmp_path / "recyclelora"
    shutil.copytree(recyclelora.cmake_path(), package / "cmake")
    if built:
        content = recyclelora.library_path().read_bytes()
        content = re.sub(rb";torch=[\d.]+", b";torch=" + built, content)
        (package / "_C.abi3.so").write_bytes(content)
    result = run(f"cmake -S {EXAMPLE} -B build -DRecycleLoRA_DIR={package}/cmake", tmp_path)
    assert result.returncode != 0
    assert sentence in " ".join(result.stderr.split())


ERRORS = """
#include <recyclelora/rrqr.h>
#include <ATen/ops/ones.h>
#include <iostream>
template <typename... Arguments>
void call(Arguments... arguments) {
  try {
    recyclelora::rrqr(arguments...);
  } catch (const c10::Error& error) {
    std::cout << error.what_without_backtrace() << '\\n';
  }
}
int main() {
  call(at::Tensor(), 1, 1);
  call(at::ones({3}), 1, 1);
  call(at::ones({3, 3}, at::kHalf), 1, 1);
  call(at::ones({4, 3}), 4, 1);
  call(at::ones({4, 3}).requires_grad_(), 1, 1);
}
"""


def test_invalid_arguments_raise_c10_error(tmp_path):
    cmake = (EXAMPLE / "CMakeLists.txt").read_text().replace("rrqr_of_a_file", "errors")
    (tmp_path / "CMakeLists.txt").write_text(cmake)
    (tmp_path / "errors.cpp").write_text(ERRORS)
    build(tmp_path)
    result = run("build/errors", tmp_path)
    assert result.returncode == 0, result.stderr
    expected = [
        "rrqr: weight must be a tensor, got an undefined one",
        "rrqr: weight must be (..., d, k), got shape (3,)",
        "rrqr: weight must be float32 or float64, got torch.float16",
        "rrqr: n_major must be 0..min(d, k) = 0..3 for a weight of shape (4, 3), got 4",
        "rrqr has no derivative",
    ]
    for line, sentence in zip(result.stdout.splitlines(), expected, strict=True):
        assert line.startswith(sentence)
