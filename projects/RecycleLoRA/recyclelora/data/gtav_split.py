"""The official split of GTAV into training, validation and test images (``split.mat``)."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from recyclelora.common.files import retry_transient

#: Number of images of each part.
SIZES = {"train": 12_403, "val": 6_382, "test": 6_181}
_PATHS = ("split.mat", "read_mapping/split.mat")
_DOWNLOAD = (
    "the official download page of Playing for Data (download.visinf.tu-darmstadt.de/data/"
    "from_games) has it in read_mapping.zip"
)


@dataclass(frozen=True)
class GtavSplit:
    """Select the pairs of one part of the official split.

    Parameters
    ----------
    part : {"train", "val", "test"}
        The part of the split.
    """

    part: str

    def __call__(
        self, dataset_root: Path, pairs: list[tuple[str, Path, Path]]
    ) -> list[tuple[str, Path, Path]]:
        """Return the pairs whose image number belongs to the part.

        Parameters
        ----------
        dataset_root : Path
            The folder of GTAV, which contains ``split.mat``.
        pairs : list of (key, image, label)
            All pairs.

        Returns
        -------
        list of (key, image, label)
            The pairs of the part.

        Raises
        ------
        FileNotFoundError, ValueError
            If ``split.mat`` is missing or invalid, or the name of an image is not a number.
        """
        numbers = read_split(dataset_root)[self.part]
        return [pair for pair in pairs if _number(*pair) in numbers]


def read_split(dataset_root: Path) -> dict[str, frozenset[int]]:
    """Read the image numbers of "train", "val" and "test" from ``split.mat``.

    Lists with other lengths than the official ones are accepted, for trials with a few images.
    :meth:`FolderDataset.size_warning` then reports the size.

    Parameters
    ----------
    dataset_root : Path
        The folder of GTAV.

    Returns
    -------
    dict
        The image numbers by part.

    Raises
    ------
    FileNotFoundError, ValueError
        If ``split.mat`` is missing or invalid. The message explains where to get it.
    """
    tried = [dataset_root / path for path in _PATHS]
    file = next((file for file in tried if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"GTAV: expected the official split in {tried[0]} or {tried[1]}, but neither file "
            f"exists; {_DOWNLOAD}; or train on 'gtav_train', a random draw of the same size with "
            "a fixed seed"
        )
    try:
        if file.stat().st_size > 10**7:
            raise ValueError("a file of more than 10 MB")
        # The content is read first, because a MATLAB file can refer to other files by name.
        arrays = scipy.io.loadmat(io.BytesIO(retry_transient(file.read_bytes, file)))
        lists = {part: np.ravel(arrays[f"{part}Ids"]) for part in SIZES}
        numbers = np.concatenate(list(lists.values()))
        if not len(numbers) or (numbers < 1).any() or (numbers % 1).any():
            raise ValueError("numbers that are not positive integers")
        if len(np.unique(numbers)) != len(numbers):
            raise ValueError("an image that is listed twice")
    except Exception as error:  # scipy raises errors of many types for a damaged file
        raise ValueError(
            f"{file}: expected the lists trainIds, valIds and testIds, with each image's number "
            f"in one of them, got {type(error).__name__}: {error}; {_DOWNLOAD}"
        ) from error
    return {part: frozenset(map(int, numbers)) for part, numbers in lists.items()}


def _number(key: str, image: Path, label: Path) -> int:
    name = key.rpartition("/")[2]
    if not (name.isascii() and name.isdecimal()):
        raise ValueError(
            f"{image}: expected GTAV's own names, numbers such as 00001.png, which its official "
            "split refers to; restore the name or remove the pair"
        )
    return int(name)
