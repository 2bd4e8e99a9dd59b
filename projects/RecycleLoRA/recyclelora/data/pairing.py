"""Search folders for the images and labels of a dataset, and count the files without partner."""

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from recyclelora.common.files import walk_folders


class Unpaired(NamedTuple):
    """Files of a dataset without partner.

    Attributes
    ----------
    images, labels : int
        Number of images without label, and of labels without image.
    messages : list of str
        One for each file.
    hint : str
        Archives that may hold the partners, as the end of a sentence.
    """

    images: int
    labels: int
    messages: list[str]
    hint: str

    def counts(self) -> str:
        """Return the numbers in words.

        >>> Unpaired(1, 2, [], "").counts()
        '1 image without a label and 2 labels without an image'
        """
        image, label = ("" if n == 1 else "s" for n in (self.images, self.labels))
        return (
            f"{self.images} image{image} without a label and {self.labels} label{label} without "
            "an image"
        )


def files_by_key(
    folder: Path,
    suffixes: tuple[str, ...],
    prefixes: tuple[str, ...] = (),
    *,
    skipped: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> tuple[dict[str, Path], set[str]]:
    """Search a folder for files.

    Parameters
    ----------
    folder : Path
        Searched without hidden and system files and folders.
    suffixes : tuple of str
        Endings of the names, of any case.
    prefixes : tuple of str
        Beginnings of the names that are not part of the key.
    skipped : tuple of str
        Endings of other files.
    exclude : tuple of str
        Patterns of files to leave out, see :class:`FolderDataset`.

    Returns
    -------
    found : dict of str to Path
        Key (relative path without prefix and suffix) -> file.
    excluded : set of str
        The keys of the files that a pattern leaves out.

    Raises
    ------
    ValueError
        Two files have one key, a folder has the name of a file, or a link leads to a folder that
        holds it.
    """
    found: dict[str, Path] = {}
    excluded: set[str] = set()
    for parent, folders, names in walk_folders(folder):
        below = parent.relative_to(folder)
        for name in folders:
            if (parent / name).is_symlink() and not _is_excluded(below / name, exclude):
                _check_link(parent / name)
        for name in [*folders, *names]:
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None or name.endswith(skipped):
                continue
            prefix = next((p for p in prefixes if name.startswith(p)), "")
            key = (below / name[len(prefix) : -len(suffix)]).as_posix()
            if _is_excluded(below / name, exclude):
                excluded.add(key)
                continue
            file = parent / name
            if name in folders:
                raise ValueError(
                    f"{file}: expected a picture, got a folder of that name; rename it"
                )
            if key in found:
                raise ValueError(
                    f"{file}: {found[key].name} in the same folder has the same name, so their "
                    "label is not clear; remove or rename one"
                )
            found[key] = file
    return found, excluded


def _is_excluded(path: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern matches the path, its name, or the path or name of a folder above it."""
    parts = [path, *path.parents][:-1] if path.parts else []
    texts = {text for part in parts for text in (part.as_posix(), part.name)}
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _check_link(link: Path) -> None:
    if Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
        raise ValueError(f"{link}: a link to a folder that holds it, without end; remove it")
