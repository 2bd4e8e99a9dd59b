"""Encodings of label files: each is read as intended by its writer, or rejected."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from recyclelora.data import LabelMap, read_pair
from recyclelora.data.label_files import read_ids

IDS = np.array([[3, 4, 2, 0], [1, 5, 14, 15], [0, 1, 2, 3]], np.uint8)
WIDE = IDS.astype(np.uint16) * 300
RGB = np.dstack([IDS, IDS + 20, IDS + 40])


def pillow(array, mode=None, **options):
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    return lambda file: image.save(file, **{"format": "PNG"} | options)


def palette(form, **options):
    image = Image.fromarray(IDS, "P")
    image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    return lambda file: image.save(file, form, **options)


def by_opencv(array, suffix):
    return lambda file: file.write_bytes(cv2.imencode(suffix, array)[1].tobytes())


def grey_png(bits):
    """Return a PNG with few bits per pixel and unchanged ids, which Pillow cannot write."""

    def write(file):
        values = IDS % 2**bits
        rows = b"".join(
            b"\0"
            + int(
                "".join(f"{v:0{bits}b}" for v in row).ljust(-(-4 * bits // 8) * 8, "0"), 2
            ).to_bytes(-(-4 * bits // 8), "big")
            for row in values
        )
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 4, 3, bits, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        file.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data))
                + name
                + data
                + struct.pack(">I", zlib.crc32(name + data))
                for name, data in chunks
            )
        )

    return write


def tiff(array, **tags):
    """Return an uncompressed little-endian TIFF, with additional tags by number (_262=0)."""

    def write(file):
        kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
        samples = array.shape[2] if array.ndim == 3 else 1
        values = {256: array.shape[1], 257: array.shape[0], 258: array.dtype.itemsize * 8}
        values |= {259: 1, 262: 1 if samples == 1 else 2, 277: samples, 278: array.shape[0]}
        values |= {279: array.nbytes, 339: kind}
        values |= {int(name[1:]): value for name, value in tags.items()}
        count = len(values) + 1
        place = 8 + 2 + 12 * count + 4
        extra = b""
        if samples > 1:
            extra = struct.pack(f"<{samples}H", *[values[258]] * samples)
        values[273] = place + len(extra)
        entries = b""
        for tag, value in sorted(values.items()):
            if tag in (258,) and samples > 1:
                entries += struct.pack("<HHII", tag, 3, samples, place)
            else:
                entries += struct.pack("<HHII", tag, 4 if value > 65535 else 3, 1, value)
        head = struct.pack("<2sHIH", b"II", 42, 8, count)
        file.write_bytes(head + entries + b"\0\0\0\0" + extra + array.tobytes())

    return write


def text(content):
    return lambda file: file.write_bytes(content)


TURNED = Image.Exif()
TURNED[0x0112] = 6
SIGNED = IDS.astype(np.int16)
SIGNED[0, 0] = -1
# The encoding -> (the function that writes it, the channel, the ids or a part of the message).
ENCODINGS = {
    "PNG grey": (pillow(IDS), None, IDS),
    "PNG grey interlaced": (pillow(IDS, interlace=1), None, IDS),
    "PNG grey 16": (by_opencv(IDS.astype(np.uint16), ".png"), None, IDS),
    "PNG grey 1": (grey_png(1), None, IDS % 2),
    "PNG grey 2": (grey_png(2), None, "grey of 2 bits, whose values decoders multiply by 85"),
    "PNG grey 4": (grey_png(4), None, "grey of 4 bits, whose values decoders multiply by 17"),
    "PNG palette": (palette("PNG"), None, IDS),
    "PNG palette 4": (palette("PNG", bits=4), None, IDS),
    "PNG palette transparent": (palette("PNG", transparency=3), None, IDS),
    "PNG grey alpha": (pillow(IDS, "LA"), None, "mode LA"),
    "PNG colour": (pillow(RGB), None, "mode RGB"),
    "PNG colour alpha": (pillow(RGB, "RGBA"), None, "mode RGBA"),
    "BMP grey": (pillow(IDS, format="BMP"), None, IDS),
    "BMP palette": (palette("BMP"), None, IDS),
    "PGM": (pillow(IDS, format="PPM"), None, IDS),
    "PGM 16": (text(b"P5\n#a 1\n4 3\n65535\n" + IDS.astype(">u2").tobytes()), None, IDS),
    "PGM 15": (text(b"P5 4 3 15\n" + IDS.tobytes()), None, "a PGM with the maximum 15"),
    "PGM 1000": (
        text(b"P5\n4 3\n1000\n" + IDS.astype(">u2").tobytes()),
        None,
        "a PGM with the maximum 1000",
    ),
    "PGM plain": (text(b"P2 4 3 255\n3 4 2 0 1 5 14 15 0 1 2 3\n"), None, IDS),
    "PGM plain 18": (text(b"P2 4 3 18\n3 4 2 0 1 5 14 15 0 1 2 3\n"), None, "maximum 18"),
    "PBM": (text(b"P4 4 3\n\xf0\x00\x50"), None, "a PBM, in which 1 means black"),
    "PFM": (text(b"Pf\n4 3\n-1.0\n" + IDS.astype("<f4").tobytes()), None, "mode F"),
    "TIFF grey": (tiff(IDS), None, IDS),
    "TIFF LZW": (pillow(IDS, format="TIFF", compression="tiff_lzw"), None, IDS),
    "TIFF Deflate": (pillow(IDS, format="TIFF", compression="tiff_adobe_deflate"), None, IDS),
    "TIFF JPEG": (pillow(IDS, format="TIFF", compression="jpeg"), None, "jpeg compression"),
    "TIFF palette": (palette("TIFF"), None, IDS),
    "TIFF white is zero": (tiff(IDS, _262=0), None, "in which 0 means white"),
    "TIFF 16 white is zero": (tiff(IDS.astype("<u2"), _262=0), None, "in which 0 means white"),
    "TIFF turned": (tiff(IDS, _274=6), None, np.rot90(IDS, -1)),
    "TIFF u2": (tiff(IDS.astype("<u2")), None, IDS),
    "TIFF u4": (tiff(IDS.astype("<u4")), None, IDS),
    "TIFF i1": (tiff(SIGNED.astype(np.int8)), None, SIGNED),
    "TIFF i2": (tiff(SIGNED), None, SIGNED),
    "TIFF i4": (tiff(SIGNED.astype("<i4")), None, SIGNED),
    "TIFF f4": (tiff(IDS.astype("<f4")), None, "mode F"),
    "TIFF f8": (tiff(IDS.astype("<f8")), None, "cannot be decoded"),
    "WebP": (pillow(RGB, format="WEBP", lossless=True), None, "mode RGB"),
    "PNG turned": (pillow(IDS, exif=TURNED), None, np.rot90(IDS, -1)),
    "red of PNG": (pillow(RGB), 0, RGB[..., 0]),
    "blue of PNG": (pillow(RGB), 2, RGB[..., 2]),
    "red of PNG 16": (by_opencv(RGB[..., ::-1].astype(np.uint16) * 300, ".png"), 0, WIDE),
    "green of PNG transparent": (pillow(np.dstack([RGB, IDS * 0])), 1, RGB[..., 1]),
    "red of PNG grey": (pillow(IDS), 0, "expected a colour file"),
    "red of PNG grey 16": (by_opencv(IDS.astype(np.uint16), ".png"), 0, "expected a colour file"),
    "red of PNG grey alpha": (pillow(IDS, "LA"), 0, "expected a colour file"),
    "red of PNG palette": (palette("PNG"), 0, "expected a colour file"),
    "red of PNG bits": (grey_png(1), 0, "expected a colour file"),
    "red of GIF": (palette("GIF"), 0, "expected a colour file"),
    "red of TIFF palette": (palette("TIFF"), 0, "expected a colour file"),
    "red of TIFF": (tiff(RGB), 0, IDS),
    "red of TIFF 16": (tiff(RGB.astype("<u2") * 300), 0, WIDE),
    "red of TIFF JPEG": (pillow(RGB, format="TIFF", compression="jpeg"), 0, "jpeg compression"),
    "red of TIFF CMYK": (pillow(RGB, "CMYK", format="TIFF"), 0, "got mode CMYK"),
    "red of TIFF YCbCr": (pillow(RGB, "YCbCr", format="TIFF"), 0, "got mode YCbCr"),
    "red of WebP": (pillow(RGB, format="WEBP", lossless=True), 0, IDS),
    "red of WebP lossy": (pillow(RGB, format="WEBP", quality=90), 0, "a lossy WebP"),
    "red of WebP lossy alpha": (
        pillow(np.dstack([RGB, IDS]), format="WEBP", quality=90),
        0,
        "a lossy WebP",
    ),
    "red of BMP": (pillow(RGB, format="BMP"), 0, IDS),
    "red of BMP 16": (
        text(
            struct.pack("<2sIIIIiiHHIIiiII", b"BM", 78, 0, 54, 40, 4, 3, 1, 16, 0, 24, 0, 0, 0, 0)
            + bytes(24)
        ),
        0,
        "a BMP of 16 bits",
    ),
    "red of PPM": (pillow(RGB, format="PPM"), 0, IDS),
    "red of PPM 60": (text(b"P6 4 3 60\n" + RGB.tobytes()), 0, "label"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_read_ids_of_every_encoding_is_right_or_refused(tmp_path, encoding):
    write, channel, expected = ENCODINGS[encoding]
    file = tmp_path / "label"
    write(file)
    if isinstance(expected, str):
        with pytest.raises(ValueError) as raised:
            read_ids(file, channel)
        assert str(raised.value).startswith(f"{file}: expected ") and expected in str(raised.value)
    else:
        assert np.array_equal(read_ids(file, channel), expected.astype(np.int64))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_to_train_ids_negative_id_raises(dtype):
    label_map = LabelMap("m", {3: 0, 4: 1, 2: 2}, ignore_others=True)
    with pytest.raises(ValueError, match="1 pixels have the label value -1"):
        label_map.to_train_ids(np.array([[3, -1]], dtype), "a.tif")
    assert label_map.to_train_ids(np.array([[3, 2]], dtype), "a.tif").tolist() == [[0, 2]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_pair_turns_image_and_label_alike(tmp_path, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=tags)
    Image.fromarray(IDS).save(tmp_path / "label.png", exif=tags)
    label_map = LabelMap("m", {i: i for i in range(16)})
    image, label = read_pair(tmp_path / "a.png", tmp_path / "label.png", label_map)
    assert np.array_equal(image[..., 0], label)
