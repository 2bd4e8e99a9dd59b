import json

import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.data import CLASSES, COLORS, LABELMEFACADE, build_test_loader
from recyclelora.evaluation import Protocol, evaluate_domains, native
from recyclelora.evaluation.predictions import FORMATS, encode, save_prediction

# Ids of the 19 classes, from the list of labels in the Cityscapes paper.
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def predict(images):
    """Return logits that depend only on the pixel's colour."""
    logits = torch.zeros(len(images), len(CLASSES), *images.shape[-2:])
    logits[:, [0, 2, 10]] = images
    return logits


def written(folder):
    return {
        file.relative_to(folder).as_posix(): np.array(Image.open(file))
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_encode_every_class_in_every_format():
    ids = np.arange(19, dtype=np.uint8)[None]
    assert np.array_equal(encode(ids, "train_ids"), ids)
    assert encode(ids, "label_ids").tolist() == [LABEL_IDS]
    assert np.array_equal(encode(ids, "color")[0], np.array(COLORS))
    assert all(encode(ids, form).dtype == np.uint8 for form in FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_evaluation_saves_scored_class_maps(form, tiny_set, tmp_path):
    name = tiny_set("day", count=3)
    loader = build_test_loader(name, num_workers=0)
    protocol = native(long_side=50, scales=(1, 1.5), flip=True)
    evaluate_domains(predict, {"a day": loader}, protocol, tmp_path / "o", save_predictions=form)
    maps = written(tmp_path / "o" / "predictions" / "a day")
    assert list(maps) == [f"{i:06d}.png" for i in range(3)]
    for sample, (file, found) in zip(loader, maps.items(), strict=True):
        assert sample["image_id"] in file and found.shape[:2] == (48, 64)
        assert np.array_equal(found, encode(protocol.segment(predict, sample, "day")[0], form))


def test_evaluation_without_saving_has_equal_scores(tiny_set, tmp_path):
    domains = {"day": build_test_loader(tiny_set("day", folding=LABELMEFACADE), num_workers=0)}
    plain = evaluate_domains(predict, domains, native(), tmp_path / "plain", pictures=0)
    assert not (tmp_path / "plain" / "predictions").exists()
    saved = evaluate_domains(predict, domains, native(), tmp_path / "s", save_predictions="color")
    assert saved == plain == json.loads((tmp_path / "s" / "domains.json").read_text())


def test_evaluation_removes_older_class_maps(tiny_set, tmp_path):
    name = tiny_set("day", count=3)
    for subset, count in ((3, 3), (2, 2)):
        domains = {"day": build_test_loader(name, subset=subset, num_workers=0)}
        evaluate_domains(predict, domains, native(), tmp_path, save_predictions="color")
        assert len(written(tmp_path / "predictions" / "day")) == count
    evaluate_domains(predict, domains, native(), tmp_path)  # does not write or remove any
    assert len(written(tmp_path / "predictions" / "day")) == 2


def test_saved_files_have_image_names(tmp_path):
    """cityscapesscripts searches CITY_SEQUENCE_FRAME*.png; ACDC requires the name of the image."""
    for image, image_id, expected in (
        (
            "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png",
            "lindau/lindau_000000_000019",
            "lindau/lindau_000000_000019_leftImg8bit.png",
        ),
        (
            "rgb_anon/fog/test/GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
            "GOPR0475/GOPR0475_frame_000041",
            "GOPR0475/GOPR0475_frame_000041_rgb_anon.png",
        ),
        ("images/some.photo.jpg", "some.photo", "some.photo.png"),
    ):
        sample = {"file_name": image, "image_id": image_id, "image": torch.zeros(3, 4, 6)}
        save_prediction(tmp_path, "train_ids", sample, np.full((4, 6), 3, np.uint8))
        assert (tmp_path / expected).is_file(), expected


@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_halved_class_map_is_saved_at_image_size(size, tiny_set, tmp_path):
    name = tiny_set("map", count=1, size=size)
    loader = build_test_loader(name, num_workers=0)
    protocol = Protocol("p", halve=("map",), mode="whole")
    evaluate_domains(predict, {"m": loader}, protocol, tmp_path / "o", save_predictions="train_ids")
    (found,) = written(tmp_path / "o" / "predictions").values()
    assert found.shape == size
    (sample,) = loader
    scored = protocol.segment(predict, sample, "map")[0]
    assert scored.shape == (24, 32)
    if size == (48, 64):
        assert np.array_equal(found, scored.repeat(2, 0).repeat(2, 1))
    else:
        assert set(np.unique(found)) == set(np.unique(scored))


def test_unknown_format_raises_before_evaluation(tiny_set, tmp_path):
    domains = {"day": build_test_loader(tiny_set("day"), num_workers=0)}
    with pytest.raises(ValueError, match=r"save_predictions must be null, .* or color, got 'rgb'"):
        evaluate_domains(None, domains, native(), tmp_path / "o", save_predictions="rgb")
    assert not (tmp_path / "o").exists()
