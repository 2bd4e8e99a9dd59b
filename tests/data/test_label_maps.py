import json

import numpy as np
import pytest

from recyclelora.data import CAMVID, CITYSCAPES_IDS, CLASSES, LABELMEFACADE, TRAIN_IDS, LabelMap
from recyclelora.data.label_maps import SYNTHIA_IDS, URBANSYN_IDS, mapillary_label_map


def test_cityscapes_ids_map_to_train_ids():
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    looked_up = CITYSCAPES_IDS.to_train_ids(np.array([ids], np.uint8), "x.png")
    assert looked_up.tolist() == [list(range(19))]
    others = sorted({*range(35), 255} - set(ids))
    assert set(CITYSCAPES_IDS.to_train_ids(np.array(others), "x.png").tolist()) == {255}


def test_synthia_ids_map_to_train_ids():
    ids = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]
    assert SYNTHIA_IDS.to_train_ids(np.array(ids, np.uint16), "x.png").tolist() == list(range(19))
    assert set(SYNTHIA_IDS.to_train_ids(np.array([0, 13, 14, 22]), "x.png").tolist()) == {255}
    with pytest.raises(ValueError, match="value 23, "):
        SYNTHIA_IDS.to_train_ids(np.array([[23]], np.uint16), "x.png")


def test_urbansyn_other_ids_are_ignored():
    ids = URBANSYN_IDS.to_train_ids(np.arange(256), "x.png").tolist()
    assert ids == [*range(19), *[255] * 237]


@pytest.mark.parametrize("value", [19, 99, 254])
def test_unknown_id_raises_with_file_and_value(value):
    ids = np.array([[0, 255, value]], np.uint8)
    with pytest.raises(ValueError, match=rf"^street\.png: 1 pixels .* value {value}, .*0\.\.18"):
        TRAIN_IDS.to_train_ids(ids, "street.png")


@pytest.mark.parametrize("value", [-1, 70000])
def test_id_beyond_16_bits_raises(value):
    with pytest.raises(ValueError, match=rf"value {value}, "):
        TRAIN_IDS.to_train_ids(np.array([[0, value]], np.int32), "x.png")


def test_ignore_others_maps_unknown_ids_to_ignore():
    label_map = LabelMap("some", {1: 0, 300: 3}, ignore_others=True)
    assert label_map.to_train_ids(np.array([1, 2, 300], np.uint16), "x.png").tolist() == [0, 255, 3]


@pytest.mark.parametrize("ids", [{0: 19}, {}, {-1: 0}, {65536: 0}])
def test_label_map_with_invalid_ids_raises(ids):
    with pytest.raises(ValueError, match="label map 'bad' must map ids"):
        LabelMap("bad", ids)


def test_camvid_folding_equals_its_documentation():
    moved = {3: 2, 6: 7, 9: 8, 14: 13, 15: 13, 16: 13, 12: 18, 17: 18}
    stays = [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 18]
    assert CAMVID.table.tolist() == [moved.get(i, i) for i in range(19)]
    assert sorted(CAMVID.label_ids) == stays


def test_labelmefacade_folding_equals_its_documentation():
    moved = {0: 0, 1: 1, 2: 2, 8: 8, 10: 10, 13: 13, 3: 2, 9: 8, 14: 13, 15: 13}
    assert LABELMEFACADE.table.tolist() == [moved.get(i, 19) for i in range(19)]


def test_folding_label_map_with_other_class_raises():
    with pytest.raises(ValueError, match="value 3, "):
        CAMVID.label_map.to_train_ids(np.array([[3]], np.uint8), "x.png")


MAPILLARY = {
    **{name.title(): name for name in CLASSES if name != "train"},
    "Traffic Sign (Front)": "traffic sign",
    "Traffic Sign (Back)": "traffic sign",
    "Traffic Sign Frame": "traffic sign",
    "On Rails": "train",
    "Bicyclist": "rider",
    "Motorcyclist": "rider",
    "Other Rider": "rider",
    "Utility Pole": "pole",
    "Street Light": "pole",
    "Curb": "sidewalk",
    "Curb Cut": "sidewalk",
    "Pedestrian Area": "sidewalk",
    "Crosswalk - Plain": "road",
    "Parking": "road",
    "Bike Lane": "road",
    "Service Lane": "road",
    "Lane Marking - General": "road",
    "Lane Marking - Crosswalk": "road",
    **dict.fromkeys(("Bird", "Guard Rail", "Rail Track", "Bridge", "Ego Vehicle", "Unlabeled")),
}


def test_mapillary_readable_names_map_to_train_ids(tmp_path):
    config = tmp_path / "config_v1.2.json"
    config.write_text(json.dumps({"labels": [{"readable": name} for name in MAPILLARY]}))
    label_map = mapillary_label_map(config)
    expected = [255 if name is None else CLASSES.index(name) for name in MAPILLARY.values()]
    assert [label_map.ids[i] for i in range(len(MAPILLARY))] == expected


@pytest.mark.parametrize(
    "readable",
    [
        *("Parking Meter", "Bike Lane Marker", "Curb Stone", "Pole Group", "Street Light Box"),
        *("Lane Marking", "Crosswalk", "Road Side", "Skyline", "Carport", "Trainer", "Personnel"),
    ],
)
def test_mapillary_similar_names_are_ignored(tmp_path, readable):
    config = tmp_path / "config_v1.2.json"
    config.write_text(json.dumps({"labels": [{"readable": readable}]}))
    assert mapillary_label_map(config).ids == {0: 255}


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": [{"name": "road"}]}'])
def test_mapillary_config_broken_raises(tmp_path, text):
    config = tmp_path / "config_v1.2.json"
    config.write_text(text)
    with pytest.raises(ValueError, match=r"config_v1\.2\.json: expected Mapillary's list"):
        mapillary_label_map(config)
