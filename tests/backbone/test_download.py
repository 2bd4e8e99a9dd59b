"""Pretrained files that are downloaded from a local server on first use."""

import dataclasses
import hashlib
import io
import logging
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from recyclelora.backbone import WEIGHTS, dinov2_vit, load_weights
from recyclelora.backbone import weights as weights_module
from recyclelora.backbone.weights import cache_dir, locate_weights

from ..support.file_server import FileServer, serve

NAME, UNKNOWN_SUM = "dinov2_vits14", "eva02_vitb14"
CONTENT = os.urandom(1000) * 3000  # several blocks of the download
PART = f".{WEIGHTS[NAME].file}.part"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RECYCLELORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    return tmp_path / "cache"


@pytest.fixture
def server(cache, monkeypatch):
    """Serve a file as the weights ``name``, and register the sha256 of its content if known."""
    with serve(FileServer(CONTENT)) as file:

        def serve_as(name: str = NAME, content: bytes = CONTENT, **options) -> FileServer:
            file.content = content
            for option, value in options.items():
                setattr(file, option, value)
            known = WEIGHTS[name].sha256 and hashlib.sha256(content).hexdigest()
            changed = dataclasses.replace(WEIGHTS[name], url=file.url, sha256=known)
            monkeypatch.setitem(WEIGHTS, name, changed)
            return file

        yield serve_as


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_download_of_named_file_is_kept_and_logged(server, cache, caplog, capfd):
    file = server()
    with caplog.at_level(logging.INFO, logger="recyclelora"):
        for _ in range(2):
            assert locate_weights(NAME).read_bytes() == CONTENT
    assert file.requests == [None]
    assert names(cache) == {WEIGHTS[NAME].file}
    assert WEIGHTS[NAME].sha256 in caplog.text and file.url in caplog.text
    assert "100%" in capfd.readouterr().err  # the progress bar


def test_download_cut_off_goes_on_in_the_same_call(server, cache, caplog):
    file = server(cut=[1_100_000, 700_000])
    assert locate_weights(NAME).read_bytes() == CONTENT
    assert file.requests == [None, "bytes=1100000-", "bytes=1800000-"]
    assert "cut off at 1.1 MB" in caplog.text


def test_download_interrupted_goes_on_in_the_next_call(server, cache, monkeypatch):
    file = server()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights_module.hashlib, "sha256", stop)
        with pytest.raises(KeyboardInterrupt):
            locate_weights(NAME)
    part = cache / PART
    part.write_bytes(CONTENT[:2_000_000])
    assert locate_weights(NAME).read_bytes() == CONTENT
    assert file.requests[1:] == ["bytes=2000000-"]


def test_download_that_brings_nothing_keeps_the_part(server, cache):
    server(cut=[1_000_000] + [0] * 5)
    with pytest.raises(FileNotFoundError, match=r"run the command again to continue at 1\.0 MB"):
        locate_weights(NAME)
    assert (cache / PART).read_bytes() == CONTENT[:1_000_000]
    assert not (cache / WEIGHTS[NAME].file).exists()


def begun(cache: Path, content: bytes, etag: str = '"1"') -> None:
    """Write the files that an earlier call has downloaded."""
    cache.mkdir()
    (cache / PART).write_bytes(content)
    (cache / f".{WEIGHTS[NAME].file}.etag").write_text(etag, encoding="ascii")


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": '"2"'}, {"etag": None}])
def test_download_begins_anew_where_the_server_cannot_go_on(server, cache, change):
    file = server(**change)
    begun(cache, b"another file")
    assert locate_weights(NAME).read_bytes() == CONTENT
    assert file.requests == ["bytes=12-"]


def test_download_longer_than_the_file_begins_anew(server, cache):
    server()
    begun(cache, CONTENT + b"more")
    assert locate_weights(NAME).read_bytes() == CONTENT


def test_download_with_another_sum_is_removed(server, cache, monkeypatch):
    file = server()
    monkeypatch.setitem(WEIGHTS, NAME, dataclasses.replace(WEIGHTS[NAME], sha256="0" * 64))
    with pytest.raises(ValueError, match=r"its sha256 is .* expected 0000.*the download was remo"):
        locate_weights(NAME)
    assert names(cache) == set()
    server()
    assert locate_weights(NAME).read_bytes() == CONTENT and file.requests == [None, None]


def test_download_without_known_sum_is_read_before_it_is_kept(server, cache):
    server(UNKNOWN_SUM, content=b"<html>log in first</html>")
    with pytest.raises(ValueError, match=r"is a web page, not weights.*the download was removed"):
        locate_weights(UNKNOWN_SUM)
    assert names(cache) == set()
    content = io.BytesIO()
    torch.save({"model": {"weight": torch.ones(3)}}, content)
    server(UNKNOWN_SUM, content=content.getvalue())
    assert locate_weights(UNKNOWN_SUM).read_bytes() == content.getvalue()


def test_download_into_a_backbone(server):
    module, content = dinov2_vit("s", depth=1), io.BytesIO()
    torch.save(module.state_dict(), content)
    server(content=content.getvalue())
    loaded = load_weights(dinov2_vit("s", depth=1), NAME)
    torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_download_refused_by_the_server_names_address_and_path(server, cache, status):
    file = server(status=status)
    with pytest.raises(FileNotFoundError) as caught:
        locate_weights(NAME)
    sentence = (
        f"is not on this machine: download {file.url} and put it at {cache / WEIGHTS[NAME].file}"
    )
    assert sentence in str(caught.value) and f"HTTP {status}" in str(caught.value)
    assert len(file.requests) == 1


def test_download_without_network_names_address_and_path(server, cache, monkeypatch):
    server()
    url = "http://127.0.0.1:1/file"
    monkeypatch.setitem(WEIGHTS, NAME, dataclasses.replace(WEIGHTS[NAME], url=url))
    with pytest.raises(FileNotFoundError, match=f"download {url} and put it at {cache}"):
        locate_weights(NAME)
    assert names(cache) == set()


def test_download_larger_than_the_disk_is_refused(server, cache, monkeypatch):
    server()
    free = shutil.disk_usage(".")._replace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(
        ValueError, match=r"needs 3 MB in .* which has 2 MB free.*RECYCLELORA_CACHE"
    ):
        locate_weights(NAME)


def test_cache_in_a_folder_that_cannot_be_written_names_the_variable(server, cache, monkeypatch):
    server()
    cache.parent.joinpath("file").touch()
    monkeypatch.setenv("RECYCLELORA_CACHE", str(cache.parent / "file" / "cache"))
    with pytest.raises(ValueError, match=r"file/cache.*set RECYCLELORA_CACHE to a writable folder"):
        locate_weights(NAME)


def test_cache_folder_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RECYCLELORA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_dir() == tmp_path / ".cache" / "recyclelora"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_dir() == tmp_path / "xdg" / "recyclelora"
    monkeypatch.setenv("RECYCLELORA_CACHE", "$HOME/own")
    assert cache_dir() == tmp_path / "own"


def test_cache_folder_without_a_home_names_the_variable(monkeypatch):
    for name in ("RECYCLELORA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(ValueError, match=r"set the environment variable HOME.*RECYCLELORA_CACHE"):
        cache_dir()
