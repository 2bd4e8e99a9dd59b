"""The datasets by name, registered in Detectron2's catalogs.

Registration does not read from the disk. Files are searched when the records of a dataset are first
requested. Benchmarks are searched below ``DETECTRON2_DATASETS`` ("datasets" if it is not set), and
the small real datasets below ``RECYCLELORA_DATA``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from recyclelora.common.files import is_hidden
from recyclelora.common.paths import expand_path
from recyclelora.common.validation import short_repr

from .benchmarks import BENCHMARKS
from .classes import CLASSES, COLORS, IGNORE_LABEL
from .folder_dataset import FolderDataset
from .label_maps import CAMVID, LABELMEFACADE, TRAIN_IDS, Folding, LabelMap
from .pairing import Layout

_REAL_ROOT = "RECYCLELORA_DATA"
_FOLDINGS = {"camvid": CAMVID, "lmf": LABELMEFACADE}
REAL_SETS = ("camvid_0016E5", "camvid_0006R0", "camvid_05VD", "camvid_dusk", "lmf_usa")


def register(dataset: FolderDataset) -> str:
    """Add a dataset to Detectron2's catalogs. An equal dataset may be registered again.

    Parameters
    ----------
    dataset : FolderDataset
        The dataset.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    ValueError
        If the name belongs to another dataset.
    """
    metadata = MetadataCatalog.get(dataset.name)
    known = metadata.get("dataset")
    if known is not None and known != dataset:
        raise ValueError(
            f"dataset '{dataset.name}' is already registered with other folders or options; "
            "give the new one another name"
        )
    if dataset.name in DatasetCatalog:
        if known is None:
            raise ValueError(
                f"dataset '{dataset.name}' is already registered by other code; choose another name"
            )
        return dataset.name
    DatasetCatalog.register(dataset.name, dataset.records)
    metadata.set(
        dataset=dataset,
        stuff_classes=list(CLASSES),
        stuff_colors=[list(color) for color in COLORS],
        ignore_label=IGNORE_LABEL,
        evaluator_type="sem_seg",
        folding=dataset.folding,
        benchmark=dataset.benchmark or dataset.name,
    )
    return dataset.name


def register_folder(
    name: str,
    *,
    images: str | Path,
    labels: str | Path,
    image_suffix: str | Sequence[str] = Layout.image_suffix,
    label_suffix: str = Layout.label_suffix,
    label_map: LabelMap = TRAIN_IDS,
    folding: Folding | None = None,
    subset: int | None = None,
    subset_seed: int = 0,
    skip_unpaired: bool = False,
    exclude: str | Sequence[str] = (),
) -> str:
    """Register your own folders of images and label maps.

    In a config: ``dataset=L(register_folder)(name=..., images=..., labels=...)``.

    Parameters
    ----------
    name : str
        The name of the dataset.
    images, labels : str or Path
        The folders. The files of a pair have the same relative path up to the suffix.
    image_suffix, label_suffix : str
        The endings of the file names. ``image_suffix`` may be a sequence of endings.
    label_map : LabelMap
        The map from ids in the label files to train ids. By default the files contain train ids.
    folding : Folding, optional
        The folding for a dataset that labels fewer than the 19 classes.
    subset, subset_seed : int
        The number of pairs to use, and the seed with which they are drawn.
    skip_unpaired : bool
        Whether to skip images without a label and labels without an image with a warning. By
        default they are an error.
    exclude : str or sequence of str
        Patterns of files that are left out together with their partners, such as ``old`` (a
        folder or a file with this name), ``*_debug.png`` and ``rome/00*``. Hidden and system files
        and folders (``.Trash-1000``, ``@eaDir``, ``Thumbs.db``) are always left out.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> register_folder("my_city", images="my_city/images", labels="my_city/labels")
    'my_city'
    >>> MetadataCatalog.get("my_city").ignore_label
    255
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a dataset's name must be text, got {name!r}")
    suffixes = (image_suffix,) if isinstance(image_suffix, str) else tuple(image_suffix)
    folders = str(expand_path(images)), str(expand_path(labels))
    layout = Layout(*folders, suffixes, label_suffix)
    patterns = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(
            f"dataset '{name}': exclude must be patterns of file names such as '*_debug.png', got "
            f"{short_repr(list(patterns))}"
        )
    options = {"label_map": label_map, "folding": folding}
    options |= {"skip_unpaired": skip_unpaired, "exclude": patterns}
    draw = {"subset": subset, "subset_seed": subset_seed}
    return register(FolderDataset(name, (layout,), **options, **draw))


def get_dataset(name: str) -> FolderDataset:
    """Return the registered dataset with the given name.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    FolderDataset
        The dataset.

    Raises
    ------
    ValueError
        If there is none. The message lists the known names.
    """
    dataset = MetadataCatalog.get(name).get("dataset") if name in DatasetCatalog else None
    if dataset is None:
        known = [n for n in DatasetCatalog if MetadataCatalog.get(n).get("dataset") is not None]
        raise ValueError(
            f"expected the name of a registered dataset, got '{name}'; the known names are "
            f"{', '.join(sorted(known))}; register your own folders with register_folder"
        )
    return dataset


def real_sets() -> list[str]:
    """Register the datasets below RECYCLELORA_DATA and return their names.

    Every folder that contains ``images`` and ``labels`` is a dataset. The part of its name before
    the first "_" selects the folding (camvid, lmf). Other datasets must label all 19 classes.

    Returns
    -------
    list of str
        The names; empty if the variable is not set.
    """
    root = os.environ.get(_REAL_ROOT)
    if not root:
        return []
    root = expand_path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{_REAL_ROOT}: expected a folder, got {root}, which does not exist; correct or unset "
            "the variable"
        )
    folders = [folder for folder in root.iterdir() if not is_hidden(folder)]
    names = sorted(folder.name for folder in folders if (folder / "labels").is_dir())
    return [register(dataset) for dataset in map(_real_set, names) if dataset.is_available()]


def _real_set(name: str) -> FolderDataset:
    folding = _FOLDINGS.get(name.split("_")[0])
    return FolderDataset(
        name,
        (Layout(f"{name}/images", f"{name}/labels"),),
        root_variable=_REAL_ROOT,
        label_map=folding.label_map if folding else TRAIN_IDS,
        folding=folding,
    )


for _dataset in (*BENCHMARKS, *map(_real_set, REAL_SETS)):
    register(_dataset)
