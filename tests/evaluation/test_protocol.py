import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from PIL import Image

from recyclelora.evaluation import Protocol, multi_scale, native, paper, rein

IMAGE = torch.randint(0, 256, (3, 60, 101), dtype=torch.uint8)
TRUTH = torch.randint(0, 19, (60, 101), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("protocol", "benchmark", "size", "expected"),
    [
        (paper(), "cityscapes", (2048, 1024), (2048, 1024)),
        (rein(), "cityscapes", (2048, 1024), (1024, 512)),
        (paper(), "bdd100k", (1280, 720), (1280, 720)),
        (rein(), "bdd100k", (1280, 720), (1280, 720)),
        # Photographs of 4:3, halved first. The short side determines the size.
        (paper(), "mapillary_vistas", (2000, 1500), (1365, 1024)),
        (rein(), "mapillary_vistas", (2000, 1500), (683, 512)),
        # Portrait images: the longer of (W, H) applies to the longer side.
        (paper(), "mapillary_vistas", (1500, 2000), (1024, 1365)),
        # The original size of ACDC. Rein's config for crops of 512 uses half of it.
        (paper(), "acdc", (1920, 1080), (1920, 1080)),
        (rein(), "acdc", (1920, 1080), (960, 540)),
        # SoMA's configs for crops of 1024 enlarge BDD100K.
        (paper(crop=1024), "bdd100k", (1280, 720), (1820, 1024)),
        (paper(crop=1024), "cityscapes", (2048, 1024), (2048, 1024)),
        (multi_scale(), "mapillary_vistas", (2000, 1500), (2000, 1500)),
        (native(), "streets", (480, 360), (480, 360)),
        (native(long_side=512), "streets", (480, 360), (512, 384)),
        (native(long_side=100), "streets", (333, 500), (67, 100)),
    ],
)
def test_input_size_of_each_protocol(protocol, benchmark, size, expected):
    assert protocol.input_size(*size, benchmark) == expected


def test_paper_unlisted_set_raises():
    with pytest.raises(ValueError, match=r"'paper' does not list 'streets' .*cityscapes"):
        paper().input_size(10, 10, "streets")


def test_prepare_halves_mapillary_bicubic_and_nearest():
    protocol = Protocol("p", halve=("mapillary_vistas",))
    image, truth = protocol.prepare(IMAGE, TRUTH, "mapillary_vistas")
    assert image.shape == (3, 30, 50) and truth.shape == (30, 50)
    picture = Image.fromarray(IMAGE.permute(1, 2, 0).numpy())
    expected = np.array(picture.resize((50, 30), Image.Resampling.BICUBIC))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    expected = np.array(Image.fromarray(TRUTH.numpy()).resize((50, 30), Image.Resampling.NEAREST))
    assert np.array_equal(truth.numpy(), expected)


def test_prepare_resizes_image_and_keeps_truth():
    protocol = Protocol("p", sizes={"x": (80, 40)})
    image, truth = protocol.prepare(IMAGE, TRUTH, "x")
    expected = cv2.resize(IMAGE.permute(1, 2, 0).numpy(), (67, 40), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert torch.equal(truth, TRUTH)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_segment_takes_argmax_at_label_size(mode):
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
    # The mean of equal windows is rounded, so ties may have other results.
    assert (prediction == logits[0].argmax(0).numpy()).mean() > 0.999
    assert all(dtype == torch.float32 and high > 1 for _, dtype, high in seen)
    assert {shape[2:] for shape, _, _ in seen} == ({(24, 40)} if mode == "whole" else {(16, 16)})


def test_protocol_from_lazy_config_serialises_to_json():
    config = LazyCall(Protocol)(name="mine", sizes={"a": [20, 10]}, halve=["b"], mode="whole")
    protocol = instantiate(config)
    assert protocol == Protocol("mine", sizes={"a": (20, 10)}, halve=("b",), mode="whole")
    assert instantiate(LazyCall(paper)(batch=8)) == paper(batch=8)
    values = json.loads(json.dumps(protocol.as_dict()))
    assert values["sizes"] == {"a": [20, 10]} and values["mode"] == "whole"


@pytest.mark.parametrize(
    ("protocol", "windows"),
    [
        (paper(), (512, 341)),
        (rein(), (512, 341)),
        (paper(crop=1024), (1024, 683)),
        (multi_scale(), (512, 341)),
        (native(crop=300), (300, 200)),
        (native(crop=300, stride=7), (300, 7)),
    ],
)
def test_windows_of_published_protocols(protocol, windows):
    assert (protocol.crop, protocol.stride) == windows


def slow_class_map(predict, image, size, scales, mirrors):
    """All augmentations, computed separately: resized logits, softmax, mean, argmax."""
    total = 0
    for scale in scales:
        width, height = int(image.shape[2] * scale + 0.5), int(image.shape[1] * scale + 0.5)
        pixels = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height))
        for mirrored in mirrors:
            seen = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
            logits = predict(torch.from_numpy(seen).permute(2, 0, 1)[None].float())
            logits = logits.flip(3) if mirrored else logits
            logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear")
            total = total + logits.softmax(1)
    return total[0].argmax(0).numpy()


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("flip", [False, True])
def test_segment_scales_match_slow_implementation(mode, flip):
    scales = (0.75, 1, 1.25, 1.5, 1.75)
    protocol = native(mode=mode, crop=64, scales=scales, flip=flip)
    # Depends on a single pixel, so that windows and borders have no effect, and on the colour.
    weights = torch.randn(5, 3, 1, 1) / 50

    def predict(images):
        return torch.nn.functional.conv2d(images - 127, weights)

    sample = {"image": IMAGE, "sem_seg": TRUTH}
    prediction, _, image = protocol.segment(predict, sample, "x")
    expected = slow_class_map(
        predict, IMAGE, (60, 101), scales, (False, True) if flip else (False,)
    )
    assert len(np.unique(expected)) == 5
    assert (prediction == expected).mean() > 0.999
    assert np.array_equal(image, IMAGE.permute(1, 2, 0).numpy())


@pytest.mark.gpu
@pytest.mark.parametrize("scales", [(1,), (0.75, 1, 1.5)])
def test_segment_on_gpu_matches_cpu(scales):
    protocol = native(mode="slide", crop=48, scales=scales, flip=len(scales) > 1)
    network = torch.nn.Conv2d(3, 5, 3, padding=1)
    sample = {"image": IMAGE, "sem_seg": TRUTH}
    here = protocol.segment(network, sample, "x")[0]
    network.cuda()
    there = protocol.segment(lambda images: network(images.cuda()), sample, "x")[0]
    assert (here == there).mean() > 0.999


def test_input_size_scale_multiplies_listed_size():
    protocol = paper(scales=(0.5,))
    assert protocol.input_size(2048, 1024, "cityscapes", 0.5) == (1024, 512)
    protocol = multi_scale()
    assert protocol.scales == (0.75, 1, 1.25, 1.5, 1.75) and protocol.flip
    assert protocol.input_size(1365, 1024, "mapillary_vistas", 1.75) == (2389, 1792)


def test_segment_flip_is_mirrored_back():
    sample = {"image": IMAGE, "sem_seg": TRUTH}
    kernel = torch.randn(5, 3, 3, 3)
    kernel = (kernel + kernel.flip(3)) / 50  # equal for left and right

    def predict(images):
        return torch.nn.functional.conv2d(images, kernel, padding=1)

    plain = native().segment(predict, sample, "x")[0]
    both = native(flip=True).segment(predict, sample, "x")[0]
    assert (plain == both).mean() > 0.999

    def sees(images):  # uses only the left half; mirrored, this is the right half
        logits = predict(images)
        logits[..., images.shape[3] // 2 :] = 0
        return logits

    assert (native(flip=True).segment(sees, sample, "x")[0][:, 51:] == plain[:, 51:]).mean() > 0.9
    assert (native().segment(sees, sample, "x")[0][:, 51:] == 0).all()


def test_segment_argmax_input_resizes_class_map():
    small = native(long_side=33, argmax="input")
    sample = {"image": IMAGE, "sem_seg": TRUTH}

    def predict(images):
        return images

    prediction, _, image = small.segment(predict, sample, "x")
    expected = image.argmax(2).astype(np.uint8)
    expected = np.array(Image.fromarray(expected).resize((101, 60), Image.Resampling.NEAREST))
    assert np.array_equal(prediction, expected)
    smooth = native(long_side=33).segment(predict, sample, "x")[0]
    assert not np.array_equal(prediction, smooth)


@pytest.mark.parametrize(
    "protocol",
    [
        paper(),
        paper(1024, scales=[0.5, 1]),
        rein(),
        multi_scale(),
        native(long_side=9, mode="whole"),
    ],
)
def test_protocol_json_round_trip(protocol):
    values = json.loads(json.dumps(protocol.as_dict()))
    assert Protocol(**values) == protocol
    line = str(protocol)
    assert line.startswith(f"{protocol.name}: ") and "\n" not in line
    for benchmark in protocol.sizes:
        assert benchmark in line


def test_protocol_from_older_json():
    values = rein().as_dict()
    for key in ("scales", "flip", "argmax"):
        values.pop(key)
    assert Protocol(**values) == rein()


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "slid"},
        {"sizes": {"a": (0, 4)}},
        {"long_side": 0},
        {"scales": ()},
        {"scales": 0.5},
        {"scales": (1, 0)},
        {"scales": (float("nan"),)},
        {"flip": 1},
        {"only_listed": "no"},
        {"halve": "mapillary_vistas"},
        {"halve": (3,)},
        {"halve": None},
        {"argmax": "image"},
    ],
)
def test_protocol_invalid_values_raise(values):
    with pytest.raises(ValueError, match=f"protocol 'bad': .*{next(iter(values))}"):
        Protocol("bad", **values)


def test_paper_other_crop_raises():
    with pytest.raises(
        ValueError, match="'paper': crop must be 512 or 1024, as published, got 768"
    ):
        paper(crop=768)
