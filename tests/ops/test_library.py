"""The compiled library loads once, says how it was built, and its absence or failure is said."""

import logging

import pytest
import torch

from recyclelora.ops import library


@pytest.fixture
def fresh_load():
    """`load` forgets what it did, before and after."""
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_says_how_it_was_built():
    info = library.build_info()
    assert list(info) == ["compiler", "cxx", "torch", "cuda"]
    assert info["compiler"].split()[0] in {"GCC", "Clang"}
    assert int(info["cxx"]) >= 201703
    assert info["torch"] == torch.__version__.split("+")[0]
    assert info["cuda"] == "none" or float(info["cuda"]) >= 11


def test_absence_is_one_log_line(fresh_load, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "_C.abi3.so")
    with caplog.at_level(logging.INFO, logger=library.__name__):
        assert not library.load()
        assert library.build_info() == {}
    assert [record.getMessage().count("is absent") for record in caplog.records] == [1]


def test_a_library_that_does_not_load_is_an_error(fresh_load, monkeypatch, tmp_path):
    path = tmp_path / "_C.abi3.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(library, "library_path", lambda: path)
    with pytest.raises(RuntimeError, match=r"Expected .*_C\.abi3\.so to load into torch"):
        library.load()
