"""A dataset as plain folders: which image belongs to which label, checked before it is used."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recyclelora.common.validation import check_integer

from .label_maps import TRAIN_IDS, Folding, LabelMap
from .origin import Origin
from .reading import header_size, pair_size, size_mismatch

logger = logging.getLogger(__name__)

Pair = tuple[str, Path, Path]  # key, image, label


@dataclass(frozen=True)
class Layout:
    """Where one release of a dataset keeps its files.

    Args:
        images, labels: folders, searched with all folders below them.
        image_suffix: ends of an image's name ("_leftImg8bit.png"); what stands before it is the
            key that image and label share.
        label_suffix: end of a label's name.
        prefixes: beginnings of file names that are no part of the key ("rgb_", "ss_").
        not_labels: ends of names of other files in the folder of the labels.
    """

    images: str
    labels: str
    image_suffix: tuple[str, ...] = (".png", ".jpg", ".jpeg")
    label_suffix: str = ".png"
    prefixes: tuple[str, ...] = ()
    not_labels: tuple[str, ...] = ()


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
        split: chooses some of the pairs, as (folder that holds the dataset, pairs) -> pairs.
        expected: how many pairs the release has, after ``split``. Fewer or more are a warning.
        origin: where to get it.
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
    split: Callable[[Path, list[Pair]], list[Pair]] | None = None
    expected: int | None = None
    origin: Origin | None = None

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
        root, half = self.root, []
        for layout in self.layouts:
            there = [one for one in (layout.images, layout.labels) if (root / one).is_dir()]
            if len(there) == 2:
                return layout
            half += there
        tried = " or ".join(f"{layout.images} with {layout.labels}" for layout in self.layouts)
        below = f" below {root}" if self.root_variable else ""
        alone = f" (only {' and '.join(dict.fromkeys(half))})" if half else ""
        remedy = f"set {self.root_variable} to" if self.root_variable else "name"
        raise FileNotFoundError(
            f"dataset '{self.name}': expected the folders {tried}, which are not there{below}"
            f"{alone}; {remedy} the folder that has them, or {self.how_to_get()}"
        )

    def holder(self, layout: Layout | None = None) -> Path:
        """The folder that holds the dataset alone, below the one it shares with others."""
        layout = layout or self.layout()
        return self.root / Path(layout.images).parts[0]

    def how_to_get(self) -> str:
        """What to download or to unpack, as the end of a sentence that names the root."""
        if self.origin is None:
            return "download the dataset"
        first = self.layouts[0]
        holders = {self.holder(layout): None for layout in self.layouts}  # in order, each once
        packed = [one for holder in holders for one in self.origin.leftovers(self.root, holder)]
        download = self.origin.download(first.images, first.labels)
        return "; ".join([download, *dict.fromkeys(packed)])

    def is_available(self) -> bool:
        """Whether the folders are there (their content is not looked at)."""
        try:
            self.layout()
        except FileNotFoundError:
            return False
        return True

    def files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Images and labels by key, paired or not; of all parts, where there is a ``split``."""
        layout = self.layout()
        images = _by_key(self.root / layout.images, layout.image_suffix, layout.prefixes)
        labels = _by_key(
            self.root / layout.labels, (layout.label_suffix,), layout.prefixes, layout.not_labels
        )
        if not images:
            raise ValueError(
                f"dataset '{self.name}': expected images (*{', *'.join(layout.image_suffix)}) in "
                f"{self.root / layout.images}, found none; unpack the dataset there"
                + (f": {self.how_to_get()}" if self.origin else "")
            )
        return images, labels

    def unpaired(self, images: dict[str, Path], labels: dict[str, Path]) -> Iterator[str]:
        """A sentence for every image without label and every label without image."""
        layout = self.layout()
        bare, stray = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
        left = []
        if self.origin and (bare or stray):
            left = self.origin.leftovers(self.root, self.holder())
        hint = "".join(f"; {one}" for one in left[:3])
        for key in bare:
            folder, _, name = key.rpartition("/")
            if images[key].name.startswith(layout.prefixes):
                name = layout.prefixes[-1] + name
            missing = self.root / layout.labels / folder / f"{name}{layout.label_suffix}"
            yield (
                f"{images[key]}: expected its label {missing}, which is not there; restore the "
                f"label or remove the image{hint}"
            )
        for key in stray:
            yield (
                f"{labels[key]}: a label without an image in {self.root / layout.images}; "
                f"restore the image or remove the label{hint}"
            )

    def pairs(self) -> list[Pair]:
        """(key, image, label) of every pair, sorted by key, before any subset is drawn."""
        images, labels = self.files()
        for sentence in self.unpaired(images, labels):
            raise ValueError(sentence)
        return self.choose([(key, images[key], labels[key]) for key in sorted(images)])

    def choose(self, pairs: list[Pair]) -> list[Pair]:
        """Those of the ``split``, where there is one."""
        return self.split(self.holder(), pairs) if self.split else pairs

    def shortfall(self, found: int | None = None) -> str | None:
        """Why this is not the whole release, as one sentence; None where it is.

        Nothing measured on such a set belongs beside published numbers. Sets of one's own have no
        known size, so None.

        Args:
            found: number of pairs, where it is known already; else they are looked for.
        """
        if self.expected is None:
            return None
        found = len(self.pairs()) if found is None else found
        if found == self.expected:
            return None
        reason = (
            "the download is incomplete, or this is a trial"
            if found < self.expected
            else "there are files of something else"
        )
        return (
            f"dataset '{self.name}': expected {self.expected} pairs, found "
            f"{found} in {self.root / self.layout().images}: {reason}, and scores are not "
            "comparable with published ones"
        )

    def records(self, subset: int | None = None, seed: int = 0) -> list[dict]:
        """Detectron2's list of dicts: ``file_name``, ``sem_seg_file_name``, ``image_id``,
        ``height``, ``width`` and ``label_map``.

        A release that is not whole is used as it is, with a warning in the log.

        Args:
            subset, seed: a further seeded draw of at most this many pairs.

        Raises:
            FileNotFoundError, ValueError: one sentence for the first thing wrong: a folder, an
                image without label, a label without image, sizes that differ.
        """
        pairs = self.pairs()
        if shortfall := self.shortfall(len(pairs)):
            remedy = f"python tools/check_datasets.py {self.name} says what to do"
            logger.warning("%s; %s", shortfall, remedy)
        if self.subset is not None:
            if len(pairs) < self.subset and self.expected is None:
                raise ValueError(
                    f"dataset '{self.name}' is {self.subset} pairs drawn from all of "
                    f"{self.root / self.layout().images}, which has only {len(pairs)}; complete "
                    "the download or use the dataset that takes every pair"
                )
            pairs = seeded_subset(pairs, self.subset, self.subset_seed)
        if subset is not None:
            pairs = seeded_subset(pairs, subset, seed)
        records = self._with_sizes(pairs)
        label_map = self.read_label_map()
        return [record | {"label_map": label_map} for record in records]

    def read_label_map(self) -> LabelMap:
        """The label map, read from the release where it comes with one."""
        if isinstance(self.label_map, LabelMap):
            return self.label_map
        return self.label_map(self.holder())

    def _with_sizes(self, pairs: list[Pair]) -> list[dict]:
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


def seeded_subset(pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """At most ``count`` of ``pairs``, in their order, chosen by a hash of (seed, key).

    A hash and not a generator: the draw is equal on every machine, rank and NumPy version, and
    does not change for the others when one pair is added.
    """
    check_integer("subset, the number of images to draw,", count, least=1)

    def draw(pair: tuple) -> bytes:
        name = f"{seed}:{pair[0]}".encode(errors="surrogateescape")  # names may be no text
        return hashlib.sha256(name).digest()

    return sorted(sorted(pairs, key=draw)[:count])


def _by_key(
    folder: Path,
    suffixes: tuple[str, ...],
    prefixes: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
) -> dict[str, Path]:
    """Files below ``folder``: key (path without suffix and prefix of the name) -> file."""
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
            if suffix is None or name.startswith(".") or name.endswith(others):
                continue
            file = Path(parent, name)
            if name in folders:
                raise ValueError(
                    f"{file}: expected a picture, got a folder of that name; rename it"
                )
            prefix = next((p for p in prefixes if name.startswith(p)), "")
            inside = (
                "" if parent == str(folder) else f"{Path(parent).relative_to(folder).as_posix()}/"
            )
            key = inside + name[len(prefix) : -len(suffix)]
            if key in found:
                raise ValueError(
                    f"{file}: {found[key].name} in the same folder has the same name, so their "
                    "label is not clear; remove or rename one"
                )
            found[key] = file
    return found
