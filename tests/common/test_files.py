"""Searching folders with files of notebook servers, NAS systems and users; transient errors."""

import errno
import logging
import os

import pytest

from recyclelora.common import files
from recyclelora.common.files import is_hidden, retry_transient, walk_files, walk_folders


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root):
    return [file.relative_to(root).as_posix() for file in walk_files(root)]


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints", ".Trash-1000", ".thumbnails", "@eaDir", "@EADIR", "._001.png"),
        *("Thumbs.db", "thumbs.DB", "desktop.ini", "Desktop.ini", ".DS_Store", "__MACOSX"),
        *("$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle", "a/.b", ".b/"),
    ],
)
def test_is_hidden_system_name_is_true(name):
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["a.png", "..", ".", ".cache/a.png", "a.b", "eaDir", "@a.png"])
def test_is_hidden_other_name_is_false(name):
    assert not is_hidden(name)


def test_walk_leaves_out_hidden_folders_at_any_depth(tmp_path):
    write(tmp_path, "1.png", "a/2.png", "a/b/3.png")
    write(tmp_path, ".x/4.png", "a/@eaDir/1.png/T.png", "a/b/.Trash-1000/files/5.png", "a/._2.png")
    assert found(tmp_path) == ["1.png", "a/2.png", "a/b/3.png"]


def test_walk_starts_in_a_hidden_folder(tmp_path):
    write(tmp_path, ".data/1.png")
    assert found(tmp_path / ".data") == ["1.png"]


def test_walk_follows_every_link_without_a_loop(tmp_path):
    write(tmp_path, "else/1.png", "root/a/2.png", "root/3.png")
    for name in ("x", "y"):  # two conditions may share their labels
        (tmp_path / "root" / name).symlink_to(tmp_path / "else")
    (tmp_path / "root/z").symlink_to("a")
    (tmp_path / "root/4.png").symlink_to("3.png")
    assert found(tmp_path / "root") == [
        *("3.png", "4.png", "a/2.png", "x/1.png", "y/1.png", "z/2.png"),
    ]


def test_walk_links_to_one_another_give_each_file_once(tmp_path):
    write(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/x").symlink_to("../b")
    (tmp_path / "b/y").symlink_to("../a")
    assert found(tmp_path) == ["a/1.png", "b/2.png"]


def test_walk_links_to_one_another_elsewhere_give_each_file_once(tmp_path):
    write(tmp_path, "else/a/1.png", "else/b/2.png", "root/3.png")
    (tmp_path / "else/a/x").symlink_to("../b")
    (tmp_path / "else/b/y").symlink_to("../a")
    (tmp_path / "root/link").symlink_to(tmp_path / "else/a")
    assert found(tmp_path / "root") == ["3.png", "link/1.png", "link/x/2.png"]


def test_walk_link_to_its_own_folder_is_not_followed(tmp_path):
    write(tmp_path, "root/a/1.png", "2.png")
    (tmp_path / "root/a/up").symlink_to(tmp_path)
    (tmp_path / "root/here").symlink_to(".")
    assert found(tmp_path / "root") == ["a/1.png"]
    assert next(walk_folders(tmp_path / "root")).folders == ["a", "here"]


def test_walk_links_without_target_are_files(tmp_path):
    for name, target in (("gone.png", "nowhere"), ("a.png", "b.png"), ("b.png", "a.png")):
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path) == ["a.png", "b.png", "gone.png"]


def test_walk_missing_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(walk_files(tmp_path / "gone"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_retry_transient_error_is_repeated_and_logged(number, no_pauses, caplog):
    failures = [OSError(number, os.strerror(number))] * 3

    def read():
        if failures:
            raise failures.pop()
        return "content"

    with caplog.at_level(logging.WARNING):
        assert retry_transient(read, "a.png") == "content"
    assert [record.getMessage()[:24] for record in caplog.records] == [
        "a.png: reading failed (I" if number == errno.EIO else "a.png: reading failed (S"
    ] * 3
    assert "attempt 4 of 4" in caplog.text


def test_retry_fourth_failure_names_the_file(no_pauses):
    calls = []

    def read():
        calls.append(1)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match=r"^a\.png: reading failed 4 times \(Input/output error\)"):
        retry_transient(read, "a.png")
    assert len(calls) == 4


def test_retry_other_error_is_raised_at_once():
    calls = []

    def read():
        calls.append(1)
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        retry_transient(read, "a.png")
    assert len(calls) == 1


def test_walk_retries_a_stale_folder(tmp_path, monkeypatch, no_pauses):
    write(tmp_path, "a/1.png")
    scan, failures = os.scandir, [errno.ESTALE, errno.EIO]

    def scandir(path):
        if str(path).endswith("a") and failures:
            raise OSError(failures.pop(), "broken")
        return scan(path)

    monkeypatch.setattr(files.os, "scandir", scandir)
    assert found(tmp_path) == ["a/1.png"] and not failures
