"""The datasets by name, registered in Detectron2's catalogs.

Registering reads nothing from disk. The files are looked for when a dataset is first asked for,
below ``DETECTRON2_DATASETS`` (benchmarks; "datasets" while it is not set) or ``RECYCLELORA_DATA``
(the small real sets), and what is missing then is one sentence.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from .benchmarks import BENCHMARKS
from .classes import CLASSES, COLORS, IGNORE_LABEL
from .folders import Folder, Layout
from .label_maps import CAMVID, LABELMEFACADE, TRAIN_IDS, Folding, LabelMap

_REAL = "RECYCLELORA_DATA"
_FOLDINGS = {"camvid": CAMVID, "lmf": LABELMEFACADE}
REAL_SETS = ("camvid_0016E5", "camvid_0006R0", "camvid_05VD", "camvid_dusk", "lmf_usa")


def register(folder: Folder) -> str:
    """Put a dataset into the catalogs and return its name; the same one again changes nothing."""
    metadata = MetadataCatalog.get(folder.name)
    known = metadata.get("folder")
    if known is not None and known != folder:
        raise ValueError(
            f"dataset '{folder.name}' is already registered with other folders or options; "
            "give the new one another name"
        )
    if folder.name in DatasetCatalog:
        if known is None:
            raise ValueError(
                f"dataset '{folder.name}' is already registered by other code; choose another name"
            )
        return folder.name
    DatasetCatalog.register(folder.name, folder.records)
    metadata.set(
        folder=folder,
        stuff_classes=list(CLASSES),
        stuff_colors=[list(color) for color in COLORS],
        ignore_label=IGNORE_LABEL,
        evaluator_type="sem_seg",
        folding=folder.folding,
        benchmark=folder.benchmark or folder.name,
    )
    return folder.name


def register_folder(
    name: str,
    *,
    images: str | Path,
    labels: str | Path,
    label_map: LabelMap = TRAIN_IDS,
    folding: Folding | None = None,
    image_suffix: str | Sequence[str] = Layout.image_suffix,
    label_suffix: str = Layout.label_suffix,
    subset: int | None = None,
    subset_seed: int = 0,
) -> str:
    """Register your own images and label maps; returns ``name``, so it stands in a config as
    ``dataset=L(register_folder)(name=..., images=..., labels=...)``.

    Args:
        images, labels: folders. A pair has the same path below them up to its suffix.
        label_map: ids in the label files -> train ids; by default they are train ids.
        folding: if the set labels fewer than the 19 classes.
        image_suffix, label_suffix: ends of the file names.
        subset, subset_seed: use this many of the pairs, drawn by the seed.

    Example:
        >>> register_folder("my_city", images="my_city/images", labels="my_city/labels")
        'my_city'
        >>> MetadataCatalog.get("my_city").ignore_label
        255
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a dataset's name must be text, got {name!r}")
    suffixes = (image_suffix,) if isinstance(image_suffix, str) else tuple(image_suffix)
    layout = Layout(str(images), str(labels), suffixes, label_suffix)
    return register(
        Folder(
            name,
            (layout,),
            label_map=label_map,
            folding=folding,
            subset=subset,
            subset_seed=subset_seed,
        )
    )


def folder_of(name: str) -> Folder:
    """The registered dataset of that name, else a sentence with the names there are."""
    folder = MetadataCatalog.get(name).get("folder") if name in DatasetCatalog else None
    if folder is None:
        ours = [n for n in DatasetCatalog if MetadataCatalog.get(n).get("folder") is not None]
        raise ValueError(
            f"expected the name of a registered dataset, got '{name}'; known are "
            f"{', '.join(sorted(ours))}, and register_folder adds your own"
        )
    return folder


def real_sets() -> list[str]:
    """Names of the real sets below RECYCLELORA_DATA, registered; empty while it is not set.

    Every folder there with ``images`` and ``labels`` counts; the part of its name before the first
    "_" says which folding it needs (camvid, lmf), others are taken to label all 19 classes.
    """
    root = os.environ.get(_REAL)
    if not root:
        return []
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"{_REAL}: expected a folder, got {root}, which is not there; correct or unset it"
        )
    names = sorted(entry.name for entry in Path(root).iterdir() if (entry / "labels").is_dir())
    return [register(folder) for folder in map(_real, names) if folder.is_available()]


def _real(name: str) -> Folder:
    folding = _FOLDINGS.get(name.split("_")[0])
    return Folder(
        name,
        (Layout(f"{name}/images", f"{name}/labels"),),
        root_variable=_REAL,
        label_map=folding.label_map if folding else TRAIN_IDS,
        folding=folding,
    )


for _folder in BENCHMARKS:
    register(_folder)
for _name in REAL_SETS:
    register(_real(_name))
