"""Every benchmark in its owners' layout, read through the real code, pixel by pixel."""

import logging

import numpy as np
import pytest

from recyclelora.data import folder_of, read_pair
from recyclelora.data.benchmarks import BENCHMARKS

from . import originals

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
    """(root, truth) of every set."""
    root = tmp_path_factory.mktemp("datasets")
    return root, originals.write_all(root, count=3, size=(48, 96))


def test_sizes_of_the_releases():
    assert {folder.name: folder.expected for folder in BENCHMARKS} == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_labels_decode_to_the_right_train_ids(name, released, monkeypatch, caplog):
    root, truth = released
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    with caplog.at_level(logging.WARNING):
        records = folder_of(name).records()
    assert [record["image_id"] for record in records] == sorted(truth[name])
    for record in records:
        pair = read_pair(record["file_name"], record["sem_seg_file_name"], record["label_map"])
        expected = truth[name][record["image_id"]]
        assert np.array_equal(pair[1], expected), record["sem_seg_file_name"]
        assert pair[0].shape == (*expected.shape, 3)
        assert (record["height"], record["width"]) == expected.shape
    (warning,) = caplog.messages
    assert f"'{name}': expected {EXPECTED[name]} pairs, found {len(records)} in" in warning
