import errno
import os
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


def killed_at(event, folder):
    """Whether a process that writes to ``folder`` is killed at its ``event``-th system event."""
    if (child := os.fork()) == 0:
        count = 0

        def kill(name, arguments):
            nonlocal count
            count += name == "open" or name.startswith(("os.", "shutil."))
            if count == event:
                os._exit(9)

        sys.addaudithook(kill)
        write(folder, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_process_leaves_all_old_or_all_new_files(tmp_path):
    folder, event, states = tmp_path / "model", 0, []
    old = {"config.json": "old", "weights.bin": "old" * 1000, "notes/mine.txt": "kept"}
    new = old | {"config.json": "new", "weights.bin": "new" * 1000}
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "mine.txt").write_text("kept")
    while True:
        write(folder, "old")
        event += 1
        killed = killed_at(event, folder)
        states.append(content(folder))
        if not killed:
            break
    assert event > 10
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


def test_file_system_without_exchange_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_folder, "_RENAME_EXCHANGE", 1 << 20)  # an unknown flag: EINVAL
    folder = tmp_path / "model"
    write(folder, "old")
    (folder / "mine.txt").write_text("kept")
    write(folder, "new")
    assert content(folder)["config.json"] == "new" and content(folder)["mine.txt"] == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
