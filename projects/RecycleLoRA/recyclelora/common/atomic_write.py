"""Atomic writes: a file is replaced completely or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PROCESS.tmp


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, and rename it to ``path`` at the end.

    If the block raises, the temporary file is removed and ``path`` is unchanged. If the process is
    killed, ``path`` is unchanged and the temporary file stays until :func:`remove_leftovers` is
    called.

    Parameters
    ----------
    path : str or Path
        The file to write. Its folder has to exist.
    sync : bool
        Flush the content to the disk before the rename, and the rename itself after it, so that
        both survive a power failure.

    Yields
    ------
    Path
        The temporary file to write to.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("the content")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if sync:
            _fsync(temporary)
        temporary.replace(path)
        if sync:
            _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the temporary files that killed processes left in ``folder``.

    Call it only if no other process writes to the folder: its temporary files are removed too.

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


def _fsync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
