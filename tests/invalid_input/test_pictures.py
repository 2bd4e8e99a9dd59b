"""Image and label files of every kind: exact pixels, or one message that names the file."""

import json
import os
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from recyclelora.data import CAMVID, CITYSCAPES_IDS, TRAIN_IDS, LabelMap, read_image, read_pair
from recyclelora.data.label_maps import mapillary_label_map
from recyclelora.data.mapper import TestMapper, TrainMapper
from recyclelora.evaluation import native

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = COLORS[..., 0]
IDS = RNG.integers(0, 19, (6, 9), dtype=np.uint8)


def rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def saved(pixels, file, **options):
    Image.fromarray(pixels).save(file, **options)


def written(content, file):
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())


def turned(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def palette_with_alpha(file):
    image = Image.fromarray(GREY).convert("P")
    image.save(file, transparency=bytes(range(256)))


def png_of(width, height, *chunks):
    """Return a PNG whose header declares a size, followed by chunks (name, content)."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [(b"IHDR", header), *chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


# The kind of file, the function that writes a.png, the pixels.
READ = {
    "grey": (lambda f: saved(GREY, f), rgb(GREY)),
    "grey with alpha": (lambda f: saved(np.dstack([GREY, GREY]), f), rgb(GREY)),
    "16-bit grey, scaled": (lambda f: cv2.imwrite(f, GREY.astype(np.uint16) * 257), rgb(GREY)),
    "16-bit colours, scaled": (
        lambda f: cv2.imwrite(f, COLORS[..., ::-1].astype(np.uint16) * 257),
        COLORS,
    ),
    "black and white": (lambda f: saved(GREY > 99, f), rgb(np.uint8(GREY > 99) * 255)),
    "palette": (lambda f: Image.fromarray(GREY).convert("P").save(f), rgb(GREY)),
    "palette with alpha, dropped": (palette_with_alpha, rgb(GREY)),
    "alpha, dropped": (lambda f: saved(np.dstack([COLORS, GREY]), f), COLORS),
    "all transparent": (lambda f: saved(np.dstack([COLORS, GREY * 0]), f), COLORS),
    "EXIF: turned left": (lambda f: saved(COLORS, f, exif=turned(6)), np.rot90(COLORS, -1)),
    "EXIF: nonsense": (lambda f: saved(COLORS, f, exif=turned(77)), COLORS),
    "EXIF: damaged": (lambda f: saved(COLORS, f, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), COLORS),
    "a BMP": (lambda f: saved(COLORS, f, format="BMP"), COLORS),
    "a TIFF": (lambda f: saved(COLORS, f, format="TIFF"), COLORS),
    "a 16-bit TIFF": (
        lambda f: saved(GREY.astype(np.uint16) * 257, f, format="TIFF"),
        rgb(GREY),
    ),
    "a WebP": (lambda f: saved(COLORS, f, format="WEBP", lossless=True), COLORS),
    "a GIF of one frame": (lambda f: saved(GREY, f, format="GIF"), rgb(GREY)),
    "a PPM": (lambda f: saved(COLORS, f, format="PPM"), COLORS),
    "one pixel": (lambda f: saved(COLORS[:1, :1], f), COLORS[:1, :1]),
}


@pytest.mark.parametrize("kind", READ)
def test_read_image_returns_exact_pixels(kind, tmp_path):
    write, expected = READ[kind]
    write(str(tmp_path / "a.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # libraries must not print warnings
        assert np.array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_read_image_converts_jpeg_colours(mode, tmp_path):
    Image.new("RGB", (16, 16), (200, 30, 40)).convert(mode).save(
        tmp_path / "a.png", "JPEG", quality=100
    )
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - (200, 30, 40)).max() < 6


def frames(file, kind, **options):
    more = [Image.fromarray(COLORS[::-1]), Image.fromarray(COLORS)]
    Image.fromarray(COLORS).save(file, kind, save_all=True, append_images=more, **options)


def text_bomb(file):
    """A PNG with a comment that unpacks to 80 MB."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 80_000_000, zip=True)
    Image.fromarray(COLORS).save(file, pnginfo=info)


# The kind of file, the function that writes it, a part of the message.
REFUSED = {
    "not there": (lambda f: None, "no such file; restore it, or remove the other file of its pair"),
    "a link to nothing": (lambda f: os.symlink("/nowhere", f), "no such file"),
    "a folder": (os.mkdir, "got a folder or device of that name"),
    "a pipe": (os.mkfifo, "got a folder or device of that name"),
    "empty": (lambda f: written("", f), "expected a complete picture"),
    "text": (lambda f: written("no picture", f), "expected a complete picture"),
    "a PNG that ends after its header": (
        lambda f: written(png_of(9, 6)[:40], f),
        "expected a complete picture",
    ),
    "of no size": (lambda f: written(png_of(0, 6), f), "expected a complete picture"),
    "an animated PNG": (lambda f: frames(f, "PNG"), "got several frames"),
    "an animated GIF": (lambda f: frames(f, "GIF"), "got several frames"),
    "an animated WebP": (lambda f: frames(f, "WEBP"), "got several frames"),
    "a TIFF of pages": (lambda f: frames(f, "TIFF"), "got several frames"),
    "a bomb of 90 megapixels": (
        lambda f: written(png_of(10_000, 9_000), f),
        "at most 80 megapixels, got 10000x9000",
    ),
    "a bomb of 4 gigapixels": (
        lambda f: written(png_of(65_000, 65_000), f),
        "at most 80 megapixels, got more than 178; make it smaller",
    ),
    "a bomb in a comment": (text_bomb, "expected a complete picture"),
    "floating point": (
        lambda f: saved(GREY.astype(np.float32), f, format="TIFF"),
        "got floating point values",
    ),
    "32 bits per pixel": (
        lambda f: saved(GREY.astype(np.int32) * 70_000, f, format="TIFF"),
        "expected an image of 8 or 16 bits per channel, got values from",
    ),
    # Pillow would start Ghostscript for this file.
    "PostScript": (
        lambda f: written("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n", f),
        "unknown format",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_read_image_invalid_file_raises_one_message(kind, tmp_path):
    write, words = REFUSED[kind]
    write(str(tmp_path / "a.png"))
    with pytest.raises((ValueError, FileNotFoundError)) as stopped:
        read_image(tmp_path / "a.png")
    said = str(stopped.value)
    assert said.startswith(str(tmp_path / "a.png")) and words in said and "\n" not in said


def palette_label(file, ids):
    label = Image.fromarray(ids).convert("P")
    label.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    label.putdata(ids.ravel().tolist())
    label.save(file)


RED = LabelMap("in red", dict.fromkeys(range(256), 3), channel=0)
# The kind of label, its label map, the function that writes it, the train ids or a message.
LABELS = {
    "8-bit": (TRAIN_IDS, lambda f: saved(IDS, f), IDS),
    "16-bit": (TRAIN_IDS, lambda f: cv2.imwrite(f, IDS.astype(np.uint16)), IDS),
    "palette": (TRAIN_IDS, lambda f: palette_label(f, IDS), IDS),
    "a TIFF": (TRAIN_IDS, lambda f: saved(IDS, f, format="TIFF"), IDS),
    "black and white": (TRAIN_IDS, lambda f: saved(IDS > 9, f), np.uint8(IDS > 9)),
    "all ignored": (TRAIN_IDS, lambda f: saved(IDS * 0 + 255, f), IDS * 0 + 255),
    "the value 19": (TRAIN_IDS, lambda f: saved(IDS * 0 + 19, f), "54 pixels have the label value"),
    "the value 254": (TRAIN_IDS, lambda f: saved(IDS * 0 + 254, f), "defines 0..18 and 255"),
    "16-bit, 65535": (
        TRAIN_IDS,
        lambda f: cv2.imwrite(f, np.full((6, 9), 65535, np.uint16)),
        "the label value 65535",
    ),
    "32-bit": (
        TRAIN_IDS,
        lambda f: saved(np.full((6, 9), 1 << 20, np.int32), f, format="TIFF"),
        "the label value 1048576",
    ),
    "Cityscapes ids without their map": (
        TRAIN_IDS,
        lambda f: saved(IDS * 0 + 26, f),
        "use the label map with which it was made",
    ),
    "train ids under Cityscapes' map": (CITYSCAPES_IDS, lambda f: saved(IDS * 0 + 35, f), "35"),
    "a class the set does not label": (CAMVID.label_map, lambda f: saved(IDS * 0 + 16, f), "16"),
    "colours": (TRAIN_IDS, lambda f: saved(COLORS, f), "expected a map of class ids"),
    "grey with alpha": (TRAIN_IDS, lambda f: saved(np.dstack([IDS, IDS]), f), "mode LA"),
    "a JPEG": (TRAIN_IDS, lambda f: saved(IDS, f, format="JPEG"), "got a JPEG, which changes ids"),
    "a colour JPEG": (RED, lambda f: saved(COLORS, f, format="JPEG"), "got a JPEG"),
    "grey where a channel is asked for": (RED, lambda f: saved(IDS, f), "expected a colour file"),
    "of another size": (TRAIN_IDS, lambda f: saved(IDS[:4], f), "(9x6), got 9x4"),
    "turned": (TRAIN_IDS, lambda f: saved(IDS.T.copy(), f), "(9x6), got 6x9"),
    "floating point": (TRAIN_IDS, lambda f: saved(IDS * 1.0, f, format="TIFF"), "mode F"),
    "empty": (TRAIN_IDS, lambda f: written("", f), "expected a complete picture"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_read_pair_returns_ids_or_raises_one_message(kind, tmp_path):
    label_map, write, expected = LABELS[kind]
    saved(COLORS, tmp_path / "image.png")
    write(str(tmp_path / "label.png"))
    files = tmp_path / "image.png", tmp_path / "label.png", label_map
    if isinstance(expected, np.ndarray):
        assert np.array_equal(read_pair(*files)[1], expected)
        return
    with pytest.raises(ValueError) as stopped:
        read_pair(*files)
    said = str(stopped.value)
    assert "label.png" in said and expected in said and "\n" not in said


def test_unknown_id_message_abbreviates_large_maps(tmp_path):
    saved(COLORS, tmp_path / "image.png")
    saved(IDS * 0 + 1, tmp_path / "label.png")
    even = LabelMap("even", dict.fromkeys(range(0, 65536, 2), 3))
    with pytest.raises(ValueError, match="label value 1") as stopped:
        read_pair(tmp_path / "image.png", tmp_path / "label.png", even)
    assert len(str(stopped.value)) < 800


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (31, 700)], ids=str)
def test_pictures_of_odd_sizes_are_processed(size, tmp_path):
    saved(RNG.integers(0, 256, (*size, 3), dtype=np.uint8), tmp_path / "a.png")
    saved(np.zeros(size, np.uint8), tmp_path / "label.png")
    record = {"file_name": str(tmp_path / "a.png"), "label_map": TRAIN_IDS, "image_id": "a"}
    record["sem_seg_file_name"] = str(tmp_path / "label.png")
    for seed in range(3):
        sample = TrainMapper(crop=64)(record, np.random.default_rng(seed))
        assert sample["image"].shape == (3, 64, 64) and sample["sem_seg"].shape == (64, 64)
    sample = TestMapper()(record)
    for protocol in (native(long_side=96), native(mode="slide", crop=64, stride=43)):
        prediction, truth, _ = protocol.segment(lambda images: images[:, :2], sample, "none")
        assert prediction.shape == truth.shape == size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_random_bytes_give_a_picture_or_one_message(kind, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "a.png"
    saved(np.kron(COLORS, np.ones((4, 4, 1), np.uint8)), file, format=kind)
    content = file.read_bytes()
    refused = 0
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, min(len(changed), 200), 3):
            changed[place] = rng.integers(256)
        file.write_bytes(changed)
        try:
            assert read_image(file).shape[2] == 3
        except ValueError as error:
            refused += 1
            assert str(error).startswith(str(file)) and "\n" not in str(error)
    assert refused


# The list of classes of Mapillary.
CLASS_LISTS = {
    "nothing": "",
    "a number": "3",
    "no labels": "{}",
    "labels that are a number": '{"labels": 3}',
    "labels without names": '{"labels": [{}]}',
    "brackets without end": "[" * 100_000,
    "no text": "\udcff",
    "more labels than ids": json.dumps({"labels": [{"readable": "sky"}] * 70_000}),
    "11 MB": " " * 11_000_000,
}


@pytest.mark.parametrize("content", CLASS_LISTS)
def test_invalid_class_list_raises_one_message(content, tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(CLASS_LISTS[content].encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as stopped:
        mapillary_label_map(file)
    assert "Mapillary" in str(stopped.value) and len(str(stopped.value)) < 500
