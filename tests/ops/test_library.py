"""The compiled library: loading, build information, and reports of its absence or failure."""

import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from recyclelora.ops import library


@pytest.fixture
def fresh_load():
    """Reset the state of `load` before and after the test."""
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_build_info_describes_the_build():
    info = library.build_info()
    assert list(info) == ["compiler", "cxx", "torch", "cxx11_abi", "cuda", "architectures"]
    assert info["compiler"].split()[0] in {"GCC", "Clang"}
    assert int(info["cxx"].rstrip("L")) >= 201703
    assert info["torch"] == torch.__version__.split("+")[0]
    assert info["cxx11_abi"] == str(int(torch.compiled_with_cxx11_abi()))
    assert info["cuda"] == "none" or float(info["cuda"]) >= 11
    assert (info["cuda"] == "none") == (info["architectures"] == "none")


def test_absent_library_logs_one_line(fresh_load, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "_C.abi3.so")
    with caplog.at_level(logging.INFO, logger=library.__name__):
        assert not library.load()
        assert not library.load()
        assert library.build_info() == {}
    assert [record.getMessage().count("are not installed") for record in caplog.records] == [1]


def test_package_without_library_uses_the_reference(tmp_path):
    """A copy of the package without the library prints one line and uses the reference."""
    shutil.copytree(
        library.PACKAGE, tmp_path / "recyclelora", ignore=shutil.ignore_patterns("*.so", "__pyc*")
    )
    code = """
import torch, recyclelora
print(recyclelora.rrqr(torch.eye(3), 1, 1).perm.tolist())
layer = recyclelora.DualLoRALinear.from_linear(torch.nn.Linear(6, 5), 2, 1)
for parameter in (layer.lora_A_main, layer.lora_B_sub):
    parameter.data += 0.1
x, factors = torch.randn(2, 3, 6, requires_grad=True), [layer.lora_A_main, layer.lora_B_sub]
for module in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
    formula = torch.nn.functional.linear(x, layer.weight, layer.bias)
    outs = [out.square().sum() for out in (module(x), formula)]
    grads = [torch.autograd.grad(out, [x, *factors], create_graph=module is layer) for out in outs]
    torch.testing.assert_close(*grads)
    second = [grad[0].square().sum() for grad in grads]
    if module is layer:
        torch.testing.assert_close(*[torch.autograd.grad(s, [x, *factors]) for s in second])
"""
    result = run_python(code, PYTHONPATH=str(tmp_path))
    assert result.stdout == "[0, 1, 2]\n"
    assert result.stderr.count("\n") == 1
    assert "compiled operators are not installed" in result.stderr


def test_library_loads_without_the_package():
    """Use the operators without importing the package."""
    code = (
        "import sys, torch; torch.ops.load_library(sys.argv[1]);"
        "perm, q, _, r = torch.ops.recyclelora.rrqr(torch.eye(3).flip(1) * 2, 3, 0);"
        "print(perm.tolist(), r.tolist(), 'recyclelora' in sys.modules)"
    )
    result = run_python(code, str(library.library_path()), PYTHONPATH="")
    assert result.stdout == "[0, 1, 2] [2.0, 2.0, 2.0] False\n"


def test_schemas_of_library_equal_the_file():
    assert library.load()
    compiled = torch._C._jit_get_all_schemas()
    expected = {torch._C.parse_schema(f"recyclelora::{text}") for text in library.schemas()}
    found = {schema for schema in compiled if schema.name.startswith("recyclelora::")}
    assert {str(schema) for schema in found} == {str(schema) for schema in expected}
    assert len(expected) == 5


def test_schemas_without_library_equal_the_file(tmp_path):
    shutil.copytree(
        library.PACKAGE, tmp_path / "recyclelora", ignore=shutil.ignore_patterns("*.so", "__pyc*")
    )
    code = (
        "import torch, recyclelora\n"
        "for schema in sorted(map(str, torch._C._jit_get_all_schemas())):\n"
        "    if schema.startswith('recyclelora::'): print(schema)\n"
        "print(torch.ops.recyclelora.rrqr.default.tags)"
    )
    expected = [str(torch._C.parse_schema(f"recyclelora::{text}")) for text in library.schemas()]
    *printed, tags = run_python(code, PYTHONPATH=str(tmp_path)).stdout.splitlines()
    assert printed == sorted(expected)
    assert tags == str(torch.ops.recyclelora.rrqr.default.tags)


@pytest.mark.skipif(not hasattr(torch.Tag, "cudagraph_unsafe"), reason="torch has no such tag")
def test_only_rrqr_is_left_out_of_cuda_graphs():
    operators = torch.ops.recyclelora
    assert torch.Tag.cudagraph_unsafe in operators.rrqr.default.tags
    assert torch.Tag.cudagraph_unsafe not in operators.dual_lora_linear.default.tags


def run_python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("built", "sentence"),
    [
        ({"torch": "2.6.1"}, "for torch 2.11.0, but it was built for torch 2.6.1"),
        ({"cuda": "12.9"}, "for torch's CUDA 13.0, but it was built for CUDA 12.9"),
        ({"torch": "2.11.9", "cuda": "13.2"}, ""),
        ({"cuda": "none"}, ""),
    ],
)
def test_library_built_for_another_torch_or_cuda_is_named(monkeypatch, built, sentence):
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert library.built_for_another({"torch": "2.11.0", "cuda": "13.0"} | built) == sentence


def test_cuda_library_with_cpu_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    info = {"torch": torch.__version__, "cuda": "13.0"}
    assert (
        library.built_for_another(info) == "for torch's CUDA none, but it was built for CUDA 13.0"
    )


def test_library_of_another_torch_raises_before_loading(fresh_load, monkeypatch, tmp_path):
    path = tmp_path / "_C.abi3.so"
    content = library.library_path().read_bytes()
    torch_here = torch.__version__.partition("+")[0].encode()
    path.write_bytes(content.replace(b";torch=" + torch_here, b";torch=1.13.1"))
    monkeypatch.setattr(library, "library_path", lambda: path)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: pytest.fail("loaded"))
    with pytest.raises(RuntimeError, match=r"it was built for torch 1\.13\.1: run `pip install"):
        library.load()


def test_file_that_is_no_library_raises(fresh_load, monkeypatch, tmp_path):
    path = tmp_path / "_C.abi3.so"
    torch_here = torch.__version__.partition("+")[0].encode()
    path.write_bytes(b"recyclelora was built with torch=" + torch_here + b";cuda=none\0")
    monkeypatch.setattr(library, "library_path", lambda: path)
    with pytest.raises(RuntimeError, match=r"Cannot load .*_C\.abi3\.so into torch"):
        library.load()


def test_library_of_another_torch_imports_and_its_operators_raise(tmp_path):
    """In a copy: `import recyclelora` works, collect_env reports it, every operator raises."""
    shutil.copytree(
        library.PACKAGE, tmp_path / "recyclelora", ignore=shutil.ignore_patterns("__pyc*")
    )
    copy = tmp_path / "recyclelora" / "_C.abi3.so"
    torch_here = torch.__version__.partition("+")[0].encode()
    copy.write_bytes(copy.read_bytes().replace(b";torch=" + torch_here, b";torch=1.13.1"))
    code = """
import sys, torch, recyclelora
from recyclelora import collect_env
layer = recyclelora.DualLoRALinear.from_linear(torch.nn.Linear(8, 8), 2, 1, init="kaiming")
for call in (lambda: recyclelora.rrqr(torch.eye(3), 1, 1), lambda: layer(torch.ones(1, 8))):
    try:
        call()
    except RuntimeError as error:
        print("raised:", error)
rows, missing = collect_env.extension_report()
print("reported:", rows[0][1], [name for name, _ in missing])
"""
    lines = run_python(code, PYTHONPATH=str(tmp_path)).stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["raised:", "raised:", "reported:"]
    assert all("it was built for torch 1.13.1: run `pip install" in line for line in lines)
    assert lines[2].endswith("['extension']")
