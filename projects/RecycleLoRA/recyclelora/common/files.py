"""Search folders and read files on disks that other people and programs also use."""

import errno
import logging
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Names, in lower case, that operating systems, file servers and archivers create.
_SYSTEM_NAMES = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
        *("__macosx", "network trash folder", "temporary items"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
    )
)
# Errors of network file systems while a server restarts or replaces a file.
_TRANSIENT = (errno.EIO, errno.ESTALE)
_PAUSES = (0.1, 0.5, 2.0)  # seconds before each further attempt


def is_hidden(path: str | Path) -> bool:
    """Return whether the last part of a path is the name of a hidden or system file or folder.

    Such names start with a dot (``.ipynb_checkpoints``, ``.Trash-1000``, ``._a.png``) or are those,
    in upper or lower case, that Windows, macOS, NAS systems and file systems use (``Thumbs.db``,
    ``desktop.ini``, ``@eaDir``, ``__MACOSX``, ``lost+found``).

    Parameters
    ----------
    path : str or Path
        A name or a path. Its parents are not considered.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_hidden("photos/._001.jpg"), is_hidden("THUMBS.DB"), is_hidden(".cache/photos")
    (True, True, False)
    """
    name = os.path.basename(os.fspath(path).rstrip("/"))
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _SYSTEM_NAMES


class Folder(NamedTuple):
    """A folder that :func:`walk_folders` found.

    Attributes
    ----------
    path : Path
        The path of the folder.
    folders, files : list[str]
        The sorted names of its entries.
    """

    path: Path
    folders: list[str]
    files: list[str]


def walk_folders(folder: str | Path) -> Iterator[Folder]:
    """Search a folder and all folders below it, except hidden and system files and folders.

    Symbolic links to folders are followed, with two exceptions. A link to a folder that contains
    the link is not followed. Links that lead to each other (``a/x`` to ``b`` and ``b/y`` to ``a``)
    are followed only to folders that cannot be found otherwise.

    Parameters
    ----------
    folder : str or Path
        Where to start. It may itself be hidden, or a link.

    Yields
    ------
    Folder
        A folder before the folders below it, in the order of their names. ``folders`` includes the
        names of links that are not followed. ``files`` includes the names of broken links.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    graph = _Graph()
    root = os.path.realpath(folder)
    graph.add(root)
    postponed: list[tuple[Path, str]] = []
    seen: set[str] = set()

    def visit(path: Path, real: str) -> Iterator[Folder]:
        stack = [(path, real)]
        while stack:
            path, real = stack.pop()
            seen.add(real)
            below = graph.nodes[real]
            yield Folder(path, [*below.targets], below.files)
            for name, target in reversed(below.targets.items()):
                if target is None:
                    continue
                if name in below.links and graph.leads_to(target, real):
                    postponed.append((path / name, target))
                else:
                    stack.append((path / name, target))

    yield from visit(Path(folder), root)
    while postponed:
        path, real = postponed.pop(0)
        if real not in seen:
            yield from visit(path, real)


def walk_files(folder: str | Path) -> Iterator[Path]:
    """Return the files below a folder, except hidden and system files and folders.

    Links are followed as in :func:`walk_folders`.

    Parameters
    ----------
    folder : str or Path
        Where to start.

    Yields
    ------
    Path
        Everything that is not a folder, in a fixed order.

    Raises
    ------
    OSError
        If a folder cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("b/2.png", "a.png", ".Trash-1000/1.png", "b/Thumbs.db"):
    ...     (root / name).parent.mkdir(exist_ok=True)
    ...     (root / name).touch()
    >>> [file.relative_to(root).as_posix() for file in walk_files(root)]
    ['a.png', 'b/2.png']
    """
    for found in walk_folders(folder):
        for name in found.files:
            yield found.path / name


def retry_transient(operation: Callable[[], Result], path: str | Path) -> Result:
    """Call a function, and repeat the call up to three times after a transient error (EIO, ESTALE).

    Parameters
    ----------
    operation : callable
        Reads from ``path``, from the beginning in each call.
    path : str or Path
        The file or folder, for the log and the error message.

    Returns
    -------
    object
        The result of ``operation``.

    Raises
    ------
    OSError
        If the last attempt failed, or if the error is not transient.

    Examples
    --------
    >>> retry_transient(lambda: "content", "a.png")
    'content'
    """
    attempts = len(_PAUSES) + 1
    for attempt, pause in enumerate((*_PAUSES, None), 1):
        try:
            return operation()
        except OSError as error:
            if not is_transient(error):
                raise
            if pause is None:
                raise OSError(
                    f"{path}: reading failed {attempts} times ({error.strerror}): check the disk "
                    "or the connection to the file server, then run the command again"
                ) from error
            logger.warning(
                "%s: reading failed (%s); attempt %d of %d follows in %g s",
                *(path, error.strerror, attempt + 1, attempts, pause),
            )
        time.sleep(pause)


def is_transient(error: BaseException) -> bool:
    """Return whether an error is one that :func:`retry_transient` retries.

    Parameters
    ----------
    error : BaseException
        Any error.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_transient(OSError(errno.ESTALE, "Stale file handle")), is_transient(ValueError())
    (True, False)
    """
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def is_out_of_files(error: BaseException) -> bool:
    """Return whether an error means that this process, or the machine, has too many open files.

    Parameters
    ----------
    error : BaseException
        An OSError, or the error that PyTorch or ``multiprocessing`` raises instead.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_out_of_files(OSError(errno.EMFILE, "Too many open files"))
    True
    """
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return True
    # "ancdata" is the error if the system drops the files in a message beyond the limit.
    return any(words in str(error) for words in ("Too many open files", "items of ancdata"))


def open_files_message() -> str:
    """Return an error message about too many open files.

    Returns
    -------
    str
        The message, which contains the limit and how to raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    known = "" if hard == resource.RLIM_INFINITY else f" (at most {hard:,} without root)"
    return (
        f"too many open files: the limit of this process is {soft:,}: raise it with 'ulimit -n "
        f"{max(4096, 2 * soft)}'{known}, or reduce num_workers"
    )


class _Entries(NamedTuple):
    """The entries of a folder: real paths of its folders by name, names of links, and files."""

    targets: dict[str, str | None]  # None for a link to a folder that contains it
    links: set[str]
    files: list[str]


class _Graph:
    """The folders that can be reached from the added ones, by real path. Each is read once."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Entries] = {}

    def add(self, real: str) -> None:
        pending = [real]
        while pending:
            folder = pending.pop()
            if folder not in self.nodes:
                self.nodes[folder] = retry_transient(lambda folder=folder: _read(folder), folder)
                pending += filter(None, self.nodes[folder].targets.values())

    def leads_to(self, start: str, goal: str) -> bool:
        """Return whether ``goal`` can be reached from ``start`` by folders and links."""
        pending, seen = [start], set()
        while pending:
            folder = pending.pop()
            if folder == goal:
                return True
            if folder not in seen:
                seen.add(folder)
                pending += filter(None, self.nodes[folder].targets.values())
        return False


def _read(folder: str) -> _Entries:
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if not is_hidden(e.name)), key=lambda e: e.name)
    targets: dict[str, str | None] = {}
    links, files = set(), []
    for entry in entries:
        if not _is_folder(entry):
            files.append(entry.name)
            continue
        if entry.is_symlink():
            links.add(entry.name)
            real = os.path.realpath(entry.path)
            holds = Path(folder).is_relative_to(real)
            targets[entry.name] = None if holds else real
        else:
            targets[entry.name] = entry.path
    return _Entries(targets, links, files)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if is_transient(error):
            raise
        return False  # a link to itself, or to a folder that this user may not read
