"""The benchmarks: folders and file names of the official releases, label maps and sizes."""

import itertools
from pathlib import Path

from .folder_dataset import FolderDataset
from .gtav_split import SIZES, GtavSplit
from .label_maps import CITYSCAPES_IDS, SYNTHIA_IDS, URBANSYN_IDS, LabelMap, mapillary_label_map
from .pairing import Layout
from .source import DatasetSource

#: The environment variable with the folder of all benchmarks.
ROOT_VARIABLE = "DETECTRON2_DATASETS"

_GTAV = DatasetSource(
    "GTAV (Playing for Data)",
    "download.visinf.tu-darmstadt.de/data/from_games",
    ("*_images.zip", "*_labels.zip"),
    "research and education",
)
_SYNTHIA = DatasetSource(
    "SYNTHIA-RAND-CITYSCAPES",
    "synthia-dataset.net (Downloads, CVPR 2016)",
    ("SYNTHIA_RAND_CITYSCAPES.rar",),
    "CC BY-NC-SA 3.0",
)
_URBANSYN = DatasetSource("UrbanSyn", "www.urbansyn.org", ("rgb.zip", "ss.zip"), "CC BY-SA 4.0")
_CITYSCAPES = DatasetSource(
    "Cityscapes",
    "www.cityscapes-dataset.com/downloads (registration)",
    ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"),
    "non-commercial, own licence",
)
_BDD100K = DatasetSource(
    "BDD100K 10k",
    "bdd-data.berkeley.edu (registration)",
    ("bdd100k_images_10k.zip", "bdd100k_sem_seg_labels_trainval.zip"),
    "non-commercial, own licence",
)
_MAPILLARY = DatasetSource(
    "Mapillary Vistas v1.2",
    "www.mapillary.com/dataset/vistas (registration; the archive of v2.0 also contains v1.2)",
    ("mapillary-vistas-dataset_public_*.zip",),
    "CC BY-NC-SA 4.0",
)
_ACDC = DatasetSource(
    "ACDC",
    "acdc.vision.ee.ethz.ch/download (registration)",
    ("rgb_anon_trainvaltest.zip", "gt_trainval.zip"),
    "non-commercial, own licence",
)

# Label files that the converters of other projects write beside the original ones.
_CONVERTED = ("_labelTrainIds.png",)
_PNG = {"image_suffix": (".png",), "not_labels": _CONVERTED}


def _layouts(roots: tuple[str, ...], images: str, labels: str, **options) -> list[Layout]:
    """Return layouts that differ only in the name of the dataset's folder."""
    return [Layout(f"{root}/{images}", f"{root}/{labels}", **options) for root in roots]


def _dataset(name: str, benchmark: str, layouts: list[Layout], **options) -> FolderDataset:
    root = {"root_variable": ROOT_VARIABLE, "root_default": "datasets"}
    return FolderDataset(name, tuple(layouts), benchmark=benchmark, **root, **options)


def _gtav() -> list[FolderDataset]:
    layouts = _layouts(("gtav", "gta", "GTAV", "gta5"), "images", "labels", **_PNG)
    options = {"source": _GTAV, "label_map": CITYSCAPES_IDS, "skip_mismatched": True}
    full = options | {"expected": sum(SIZES.values())}
    datasets = [
        _dataset("gtav_all", "gtav", layouts, **full),
        # Deviation: the published code draws these 12,403 images without a seed and separately in
        # each process. Here the selection is fixed.
        _dataset("gtav_train", "gtav", layouts, subset=SIZES["train"], **full),
    ]
    for part, size in SIZES.items():
        official = {"expected": size, "split": GtavSplit(part)}
        datasets.append(_dataset(f"gtav_owners_{part}", "gtav", layouts, **official, **options))
    return datasets


def _synthia() -> FolderDataset:
    roots = ("synthia", "SYNTHIA", "RAND_CITYSCAPES", "synthia/RAND_CITYSCAPES")
    options = {"source": _SYNTHIA, "expected": 9_400, "label_map": SYNTHIA_IDS}
    layouts = _layouts(roots, "RGB", "GT/LABELS", **_PNG)
    return _dataset("synthia_train", "synthia", layouts, **options)


def _urbansyn() -> FolderDataset:
    options = {"source": _URBANSYN, "expected": 7_539, "label_map": URBANSYN_IDS}
    layouts = _layouts(("urbansyn", "UrbanSyn"), "rgb", "ss", prefixes=("rgb_", "ss_"), **_PNG)
    return _dataset("urbansyn_train", "urbansyn", layouts, **options)


def _cityscapes(split: str, pairs: int) -> FolderDataset:
    names = {"image_suffix": ("_leftImg8bit.png",), "label_suffix": "_gtFine_labelIds.png"}
    layouts = [
        Layout(f"cityscapes/{images}/{split}", f"cityscapes/{labels}/{split}", **names)
        for images, labels in (
            ("leftImg8bit", "gtFine"),
            # Each archive is unpacked into a folder of its own name.
            ("leftImg8bit_trainvaltest/leftImg8bit", "gtFine_trainvaltest/gtFine"),
        )
    ]
    options = {"source": _CITYSCAPES, "expected": pairs, "label_map": CITYSCAPES_IDS}
    return _dataset(f"cityscapes_{split}", "cityscapes", layouts, **options)


def _bdd100k(split: str, pairs: int) -> FolderDataset:
    masks, seg = f"bdd100k/labels/sem_seg/masks/{split}", f"bdd100k/seg/labels/{split}"
    layouts = [
        Layout(f"bdd100k/images/10k/{split}", masks, (".jpg",)),
        Layout(f"bdd100k/seg/images/{split}", seg, (".jpg",), "_train_id.png"),
    ]
    # A few images of the release have no mask, and a few masks have no image.
    options = {"source": _BDD100K, "expected": pairs, "skip_unpaired": True}
    return _dataset(f"bdd100k_{split}", "bdd100k", layouts, **options)


def _mapillary_config(dataset_root: Path) -> LabelMap:
    """Read the class list, whose file name differs between releases."""
    tried = [dataset_root / "config_v1.2.json", dataset_root / "config.json"]
    for config in tried:
        if config.is_file():
            return mapillary_label_map(config)
    raise FileNotFoundError(
        f"Mapillary Vistas: expected its list of classes in {tried[0]} or {tried[1]}, but neither "
        "file exists; copy it from the release"
    )


def _mapillary(split: str, part: str, pairs: int) -> FolderDataset:
    layouts = [
        Layout(f"{root}/{part}/images", f"{root}/{part}/{labels}", (".jpg",), not_labels=_CONVERTED)
        for root in ("mapillary_vistas", "mapillary")
        for labels in ("v1.2/labels", "labels")
    ]
    options = {"source": _MAPILLARY, "expected": pairs, "label_map": _mapillary_config}
    return _dataset(f"mapillary_vistas_{split}", "mapillary_vistas", layouts, **options)


def _acdc(condition: str, split: str) -> FolderDataset:
    names = {"image_suffix": ("_rgb_anon.png",), "label_suffix": "_gt_labelTrainIds.png"}
    below = f"{condition}/{split}"
    layouts = [
        Layout(f"{root}/{images}/{below}", f"{root}/{labels}/{below}", **names)
        for root in ("acdc", "ACDC")
        for images, labels in (
            ("rgb_anon", "gt"),
            ("rgb_anon_trainvaltest/rgb_anon", "gt_trainval/gt"),
        )
    ]
    pairs = 400 if split == "train" else 106 if condition == "night" else 100
    return _dataset(f"acdc_{condition}_{split}", "acdc", layouts, source=_ACDC, expected=pairs)


#: All benchmarks. The order is that of the report of tools/check_datasets.py.
BENCHMARKS = (
    *_gtav(),
    _synthia(),
    _urbansyn(),
    _cityscapes("train", 2_975),
    _cityscapes("val", 500),
    _bdd100k("train", 7_000),
    _bdd100k("val", 1_000),
    _mapillary("train", "training", 18_000),
    _mapillary("val", "validation", 2_000),
    *itertools.starmap(
        _acdc, itertools.product(("fog", "night", "rain", "snow"), ("train", "val"))
    ),
)
