"""Where a dataset comes from, and what is left of a download that was never finished."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")
_UNFINISHED = (".part", ".crdownload", ".aria2", ".download", ".incomplete", ".partial")


@dataclass(frozen=True)
class Origin:
    """A released dataset, as told to a user who has not got it, or not all of it.

    Args:
        title: its name in papers.
        page: of its owners; where they ask for registration, that is said here.
        archives: names of the files to download, "*" standing for any text.
        terms: of use, in a few words.
    """

    title: str
    page: str
    archives: tuple[str, ...]
    terms: str

    def download(self, images: str, labels: str) -> str:
        """What to download, as the end of a sentence; ``images``, ``labels``: its folders."""
        return (
            f"download {' and '.join(self.archives)} of {self.title} ({self.terms}) from "
            f"{self.page} and unpack so that {images} and {labels} are there"
        )

    def leftovers(self, root: Path, holder: Path) -> list[str]:
        """Archives not unpacked and downloads not finished, each with what to do about it.

        Looked for in ``holder``, the dataset's own folder, and the folders in it; in ``root``,
        which other datasets share, only archives of this dataset.
        """
        said = []
        inside = [folder for folder in _entries(holder) if folder.is_dir()]
        for file in [file for folder in (holder, *inside) for file in _entries(folder)]:
            said += _remedy(file)
        for file in _entries(root):
            ours = any(file.match(pattern) for pattern in self.archives)
            unfinished = any(file.match(f"{pattern}.*") for pattern in self.archives)
            said += _remedy(file) if ours or unfinished else []
        return said


def _entries(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _remedy(file: Path) -> list[str]:
    name = file.name.lower()
    if name.endswith(_UNFINISHED):
        return [f"{file} is an unfinished download: finish it"]
    if name.endswith(_PACKED):
        return [f"{file} lies there packed: unpack it"]
    return []
