"""Download information of released datasets, and detection of archives that are not unpacked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recyclelora.common.files import is_hidden

_PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")
_UNFINISHED = (".part", ".crdownload", ".aria2", ".download", ".incomplete", ".partial")


@dataclass(frozen=True)
class DatasetSource:
    """Download information of a released dataset for error messages.

    Parameters
    ----------
    title : str
        The name of the dataset in papers.
    page : str
        The download page, with a note if it requires registration.
    archives : tuple of str
        Patterns of the file names of the archives to download.
    terms : str
        The terms of use, in a few words.
    """

    title: str
    page: str
    archives: tuple[str, ...]
    terms: str

    def download_hint(self, images: str, labels: str) -> str:
        """Return what to download and where to unpack it, as the end of a sentence.

        Parameters
        ----------
        images, labels : str
            The folders of images and labels.

        Returns
        -------
        str
            The text.
        """
        return (
            f"download {' and '.join(self.archives)} of {self.title} ({self.terms}) from "
            f"{self.page} and unpack it so that {images} and {labels} exist"
        )

    def pending_archives(self, root: Path, dataset_root: Path) -> list[str]:
        """Find archives that are not unpacked and incomplete downloads.

        Parameters
        ----------
        root : Path
            The folder of several datasets. Only archives of this dataset are searched in it.
        dataset_root : Path
            The folder of this dataset. It and its direct subfolders are searched for any archive.

        Returns
        -------
        list of str
            A description of each file with a remedy, as the end of a sentence.
        """
        return [hint for file in self._files(root, dataset_root) for hint in _hints(file)]

    def is_downloading(self, root: Path, dataset_root: Path) -> bool:
        """Return whether a download of this dataset is incomplete.

        Parameters
        ----------
        root, dataset_root : Path
            See :meth:`pending_archives`.

        Returns
        -------
        bool
            True if an incomplete download was found.
        """
        files = self._files(root, dataset_root)
        return any(file.name.lower().endswith(_UNFINISHED) for file in files)

    def _files(self, root: Path, dataset_root: Path) -> list[Path]:
        """Return the files that may be archives of this dataset."""
        folders = [dataset_root, *(entry for entry in _entries(dataset_root) if entry.is_dir())]
        files = [file for folder in folders for file in _entries(folder)]
        patterns = [pattern + end for pattern in self.archives for end in ("", ".*")]
        return files + [file for file in _entries(root) if any(map(file.match, patterns))]


def _entries(folder: Path) -> Iterable[Path]:
    found = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [file for file in found if not is_hidden(file)]


def _hints(file: Path) -> Iterable[str]:
    name = file.name.lower()
    if name.endswith(_UNFINISHED):
        yield f"{file} is an incomplete download: complete it"
    elif name.endswith(_PACKED):
        yield f"{file} has been downloaded: unpack it"
