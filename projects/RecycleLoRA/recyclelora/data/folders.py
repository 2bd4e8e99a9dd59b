"""A dataset as plain folders: which image belongs to which label, checked before it is used."""

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recyclelora.bad_input import whole_number

from .label_maps import TRAIN_IDS, Folding, LabelMap
from .reading import header_size, pair_size, size_mismatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Where one release of a dataset keeps its files.

    Args:
        images, labels: folders, searched with all folders below them.
        image_suffix: ends of an image's name ("_leftImg8bit.png"); what stands before it is the
            key that image and label share.
        label_suffix: end of a label's name.
    """

    images: str
    labels: str
    image_suffix: tuple[str, ...] = (".png", ".jpg", ".jpeg")
    label_suffix: str = ".png"


@dataclass(frozen=True)
class Folder:
    """A dataset on disk. Nothing is read until ``records`` is called.

    Args:
        name: under which it is registered.
        layouts: those of the known releases; the first found is taken.
        root_variable: environment variable with the folder that holds all such datasets; None
            where the layouts hold full paths.
        root_default: folder used while the variable is not set; None asks for the variable.
        label_map: of the label files, or a function of the folder that holds the dataset.
        folding: for sets that label fewer than 19 classes.
        benchmark: the name under which evaluation protocols know this set.
        subset, subset_seed: draw this many pairs, the same ones on every machine.
        skip_mismatched: for a release with known faults: pairs of different size are reported by
            name and left out, instead of being an error.
    """

    name: str
    layouts: tuple[Layout, ...]
    root_variable: str | None = None
    root_default: str | None = None
    label_map: LabelMap | Callable[[Path], LabelMap] = TRAIN_IDS
    folding: Folding | None = None
    benchmark: str | None = None
    subset: int | None = None
    subset_seed: int = 0
    skip_mismatched: bool = False

    @property
    def root(self) -> Path:
        """The folder the layouts are relative to."""
        if self.root_variable is None:
            return Path()
        root = os.environ.get(self.root_variable) or self.root_default
        if not root:
            raise FileNotFoundError(
                f"dataset '{self.name}' lies below the folder that the environment variable "
                f"{self.root_variable} names, which is not set; set it to that folder"
            )
        return Path(root)

    def layout(self) -> Layout:
        """The release that is there, else one sentence with everything that was tried."""
        for layout in self.layouts:
            if (self.root / layout.images).is_dir() and (self.root / layout.labels).is_dir():
                return layout
        tried = " or ".join(
            f"{self.root / layout.images} with {self.root / layout.labels}"
            for layout in self.layouts
        )
        remedy = f"set {self.root_variable} to" if self.root_variable else "name"
        raise FileNotFoundError(
            f"dataset '{self.name}': expected the folders {tried}, which are not there; "
            f"{remedy} the folder that has them, or download the dataset"
        )

    def is_available(self) -> bool:
        """Whether the folders are there (their content is not looked at)."""
        try:
            self.layout()
        except FileNotFoundError:
            return False
        return True

    def pairs(self) -> list[tuple[str, Path, Path]]:
        """(key, image, label) of every pair, sorted by key, before any subset is drawn."""
        layout = self.layout()
        images = _by_key(self.root / layout.images, layout.image_suffix)
        labels = _by_key(self.root / layout.labels, (layout.label_suffix,))
        if not images:
            raise ValueError(
                f"dataset '{self.name}': expected images (*{', *'.join(layout.image_suffix)}) in "
                f"{self.root / layout.images}, found none; unpack the dataset there"
            )
        for key in sorted(images.keys() - labels.keys()):
            missing = self.root / layout.labels / f"{key}{layout.label_suffix}"
            raise ValueError(
                f"{images[key]}: expected its label {missing}, which is not there; restore the "
                "label or remove the image"
            )
        for key in sorted(labels.keys() - images.keys()):
            raise ValueError(
                f"{labels[key]}: a label without an image in {self.root / layout.images}; "
                "restore the image or remove the label"
            )
        return [(key, images[key], labels[key]) for key in sorted(images)]

    def records(self, subset: int | None = None, seed: int = 0) -> list[dict]:
        """Detectron2's list of dicts: ``file_name``, ``sem_seg_file_name``, ``image_id``,
        ``height``, ``width`` and ``label_map``.

        Args:
            subset, seed: a further seeded draw of at most this many pairs.

        Raises:
            FileNotFoundError, ValueError: one sentence for the first thing wrong: a folder, an
                image without label, a label without image, sizes that differ.
        """
        pairs = self.pairs()
        if self.subset is not None:
            if len(pairs) < self.subset:
                raise ValueError(
                    f"dataset '{self.name}' is {self.subset} pairs drawn from all of "
                    f"{self.root / self.layout().images}, which has only {len(pairs)}; complete "
                    "the download or use the dataset that takes every pair"
                )
            pairs = seeded_subset(pairs, self.subset, self.subset_seed)
        if subset is not None:
            pairs = seeded_subset(pairs, subset, seed)
        records = self._with_sizes(pairs)
        label_map = self.label_map
        if not isinstance(label_map, LabelMap):
            label_map = label_map(self.root / Path(self.layout().images).parts[0])
        return [record | {"label_map": label_map} for record in records]

    def _with_sizes(self, pairs: list[tuple[str, Path, Path]]) -> list[dict]:
        """Sizes from the headers of all files, so that a fault shows now and not in hour three."""
        with ThreadPoolExecutor(8) as pool:
            sizes = pool.map(lambda pair: pair_size(pair[1], pair[2]), pairs)
            progress = tqdm(
                sizes, f"checking {self.name}", len(pairs), delay=2, leave=False, unit="pair"
            )
            records = []
            for (key, image, label), size in zip(pairs, progress, strict=True):
                if size is None:
                    fault = size_mismatch(image, header_size(image), label, header_size(label))
                    if not self.skip_mismatched:
                        raise fault
                    logger.warning("left out of '%s': %s", self.name, fault)
                    continue
                records.append(
                    {
                        "file_name": str(image),
                        "sem_seg_file_name": str(label),
                        "image_id": key,
                        "width": size[0],
                        "height": size[1],
                    }
                )
        return records


def seeded_subset(pairs: list[tuple], count: int, seed: int) -> list[tuple]:
    """At most ``count`` of ``pairs``, in their order, chosen by a hash of (seed, key).

    A hash and not a generator: the draw is equal on every machine, rank and NumPy version, and
    does not change for the others when one pair is added.
    """
    whole_number("subset, the number of images to draw,", count, least=1)

    def draw(pair: tuple) -> bytes:
        name = f"{seed}:{pair[0]}".encode(errors="surrogateescape")  # names may be no text
        return hashlib.sha256(name).digest()

    return sorted(sorted(pairs, key=draw)[:count])


def _by_key(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files below ``folder``: key (path without the suffix) -> file."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(parent)
        for name in folders:
            link = Path(parent, name)
            if link.is_symlink() and Path(here).is_relative_to(os.path.realpath(link)):
                raise ValueError(
                    f"{link}: a link to a folder that holds it, without end; remove it"
                )
        for name in [*folders, *names]:
            suffix = next((s for s in suffixes if name.lower().endswith(s.lower())), None)
            if suffix is None or name.startswith("."):
                continue
            file = Path(parent, name)
            if name in folders:
                raise ValueError(
                    f"{file}: expected a picture, got a folder of that name; rename it"
                )
            key = file.relative_to(folder).as_posix()[: -len(suffix)]
            if key in found:
                raise ValueError(
                    f"{file}: {found[key].name} in the same folder has the same name, so their "
                    "label is not clear; remove or rename one"
                )
            found[key] = file
    return found
