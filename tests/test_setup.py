"""Decisions of setup.py: with or without CUDA, the toolkit, the GPUs, and its errors."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "setup.py"
VARIABLES = (
    "CUDA_HOME",
    "CUDA_PATH",
    "FORCE_CUDA",
    "RECYCLELORA_NO_CUDA",
    "TORCH_CUDA_ARCH_LIST",
)


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Return setup.py as a module, on a machine without a compiler or toolkit."""
    spec = importlib.util.spec_from_file_location("setup", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return module


@pytest.fixture
def toolkit(tmp_path):
    """``toolkit("13.0")``: the folder of a CUDA toolkit with this version."""

    def make(version: str) -> Path:
        home = tmp_path / f"cuda-{version}"
        for folder in ("bin", "include"):
            (home / folder).mkdir(parents=True)
        (home / "include" / "cuda_runtime.h").touch()
        nvcc = home / "bin" / "nvcc"
        nvcc.write_text(
            f"#!/bin/sh\necho Cuda compilation tools, release {version}, V{version}.1\n"
        )
        nvcc.chmod(0o755)
        return home

    return make


def test_toolkit_of_torchs_major_version_is_found(script, toolkit, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(home := toolkit("13.1")))
    assert script.find_cuda() == (home, "13.1")


def test_wrapper_script_named_nvcc_is_ignored(script, toolkit, monkeypatch, tmp_path):
    real = toolkit("13.0")
    wrapper = tmp_path / "elsewhere" / "bin" / "nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(f'#!/bin/sh\nexec {real}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/bin")
    assert wrapper.parents[1] not in script.toolkits()
    monkeypatch.setenv("PATH", f"{real}/bin:/bin")
    assert next(iter(script.toolkits().items())) == (real, "13.0")


def test_environment_variables_select_cuda(script, toolkit, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(toolkit("13.0")))
    monkeypatch.setenv("RECYCLELORA_NO_CUDA", "1")
    assert script.find_cuda() == (None, "RECYCLELORA_NO_CUDA is set")
    monkeypatch.setenv("RECYCLELORA_NO_CUDA", "0")
    assert script.find_cuda()[0] is not None
    monkeypatch.setattr(torch.version, "cuda", None)
    assert script.find_cuda()[0] is None
    monkeypatch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit, match=r"^error: FORCE_CUDA is set, but torch .* without CUDA$"):
        script.find_cuda()


def test_missing_toolkit_with_force_cuda_raises(script, monkeypatch):
    monkeypatch.setattr(script, "toolkits", dict)
    assert script.find_cuda()[0] is None
    monkeypatch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit, match="FORCE_CUDA is set, but no CUDA toolkit was found"):
        script.find_cuda()


def test_toolkit_of_another_version_raises(script, toolkit, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(toolkit("12.9")))
    with pytest.raises(SystemExit, match=r"Expected a CUDA 13 toolkit.*but found 12\.9 in"):
        script.find_cuda()


def test_architectures_follow_variable_or_gpus(script, monkeypatch):
    assert script.architectures() == "8.0 9.0+PTX"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    capabilities = [(9, 0), (8, 6), (9, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert script.architectures() == "8.6 9.0+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;8.0+PTX")
    assert script.architectures() == "7.5 8.0+PTX"


def test_missing_pybind11_leaves_the_python_module_out(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pybind11", None)  # makes `import pybind11` fail
    assert script.interruption() == []
    assert "pybind11 is not installed" in capsys.readouterr().out


def test_python_without_headers_leaves_the_python_module_out(script, monkeypatch, tmp_path, capsys):
    pytest.importorskip("pybind11")
    monkeypatch.setattr(script.sysconfig, "get_path", lambda name: str(tmp_path))
    assert script.interruption() == []
    assert "Python.h does not exist" in capsys.readouterr().out
    (tmp_path / "Python.h").touch()
    (module,) = script.interruption()
    assert module.name == "recyclelora._interruption" and not module.py_limited_api


def test_wrong_cuda_home_fails_with_one_sentence():
    environment = {**os.environ, "CUDA_HOME": "/nonexistent", "FORCE_CUDA": "1"}
    environment.pop("RECYCLELORA_NO_CUDA", None)
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--version"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    if torch.version.cuda:
        assert "Expected a CUDA toolkit in CUDA_HOME=/nonexistent" in result.stderr


@pytest.mark.slow
def test_archive_and_wheel_are_whole(tmp_path):
    """A source archive without CUDA builds a wheel that works from its own files."""
    tree = tmp_path / "tree"
    unneeded = shutil.ignore_patterns(".*", "build", "dist", "output", "*.so", "*.egg-info")
    shutil.copytree(SCRIPT.parent, tree, ignore=unneeded)
    environment = {
        **os.environ,
        "RECYCLELORA_NO_CUDA": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # for ninja
        "PYTHONPATH": "",
    }
    environment.pop("FORCE_CUDA", None)

    def python(*arguments: str | Path) -> str:
        command = [sys.executable, *map(str, arguments)]
        result = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    archived = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    assert "building without CUDA: RECYCLELORA_NO_CUDA is set" in python("-c", archived)
    (archive,) = tmp_path.glob("*.tar.gz")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", tmp_path)
    python("-m", "pip", "wheel", *options, archive)
    (wheel,) = tmp_path.glob("*-cp310-abi3-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    printed = python(
        "-c",
        "import recyclelora as r, torch; from recyclelora.ops import library\n"
        "print(r.library_path(), library.load(), library.build_info()['cuda'])\n"
        "print((r.include_path() / 'recyclelora/rrqr.h').is_file())\n"
        "print((r.cmake_path() / 'RecycleLoRAConfig.cmake').is_file())\n"
        "print(r.rrqr(torch.eye(2), 1, 1).perm.tolist())\n"
        "print(r.ops.is_interruptible())",
    )
    package = tmp_path / "installed" / "recyclelora"
    library, interruptible = (
        package / "_C.abi3.so",
        importlib.util.find_spec("pybind11") is not None,
    )
    assert printed.splitlines() == [
        f"{library} True none", "True", "True", "[0, 1]", str(interruptible)
    ]  # fmt: skip
    for module in package.glob("_interruption.*.so"):  # as in another Python
        module.unlink()
    code = (
        "import sys\n"
        "# The finder of an editable installation would find the module in the checkout.\n"
        "names = [getattr(finder, '__name__', '') for finder in sys.meta_path]\n"
        "sys.meta_path = [f for f, n in zip(sys.meta_path, names) if n != '_EditableFinder']\n"
        "import recyclelora as r, torch; r.rrqr(torch.eye(2), 1, 1)\n"
        "print(r.library_path(), r.ops.is_interruptible())"
    )
    assert python("-c", code) == f"{library} False\n"
