"""Files that are there whole or not at all; every floor writes its results through this."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; at the end it is renamed to ``path``.

    If the block raises, ``path`` is as it was and nothing else is left. The folder has to exist.

    Args:
        path: the file.
        sync: have the disk confirm the content before the renaming, so that it outlives a power
            cut too.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
