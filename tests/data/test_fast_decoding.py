import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.support.plain_pipeline import plain_sample

from recyclelora.data import TRAIN_IDS, LabelMap, TrainMapper, fast_decoding, read_image, read_pair
from recyclelora.data.augmentation import has_several_classes
from recyclelora.data.label_files import read_ids

RNG = np.random.default_rng(0)
# Smooth, so that JPEG and the filters of PNG have something to predict; odd sizes leave partial
# blocks at the borders.
PHOTO = cv2.resize(
    RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8), (83, 61), interpolation=cv2.INTER_CUBIC
)
IDS = cv2.resize(
    RNG.integers(0, 19, (6, 8), dtype=np.uint8), (83, 61), interpolation=cv2.INTER_NEAREST
)

needs_fast = pytest.mark.skipif(
    not fast_decoding.is_installed(), reason="needs kornia-rs and simplejpeg (the extra 'fast')"
)


@pytest.fixture
def without_fast(monkeypatch):
    """``without_fast(call)``: what ``call`` returns or raises when Pillow decodes everything."""

    def call_without(call):
        with monkeypatch.context() as context:
            context.setattr(fast_decoding, "kornia_io", None)
            return call()

    return call_without


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def png(image=PHOTO, **options):
    return encoded(Image.fromarray(image), format="PNG", **options)


def jpeg(image=PHOTO, **options):
    return encoded(Image.fromarray(image), format="JPEG", **options)


def chunk_after_pixels(content):
    """Return the PNG with its EXIF tags after the pixels, which the format allows."""
    place = content.index(b"eXIf") - 4
    size = int.from_bytes(content[place : place + 4], "big") + 12
    chunk, end = content[place : place + size], content[-12:]
    return content[:place] + content[place + size : -12] + chunk + end


FAST = {
    "png": png(),
    "png of one row": png(PHOTO[:1]),
    "png with alpha": png(np.dstack([PHOTO, PHOTO[..., 0]])),
    "png with orientation": png(exif=exif(6)),
    "png with transparent colour": png(transparency=(1, 2, 3)),
    "jpeg": jpeg(),
    "jpeg 4:4:4": jpeg(subsampling=0),
    "jpeg 4:2:2": jpeg(subsampling=1),
    "jpeg of low quality": jpeg(quality=9),
    "progressive jpeg": jpeg(progressive=True),
    "jpeg with restarts": jpeg(restart_marker_rows=1),
    "jpeg with orientation": jpeg(exif=exif(8)),
    "jpeg with profile": jpeg(
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "jpeg with bytes behind its end": jpeg() + b"more" * 9,
    "several pictures": encoded(
        Image.fromarray(PHOTO), format="MPO", save_all=True, append_images=[Image.fromarray(PHOTO)]
    ),
}
SLOW = {
    "png with tags behind the pixels": chunk_after_pixels(png(exif=exif(6))),
    "grey png": png(PHOTO[..., 0]),
    "palette png": encoded(Image.fromarray(PHOTO).quantize(16), format="PNG"),
    "16-bit png": cv2.imencode(".png", PHOTO.astype(np.uint16) * 257)[1].tobytes(),
    "grey jpeg": jpeg(PHOTO[..., 0]),
    "cmyk jpeg": encoded(Image.fromarray(PHOTO).convert("CMYK"), format="JPEG"),
    "tiff": encoded(Image.fromarray(PHOTO), format="TIFF"),
    "webp": encoded(Image.fromarray(PHOTO), format="WEBP"),
}


@needs_fast
@pytest.mark.parametrize("kind", [*FAST, *SLOW])
def test_read_image_fast_equals_pillow(tmp_path, without_fast, kind):
    file = tmp_path / "a.png"
    file.write_bytes((FAST | SLOW)[kind])
    expected = without_fast(lambda: read_image(file))
    fast = read_image(file)
    assert fast.dtype == np.uint8 and fast.flags.c_contiguous and fast.flags.writeable
    assert np.array_equal(fast, expected)
    header = Image.open(file)
    assert (fast_decoding.decode_rgb(header, file.read_bytes()) is not None) == (kind in FAST)


LABELS = {
    "grey": png(IDS),
    "palette": None,
    "palette of 2 bits": None,
    "one bit": encoded(Image.fromarray(IDS > 9), format="PNG"),
    "16 bits": cv2.imencode(".png", IDS.astype(np.uint16))[1].tobytes(),
    "orientation": png(IDS, exif=exif(5)),
    "orientation behind the pixels": chunk_after_pixels(png(IDS, exif=exif(5))),
    "tiff": encoded(Image.fromarray(IDS), format="TIFF"),
}
_COLOURED = Image.fromarray(IDS).convert("P")
_COLOURED.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
_COLOURED.putdata(IDS.ravel().tolist())
LABELS["palette"] = encoded(_COLOURED, format="PNG")
_COLOURED.putdata((IDS % 4).ravel().tolist())
LABELS["palette of 2 bits"] = encoded(_COLOURED, format="PNG", bits=2)


@needs_fast
@pytest.mark.parametrize("kind", LABELS)
def test_read_ids_fast_equals_pillow(tmp_path, without_fast, kind):
    file = tmp_path / "a.png"
    file.write_bytes(LABELS[kind])
    fast, expected = read_ids(file), without_fast(lambda: read_ids(file))
    assert fast.dtype == expected.dtype and np.array_equal(fast, expected)
    is_fast = fast_decoding.decode_indices(Image.open(file), file.read_bytes()) is not None
    assert is_fast == (kind in ("grey", "palette", "orientation"))


@needs_fast
@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive jpeg", "jpeg with restarts"])
def test_read_image_damaged_reads_as_by_pillow(tmp_path, without_fast, kind):
    """Changed, missing or truncated bytes give the same values or the same message."""
    rng = np.random.default_rng(1)
    file = tmp_path / "a"
    outcomes = set()

    def outcome():
        try:
            return read_image(file).tobytes()
        except ValueError as error:
            return str(error).partition(" at 0x")[0]

    for number in range(60):
        content = bytearray(FAST[kind])
        place = int(rng.integers(len(content)))
        if number % 3 == 0:
            content = content[:place]
        elif number % 3 == 1:
            content[place] = int(rng.integers(256))
        else:
            del content[place : place + int(rng.integers(1, 9))]
        file.write_bytes(content)
        fast = outcome()
        assert fast == without_fast(outcome)
        outcomes.add(type(fast))
    assert str in outcomes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encode", [png, jpeg])
def test_read_pair_orientation_equals_pillow(tmp_path, without_fast, encode, orientation):
    (tmp_path / "image").write_bytes(encode(exif=exif(orientation)))
    Image.fromarray(IDS).save(tmp_path / "stored.png")
    turned = np.ascontiguousarray(IDS.T)
    Image.fromarray(turned).save(tmp_path / "turned.png")
    for name in ("stored.png", "turned.png"):

        def read(name=name):
            try:
                return read_pair(tmp_path / "image", tmp_path / name, TRAIN_IDS)
            except ValueError as error:
                return str(error)

        fast, expected = read(), without_fast(read)
        if isinstance(fast, str):
            assert fast == expected and orientation < 5
        else:
            assert all(map(np.array_equal, fast, expected))


def test_label_map_check_accepts_exactly_the_defined_ids():
    maps = [
        TRAIN_IDS,
        LabelMap("gap", {0: 0, 1: 1, 3: 2}),
        LabelMap("from one", {1: 0, 200: 1}),
        LabelMap("all bytes", dict.fromkeys(range(255), 4)),
        LabelMap("others", {7: 0}, ignore_others=True),
    ]
    for label_map in maps:
        for value in range(256):
            ids = np.full((2, 3), value, np.uint8)
            if value in label_map.ids or value == 255 or label_map.ignore_others:
                expected = 255 if value == 255 else label_map.ids.get(value, 255)
                assert (label_map.to_train_ids(ids, "a.png") == expected).all()
            else:
                with pytest.raises(ValueError, match=f"6 pixels have the label value {value}, "):
                    label_map.check(ids, "a.png")


def several_by_histogram(label, share):
    counts = np.bincount(label.ravel(), minlength=256)[:19]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < share * counts.sum())


def test_has_several_classes_equals_the_histogram():
    outcomes = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 60, 2)
        classes = rng.choice([*range(19), 255], rng.integers(1, 5), replace=False)
        weights = rng.dirichlet(np.full(len(classes), 0.5))
        label = rng.choice(classes, (height, width), p=weights).astype(np.uint8)
        if seed % 2:  # regions, as real labels have
            label = np.sort(label, axis=None).reshape(height, width)
        outcomes.append(several_by_histogram(label, 0.75))
        assert has_several_classes(label, 0.75) == outcomes[-1], seed
    assert 50 < sum(outcomes) < 350
    edge = np.repeat(np.uint8([3, 5, 255]), [12, 4, 9])[None]  # exactly three quarters
    assert not has_several_classes(edge, 0.75) and has_several_classes(edge, 0.76)


@pytest.mark.parametrize("pad_to_crop", [True, False])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "jpeg", "jpeg with orientation", "webp"])
def test_train_sample_equals_the_plain_pipeline(tmp_path, without_fast, kind, pad_to_crop):
    """Compare pixels, label and drawn numbers, with and without the fast decoders."""
    image_file, label_file = tmp_path / "image", tmp_path / "label.png"
    image_file.write_bytes((FAST | SLOW)[kind])
    label = np.ascontiguousarray(np.rot90(IDS)) if "orientation" in kind else IDS
    Image.fromarray(np.where(label == 3, 255, label).astype(np.uint8)).save(label_file)
    record = {"file_name": image_file, "sem_seg_file_name": label_file, "label_map": TRAIN_IDS}
    record["image_id"] = "a"
    for seed in range(20):
        crop = (24, 57)[seed % 2]
        mapper = TrainMapper(crop, pad_to_crop)
        rngs = [np.random.default_rng(seed) for _ in range(3)]
        image, label = plain_sample(
            image_file, label_file, rngs[0], crop=crop, pad_to_crop=pad_to_crop
        )
        fast = mapper(record, rngs[1])
        for sample in (fast, without_fast(lambda: mapper(record, rngs[2]))):  # noqa: B023
            assert np.array_equal(sample["image"], image) and sample["image"].is_contiguous()
            assert np.array_equal(sample["sem_seg"], label) and sample["seed"] == fast["seed"]
        states = [rng.bit_generator.state for rng in rngs]
        assert states[0] == states[1] == states[2]
