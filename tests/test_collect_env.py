"""The report names what is there and, with a remedy, what is not."""

import sys

import torch

from recyclelora import collect_env
from recyclelora.ops import library


def test_a_whole_installation_misses_nothing(capsys):
    assert collect_env.main() == 0
    text = capsys.readouterr().out
    assert text.endswith("nothing is missing\n")
    version = torch.__version__
    assert any(line.split() == ["torch", version] for line in text.splitlines())
    assert f"for torch {version.partition('+')[0]}, CUDA " in text
    assert str(library.library_path()) in text


def test_what_is_missing_comes_with_a_remedy(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)  # makes `import cv2` fail
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "_C.abi3.so")
    monkeypatch.setenv("RECYCLELORA_DATA", str(tmp_path / "nowhere"))
    library.load.cache_clear()
    try:
        assert collect_env.main() == 1
    finally:
        library.load.cache_clear()
    lines = capsys.readouterr().out.splitlines()
    assert "missing: cv2: `pip install opencv-python-headless`" in lines
    assert "missing: detectron2: `python tools/install_detectron2.py`" in lines
    assert any(line.startswith("missing: extension: ") for line in lines)
    assert any("nowhere, which is not a folder" in line for line in lines)


def test_an_extension_of_another_torch_is_reported(monkeypatch):
    info = {"compiler": "GCC 9", "cxx": "201703", "torch": "1.0.0", "cuda": "none"}
    monkeypatch.setattr(library, "build_info", lambda: info)
    rows, missing = collect_env.extension_report()
    assert rows[1] == ("extension built", "with GCC 9, C++ 201703, for torch 1.0.0, CUDA none")
    assert missing[0][0] == "extension"
