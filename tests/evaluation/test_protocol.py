import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from PIL import Image

from recyclelora.evaluation import Protocol, native, paper, rein

IMAGE = torch.randint(0, 256, (3, 60, 101), dtype=torch.uint8)
TRUTH = torch.randint(0, 19, (60, 101), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("protocol", "benchmark", "size", "expected"),
    [
        (paper(), "cityscapes", (2048, 1024), (2048, 1024)),
        (rein(), "cityscapes", (2048, 1024), (1024, 512)),
        (paper(), "bdd100k", (1280, 720), (1280, 720)),
        (rein(), "bdd100k", (1280, 720), (1280, 720)),
        # 4:3 photographs, halved before: the short side decides.
        (paper(), "mapillary_vistas", (2000, 1500), (1365, 1024)),
        (rein(), "mapillary_vistas", (2000, 1500), (683, 512)),
        # Upright ones: the longer of (W, H) goes with the longer side.
        (paper(), "mapillary_vistas", (1500, 2000), (1024, 1365)),
        (native(), "streets", (480, 360), (480, 360)),
        (native(long_side=512), "streets", (480, 360), (512, 384)),
        (native(long_side=100), "streets", (333, 500), (67, 100)),
    ],
)
def test_input_sizes(protocol, benchmark, size, expected):
    assert protocol.input_size(*size, benchmark) == expected


def test_a_published_protocol_invents_no_size():
    with pytest.raises(ValueError, match=r"'paper' says nothing about 'streets' .*cityscapes"):
        paper().input_size(10, 10, "streets")


def test_mapillary_is_halved_image_bicubic_and_label_nearest():
    protocol = Protocol("p", halve=("mapillary_vistas",))
    image, truth = protocol.prepare(IMAGE, TRUTH, "mapillary_vistas")
    assert image.shape == (3, 30, 50) and truth.shape == (30, 50)
    picture = Image.fromarray(IMAGE.permute(1, 2, 0).numpy())
    expected = np.array(picture.resize((50, 30), Image.Resampling.BICUBIC))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    expected = np.array(Image.fromarray(TRUTH.numpy()).resize((50, 30), Image.Resampling.NEAREST))
    assert np.array_equal(truth.numpy(), expected)


def test_the_image_is_resized_bilinearly_in_8_bits_and_the_truth_left_alone():
    protocol = Protocol("p", sizes={"x": (80, 40)})
    image, truth = protocol.prepare(IMAGE, TRUTH, "x")
    expected = cv2.resize(IMAGE.permute(1, 2, 0).numpy(), (67, 40), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert torch.equal(truth, TRUTH)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_prediction_is_the_argmax_at_the_truths_size(mode):
    protocol = native(long_side=40, mode=mode, crop=16, stride=11)
    seen = []

    def predict(images):
        seen.append((tuple(images.shape), images.dtype, float(images.max())))
        return torch.stack([images[:, 0], images[:, 1]], 1)

    prediction, truth, image = protocol.segment(predict, {"image": IMAGE, "sem_seg": TRUTH}, "x")
    assert prediction.shape == truth.shape == (60, 101) and prediction.dtype == np.uint8
    assert image.shape == (24, 40, 3)
    logits = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None, :2].float(),
        size=(60, 101),
        mode="bilinear",
        align_corners=False,
    )
    # The mean of equal windows rounds, so ties may fall differently.
    assert (prediction == logits[0].argmax(0).numpy()).mean() > 0.999
    assert all(dtype == torch.float32 and high > 1 for _, dtype, high in seen)
    assert {shape[2:] for shape, _, _ in seen} == ({(24, 40)} if mode == "whole" else {(16, 16)})


def test_a_protocol_comes_from_a_lazy_config_and_goes_into_json():
    config = LazyCall(Protocol)(name="mine", sizes={"a": [20, 10]}, halve=["b"], mode="whole")
    protocol = instantiate(config)
    assert protocol == Protocol("mine", sizes={"a": (20, 10)}, halve=("b",), mode="whole")
    assert instantiate(LazyCall(paper)(batch=8)) == paper(batch=8)
    values = json.loads(json.dumps(protocol.as_dict()))
    assert values["sizes"] == {"a": [20, 10]} and values["mode"] == "whole"


@pytest.mark.parametrize("values", [{"mode": "slid"}, {"sizes": {"a": (0, 4)}}, {"long_side": 0}])
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(ValueError, match="protocol 'bad'"):
        Protocol("bad", **values)
