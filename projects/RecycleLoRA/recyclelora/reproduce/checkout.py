"""Find the checkout of the repository, which contains configs and results."""

from pathlib import Path


def find_checkout(start: Path | None = None) -> Path:
    """Return the nearest folder, from ``start`` upwards, with ``configs/`` and ``results/``.

    Parameters
    ----------
    start : Path, optional
        The working directory by default.

    Returns
    -------
    Path
        The root of the checkout.

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
        f"expected a checkout (a folder with configs/ and results/), got {start}: change to a "
        "checkout, or give its path with --root"
    )
