"""Tiny datasets in the format of the releases: folders, file names, bit depths, palettes, channels.

Every ``write_*(root, count, size)`` writes below ``root`` and returns the correct labels,
``{dataset name: {image_id: train ids (H, W) uint8}}``. The tables here follow the documentation of
the releases, class by class, and are independent of the package.
"""

import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

SIZE = (96, 192)
Truth = dict[str, dict[str, np.ndarray]]

NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)
IGNORED = 255

# id in the file -> name of the train class; None is ignored.
CITYSCAPES = {
    **dict.fromkeys((0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, IGNORED)),
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
GTAV = CITYSCAPES | {34: None}  # the licence plate
SYNTHIA = {
    **dict.fromkeys((0, 13, 14, 22)),  # void, parking slot, road work, lane marking
    **{1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation"},
    **{7: "pole", 8: "car", 9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle"},
    **{15: "traffic light", 17: "rider", 19: "bus", 21: "wall"},
}
TRAIN = dict(enumerate(NAMES)) | {IGNORED: None}
URBANSYN = dict(enumerate(NAMES)) | dict.fromkeys((19, 20, 42, 254, IGNORED))

#: The 66 readable names of config_v1.2.json in their order, each with its train class.
MAPILLARY = {
    **{"Bird": None, "Ground Animal": None, "Curb": "sidewalk", "Fence": "fence"},
    **{"Guard Rail": None, "Barrier": None, "Wall": "wall", "Bike Lane": "road"},
    **{"Crosswalk - Plain": "road", "Curb Cut": "sidewalk", "Parking": "road"},
    **{"Pedestrian Area": "sidewalk", "Rail Track": None, "Road": "road", "Service Lane": "road"},
    **{"Sidewalk": "sidewalk", "Bridge": None, "Building": "building", "Tunnel": None},
    **{"Person": "person", "Bicyclist": "rider", "Motorcyclist": "rider", "Other Rider": "rider"},
    **{"Lane Marking - Crosswalk": "road", "Lane Marking - General": "road", "Mountain": None},
    **{"Sand": None, "Sky": "sky", "Snow": None, "Terrain": "terrain"},
    **{"Vegetation": "vegetation", "Water": None, "Banner": None, "Bench": None},
    **dict.fromkeys(("Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant")),
    **dict.fromkeys(("Junction Box", "Mailbox", "Manhole", "Phone Booth", "Pothole")),
    **{"Street Light": "pole", "Pole": "pole", "Traffic Sign Frame": "traffic sign"},
    **{"Utility Pole": "pole", "Traffic Light": "traffic light"},
    **{"Traffic Sign (Back)": "traffic sign", "Traffic Sign (Front)": "traffic sign"},
    **{"Trash Can": None, "Bicycle": "bicycle", "Boat": None, "Bus": "bus", "Car": "car"},
    **{"Caravan": None, "Motorcycle": "motorcycle", "On Rails": "train", "Other Vehicle": None},
    **{"Trailer": None, "Truck": "truck", "Wheeled Slow": None, "Car Mount": None},
    **{"Ego Vehicle": None, "Unlabeled": None},
}


def write_gtav(root: Path, count: int = 3, size: tuple[int, int] = SIZE) -> Truth:
    """8-bit palette labels named like their images, and ``split.mat`` of the complete release.

    The written images 1, 2, 3, 4, ... belong to train, val, test, train, ...
    """
    truth = {}
    for number in range(1, count + 1):
        ids, truth[f"{number:05d}"] = _labels(GTAV, f"gtav {number}", size)
        _palette(root / f"gtav/labels/{number:05d}.png", ids)
        _image(root / f"gtav/images/{number:05d}.png", ids)
    parts = _gtav_split(count)
    arrays = {f"{part}Ids": ids[:, None].astype(np.uint16) for part, ids in parts.items()}
    scipy.io.savemat(root / "gtav/split.mat", arrays)
    official = {
        f"gtav_owners_{part}": {key: truth[key] for key in truth if int(key) in set(ids)}
        for part, ids in parts.items()
    }
    return {"gtav_all": truth, "gtav_train": truth, **official}


def _gtav_split(count: int) -> dict[str, np.ndarray]:
    sizes = {"train": 12_403, "val": 6_382, "test": 6_181}
    first = {
        part: [n for n in range(1, count + 1) if n % 3 == i]
        for i, part in ((1, "train"), (2, "val"), (0, "test"))
    }
    rest = iter(range(count + 1, sum(sizes.values()) + 1))
    return {
        part: np.array(first[part] + [next(rest) for _ in range(total - len(first[part]))])
        for part, total in sizes.items()
    }


def write_synthia(root: Path, count: int = 2, size: tuple[int, int] = SIZE) -> Truth:
    """SYNTHIA-RAND-CITYSCAPES: labels of 16 bits and three channels, red is the class, green the
    instance.
    """
    truth = {}
    for number in range(count):
        ids, truth[f"{number:07d}"] = _labels(SYNTHIA, f"synthia {number}", size)
        instances = np.arange(ids.size).reshape(size) % 65_521
        bgr = np.stack([ids * 0, instances, ids], axis=-1).astype(np.uint16)
        _opencv(root / f"synthia/GT/LABELS/{number:07d}.png", bgr)
        _image(root / f"synthia/GT/COLOR/{number:07d}.png", ids)
        _image(root / f"synthia/RGB/{number:07d}.png", ids)
    return {"synthia_train": truth}


def write_urbansyn(
    root: Path, count: int = 2, size: tuple[int, int] = SIZE, prefixed: bool = True
) -> Truth:
    """Write ``rgb/rgb_0001.png`` with ``ss/ss_0001.png``, or both as ``0001.png``."""
    image, label = ("rgb_", "ss_") if prefixed else ("", "")
    truth = {}
    for number in range(1, count + 1):
        ids, truth[f"{number:04d}"] = _labels(URBANSYN, f"urbansyn {number}", size)
        _grey(root / f"urbansyn/ss/{label}{number:04d}.png", ids)
        _image(root / f"urbansyn/rgb/{image}{number:04d}.png", ids)
    return {"urbansyn_train": truth}


def write_cityscapes(root: Path, count: int = 2, size: tuple[int, int] = SIZE) -> Truth:
    """Write ``labelIds``, and the colour, instance and polygon files of the release."""
    truth: Truth = {}
    for split, cities in (("train", ("aachen", "ulm")), ("val", ("frankfurt", "munster"))):
        known = truth[f"cityscapes_{split}"] = {}
        for number in range(count):
            city = cities[number % 2]
            key = f"{city}/{city}_{number:06d}_000019"
            ids, known[key] = _labels(CITYSCAPES, f"cityscapes {split} {number}", size)
            stem = root / f"cityscapes/gtFine/{split}/{key}_gtFine"
            _grey(Path(f"{stem}_labelIds.png"), ids)
            _image(Path(f"{stem}_color.png"), ids)
            _opencv(Path(f"{stem}_instanceIds.png"), ids.astype(np.uint16) * 1000)
            Path(f"{stem}_polygons.json").write_text("{}")
            _image(root / f"cityscapes/leftImg8bit/{split}/{key}_leftImg8bit.png", ids)
    return truth


def write_bdd100k(root: Path, count: int = 2, size: tuple[int, int] = SIZE) -> Truth:
    """Write the 10k images (JPEG), ``masks`` with train ids, and ``colormaps``."""
    truth: Truth = {}
    for split in ("train", "val"):
        known = truth[f"bdd100k_{split}"] = {}
        for number in range(count):
            key = f"{zlib.crc32(split.encode()):08x}-{number:08x}"
            ids, known[key] = _labels(TRAIN, f"bdd100k {split} {number}", size)
            _grey(root / f"bdd100k/labels/sem_seg/masks/{split}/{key}.png", ids)
            _image(root / f"bdd100k/labels/sem_seg/colormaps/{split}/{key}.png", ids)
            _image(root / f"bdd100k/images/10k/{split}/{key}.jpg", ids)
    return truth


def write_mapillary(root: Path, count: int = 2, size: tuple[int, int] = SIZE) -> Truth:
    """Vistas v1.2 in the archive of v2.0: JPEG of several shapes, palette labels, and the names of
    the classes in ``config_v1.2.json``.
    """
    truth: Truth = {}
    holder = root / "mapillary_vistas"
    for split, part in (("train", "training"), ("val", "validation")):
        known = truth[f"mapillary_vistas_{split}"] = {}
        for number in range(count):
            key = f"{part[0]}{number:021d}"
            shape = size if number % 2 == 0 else (size[0] * 3 // 2, size[1])
            table = dict(enumerate(MAPILLARY.values()))
            ids, known[key] = _labels(table, f"mapillary {split} {number}", shape)
            _palette(holder / part / f"v1.2/labels/{key}.png", ids)
            _palette(holder / part / f"v2.0/labels/{key}.png", ids * 0 + 99)
            _image(holder / part / f"images/{key}.jpg", ids)
    labels = [{"name": f"group--{i}", "readable": name} for i, name in enumerate(MAPILLARY)]
    for version, listed in (("1.2", labels), ("2.0", [{"readable": "Road"}] * 124)):
        text = json.dumps({"labels": listed, "version": version})
        (holder / f"config_v{version}.json").write_text(text)
    return truth


def write_acdc(root: Path, count: int = 1, size: tuple[int, int] = SIZE) -> Truth:
    """Write four conditions with sequences of frames, ``labelTrainIds`` and other labels."""
    truth: Truth = {}
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            known = truth[f"acdc_{condition}_{split}"] = {}
            for number in range(count):
                key = f"GOPR{number:04d}/GOPR{number:04d}_frame_{100 + number:06d}"
                ids, known[key] = _labels(TRAIN, f"acdc {condition} {split} {number}", size)
                stem = root / f"acdc/gt/{condition}/{split}/{key}_gt"
                _grey(Path(f"{stem}_labelTrainIds.png"), ids)
                _grey(Path(f"{stem}_labelIds.png"), ids * 0 + 7)
                _image(Path(f"{stem}_labelColor.png"), ids)
                image = root / f"acdc/rgb_anon/{condition}/{split}/{key}_rgb_anon.png"
                _image(image, ids)
                _image(
                    Path(str(image).replace(split, f"{split}_ref").replace("_rgb", "_ref_rgb")), ids
                )
    return truth


def write_all(root: Path, count: int = 3, size: tuple[int, int] = SIZE) -> Truth:
    """Write all datasets with ``count`` pairs per split (of ACDC, per condition and split)."""
    writers = (write_gtav, write_synthia, write_urbansyn, write_cityscapes, write_bdd100k)
    truth: Truth = {}
    for write in (*writers, write_mapillary, write_acdc):
        truth |= write(root, count, size)
    return truth


def _labels(
    table: dict[int, str | None], seed: str, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return blocks with all ids of ``table``, and their train ids."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    rounds = [rng.permutation(list(table)) for _ in range(-(-rows * columns // len(table)))]
    blocks = np.concatenate(rounds)[: rows * columns].reshape(rows, columns)
    ids = np.kron(blocks, np.ones((8, 8), int))[: size[0], : size[1]]
    meaning = {i: IGNORED if name is None else NAMES.index(name) for i, name in table.items()}
    return ids, np.vectorize(meaning.get)(ids).astype(np.uint8)


def _image(file: Path, ids: np.ndarray) -> None:
    """Return a colour for every id."""
    file.parent.mkdir(parents=True, exist_ok=True)
    channels = [ids * 37 % 256, ids * 101 % 256, 255 - ids % 256]
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(file)


def _grey(file: Path, ids: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(file)


def _palette(file: Path, ids: np.ndarray) -> None:
    """Return a palette image whose indices are the ids; the colours differ from the indices."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8)).convert("P")
    image.putpalette([value for i in range(256) for value in (255 - i, i * 7 % 256, 128)])
    image.putdata(ids.ravel().tolist())
    image.save(file)


def _opencv(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)
