import errno
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recyclelora.common import files
from recyclelora.common.validation import format_error
from recyclelora.data import TRAIN_IDS, LabelMap, read_image, read_pair
from recyclelora.data.reading import pair_size, read_ids

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
IDS = RNG.integers(0, 19, (6, 9), dtype=np.uint8)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_read_image_returns_rgb_order(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), COLORS)


def test_read_image_converts_grey_palette_and_alpha(tmp_path):
    grey = Image.fromarray(COLORS[..., 0])
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(COLORS[..., :1], 3, 2))
    grey.convert("P").save(tmp_path / "palette.png")
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.repeat(COLORS[..., :1], 3, 2))
    alpha = np.dstack([COLORS, np.full((6, 9), 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "alpha.png"), COLORS)


def test_read_image_converts_cmyk(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    red.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 30, 40)).max() < 6


def test_read_image_scales_16_bits(tmp_path):
    wide = COLORS.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "grey.png"), wide[..., 0])
    assert np.array_equal(read_image(tmp_path / "grey.png")[..., 1], COLORS[..., 0])
    cv2.imwrite(str(tmp_path / "rgb.png"), wide[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "rgb.png"), COLORS)


def test_read_image_floating_point_raises(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: expected an image of 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_applies_exif_orientation(tmp_path, orientation):
    Image.fromarray(COLORS).save(tmp_path / "a.png", exif=exif(orientation))
    upright = {
        1: COLORS,
        2: COLORS[:, ::-1],
        3: COLORS[::-1, ::-1],
        4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2),
        6: np.rot90(COLORS, -1),
        7: np.rot90(COLORS, 2).transpose(1, 0, 2),
        8: np.rot90(COLORS),
    }[orientation]
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)


def test_read_image_exif_with_another_damaged_tag_is_upright(tmp_path):
    tags = exif(6)
    content = bytearray(tags.tobytes())
    # A second tag contains the width as bytes instead of a number, as some cameras write it.
    entry = struct.pack(">HHI4s", 0x0100, 1, 4, b"abcd")
    damaged = content[:14] + struct.pack(">H", 2) + entry + content[16:]
    Image.fromarray(COLORS).save(tmp_path / "a.png", exif=bytes(damaged))
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(COLORS, -1))


def test_read_pair_label_size_selects_the_grid(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png", exif=exif(6))
    Image.fromarray(IDS).save(tmp_path / "stored.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(IDS, -1))).save(tmp_path / "upright.png")
    image, label = read_pair(tmp_path / "a.png", tmp_path / "stored.png", TRAIN_IDS)
    assert np.array_equal(image, COLORS) and np.array_equal(label, IDS)
    image, label = read_pair(tmp_path / "a.png", tmp_path / "upright.png", TRAIN_IDS)
    assert np.array_equal(image, np.rot90(COLORS, -1))
    assert np.array_equal(label, np.rot90(IDS, -1))


def test_read_ids_palette_gives_indices(tmp_path):
    label = Image.fromarray(IDS).convert("P")
    label.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    label.putdata(IDS.ravel().tolist())
    label.save(tmp_path / "a.png")
    assert np.array_equal(read_ids(tmp_path / "a.png"), IDS)


def test_read_ids_unpacks_palettes_of_few_bits(tmp_path):
    label = Image.fromarray(IDS % 4).convert("P")
    label.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    label.putdata((IDS % 4).ravel().tolist())
    label.save(tmp_path / "a.png", bits=2)
    assert np.array_equal(read_ids(tmp_path / "a.png"), IDS % 4)


def test_read_ids_keeps_16_bits(tmp_path):
    wide = IDS.astype(np.uint16) * 300
    cv2.imwrite(str(tmp_path / "grey.png"), wide)
    assert np.array_equal(read_ids(tmp_path / "grey.png"), wide)
    # SYNTHIA has three channels, and the class is in the red one.
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([wide * 0, wide * 0 + 5, wide]))
    assert np.array_equal(read_ids(tmp_path / "rgb.png", channel=0), wide)


def test_read_ids_channel_requires_colour_label(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "rgb.png")
    Image.fromarray(IDS).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"rgb\.png: expected a map of class ids"):
        read_ids(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"grey\.png: expected a colour file"):
        read_ids(tmp_path / "grey.png", channel=0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_read_image_truncated_raises(tmp_path, suffix, share):
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    broken.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"broken\{suffix}: expected a complete picture"):
        read_image(broken)


@pytest.mark.parametrize("read", [read_image, read_ids, lambda file: pair_size(file, file)])
@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_read_of_no_picture_names_file_and_formats(tmp_path, read, content):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected one of PNG, JPEG, .*restore the file") as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ") and "object at" not in str(error.value)


def test_read_image_git_lfs_pointer_raises(tmp_path):
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "a.png").write_text(note)
    with pytest.raises(ValueError, match=r"a\.png: expected a complete .*run 'git lfs pull'"):
        read_image(tmp_path / "a.png")


def test_read_ids_truncated_16_bit_colour_raises(tmp_path):
    wide = RNG.integers(0, 20, (64, 64, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "whole.png"), wide)
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.png: expected a complete picture"):
        read_ids(tmp_path / "a.png", channel=0)


@pytest.fixture
def failing(monkeypatch):
    """``failing(owner, name, number, times)``: let a function fail some times before it works."""
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)

    def replace(owner, name, number, times):
        works, left = getattr(owner, name), [number] * times

        def call(*arguments, **options):
            if left:
                raise OSError(left.pop(), os.strerror(number))
            return works(*arguments, **options)

        monkeypatch.setattr(owner, name, call)
        return left

    return replace


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_read_image_retries_transient_errors(tmp_path, failing, caplog, number):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    left = failing(Path, "read_bytes", number, 3)
    assert np.array_equal(read_image(tmp_path / "a.png"), COLORS) and not left
    assert caplog.text.count(f"a.png: reading failed ({os.strerror(number)})") == 3


def test_read_pair_and_size_retry_transient_errors(tmp_path, failing):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "b.png")
    left = failing(Path, "read_bytes", errno.ESTALE, 2)
    assert np.array_equal(read_pair(tmp_path / "a.png", tmp_path / "b.png", TRAIN_IDS)[1], IDS)
    left_of_size = failing(Image, "open", errno.EIO, 3)
    assert pair_size(tmp_path / "a.png", tmp_path / "b.png") == (9, 6)
    assert not left and not left_of_size


def test_read_image_lasting_transient_error_raises(tmp_path, failing):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    failing(Path, "read_bytes", errno.EIO, 4)
    with pytest.raises(OSError, match=r"a\.png: reading failed 4 times .*check the disk"):
        read_image(tmp_path / "a.png")


def test_read_image_without_open_files_is_not_called_damaged(tmp_path, failing):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    failing(Path, "read_bytes", errno.EMFILE, 1)
    with pytest.raises(OSError, match="Too many open files") as raised:
        read_image(tmp_path / "a.png")
    assert format_error(raised.value).startswith("too many open files: ")


def test_read_pair_missing_or_mismatched_raises(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    Image.fromarray(IDS[:4]).save(tmp_path / "small.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        read_pair(tmp_path / "a.png", tmp_path / "gone.png", TRAIN_IDS)
    with pytest.raises(ValueError, match=r"small\.png: .*a\.png \(9x6\), got 9x4"):
        read_pair(tmp_path / "a.png", tmp_path / "small.png", TRAIN_IDS)


def test_read_pair_applies_the_label_map(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "label.png")
    shifted = LabelMap("shifted", {i: (i + 1) % 19 for i in range(19)})
    assert np.array_equal(
        read_pair(tmp_path / "a.png", tmp_path / "label.png", shifted)[1], (IDS + 1) % 19
    )
