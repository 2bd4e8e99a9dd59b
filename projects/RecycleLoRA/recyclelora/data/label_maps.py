"""Maps from the ids in label files to train ids, and foldings of the 19 classes.

Cityscapes and GTAV: ``CITYSCAPES_IDS``. SYNTHIA: ``SYNTHIA_IDS``. UrbanSyn: ``URBANSYN_IDS``.
Mapillary Vistas: ``mapillary_label_map``. BDD100K, ACDC and the user's folders: ``TRAIN_IDS``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from recyclelora.common.files import retry_transient
from recyclelora.common.validation import short_repr

from .classes import CLASSES, IGNORE_LABEL

_UNKNOWN = 254  # value of undefined ids in a lookup table
_TRAIN_ID = {name: train_id for train_id, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class LabelMap:
    """Map the ids of label files to train ids.

    Parameters
    ----------
    name : str
        The name in error messages.
    ids : mapping of int to int
        Train id 0..18 or 255 ("ignore") for each id in the file. The id 255 is always "ignore".
    ignore_others : bool
        Whether all other ids are mapped to "ignore". By default they are an error.
    channel : {0, 1, 2}, optional
        The channel with the ids (0 red, 1 green, 2 blue), for labels in colour files.

    Examples
    --------
    >>> kitti = LabelMap("kitti", {7: 0, 8: 1, 0: 255})
    >>> kitti.to_train_ids(np.array([[7, 8, 0]]), "000.png")
    array([[  0,   1, 255]], dtype=uint8)
    """

    name: str
    ids: Mapping[int, int]
    ignore_others: bool = False
    channel: int | None = None

    def __post_init__(self) -> None:
        try:
            ids = {int(key): int(value) for key, value in dict(self.ids).items()}
        except (TypeError, ValueError):
            raise ValueError(
                f"label map '{self.name}' must be a dict of whole numbers, id in the file -> train "
                f"id, got {short_repr(self.ids)}"
            ) from None
        known = {*range(len(CLASSES)), IGNORE_LABEL}
        wrong = sorted(set(ids.values()) - known)
        if wrong or not ids or min(ids) < 0 or max(ids) > 65535:
            raise ValueError(
                f"label map '{self.name}' must map ids 0..65535 to train ids 0..18 or 255, got "
                f"{short_repr(wrong or sorted(ids))}; correct its ids"
            )
        if self.channel not in (None, 0, 1, 2):
            raise ValueError(
                f"label map '{self.name}': channel must be 0 (red), 1, 2 or None, got "
                f"{short_repr(self.channel)}"
            )
        object.__setattr__(self, "ids", ids)

    @cached_property
    def table(self) -> np.ndarray:
        """Return the lookup table (65536,) uint8 from ids to train ids."""
        table = np.full(65536, IGNORE_LABEL if self.ignore_others else _UNKNOWN, np.uint8)
        table[IGNORE_LABEL] = IGNORE_LABEL
        table[list(self.ids)] = list(self.ids.values())
        return table

    def check(self, ids: np.ndarray, file: str | Path) -> None:
        """Raise an error if the map does not define one of the ids.

        Parameters
        ----------
        ids : ndarray
            The ids, of any integer type.
        file : str or Path
            The file of the ids, for the error message.

        Raises
        ------
        ValueError
            If an id is not defined.
        """
        if ids.dtype == np.uint8:
            signed = ids.view(np.int8)  # the id 255 becomes -1
            if ids.size == 0 or (signed.min() >= -1 and signed.max() < self._without_gap):
                return
        elif ids.dtype != np.uint16:  # all uint16 values are in the table
            outside = (ids < 0) | (ids > 65535)
            if outside.any():
                self._raise_unknown(ids, outside, file)
        unknown = self._look_up(ids) == _UNKNOWN
        if unknown.any():
            self._raise_unknown(ids, unknown, file)

    def to_train_ids(self, ids: np.ndarray, file: str | Path) -> np.ndarray:
        """Convert ids to train ids.

        Parameters
        ----------
        ids : ndarray
            Ids (H, W) of any integer type.
        file : str or Path
            The file of the ids, for the error message.

        Returns
        -------
        ndarray
            Train ids (H, W), uint8.

        Raises
        ------
        ValueError
            If an id is not defined.
        """
        self.check(ids, file)
        return self._look_up(ids)

    @cached_property
    def _without_gap(self) -> int:
        """Return how many ids from 0 on are all defined; at most 128."""
        undefined = np.flatnonzero(self.table[:128] == _UNKNOWN)
        return int(undefined[0]) if undefined.size else 128

    def _look_up(self, ids: np.ndarray) -> np.ndarray:
        # OpenCV's table of 256 values is faster, because take() converts the ids to int64.
        if ids.dtype == np.uint8:
            return cv2.LUT(ids, self.table[:256])
        return np.take(self.table, ids)

    def _raise_unknown(self, ids: np.ndarray, where: np.ndarray, file: str | Path) -> None:
        raise ValueError(
            f"{file}: {int(where.sum())} pixels have the label value {int(ids[where][0])}, which "
            f"the label map '{self.name}' does not define (it defines {_ranges(self.ids)} and "
            "255); correct the file, or use the label map with which it was made"
        )


def _ranges(values: Mapping[int, int]) -> str:
    """Abbreviate consecutive numbers: {0, 1, 2, 5} -> "0..2, 5"."""
    runs: list[list[int]] = []
    for value in sorted(set(values) - {IGNORE_LABEL}):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    names = [str(a) if a == b else f"{a}..{b}" for a, b in runs]
    return ", ".join(names if len(names) <= 40 else [*names[:40], "..."])


TRAIN_IDS = LabelMap("train ids", {i: i for i in range(len(CLASSES))})

#: Cityscapes and GTAV: ids 0..34, of which 19 are train classes (34 is GTAV's licence plate).
CITYSCAPES_IDS = LabelMap(
    "Cityscapes ids",
    dict.fromkeys(range(35), IGNORE_LABEL) | {c["id"]: c["trainId"] for c in CITYSCAPES_CATEGORIES},
)

# Ids in the order of the train ids. The images show no terrain (16), truck (18) or train (20).
_SYNTHIA_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)

#: SYNTHIA-RAND-CITYSCAPES: the red channel holds ids 0..22, of which 16 are train classes.
SYNTHIA_IDS = LabelMap(
    "SYNTHIA ids",
    dict.fromkeys(range(23), IGNORE_LABEL) | {i: t for t, i in enumerate(_SYNTHIA_IDS)},
    channel=0,
)

#: UrbanSyn: train ids; ids from 19 on are other classes.
URBANSYN_IDS = LabelMap("UrbanSyn ids", TRAIN_IDS.ids | dict.fromkeys(range(19, 256), IGNORE_LABEL))

# Parts of readable names in lower case, without spaces and hyphens. The first match applies.
_MAPILLARY_PARTS = (
    (("trafficsign", "front", "back"), "traffic sign"),
    (("onrail",), "train"),
    (("cyclist", "rider"), "rider"),
)
# Complete names are needed because a parking meter is not a road.
_MAPILLARY_NAMES = {
    **dict.fromkeys(("utilitypole", "streetlight"), "pole"),
    **dict.fromkeys(("curb", "curbcut", "pedestrianarea"), "sidewalk"),
    **dict.fromkeys(("crosswalkplain", "parking", "bikelane", "servicelane"), "road"),
    **dict.fromkeys(("lanemarkinggeneral", "lanemarkingcrosswalk"), "road"),
}


def mapillary_label_map(config: Path) -> LabelMap:
    """Read the label map of a Mapillary Vistas release from its class list.

    Parameters
    ----------
    config : Path
        The file ``config_v1.2.json`` of the release. Its readable class names determine the train
        ids.

    Returns
    -------
    LabelMap
        The label map.

    Raises
    ------
    ValueError
        If the file is not a valid class list.
    """
    try:
        if config.stat().st_size > 10**7:
            raise ValueError("more than 10 MB")
        text = retry_transient(lambda: config.read_text(encoding="utf-8"), config)
        labels = json.loads(text)["labels"]
        names = [str(label["readable"]) for label in labels]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{config}: expected Mapillary's list of 'labels' with their 'readable' names, got "
            f"{type(error).__name__}: {error}; unpack the file from the release again"
        ) from error
    return LabelMap("Mapillary Vistas", {i: _mapillary_class(n) for i, n in enumerate(names)})


def _mapillary_class(readable: str) -> int:
    name = readable.lower().replace(" ", "").replace("-", "")
    for class_name, train_id in _TRAIN_ID.items():
        if name == class_name.replace(" ", ""):
            return train_id
    for parts, class_name in _MAPILLARY_PARTS:
        if any(part in name for part in parts):
            return _TRAIN_ID[class_name]
    return _TRAIN_ID.get(_MAPILLARY_NAMES.get(name), IGNORE_LABEL)


@dataclass(frozen=True)
class Folding:
    """Merge predictions of the 19 classes for a dataset that labels fewer classes.

    Parameters
    ----------
    name : str
        The name in error messages.
    labels : tuple of str
        The classes that the dataset labels. Only these enter its mean IoU.
    moves : mapping of str to str
        The label of this dataset that includes a predicted class, by predicted class. Predictions
        of a class that is neither a label nor moved count as wrong at every labelled pixel.
    """

    name: str
    labels: tuple[str, ...]
    moves: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "moves", dict(self.moves))
        named = {*self.labels, *self.moves}
        if not named <= set(CLASSES) or not set(self.moves.values()) <= set(self.labels):
            raise ValueError(
                f"folding '{self.name}' must map Cityscapes classes to its own labels, got labels "
                f"{self.labels} and moves {self.moves}; correct the names"
            )

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Return the train ids of the labelled classes."""
        return tuple(_TRAIN_ID[name] for name in self.labels)

    @property
    def table(self) -> np.ndarray:
        """Return the table (19,) int64 from train ids to those of their labels; 19 means none."""
        targets = {name: name for name in self.labels} | dict(self.moves)
        ids = [_TRAIN_ID.get(targets.get(name), len(CLASSES)) for name in CLASSES]
        return np.array(ids, np.int64)

    @property
    def label_map(self) -> LabelMap:
        """Return the label map for files with train ids, in which only labelled ones are valid."""
        return LabelMap(f"{self.name} train ids", {i: i for i in self.label_ids})


CAMVID = Folding(
    "CamVid",
    labels=(
        *("road", "sidewalk", "building", "fence", "pole", "traffic sign"),
        *("vegetation", "sky", "person", "car", "bicycle"),
    ),
    moves={
        "wall": "building",
        "traffic light": "traffic sign",
        "terrain": "vegetation",
        "truck": "car",
        "bus": "car",
        "train": "car",
        "rider": "bicycle",
        "motorcycle": "bicycle",
    },
)

LABELMEFACADE = Folding(
    "LabelMeFacade",
    labels=("road", "sidewalk", "building", "vegetation", "sky", "car"),
    moves={"wall": "building", "terrain": "vegetation", "truck": "car", "bus": "car"},
)
