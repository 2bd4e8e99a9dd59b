"""The checkout of the repository that holds configs and results."""

from pathlib import Path


def find_checkout(start: Path | None = None) -> Path:
    """Return the nearest folder, from ``start`` upwards, that holds ``configs/`` and ``results/``.

    Parameters
    ----------
    start : Path, optional
        The working directory by default.

    Raises
    ------
    ValueError
        If there is no such folder.
    """
    start = (start or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / "configs").is_dir() and (folder / "results").is_dir():
            return folder
    raise ValueError(
        f"expected to be in a checkout (a folder that holds configs/ and results/), got {start}: "
        "change to one, or name it by --root"
    )
