"""Atomic writes: a file is either replaced completely or not at all."""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of file systems that cannot sync a file or a folder (network mounts, FUSE).
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PROCESS.tmp


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` at the end.

    The temporary file is in the same folder. If the block raises an error, the file is removed and
    ``path`` is unchanged. If the process is killed, ``path`` is unchanged and the temporary file
    remains until :func:`remove_leftovers` is called.

    Parameters
    ----------
    path : str or Path
        The file to write. Its folder must exist.
    sync : bool
        Whether to flush the content to the disk before the rename, and the rename afterwards, so
        that both survive a power failure. If the file system does not support this, no error is
        raised.

    Yields
    ------
    Path
        The temporary file to write to.

    Raises
    ------
    OSError
        If the file cannot be written; ``filename`` is set.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("the content", encoding="utf-8")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    # A name can have at most 255 bytes.
    name = path.name if len(os.fsencode(path.name)) <= 200 else path.name[:50]
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if sync:
            flush_to_disk(temporary)
        temporary.replace(path)
        if sync:
            flush_to_disk(path.parent)
    except OSError as error:
        # The errors of write() have no file name.
        if str(error.filename or temporary) == str(temporary) and error.errno is not None:
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # for instance on a read-only file system
            temporary.unlink()


def write_json(path: str | Path, content: Mapping) -> None:
    """Write JSON atomically.

    Parameters
    ----------
    path : str or Path
        The file. Its folder is created if it does not exist.
    content : Mapping
        The content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder.

    Call this function only if no other process writes to the folder, because it also removes the
    temporary files of running processes.

    Parameters
    ----------
    folder : str or Path
        The folder. It need not exist.

    Returns
    -------
    list of Path
        The removed files.
    """
    found = [path for path in Path(folder).glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def flush_to_disk(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk.

    If the file system does not support this, no error is raised.

    Parameters
    ----------
    path : Path
        The file or folder.

    Raises
    ------
    OSError
        If flushing fails for another reason; ``filename`` is set.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that this user can write to but not list
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
