"""A dataset in plain folders: pairs of images and labels, validated before they are used."""

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recyclelora.common.files import retry_transient
from recyclelora.common.validation import check_integer

from .label_maps import TRAIN_IDS, Folding, LabelMap
from .pairing import Unpaired, files_by_key
from .reading import SizeMismatchError, pair_size
from .source import DatasetSource

logger = logging.getLogger(__name__)

Pair = tuple[str, Path, Path]  # key, image, label


@dataclass(frozen=True)
class Layout:
    """Folders and file names of one release of a dataset.

    Parameters
    ----------
    images, labels : str
        Folders, searched recursively.
    image_suffix : tuple of str
        Endings of image names, such as "_leftImg8bit.png". The path before the suffix is the key,
        which an image and its label share.
    label_suffix : str
        Ending of label names.
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


@dataclass(frozen=True)
class FolderDataset:
    """A dataset on disk. No file is read before ``records`` is called.

    Parameters
    ----------
    name : str
        Name in the catalogs.
    layouts : tuple of Layout
        The known releases. The first one that exists is used.
    root_variable : str, optional
        Environment variable that names the folder of all datasets of this kind. Without it the
        layouts hold complete paths.
    root_default : str, optional
        That folder while the variable is not set. Without it the variable is required.
    label_map : LabelMap or callable
        Meaning of the ids in the label files, or a function (dataset's folder) -> LabelMap.
    folding : Folding, optional
        For datasets that label fewer than the 19 classes.
    benchmark : str, optional
        Name in evaluation protocols.
    subset, subset_seed : int
        Use this many pairs, drawn by the seed, equal on every machine.
    skip_mismatched : bool
        Skip pairs of different sizes with a warning instead of raising, for releases with known
        faults.
    skip_unpaired : bool
        Skip images without label and labels without image with a warning instead of raising.
    exclude : tuple of str
        Patterns (``*``, ``?``, ``[...]``) of files that are left out, with their partners. A
        pattern is compared with the name of a file and of every folder above it, and with their
        paths in the folder of the images or labels, as in "old", "*_debug.png" and "rome/00*".
    split : callable, optional
        (dataset's folder, pairs) -> pairs of one part.
    expected : int, optional
        Number of pairs of the release, after ``split``. Another number causes a warning.
    source : DatasetSource, optional
        Where to download it.
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
    skip_unpaired: bool = False
    exclude: tuple[str, ...] = ()
    split: Callable[[Path, list[Pair]], list[Pair]] | None = None
    expected: int | None = None
    source: DatasetSource | None = None

    @property
    def root(self) -> Path:
        """The folder that the layouts are relative to."""
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
        """Return the first layout whose folders exist, else raise an error that lists all."""
        root, partial = self.root, []
        for layout in self.layouts:
            both = (layout.images, layout.labels)
            found = [one for one in both if retry_transient((root / one).is_dir, root / one)]
            if len(found) == 2:
                return layout
            partial += found
        tried = " or ".join(map(str, self.layouts))
        below = f" below {root}" if self.root_variable else ""
        only = f" (only {' and '.join(dict.fromkeys(partial))})" if partial else ""
        remedy = f"set {self.root_variable} to" if self.root_variable else "name"
        raise FileNotFoundError(
            f"dataset '{self.name}': expected the folders {tried}, which are not there{below}"
            f"{only}; {remedy} the folder that has them, or {self.download_hint()}"
        )

    def dataset_root(self, layout: Layout | None = None) -> Path:
        """Return the folder of this dataset alone: the first folder of a layout's images."""
        layout = layout or self.layout()
        return self.root / Path(layout.images).parts[0]

    def download_hint(self) -> str:
        """Return what to download or unpack, as the end of a sentence."""
        if self.source is None:
            return "download the dataset"
        first = self.layouts[0]
        roots = dict.fromkeys(map(self.dataset_root, self.layouts))
        pending = [hint for root in roots for hint in self._pending_archives(root)]
        download = self.source.download_hint(first.images, first.labels)
        return "; ".join([download, *dict.fromkeys(pending)])

    def _pending_archives(self, dataset_root: Path) -> list[str]:
        return self.source.pending_archives(self.root, dataset_root) if self.source else []

    def is_available(self) -> bool:
        """Return whether the folders exist; their content is not checked."""
        try:
            self.layout()
        except FileNotFoundError:
            return False
        return True

    def files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Return images and labels by key: also unpaired ones, and those of all splits."""
        layout = self.layout()
        images, not_images = files_by_key(
            self.root / layout.images, layout.image_suffix, layout.prefixes, exclude=self.exclude
        )
        labels, not_labels = files_by_key(
            *(self.root / layout.labels, (layout.label_suffix,), layout.prefixes),
            skipped=layout.not_labels,
            exclude=self.exclude,
        )
        # The partner of an excluded file is excluded, too.
        images, labels = (
            {key: file for key, file in images.items() if key in labels or key not in not_labels},
            {key: file for key, file in labels.items() if key in images or key not in not_images},
        )
        if not images:
            raise ValueError(
                f"dataset '{self.name}': expected images (*{', *'.join(layout.image_suffix)}) in "
                f"{self.root / layout.images}, found none; unpack the dataset there"
                + (f": {self.download_hint()}" if self.source else "")
            )
        return images, labels

    def unpaired(self, images: dict[str, Path], labels: dict[str, Path]) -> Unpaired:
        """Return the images without label and the labels without image among these files."""
        no_label = sorted(images.keys() - labels.keys())
        no_image = sorted(labels.keys() - images.keys())
        pending = self._pending_archives(self.dataset_root()) if no_label or no_image else []
        hint = "".join(f"; {one}" for one in pending[:3])
        layout, messages = self.layout(), []
        for key in no_label:
            folder, _, name = key.rpartition("/")
            if images[key].name.startswith(layout.prefixes):
                name = layout.prefixes[-1] + name
            missing = self.root / layout.labels / folder / f"{name}{layout.label_suffix}"
            messages.append(
                f"{images[key]}: expected its label {missing}, which is not there; restore the "
                "label or remove the image"
            )
        messages += [
            f"{labels[key]}: a label without an image in {self.root / layout.images}; "
            "restore the image or remove the label"
            for key in no_image
        ]
        return Unpaired(len(no_label), len(no_image), messages, hint)

    def pairs(self) -> list[Pair]:
        """Return (key, image, label) of all pairs of the split, sorted by key, without ``subset``.

        Raises
        ------
        FileNotFoundError, ValueError
            A folder is missing, or a file has no partner; the message names the first one.
        """
        images, labels = self.files()
        unpaired = self.unpaired(images, labels)
        if unpaired.messages:
            skipped = self.skip_unpaired and images.keys() & labels.keys()
            if not skipped or self._is_downloading():
                remedy = "" if self.source else "; skip_unpaired=True leaves them out"
                raise ValueError(
                    f"{unpaired.messages[0]} (dataset '{self.name}' has {unpaired.counts()}"
                    f"{remedy}){unpaired.hint}"
                )
            logger.warning(
                "left out of '%s': %s; the first is %s",
                *(self.name, unpaired.counts(), unpaired.messages[0]),
            )
        return self.match(images, labels)

    def _is_downloading(self) -> bool:
        return self.source is not None and self.source.is_downloading(
            self.root, self.dataset_root()
        )

    def match(self, images: dict[str, Path], labels: dict[str, Path]) -> list[Pair]:
        """Return the pairs of the split among these files; files without partner are skipped."""
        keys = sorted(images.keys() & labels.keys())
        pairs = [(key, images[key], labels[key]) for key in keys]
        return self.split(self.dataset_root(), pairs) if self.split else pairs

    def size_warning(self, found: int | None = None) -> str | None:
        """Return a warning if the number of pairs is not that of the release, else None.

        Scores on such a dataset cannot be compared with published ones.

        Parameters
        ----------
        found : int, optional
            Number of pairs if it is known, else they are counted.
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
        """Return the dataset in Detectron2's format, for the ``DatasetCatalog``.

        A release with another number of pairs than expected is used with a warning.

        Parameters
        ----------
        subset, seed : int
            Use at most this many of the pairs, drawn by the seed.

        Returns
        -------
        list of dict
            Keys ``file_name``, ``sem_seg_file_name``, ``image_id``, ``height``, ``width`` and
            ``label_map``.

        Raises
        ------
        FileNotFoundError, ValueError
            A folder is missing, a file has no partner, or sizes differ; the message names the first
            one.
        """
        pairs = self.pairs()
        if warning := self.size_warning(len(pairs)):
            check = f"python tools/check_datasets.py {self.name}"
            logger.warning("%s; %s reports what to do", warning, check)
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
        """Return the label map; it is read from the dataset's folder if the release includes it."""
        if isinstance(self.label_map, LabelMap):
            return self.label_map
        return self.label_map(self.dataset_root())

    def _with_sizes(self, pairs: list[Pair]) -> list[dict]:
        """Read the sizes from all headers, so that invalid files raise before training starts."""
        with ThreadPoolExecutor(8) as pool:
            sizes = pool.map(self._size, pairs)
            progress = tqdm(
                sizes, f"checking {self.name}", len(pairs), delay=2, leave=False, unit="pair"
            )
            records = []
            for (key, image, label), size in zip(pairs, progress, strict=True):
                if isinstance(size, SizeMismatchError):
                    logger.warning("left out of '%s': %s", self.name, size)
                    continue
                files = {"file_name": str(image), "sem_seg_file_name": str(label)}
                records.append(files | {"image_id": key, "width": size[0], "height": size[1]})
        return records

    def _size(self, pair: Pair) -> tuple[int, int] | SizeMismatchError:
        try:
            return pair_size(*pair[1:])
        except SizeMismatchError as error:
            if self.skip_mismatched:
                return error
            raise


def seeded_subset(pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """Draw at most ``count`` of ``pairs`` by a hash of (seed, key); their order is kept.

    In contrast to a random generator, the draw does not depend on the machine or NumPy's version,
    and an additional pair does not change it for the others.
    """
    check_integer("subset, the number of images to draw,", count, least=1)

    def draw(pair: tuple) -> bytes:
        name = f"{seed}:{pair[0]}".encode(errors="surrogateescape")  # names need not be text
        return hashlib.sha256(name).digest()

    return sorted(sorted(pairs, key=draw)[:count])
