"""GTAV's split into training, validation and test images, from its owners' own file."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

#: Images of each part, and the name of its list in the file.
SIZES = {"train": 12_403, "val": 6_382, "test": 6_181}
_WHERE = ("split.mat", "read_mapping/split.mat")
_PAGE = (
    "the owners' download page of Playing for Data (download.visinf.tu-darmstadt.de/data/"
    "from_games) has it in read_mapping.zip"
)


@dataclass(frozen=True)
class GtavSplit:
    """Chooses the pairs of one part.

    Args:
        part: "train", "val" or "test".
    """

    part: str

    def __call__(
        self, holder: Path, pairs: list[tuple[str, Path, Path]]
    ) -> list[tuple[str, Path, Path]]:
        """Those of ``pairs`` whose image number the owners gave to this part.

        Raises:
            FileNotFoundError, ValueError: there is no such file below ``holder``, it is not theirs,
                or an image is called by no number.
        """
        numbers = read_split(holder)[self.part]
        return [pair for pair in pairs if _number(*pair) in numbers]


def read_split(holder: Path) -> dict[str, frozenset[int]]:
    """Image numbers of "train", "val" and "test" from ``split.mat`` in ``holder``.

    Lists of other lengths than the owners' are taken, as for a trial on a few images: the dataset
    then has another size than the release, which :meth:`Folder.shortfall` tells.

    Raises:
        FileNotFoundError, ValueError: one sentence that says where to get the file.
    """
    tried = [holder / name for name in _WHERE]
    file = next((file for file in tried if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"GTAV: expected the owners' split as {tried[0]} or {tried[1]}, which are not there; "
            f"{_PAGE}; or train on 'gtav_train', a seeded draw of as many images"
        )
    try:
        if file.stat().st_size > 10**7:
            raise ValueError("a file of more than 10 MB")
        # From memory: a MATLAB file never names another to be opened.
        arrays = scipy.io.loadmat(io.BytesIO(file.read_bytes()))
        lists = {part: np.ravel(arrays[f"{part}Ids"]) for part in SIZES}
        every = np.concatenate(list(lists.values()))
        if not len(every) or (every < 1).any() or (every % 1).any():
            raise ValueError("numbers that no image has")
        if len(np.unique(every)) != len(every):
            raise ValueError("an image in two of them, or twice in one")
    except Exception as error:  # scipy raises what the damage happens to cause
        raise ValueError(
            f"{file}: expected the lists trainIds, valIds and testIds, which give every image's "
            f"number to one of them, got {type(error).__name__}: {error}; {_PAGE}"
        ) from error
    return {part: frozenset(int(n) for n in numbers) for part, numbers in lists.items()}


def _number(key: str, image: Path, label: Path) -> int:
    name = key.rpartition("/")[2]
    if not (name.isascii() and name.isdecimal()):
        raise ValueError(
            f"{image}: expected GTAV's own names, numbers such as 00001.png, by which its owners "
            "split it; restore the name or remove the pair"
        )
    return int(name)
