"""Where a released dataset comes from, and archives that a user has not unpacked yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recyclelora.common.files import is_hidden

_PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")
_UNFINISHED = (".part", ".crdownload", ".aria2", ".download", ".incomplete", ".partial")


@dataclass(frozen=True)
class DatasetSource:
    """Download information of a released dataset, for error messages.

    Parameters
    ----------
    title : str
        Name of the dataset in papers.
    page : str
        Download page, with a note if it asks for registration.
    archives : tuple of str
        File name patterns of the archives to download.
    terms : str
        Terms of use, in a few words.
    """

    title: str
    page: str
    archives: tuple[str, ...]
    terms: str

    def download_hint(self, images: str, labels: str) -> str:
        """Return what to download and to which folders it unpacks, as the end of a sentence."""
        return (
            f"download {' and '.join(self.archives)} of {self.title} ({self.terms}) from "
            f"{self.page} and unpack so that {images} and {labels} are there"
        )

    def pending_archives(self, root: Path, dataset_root: Path) -> list[str]:
        """Find archives that are not unpacked and downloads that are not finished.

        Parameters
        ----------
        root : Path
            Folder that holds several datasets. Only archives of this dataset are searched here.
        dataset_root : Path
            Folder of this dataset. It and its direct subfolders are searched for any archive.

        Returns
        -------
        list of str
            For each file what it is and what to do, as the end of a sentence.
        """
        return [hint for file in self._files(root, dataset_root) for hint in _hints(file)]

    def is_downloading(self, root: Path, dataset_root: Path) -> bool:
        """Return whether a download of this dataset is not finished; see ``pending_archives``."""
        files = self._files(root, dataset_root)
        return any(file.name.lower().endswith(_UNFINISHED) for file in files)

    def _files(self, root: Path, dataset_root: Path) -> list[Path]:
        """The files that may be archives of this dataset."""
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
        yield f"{file} is an unfinished download: finish it"
    elif name.endswith(_PACKED):
        yield f"{file} lies there packed: unpack it"
