"""Every benchmark in the layout of its release, compared in all pixels of its labels."""

import logging
import shutil

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from recyclelora.data import TrainMapper, build_train_loader, get_dataset, read_pair
from recyclelora.data.benchmarks import BENCHMARKS
from recyclelora.data.gtav_split import read_split
from recyclelora.data.pairing import seeded_subset

from ..support import originals as originals

SIZE = (48, 96)
EXPECTED = {
    "gtav_all": 24_966,
    "gtav_train": 24_966,
    "gtav_owners_train": 12_403,
    "gtav_owners_val": 6_382,
    "gtav_owners_test": 6_181,
    "synthia_train": 9_400,
    "urbansyn_train": 7_539,
    "cityscapes_train": 2_975,
    "cityscapes_val": 500,
    "bdd100k_train": 7_000,
    "bdd100k_val": 1_000,
    "mapillary_vistas_train": 18_000,
    "mapillary_vistas_val": 2_000,
    **dict.fromkeys((f"acdc_{c}_train" for c in ("fog", "night", "rain", "snow")), 400),
    **{"acdc_fog_val": 100, "acdc_night_val": 106, "acdc_rain_val": 100, "acdc_snow_val": 100},
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return the folder and the correct labels of all datasets."""
    root = tmp_path_factory.mktemp("datasets")
    return root, originals.write_all(root, count=3, size=SIZE)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Set DETECTRON2_DATASETS to an empty folder."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def assert_reads(name, truth):
    records = get_dataset(name).records()
    assert [record["image_id"] for record in records] == sorted(truth[name])
    for record in records:
        image, label = read_pair(
            record["file_name"], record["sem_seg_file_name"], record["label_map"]
        )
        expected = truth[name][record["image_id"]]
        assert np.array_equal(label, expected), record["sem_seg_file_name"]
        assert image.shape == (*expected.shape, 3)
        assert (record["height"], record["width"]) == expected.shape
    return records


def test_expected_sizes_are_those_of_the_releases():
    assert {folder.name: folder.expected for folder in BENCHMARKS} == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_labels_of_a_release_decode_to_train_ids(name, released, monkeypatch, caplog):
    root, truth = released
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    with caplog.at_level(logging.WARNING):
        records = assert_reads(name, truth)
    (warning,) = caplog.messages
    assert f"'{name}': expected {EXPECTED[name]} pairs, found {len(records)} in" in warning
    assert f"not comparable with published ones; python tools/check_datasets.py {name}" in warning


def test_originals_contain_every_class(released):
    _, truth = released
    for name, labels in truth.items():
        classes = {i for label in labels.values() for i in np.unique(label).tolist()}
        missing = {9, 14, 16} if name == "synthia_train" else set()
        assert classes == {*range(19), 255} - missing, name


def test_plain_readers_lose_ids_of_these_labels(released):
    root, _ = released
    synthia = root / "synthia/GT/LABELS/0000000.png"
    assert cv2.imread(str(synthia), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    # Pillow keeps only the high byte of 16-bit values, so every class would be 0.
    assert not np.asarray(Image.open(synthia))[..., 0].any()
    # OpenCV converts palettes to their colours.
    gtav = root / "gtav/labels/00001.png"
    assert Image.open(gtav).mode == "P" and cv2.imread(str(gtav), cv2.IMREAD_UNCHANGED).ndim == 3


def moved(root, **places):
    for old, new in places.items():
        target = root / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / old.replace("__", "/")).rename(target)


LAYOUTS = {
    "gtav_all": (originals.write_gtav, {"gtav": "GTAV"}),
    "synthia_train": (originals.write_synthia, {"synthia": "RAND_CITYSCAPES"}),
    "urbansyn_train": (originals.write_urbansyn, {"urbansyn": "UrbanSyn"}),
    "cityscapes_val": (
        originals.write_cityscapes,
        {
            "cityscapes__leftImg8bit": "cityscapes/leftImg8bit_trainvaltest/leftImg8bit",
            "cityscapes__gtFine": "cityscapes/gtFine_trainvaltest/gtFine",
        },
    ),
    "mapillary_vistas_val": (
        originals.write_mapillary,
        {
            "mapillary_vistas__validation__v1.2__labels": "mapillary_vistas/validation/labels",
            "mapillary_vistas__config_v1.2.json": "mapillary_vistas/config.json",
            "mapillary_vistas": "mapillary",
        },
    ),
    "acdc_night_val": (
        originals.write_acdc,
        {
            "acdc__rgb_anon": "acdc/rgb_anon_trainvaltest/rgb_anon",
            "acdc__gt": "acdc/gt_trainval/gt",
        },
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_in_other_known_layouts_are_read(name, root):
    write, places = LAYOUTS[name]
    truth = write(root, 2, SIZE)
    moved(root, **places)
    assert_reads(name, truth)


@pytest.mark.parametrize("image", ["rgb_", ""])
@pytest.mark.parametrize("label", ["ss_", ""])
def test_urbansyn_with_or_without_prefixes_is_read(image, label, root):
    truth = originals.write_urbansyn(root, 2, SIZE)
    for number in (1, 2):
        moved(
            root,
            **{f"urbansyn__rgb__rgb_{number:04d}.png": f"urbansyn/rgb/{image}{number:04d}.png"},
        )
        moved(
            root, **{f"urbansyn__ss__ss_{number:04d}.png": f"urbansyn/ss/{label}{number:04d}.png"}
        )
    assert_reads("urbansyn_train", truth)
    next((root / "urbansyn/ss").iterdir()).unlink()
    with pytest.raises(ValueError, match=rf"expected its label \S*/ss/{'ss_' * bool(image)}000\d"):
        get_dataset("urbansyn_train").records()


def test_converted_labels_of_other_projects_are_skipped(root):
    truth = originals.write_gtav(root, 3, SIZE) | originals.write_synthia(root, 2, SIZE)
    for folder in ("gtav/labels", "synthia/GT/LABELS"):
        for file in (root / folder).glob("*.png"):
            shutil.copy(file, file.with_name(f"{file.stem}_labelTrainIds.png"))
    for name in ("gtav_all", "synthia_train"):
        assert_reads(name, truth)


def test_train_loader_pools_sources_of_different_formats(released, monkeypatch):
    root, truth = released
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    names = ["gtav_train", "synthia_train", "urbansyn_train"]
    loader = build_train_loader(
        names, TrainMapper(crop=48, pad_to_crop=False), 3, seed=0, iterations=3, num_workers=0
    )
    samples = [sample for batch in loader for sample in batch]
    assert len({sample["file_name"] for sample in samples}) == sum(len(truth[n]) for n in names)
    for sample in samples:
        assert set(sample["sem_seg"].unique().tolist()) <= {*range(19), 255}
        assert sample["image"].shape[1:] == sample["sem_seg"].shape


def test_gtav_subset_is_fixed():
    pairs = [(f"{number:05d}", None, None) for number in range(1, 24_967)]
    folder = get_dataset("gtav_train")
    keys = [key for key, _, _ in seeded_subset(pairs, folder.subset, folder.subset_seed)]
    assert len(keys) == 12_403 and keys == sorted(keys)
    # Explicit names: other machines and versions of NumPy or Python must draw the same images.
    assert keys[:4] + keys[-3:] == ["00003", "00005", "00008", "00012", "24962", "24963", "24966"]


def test_gtav_split_assigns_every_image_once(released):
    parts = read_split(released[0] / "gtav")
    assert {part: len(numbers) for part, numbers in parts.items()} == {
        "train": 12_403, "val": 6_382, "test": 6_181
    }  # fmt: skip
    assert sorted(n for numbers in parts.values() for n in numbers) == list(range(1, 24_967))


def test_gtav_split_missing_or_invalid_raises(root):
    truth = originals.write_gtav(root, 3, SIZE)
    split = root / "gtav/split.mat"
    moved(root, **{"gtav__split.mat": "gtav/read_mapping/split.mat"})  # the folder in its archive
    assert_reads("gtav_owners_val", truth)
    moved(root, **{"gtav__read_mapping__split.mat": "elsewhere.mat"})
    where = r"split\.mat, but neither file exists; the official download page .*read_m"
    with pytest.raises(FileNotFoundError, match=where):
        get_dataset("gtav_owners_train").records()
    whole = scipy.io.loadmat(root / "elsewhere.mat")
    lists = {key: whole[key] for key in ("trainIds", "valIds", "testIds")}
    wrong = [
        {"trainIds": lists["trainIds"]},
        lists | {"testIds": lists["trainIds"][:6181]},
        lists | {"testIds": lists["testIds"] + 1},
        lists | {"valIds": np.append(lists["valIds"], 0)},
        lists | {"valIds": lists["valIds"] + 0.5},
        dict.fromkeys(lists, np.empty(0)),
    ]
    for arrays in wrong:
        scipy.io.savemat(split, arrays)
        with pytest.raises(ValueError, match=r"split\.mat: expected the lists trainIds, valIds"):
            get_dataset("gtav_owners_train").records()
    split.write_bytes(b"no matrix")
    with pytest.raises(ValueError, match=r"split\.mat: expected the lists trainIds, valIds"):
        get_dataset("gtav_owners_train").records()


def test_gtav_split_of_few_images_warns(root, caplog):
    truth = originals.write_gtav(root, 3, SIZE)["gtav_all"]
    lists = {"trainIds": [[1], [3]], "valIds": [[2]], "testIds": np.empty((0, 1))}
    scipy.io.savemat(root / "gtav/split.mat", lists)
    assert len(truth) == 3
    assert [r["image_id"] for r in get_dataset("gtav_owners_train").records()] == ["00001", "00003"]
    assert [r["image_id"] for r in get_dataset("gtav_owners_val").records()] == ["00002"]
    assert "expected 12403 pairs, found 2" in caplog.text


def test_gtav_split_with_renamed_image_raises(root):
    originals.write_gtav(root, 3, SIZE)
    for kind in ("images", "labels"):
        moved(root, **{f"gtav__{kind}__00002.png": f"gtav/{kind}/second.png"})
    with pytest.raises(ValueError, match=r"second\.png: expected GTAV's own names, numbers such"):
        get_dataset("gtav_owners_train").records()
