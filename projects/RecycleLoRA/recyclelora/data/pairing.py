"""Pairs of images and labels: where they are, the search for them, and a random subset."""

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from recyclelora.common.files import walk_folders
from recyclelora.common.validation import check_integer

Pair = tuple[str, Path, Path]  # key, image, label


@dataclass(frozen=True)
class Layout:
    """Folders and file names in one release of a dataset.

    Parameters
    ----------
    images, labels : str
        The folders, which are searched recursively.
    image_suffix : tuple of str
        Endings of image names, such as "_leftImg8bit.png". The path before the suffix is the key
        that an image and its label share.
    label_suffix : str
        The ending of label names.
    prefixes : tuple of str
        Beginnings of file names that are not part of the key, such as ``rgb_`` and ``ss_``.
    not_labels : tuple of str
        Endings of other files in the folder of the labels, which are skipped.
    """

    images: str
    labels: str
    image_suffix: tuple[str, ...] = (".png", ".jpg", ".jpeg")
    label_suffix: str = ".png"
    prefixes: tuple[str, ...] = ()
    not_labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.images} with {self.labels}"


class Unpaired(NamedTuple):
    """The files of a dataset without a partner.

    Attributes
    ----------
    images, labels : int
        The numbers of images without a label and of labels without an image.
    messages : list of str
        One message for each file.
    hint : str
        Archives that may contain the partners, as the end of a sentence.
    """

    images: int
    labels: int
    messages: list[str]
    hint: str

    def counts(self) -> str:
        """Return the numbers in words.

        Returns
        -------
        str
            The text.

        Examples
        --------
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
    """Search a folder for files and return them by key.

    Parameters
    ----------
    folder : Path
        The folder. Hidden and system files and folders are skipped.
    suffixes : tuple of str
        The endings of the file names, in upper or lower case.
    prefixes : tuple of str
        Beginnings of the file names that are not part of the key.
    skipped : tuple of str
        The endings of files to skip.
    exclude : tuple of str
        Patterns of files to leave out; see :class:`FolderDataset`.

    Returns
    -------
    found : dict of str to Path
        The files by key, which is the relative path without prefix and suffix.
    excluded : set of str
        The keys of the files that a pattern leaves out.

    Raises
    ------
    ValueError
        If two files have the same key, a folder has the name of a file, or a link leads to a folder
        that contains it.
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
                    f"{file}: {found[key].name} in the same folder has the same name, so it is "
                    "unclear to which of them the label belongs; remove or rename one"
                )
            found[key] = file
    return found, excluded


def _is_excluded(path: Path, patterns: tuple[str, ...]) -> bool:
    """Return whether a pattern matches the path or name of a file or of a folder above it."""
    parts = [path, *path.parents][:-1] if path.parts else []
    texts = {text for part in parts for text in (part.as_posix(), part.name)}
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _check_link(link: Path) -> None:
    if Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
        raise ValueError(f"{link}: this link points to a folder that contains it; remove it")


def seeded_subset(pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """Draw at most ``count`` pairs by a hash of (seed, key); their order is kept.

    Unlike a random generator, the hash does not depend on the machine or on NumPy's version. An
    additional pair does not change the hashes of the other pairs.

    Parameters
    ----------
    pairs : list of (key, image, label)
        The pairs.
    count : int
        The number of pairs to draw, 1 or more.
    seed : int
        The seed.

    Returns
    -------
    list of (key, image, label)
        The pairs with the smallest hashes, in the order of ``pairs``.
    """
    check_integer("subset, the number of images to draw,", count, least=1)

    def draw(pair: tuple) -> bytes:
        name = f"{seed}:{pair[0]}".encode(errors="surrogateescape")  # names need not be UTF-8
        return hashlib.sha256(name).digest()

    return sorted(sorted(pairs, key=draw)[:count])
