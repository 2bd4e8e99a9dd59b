"""The report names installed packages, and gives a remedy for missing ones."""

import pwd
import sys

import pytest
import torch

from recyclelora import collect_env
from recyclelora.ops import library


def test_complete_installation_reports_nothing_missing(capsys):
    assert collect_env.main() == 0
    text = capsys.readouterr().out
    assert text.endswith("nothing is missing\n")
    version = torch.__version__
    assert any(line.split() == ["torch", version] for line in text.splitlines())
    assert f"for torch {version.partition('+')[0]}, CUDA " in text
    assert str(library.library_path()) in text


def test_missing_packages_are_reported_with_remedy(capsys, monkeypatch, tmp_path):
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


def test_extension_of_another_torch_is_reported(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    library.load.cache_clear()
    try:
        rows, missing = collect_env.extension_report()
    finally:
        library.load.cache_clear()
    assert "for torch 9.9.9, but it was built for torch" in rows[0][1]
    assert missing[0][0] == "extension"


def test_gpu_without_compiled_code_is_reported(monkeypatch):
    assert collect_env.compiled_for("8.0 9.0+PTX", (8, 6))  # the same code runs in one generation
    assert collect_env.compiled_for("8.0 9.0+PTX", (12, 0))  # compiled from PTX at first use
    assert not collect_env.compiled_for("8.0 9.0", (10, 0))
    assert not collect_env.compiled_for("8.6 9.0+PTX", (8, 0))
    assert not collect_env.compiled_for("none", (9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (1, 0))
    rows, missing = collect_env.extension_report()
    assert rows[-1] == ("extension on GPU 0", "not compiled for it")
    assert missing[0][0] == "extension on GPU 0"


def test_report_goes_on_after_a_part_that_fails(capsys, monkeypatch):
    def detectron2_report():
        raise RuntimeError("operator torchvision::nms does not exist")

    parts = (detectron2_report, collect_env.user_report)
    monkeypatch.setattr(collect_env, "PARTS", parts)
    assert collect_env.main() == 1
    text = capsys.readouterr().out
    assert "RuntimeError: operator torchvision::nms does not exist" in text
    assert "missing: detectron2: " in text and "home folder" in text


@pytest.mark.parametrize(("home", "words"), [("", "HOME is not set"), ("/nowhere", "not writable")])
def test_user_without_entry_or_home_is_reported(monkeypatch, home, words):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "uid12345")
    monkeypatch.setenv("HOME", home)
    rows = dict(collect_env.user_report()[0])
    assert rows["user"] == "uid12345, without an entry in the password database"
    assert words in rows["home folder"] and "RECYCLELORA_CACHE" in rows["home folder"]


def test_folder_of_unset_variable_is_reported(monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("RECYCLELORA_DATA", "$NOT_SET/a")
    monkeypatch.setenv("DETECTRON2_DATASETS", "~")
    rows = dict(collect_env.folder_report()[0])
    assert "NOT_SET, which is not set" in rows["RECYCLELORA_DATA"]
    assert rows["DETECTRON2_DATASETS"].startswith("~ (")
