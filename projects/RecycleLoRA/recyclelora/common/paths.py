"""Expand ``~`` and environment variables in paths that users write."""

import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)


def expand_path(path: str | os.PathLike) -> Path:
    """Replace ``~``, ``~user``, ``$NAME`` and ``${NAME}`` in a path, as a shell does.

    If a path with ``$`` exists as written, its variables are not replaced.

    Parameters
    ----------
    path : str or PathLike
        A path from a command line, a config or an environment variable.

    Returns
    -------
    Path
        The path. It need not exist.

    Raises
    ------
    ValueError
        If a variable is not set, or if the user or the home folder is unknown.

    Examples
    --------
    >>> os.environ["DISK"] = "/data"
    >>> print(expand_path("$DISK/streets"))
    /data/streets
    """
    text = os.fspath(path)
    if "$" in text and not os.path.lexists(text):
        for found in _VARIABLE.finditer(text):
            name = found[1] or found[2]
            if name not in os.environ:
                raise ValueError(
                    f"the path {text!r} names the environment variable {name}, which is not set: "
                    "set it, or write the path in full"
                )
        text = _VARIABLE.sub(lambda found: os.environ[found[1] or found[2]], text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        user = Path(text).parts[0][1:]
        raise ValueError(
            f"the path {text!r} begins with the home folder of {user!r}, an unknown user: write "
            "the path in full"
            if user
            else f"the path {text!r} begins with ~, but the home folder is unknown: set the "
            "environment variable HOME, or write the path in full"
        ) from error


def is_expandable(path: str | os.PathLike) -> bool:
    """Return whether :func:`expand_path` would change a path or raise.

    Parameters
    ----------
    path : str or PathLike
        The path.

    Returns
    -------
    bool
        True if the path contains ``~`` or a variable that would be replaced.

    Examples
    --------
    >>> is_expandable("~/runs"), is_expandable("$DISK/runs"), is_expandable("runs/~")
    (True, True, False)
    """
    text = os.fspath(path)
    return text.startswith("~") or (
        _VARIABLE.search(text) is not None and not os.path.lexists(text)
    )
