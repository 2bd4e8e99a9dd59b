"""A lock that lets one process at a time write to a folder.

The engine and the runs of the paper's tables use it::

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
        The process and its host, or "another process" if the lock file does not contain them.
    """

    def __init__(self, folder: Path, holder: str):
        super().__init__(
            f"another process ({holder}) is writing to {folder}: wait for it or stop it"
        )
        self.holder = holder


@contextlib.contextmanager
def folder_lock(
    folder: str | Path, *, name: str = "lock", wait: bool = False, inheritable: bool = False
) -> Iterator[int]:
    """Hold a lock on a folder and yield its file descriptor.

    The operating system releases the lock when its holders end for any reason. If the file system
    does not support locks, no error is raised, and two processes can write to the folder.

    Parameters
    ----------
    folder : str or Path
        Created if it does not exist.
    name : str
        Name of the lock file in ``folder``. The file is not removed and contains the last holder.
    wait : bool
        Whether to wait for another holder instead of raising an error.
    inheritable : bool
        Whether a child process that gets the descriptor (``pass_fds``) also holds the lock, until
        both processes have ended. Otherwise no child holds it, not even a forked one.

    Yields
    ------
    int
        The file descriptor of the lock file.

    Raises
    ------
    FolderLockedError
        If another process holds the lock and ``wait`` is False.
    OSError
        If the folder or the lock file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The filelock package cannot pass its lock to a child, because the descriptor is private and a
    # release also unlocks the child's copy.
    lock = fcntl.flock if inheritable else fcntl.lockf
    with (folder / name).open("a+b", buffering=0) as file:
        try:
            lock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip() or "another process"
                raise FolderLockedError(folder, holder) from None
        with contextlib.suppress(OSError):  # the name is only information; the disk may be full
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
        yield file.fileno()
