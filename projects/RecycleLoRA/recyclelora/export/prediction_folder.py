"""The output folder of ``tools/predict.py``: the names of its files and which are complete."""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recyclelora.common.atomic_write import write_json

RECORD = ".predict.json"


class Kind(NamedTuple):
    """One kind of result, as in :meth:`Segmentation.save`, and the end of its file names."""

    saved_as: str
    ending: str
    suffix: str = ".png"
    is_video: bool = False  # for videos: write a video, not a folder of numbered pictures


KINDS = {
    "color": Kind("color", "_color", is_video=True),
    "overlay": Kind("overlay", "_overlay", ".jpg", is_video=True),
    "train_ids": Kind("classes", "_ids"),
    "label_ids": Kind("label_ids", "_label_ids"),
    "confidence": Kind("confidence", "_confidence"),
    "entropy": Kind("entropy", "_entropy"),
    "margin": Kind("margin", "_margin"),
}
DEFAULT = ("color", "overlay", "train_ids")
UNCERTAINTY = {"entropy", "margin"}


class PredictionFolder:
    """The folder for the results of one model, in which a stopped run can continue.

    The file ``.predict.json`` in the folder describes the model and the settings. A result file is
    complete if it is newer than this record and newer than its source. All files are written
    atomically, so no file is half-written. If the record of an earlier run differs, it is replaced,
    and older files count as incomplete.

    Parameters
    ----------
    folder : Path
        The folder. It is created if it does not exist.
    kinds : sequence of str
        The kinds of results, from :data:`KINDS`. With a single kind, the file of a photograph is
        ``NAME.png`` (``NAME.jpg`` for "overlay"). With several kinds, the files are ``NAME_KIND``.
    settings : Mapping
        Plain values that determine the results.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], settings: Mapping[str, Any]):
        self.folder = folder
        self.kinds = tuple(dict.fromkeys(kinds))
        single = self.kinds[0] if len(self.kinds) == 1 else None
        record = {**settings, "single_kind": single}
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / RECORD
        if _read(file) != json.loads(json.dumps(record)):
            write_json(file, record)
        self._since = file.stat().st_mtime_ns
        self._started = time.time_ns()

    def photograph(self, name: Path) -> dict[str, Path]:
        """Return the file of each kind for a photograph.

        Parameters
        ----------
        name : Path
            The name of the photograph.

        Returns
        -------
        dict
            The files by kind.
        """
        stem = self.folder / name
        if len(self.kinds) == 1:
            kind = KINDS[self.kinds[0]]
            return {self.kinds[0]: stem.with_name(f"{stem.name}{kind.suffix}")}
        return {
            kind: stem.with_name(f"{stem.name}{KINDS[kind].ending}{KINDS[kind].suffix}")
            for kind in self.kinds
        }

    def video(self, name: Path, kind: str) -> Path:
        """Return the video of a kind, or the folder of its numbered pictures.

        Parameters
        ----------
        name : Path
            The name of the video.
        kind : str
            The kind of result.

        Returns
        -------
        Path
            The file or folder.
        """
        stem = self.folder / name
        suffix = ".mp4" if KINDS[kind].is_video else ""
        return stem.with_name(f"{stem.name}{KINDS[kind].ending}{suffix}")

    def unfinished_video(self, name: Path) -> Path:
        """Return the hidden folder for the class maps of an unfinished video.

        Parameters
        ----------
        name : Path
            The name of the video.

        Returns
        -------
        Path
            The folder.
        """
        stem = self.folder / name
        return stem.with_name(f".{stem.name}.frames")

    def is_complete(self, files: Iterable[Path], source: Path) -> bool:
        """Return whether this model wrote all files after the last change of their source.

        Parameters
        ----------
        files : Iterable[Path]
            The result files.
        source : Path
            The photograph or video.

        Returns
        -------
        bool
            True if the files are complete.
        """
        try:
            written = min(file.stat().st_mtime_ns for file in files)
            changed = source.stat().st_mtime_ns
        except OSError:
            return False
        # A camera with a wrong clock writes files with a date in the future.
        return written >= self._since and (written >= changed or changed > self._started)


def _read(file: Path) -> object:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None
