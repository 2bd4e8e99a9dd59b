"""A lock that lets one process at a time write to a folder.

The engine and the runs of the paper's tables both use it::

    folder_lock(folder, *, name="lock", wait=False, inheritable=False) -> context manager

It raises :class:`FolderLockedError`, whose ``holder`` is a text such as ``process 12 on node7``.
"""

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path


class FolderLockedError(ValueError):
    """Another process holds the lock of a folder.

    Attributes
    ----------
    holder : str
        The process and its host, or "another process" where the file does not name them.
    """

    def __init__(self, folder: Path, holder: str):
        super().__init__(
            f"{folder} is being written by another process ({holder}): wait for it or stop it"
        )
        self.holder = holder


@contextlib.contextmanager
def folder_lock(
    folder: str | Path, *, name: str = "lock", wait: bool = False, inheritable: bool = False
) -> Iterator[int]:
    """Hold a lock on ``folder`` and yield its file descriptor.

    The operating system releases the lock when its holders end, in whatever way. A file system
    without locks is no error: two processes can then write to the folder.

    Parameters
    ----------
    folder : str or Path
        Created where it does not exist.
    name : str
        The lock file in ``folder``; it stays there and names the last holder.
    wait : bool
        Whether to wait for another holder instead of raising.
    inheritable : bool
        Whether a child process that gets the descriptor (``pass_fds``) holds the lock too, until
        both have ended. Otherwise no child holds it, not even one that was forked.

    Raises
    ------
    FolderLockedError
        If another process holds the lock and ``wait`` is False.
    OSError
        If the folder or the lock file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Not the filelock package: its lock cannot pass to a child, because the descriptor is private
    # and a release unlocks the child's copy too.
    lock = fcntl.flock if inheritable else fcntl.lockf
    with (folder / name).open("a+b", buffering=0) as file:
        try:
            lock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip() or "another process"
                raise FolderLockedError(folder, holder) from None
        with contextlib.suppress(OSError):  # the name is information only: a full disk is no error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield file.fileno()
