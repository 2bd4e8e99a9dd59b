"""Atomic writes of folders: either all files of a folder are replaced, or none."""

import contextlib
import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .atomic_write import flush_to_disk

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from linux/fcntl.h and linux/fs.h
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextlib.contextmanager
def atomic_folder_write(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` at the end.

    Files of ``folder`` that the block did not write are kept. If the block raises an error, the
    temporary folder is removed and ``folder`` is unchanged. If the process is killed, ``folder``
    contains either all old or all new files, and ``.NAME.RANDOM.partial`` remains beside it. The
    two folders are exchanged in one step. On file systems without this operation (some network file
    systems), ``folder`` is absent for a moment between two renames.

    Parameters
    ----------
    folder : str or Path
        Created with its parents if it does not exist. A link to a folder remains a link.

    Yields
    ------
    Path
        The temporary folder to write to.

    Raises
    ------
    NotADirectoryError
        If ``folder`` is a file.
    ValueError
        If ``folder`` is the working directory or one of its parents, which cannot be exchanged.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "model"
    >>> for text in ("first", "second"):
    ...     with atomic_folder_write(folder) as temporary:
    ...         _ = (temporary / "a.txt").write_text(text)
    >>> [file.name for file in folder.parent.iterdir()], (folder / "a.txt").read_text()
    (['model'], 'second')
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"cannot write to {folder}: it is a file; name a folder")
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise ValueError(
            f"cannot replace {folder}, which contains the working directory: name a folder in it"
        )
    temporary = folder.with_name(f".{folder.name[:40]}.{uuid.uuid4().hex[:12]}.partial")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):  # to survive a power failure
            flush_to_disk(path)
        if folder.is_dir():
            shutil.copymode(folder, temporary)
            _keep_others(folder, temporary)
            _exchange(temporary, folder)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_others(old: Path, new: Path) -> None:
    """Copy the entries of ``old`` that ``new`` lacks to ``new``."""
    for entry in old.iterdir():
        kept = new / entry.name
        if os.path.lexists(kept):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, kept, symlinks=True, copy_function=_link_or_copy)
        else:
            _link_or_copy(entry, kept)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(new: Path, old: Path) -> None:
    """Exchange the names of two folders."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = os.fsencode(new), os.fsencode(old)
        if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), str(old))
    aside = new.with_suffix(".old")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)
