import contextlib
import errno
import sys

import pytest

from recyclelora.common import atomic_folder
from recyclelora.common.atomic_folder import atomic_folder_write


def write(folder, text):
    with atomic_folder_write(folder) as temporary:
        (temporary / "config.json").write_text(text)
        (temporary / "weights.bin").write_text(text * 1000)


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def at_every_system_call():
    """Call a function before every system call that Python reports, inside a ``with`` block."""
    hooks = []

    def watch(name, arguments):
        if hooks and (name == "open" or name.startswith(("os.", "shutil."))):
            hook = hooks.pop()  # do not report the hook's own calls
            hook()
            hooks.append(hook)

    @contextlib.contextmanager
    def observe(hook):
        hooks.append(hook)
        try:
            yield
        finally:
            hooks.clear()

    sys.addaudithook(watch)  # hooks cannot be removed, so this one does nothing without a function
    return observe


def test_process_killed_at_any_call_leaves_all_old_or_all_new(tmp_path, at_every_system_call):
    folder, states = tmp_path / "model", []
    old = {"config.json": "old", "weights.bin": "old" * 1000, "notes/mine.txt": "kept"}
    new = old | {"config.json": "new", "weights.bin": "new" * 1000}
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "mine.txt").write_text("kept")
    write(folder, "old")
    with at_every_system_call(lambda: states.append(content(folder))):
        write(folder, "new")
    assert len(states) > 20
    assert all(state in (old, new) for state in states)
    assert states[0] == old and states[-1] == new


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_failed_block_leaves_the_folder(tmp_path, error):
    folder = tmp_path / "model"
    write(folder, "old")
    with pytest.raises(type(error)), atomic_folder_write(folder) as temporary:
        (temporary / "config.json").write_text("new")
        raise error
    assert content(folder) == {"config.json": "old", "weights.bin": "old" * 1000}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_missing_parents_are_created_and_a_link_stays(tmp_path):
    folder, link = tmp_path / "a" / "b", tmp_path / "link"
    write(folder, "old")
    link.symlink_to(folder)
    write(link, "new")
    assert link.is_symlink() and content(folder)["config.json"] == "new"


def test_file_in_place_of_the_folder_raises(tmp_path):
    path = tmp_path / "model"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="it is a file"):
        write(path, "new")
    assert path.read_text() == "mine"


def test_working_directory_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "model" / "below").mkdir(parents=True)
    for inside in ("model", "model/below"):
        monkeypatch.chdir(tmp_path / inside)
        with pytest.raises(ValueError, match="contains the working directory"):
            write(tmp_path / "model", "new")
    assert content(tmp_path) == {}


def test_two_writers_at_once_leave_one_whole_folder(tmp_path):
    folder = tmp_path / "model"
    with atomic_folder_write(folder) as first, atomic_folder_write(folder) as second:
        for temporary, text in ((first, "first"), (second, "second")):
            (temporary / "a.txt").write_text(text)
            (temporary / "b.txt").write_text(text)
    assert content(folder) == {"a.txt": "first", "b.txt": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_file_system_without_exchange_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_folder, "_RENAME_EXCHANGE", 1 << 20)  # an unknown flag causes EINVAL
    folder = tmp_path / "model"
    write(folder, "old")
    (folder / "mine.txt").write_text("kept")
    write(folder, "new")
    assert content(folder)["config.json"] == "new" and content(folder)["mine.txt"] == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
