"""Files that are there whole or not at all; every floor writes its results through this."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PROCESS.tmp


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; at the end it is renamed to ``path``.

    If the block raises, ``path`` is as it was and nothing else is left; if the process is killed,
    ``path`` is as it was too, and :func:`remove_leftovers` finds the rest. The folder has to exist.

    Args:
        path: the file.
        sync: have the disk confirm the content before the renaming, and then the renaming, so that
            both outlive a power cut too.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if sync:
            _confirm(temporary)
        temporary.replace(path)
        if sync:
            _confirm(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the temporary files that killed processes left in ``folder``; returns their paths.

    For the one process that writes there: the files of another that is writing would go too.
    """
    found = [path for path in Path(folder).glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return found


def _confirm(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
