"""A dataset in plain folders: pairs of images and labels that are validated before use."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recyclelora.common.files import retry_transient
from recyclelora.common.paths import expand_path

from .label_maps import TRAIN_IDS, Folding, LabelMap
from .pairing import Layout, Pair, Unpaired, files_by_key, seeded_subset
from .reading import SizeMismatchError, pair_size
from .source import DatasetSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderDataset:
    """A dataset on disk. No file is read before :meth:`records` is called.

    Parameters
    ----------
    name : str
        The name in the catalogs.
    layouts : tuple of Layout
        The layouts of the known releases. The first one that exists is used.
    root_variable : str, optional
        The environment variable with the folder of all datasets of this kind. Without it, the
        layouts contain complete paths.
    root_default : str, optional
        The folder to use if the variable is not set. Without it, the variable is required.
    label_map : LabelMap or callable
        The meaning of the ids in the label files, or a function from the dataset's folder to a
        LabelMap.
    folding : Folding, optional
        The folding for a dataset that labels fewer than the 19 classes.
    benchmark : str, optional
        The name in evaluation protocols.
    subset, subset_seed : int
        The number of pairs to use, and the seed with which they are drawn. The selection is the
        same on every machine.
    skip_mismatched : bool
        Whether to skip pairs of different sizes with a warning instead of an error, for releases
        with known faults.
    skip_unpaired : bool
        Whether to skip images without a label and labels without an image with a warning instead of
        an error.
    exclude : tuple of str
        Patterns (``*``, ``?``, ``[...]``) of files that are left out, with their partners. A
        pattern such as ``old``, ``*_debug.png`` or ``rome/00*`` is compared with the name of a file
        and of every folder above it, and with their paths in the folder of the images or labels.
    split : callable, optional
        A function from (dataset's folder, pairs) to the pairs of one part.
    expected : int, optional
        The number of pairs in the release, after ``split``. A different number causes a warning.
    source : DatasetSource, optional
        Download information.
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
        """Return the folder to which the layouts are relative."""
        if self.root_variable is None:
            return Path()
        root = os.environ.get(self.root_variable) or self.root_default
        if not root:
            raise FileNotFoundError(
                f"dataset '{self.name}': the environment variable {self.root_variable} is not "
                "set; set it to the folder that contains the dataset"
            )
        return expand_path(root)

    def layout(self) -> Layout:
        """Return the first layout whose folders exist.

        Returns
        -------
        Layout
            The layout.

        Raises
        ------
        FileNotFoundError
            If there is none. The message lists all layouts.
        """
        root, partial = self.root, []
        for layout in self.layouts:
            both = (layout.images, layout.labels)
            found = [one for one in both if retry_transient((root / one).is_dir, root / one)]
            if len(found) == 2:
                return layout
            partial += found
        tried = " or ".join(map(str, self.layouts))
        below = f" below {root}" if self.root_variable else ""
        only = f" (found only {' and '.join(dict.fromkeys(partial))})" if partial else ""
        remedy = f"set {self.root_variable} to" if self.root_variable else "name"
        raise FileNotFoundError(
            f"dataset '{self.name}': expected the folders {tried}, which do not "
            f"exist{below}{only}; {remedy} the folder that contains them, or "
            f"{self.download_hint()}"
        )

    def dataset_root(self, layout: Layout | None = None) -> Path:
        """Return the folder of this dataset: the first folder in the path of a layout's images.

        Parameters
        ----------
        layout : Layout, optional
            The layout; by default the one that exists.

        Returns
        -------
        Path
            The folder.
        """
        layout = layout or self.layout()
        return self.root / Path(layout.images).parts[0]

    def download_hint(self) -> str:
        """Return a description of what to download or unpack.

        Returns
        -------
        str
            The description, as the end of a sentence.
        """
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
        """Return whether the folders exist, without checking their content.

        Returns
        -------
        bool
            True if both folders of a layout exist.
        """
        try:
            self.layout()
        except FileNotFoundError:
            return False
        return True

    def files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Return the images and labels of all splits, including unpaired ones.

        Returns
        -------
        images, labels : dict of str to Path
            The files by key. Excluded files and their partners are left out.

        Raises
        ------
        FileNotFoundError, ValueError
            If a folder is missing or contains no images.
        """
        layout = self.layout()
        images, not_images = files_by_key(
            self.root / layout.images, layout.image_suffix, layout.prefixes, exclude=self.exclude
        )
        labels, not_labels = files_by_key(
            *(self.root / layout.labels, (layout.label_suffix,), layout.prefixes),
            skipped=layout.not_labels,
            exclude=self.exclude,
        )
        # The partner of an excluded file is excluded as well.
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
        """Return the files without a partner.

        Parameters
        ----------
        images, labels : dict of str to Path
            The files by key, see :meth:`files`.

        Returns
        -------
        Unpaired
            Their numbers, and a message for each file.
        """
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
                f"{images[key]}: expected its label {missing}, which does not exist; restore the "
                "label or remove the image"
            )
        messages += [
            f"{labels[key]}: a label without an image in {self.root / layout.images}; "
            "restore the image or remove the label"
            for key in no_image
        ]
        return Unpaired(len(no_label), len(no_image), messages, hint)

    def pairs(self) -> list[Pair]:
        """Return all pairs of the split, sorted by key and without applying ``subset``.

        Returns
        -------
        list of (key, image, label)
            The pairs.

        Raises
        ------
        FileNotFoundError, ValueError
            If a folder is missing or a file has no partner. The message names the first one.
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
        """Return the pairs of the split among these files. Files without a partner are skipped.

        Parameters
        ----------
        images, labels : dict of str to Path
            The files by key, see :meth:`files`.

        Returns
        -------
        list of (key, image, label)
            The pairs, sorted by key.
        """
        keys = sorted(images.keys() & labels.keys())
        pairs = [(key, images[key], labels[key]) for key in keys]
        return self.split(self.dataset_root(), pairs) if self.split else pairs

    def size_warning(self, found: int | None = None) -> str | None:
        """Return a warning if the number of pairs differs from that of the release.

        Scores on such a dataset cannot be compared with published ones.

        Parameters
        ----------
        found : int, optional
            The number of pairs. By default they are counted.

        Returns
        -------
        str or None
            The warning; None if the number is right.
        """
        if self.expected is None:
            return None
        found = len(self.pairs()) if found is None else found
        if found == self.expected:
            return None
        reason = (
            "the download is incomplete, or only a part is used"
            if found < self.expected
            else "the folder contains other files"
        )
        return (
            f"dataset '{self.name}': expected {self.expected} pairs, found "
            f"{found} in {self.root / self.layout().images}: {reason}, and scores are not "
            "comparable with published ones"
        )

    def records(self, subset: int | None = None, seed: int = 0) -> list[dict]:
        """Return the dataset in Detectron2's format, for the ``DatasetCatalog``.

        A release with an unexpected number of pairs is used with a warning.

        Parameters
        ----------
        subset, seed : int
            The largest number of pairs to use, and the seed with which they are drawn.

        Returns
        -------
        list of dict
            Records with the keys ``file_name``, ``sem_seg_file_name``, ``image_id``, ``height``,
            ``width`` and ``label_map``.

        Raises
        ------
        FileNotFoundError, ValueError
            If a folder is missing, a file has no partner, or sizes differ. The message names the
            first one.
        """
        pairs = self.pairs()
        if warning := self.size_warning(len(pairs)):
            check = f"python tools/check_datasets.py {self.name}"
            logger.warning("%s; %s reports what to do", warning, check)
        if self.subset is not None:
            if len(pairs) < self.subset and self.expected is None:
                raise ValueError(
                    f"dataset '{self.name}' draws {self.subset} pairs from "
                    f"{self.root / self.layout().images}, which has only {len(pairs)}; complete "
                    "the download, or use the dataset that contains every pair"
                )
            pairs = seeded_subset(pairs, self.subset, self.subset_seed)
        if subset is not None:
            pairs = seeded_subset(pairs, subset, seed)
        records = self._with_sizes(pairs)
        label_map = self.read_label_map()
        return [record | {"label_map": label_map} for record in records]

    def read_label_map(self) -> LabelMap:
        """Return the label map, read from the dataset's folder if the release includes it.

        Returns
        -------
        LabelMap
            The meaning of the ids in the label files.
        """
        if isinstance(self.label_map, LabelMap):
            return self.label_map
        return self.label_map(self.dataset_root())

    def _with_sizes(self, pairs: list[Pair]) -> list[dict]:
        """Read the sizes from all headers, so that invalid files are found before the training."""
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
