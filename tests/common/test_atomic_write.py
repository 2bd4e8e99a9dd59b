"""Atomic writes, and the temporary files that killed processes leave."""

import errno
import os

import pytest

from recyclelora.common.atomic_write import atomic_write, remove_leftovers
from recyclelora.common.validation import format_error


@pytest.mark.parametrize("sync", [False, True])
def test_atomic_write_replaces_file_at_the_end(tmp_path, sync):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path, sync=sync) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_sync_flushes_content_then_name(tmp_path, monkeypatch):
    done, replace = [], type(tmp_path).replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
    )
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda *paths: done.append("rename") or replace(*paths)
    )
    with atomic_write(tmp_path / "a.txt", sync=True) as temporary:
        temporary.write_text("new")
    assert done == [temporary.name, "rename", tmp_path.name]


def test_remove_leftovers_removes_only_temporaries(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.pth") as temporary:
        temporary.touch()
        leftover = temporary.with_name(temporary.name.replace(str(os.getpid()), "123"))
        leftover.touch()  # a process was killed while writing it
        raise KeyboardInterrupt
    others = ["a.pth", "mine.tmp", ".hidden.tmp", ".a.b.tmp"]
    for name in others:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == [leftover]
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    assert remove_leftovers(tmp_path / "nowhere") == []


def failing_fsync(number, monkeypatch, *, kind):
    """Let the syncs of folders or files fail with an error of the system."""
    fsync = os.fsync

    def fail(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == (kind == "folder"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_atomic_write_without_sync_in_file_system_succeeds(tmp_path, monkeypatch, number, kind):
    failing_fsync(number, monkeypatch, kind=kind)
    with atomic_write(tmp_path / "a.txt", sync=True) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_atomic_write_failed_sync_names_the_file(tmp_path, monkeypatch, number, kind):
    failing_fsync(number, monkeypatch, kind=kind)
    with (
        pytest.raises(OSError) as caught,
        atomic_write(tmp_path / "a.txt", sync=True) as temporary,
    ):
        temporary.write_text("new")
    assert caught.value.errno == number
    assert str(tmp_path if kind == "folder" else tmp_path / "a.txt") in format_error(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_atomic_write_error_of_a_write_names_the_file(tmp_path, number):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, atomic_write(path):
        raise OSError(number, os.strerror(number))  # like write(), without a file name
    assert format_error(caught.value).startswith(f"cannot use {path} ({os.strerror(number)})")


def test_atomic_write_into_no_folder_names_the_file(tmp_path):
    path = tmp_path / "nowhere" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path) as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(path)


def test_atomic_write_that_cannot_remove_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"

    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(type(path), "unlink", refuse)
    with pytest.raises(OSError) as caught, atomic_write(path) as temporary:
        # `temporary` is a Path, like the file name in an error of open().
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), temporary)
    assert str(caught.value.filename) == str(path)


def test_atomic_write_of_the_longest_name_succeeds(tmp_path):
    for name in ("a" * 251 + ".png", "ü" * 125 + ".png"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("new")
        assert (tmp_path / name).read_text() == "new"
