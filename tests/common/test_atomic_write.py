"""Atomic writes, and the temporary files that killed processes leave."""

import os

import pytest

from recyclelora.common.atomic_write import atomic_write, remove_leftovers


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
        leftover.touch()  # of a process that was killed there
        raise KeyboardInterrupt
    others = ["a.pth", "mine.tmp", ".hidden.tmp", ".a.b.tmp"]
    for name in others:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == [leftover]
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    assert remove_leftovers(tmp_path / "nowhere") == []
