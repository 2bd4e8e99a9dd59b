"""The benchmarks as data: where their owners' releases keep what, and how large they are."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from .folders import Folder, Layout
from .gtav_split import SIZES, GtavSplit
from .label_maps import CITYSCAPES_IDS, SYNTHIA_IDS, URBANSYN_IDS, LabelMap, mapillary_label_map
from .origin import Origin

#: The environment variable with the folder that holds all of them.
ROOT_VARIABLE = "DETECTRON2_DATASETS"

_GTAV = Origin(
    "GTAV (Playing for Data)",
    "download.visinf.tu-darmstadt.de/data/from_games",
    ("*_images.zip", "*_labels.zip"),
    "research and education",
)
_SYNTHIA = Origin(
    "SYNTHIA-RAND-CITYSCAPES",
    "synthia-dataset.net (Downloads, CVPR 2016)",
    ("SYNTHIA_RAND_CITYSCAPES.rar",),
    "CC BY-NC-SA 3.0",
)
_URBANSYN = Origin("UrbanSyn", "www.urbansyn.org", ("rgb.zip", "ss.zip"), "CC BY-SA 4.0")
_CITYSCAPES = Origin(
    "Cityscapes",
    "www.cityscapes-dataset.com/downloads (registration)",
    ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"),
    "non-commercial, own licence",
)
_BDD100K = Origin(
    "BDD100K 10k",
    "bdd-data.berkeley.edu (registration)",
    ("bdd100k_images_10k.zip", "bdd100k_sem_seg_labels_trainval.zip"),
    "non-commercial, own licence",
)
_MAPILLARY = Origin(
    "Mapillary Vistas v1.2",
    "www.mapillary.com/dataset/vistas (registration; the archive of v2.0 holds v1.2 too)",
    ("mapillary-vistas-dataset_public_*.zip",),
    "CC BY-NC-SA 4.0",
)
_ACDC = Origin(
    "ACDC",
    "acdc.vision.ee.ethz.ch/download (registration)",
    ("rgb_anon_trainvaltest.zip", "gt_trainval.zip"),
    "non-commercial, own licence",
)

# Label files in train ids that converters of other projects leave beside the originals.
_CONVERTED = ("_labelTrainIds.png",)


def _set(
    name: str, benchmark: str, layouts: Sequence[Layout], origin: Origin, pairs: int, **options
) -> Folder:
    return Folder(
        name,
        tuple(layouts),
        root_variable=ROOT_VARIABLE,
        root_default="datasets",
        benchmark=benchmark,
        origin=origin,
        expected=pairs,
        **options,
    )


def _gtav() -> list[Folder]:
    layouts = [
        Layout(f"{root}/images", f"{root}/labels", (".png",), not_labels=_CONVERTED)
        for root in ("gtav", "gta", "GTAV", "gta5")
    ]
    options = {"label_map": CITYSCAPES_IDS, "skip_mismatched": True}
    everything = sum(SIZES.values())
    owners = [
        _set(f"gtav_owners_{part}", "gtav", layouts, _GTAV, size, split=GtavSplit(part), **options)
        for part, size in SIZES.items()
    ]
    # Deviation: the published code draws these 12,403 unseeded, each process its own; here the
    # draw is made once and for all.
    drawn = {"subset": SIZES["train"], **options}
    return [
        _set("gtav_all", "gtav", layouts, _GTAV, everything, **options),
        _set("gtav_train", "gtav", layouts, _GTAV, everything, **drawn),
        *owners,
    ]


def _synthia() -> list[Folder]:
    roots = ("synthia", "SYNTHIA", "RAND_CITYSCAPES", "synthia/RAND_CITYSCAPES")
    layouts = [
        Layout(f"{root}/RGB", f"{root}/GT/LABELS", (".png",), not_labels=_CONVERTED)
        for root in roots
    ]
    return [_set("synthia_train", "synthia", layouts, _SYNTHIA, 9_400, label_map=SYNTHIA_IDS)]


def _urbansyn() -> list[Folder]:
    names = {"prefixes": ("rgb_", "ss_"), "not_labels": _CONVERTED}
    layouts = [
        Layout(f"{root}/rgb", f"{root}/ss", (".png",), **names) for root in ("urbansyn", "UrbanSyn")
    ]
    return [_set("urbansyn_train", "urbansyn", layouts, _URBANSYN, 7_539, label_map=URBANSYN_IDS)]


def _cityscapes(split: str, pairs: int) -> Folder:
    # Unpacked where the archives lie, or each into a folder of its own name.
    apart = ("leftImg8bit_trainvaltest/leftImg8bit", "gtFine_trainvaltest/gtFine")
    layouts = [
        Layout(
            f"cityscapes/{images}/{split}",
            f"cityscapes/{labels}/{split}",
            ("_leftImg8bit.png",),
            "_gtFine_labelIds.png",
        )
        for images, labels in (("leftImg8bit", "gtFine"), apart)
    ]
    name = f"cityscapes_{split}"
    return _set(name, "cityscapes", layouts, _CITYSCAPES, pairs, label_map=CITYSCAPES_IDS)


def _bdd100k(split: str, pairs: int) -> Folder:
    masks, seg = f"bdd100k/labels/sem_seg/masks/{split}", f"bdd100k/seg/labels/{split}"
    layouts = [
        Layout(f"bdd100k/images/10k/{split}", masks, (".jpg",)),
        Layout(f"bdd100k/seg/images/{split}", seg, (".jpg",), "_train_id.png"),
    ]
    return _set(f"bdd100k_{split}", "bdd100k", layouts, _BDD100K, pairs)


def _mapillary_config(holder: Path) -> LabelMap:
    """Releases differ in the name of the file that lists the classes."""
    tried = [holder / "config_v1.2.json", holder / "config.json"]
    for config in tried:
        if config.is_file():
            return mapillary_label_map(config)
    raise FileNotFoundError(
        f"Mapillary Vistas: expected its list of classes as {tried[0]} or {tried[1]}, which are "
        "not there; copy the file from the release"
    )


def _mapillary(split: str, part: str, pairs: int) -> Folder:
    layouts = [
        Layout(f"{root}/{part}/images", f"{root}/{part}/{labels}", (".jpg",), not_labels=_CONVERTED)
        for root in ("mapillary_vistas", "mapillary")
        for labels in ("v1.2/labels", "labels")
    ]
    name = f"mapillary_vistas_{split}"
    options = {"label_map": _mapillary_config}
    return _set(name, "mapillary_vistas", layouts, _MAPILLARY, pairs, **options)


def _acdc(condition: str, split: str) -> Folder:
    places = (("rgb_anon", "gt"), ("rgb_anon_trainvaltest/rgb_anon", "gt_trainval/gt"))
    layouts = [
        Layout(
            f"{root}/{images}/{condition}/{split}",
            f"{root}/{labels}/{condition}/{split}",
            ("_rgb_anon.png",),
            "_gt_labelTrainIds.png",
        )
        for root in ("acdc", "ACDC")
        for images, labels in places
    ]
    pairs = 400 if split == "train" else 106 if condition == "night" else 100
    return _set(f"acdc_{condition}_{split}", "acdc", layouts, _ACDC, pairs)


BENCHMARKS = (
    *_gtav(),
    *_synthia(),
    *_urbansyn(),
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
