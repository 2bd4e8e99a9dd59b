"""Folders of images and labels with typical faults: a run succeeds or names the fault."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recyclelora.data import TRAIN_IDS
from recyclelora.data.mapper import TestMapper, TrainMapper
from recyclelora.evaluation import native

IMAGE, LABEL = "day/images/001.png", "day/labels/001.png"


def pixels(file):
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def rewrite(root, name, change):
    cv2.imwrite(str(root / name), change(pixels(root / name)))


def cut(root, name, share):
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: int(share * len(content))])


def folder_instead(root, name):
    (root / name).unlink()
    (root / name).mkdir()


def link_to_nothing(root, name):
    (root / name).unlink()
    (root / name).symlink_to("/nowhere.png")


def as_jpeg(root, name):
    Image.fromarray(pixels(root / name)).save(root / name, "JPEG")


def empty(root, name):
    shutil.rmtree(root / name)
    (root / name).mkdir()


# The fault of the folders, the function that creates it, a part of the message.
FAULTS = {
    "an image without label": (lambda r: (r / LABEL).unlink(), "expected its label"),
    "a label without image": (lambda r: (r / IMAGE).unlink(), "a label without an image"),
    "a label of another size": (lambda r: rewrite(r, LABEL, lambda p: p[:-1]), "got 96x63"),
    "a label value outside": (lambda r: rewrite(r, LABEL, lambda p: p * 0 + 77), "label value 77"),
    "a label in colours": (lambda r: shutil.copy(r / IMAGE, r / LABEL), "map of class ids"),
    "a label in JPEG": (lambda r: as_jpeg(r, LABEL), "a JPEG, which changes ids"),
    "an empty image": (lambda r: cut(r, IMAGE, 0), "expected a complete picture"),
    "an empty label": (lambda r: cut(r, LABEL, 0), "expected a complete picture"),
    "half an image": (lambda r: cut(r, IMAGE, 0.5), "expected a complete picture"),
    "half a label": (lambda r: cut(r, LABEL, 0.5), "expected a complete picture"),
    "a folder called .png": (lambda r: folder_instead(r, IMAGE), "got a folder of that name"),
    "a link to nothing": (lambda r: link_to_nothing(r, IMAGE), "no such file"),
    "a link to its own folder": (
        lambda r: (r / "day/images/more").symlink_to(r / "day"),
        "this link points to a folder that contains it",
    ),
    "two images of one name": (
        lambda r: shutil.copy(r / IMAGE, r / "day/images/001.jpg"),
        "has the same name",
    ),
    "no images": (lambda r: empty(r, "day/images"), "found none"),
    "no labels": (lambda r: empty(r, "day/labels"), "expected its label"),
    "no folder of labels": (lambda r: shutil.rmtree(r / "day/labels"), "expected the folders"),
    "a file where a folder is due": (
        lambda r: (shutil.rmtree(r / "day/images"), (r / "day/images").write_text("")),
        "expected the folders",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_invalid_dataset_stops_the_run(fault, refusal, streets):
    spoil, words = FAULTS[fault]
    spoil(streets)
    # Put every image into the first batch, so that all are read.
    said = refusal(f"dataloader.streets={streets}", "dataloader.train.total_batch_size=4")
    assert words in said and str(streets) in said


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_fault_in_a_worker_process_stops_the_run(kind, refusal, streets):
    cut(streets, f"day/{kind}/001.png", 0.5)
    said = refusal(
        f"dataloader.streets={streets}",
        "dataloader.train.total_batch_size=4",
        "dataloader.train.num_workers=1",
    )
    assert f"{kind}/001.png: expected a complete picture" in said


def test_evaluation_of_only_ignored_labels_stops(run_tool, streets):
    for label in (streets / "night/labels").iterdir():
        rewrite(streets, label.relative_to(streets), lambda p: p * 0 + 255)
    said = run_tool(f"dataloader.streets={streets}")
    assert "domain 'night': expected labelled pixels, got only ignored ones" in said


def renamed(names):
    def rename(root):
        for i, name in enumerate(names):
            for kind in ("images", "labels"):
                folder = os.fsencode(root / "day" / kind)
                new = name if isinstance(name, bytes) else os.fsencode(name)
                os.rename(folder + b"/%03d.png" % i, folder + b"/" + new + b".png")

    return rename


def few(root):
    for kind in ("images", "labels"):
        for i in (1, 2, 3):
            (root / "day" / kind / f"{i:03d}.png").unlink()


def mixed(root):
    for i, (height, width) in enumerate([(1, 1), (1, 700), (700, 1), (300, 40)]):
        for kind in ("images", "labels"):
            rewrite(
                root,
                f"day/{kind}/{i:03d}.png",
                lambda p, size=(width, height): cv2.resize(
                    p, size, interpolation=cv2.INTER_NEAREST
                ),
            )


def litter(root):
    for name in ("Thumbs.db", ".DS_Store", "._000.png", ".hidden.png", "notes.txt"):
        (root / "day/images" / name).write_text("no picture")
    (root / "day/labels/.001.png.77.tmp").write_text("")


def turned(root):
    tags = Image.Exif()
    tags[0x0112] = 6
    picture = Image.open(root / IMAGE)
    picture.load()
    picture.save(root / IMAGE, exif=tags)


# Unusual but valid folders, and the function that creates them.
FINE = {
    "one image for a batch of four": few,
    "images of 1 pixel, long and thin ones": mixed,
    "blanks, quotes, line breaks, other scripts": renamed(
        ["a 'b' \"c\"", "tab\tline\nbreak", "ünï码", "$(touch x);*?[]{}="]
    ),
    "names that are no text": renamed([b"\xff\xfe", b"%s%d{0}"]),
    "capital suffixes": lambda r: (
        (r / IMAGE).rename(r / "day/images/001.PNG"),
        (r / LABEL).rename(r / "day/labels/001.PNG"),
    ),
    "other files beside": litter,
    "labels all ignored": lambda r: rewrite(r, LABEL, lambda p: p * 0 + 255),
    "16-bit labels": lambda r: rewrite(r, LABEL, lambda p: p.astype(np.uint16)),
    "16-bit images": lambda r: rewrite(r, IMAGE, lambda p: p.astype(np.uint16) * 257),
    "grey images": lambda r: rewrite(r, IMAGE, lambda p: p[..., 0]),
    "images with alpha": lambda r: rewrite(r, IMAGE, lambda p: cv2.cvtColor(p, cv2.COLOR_BGR2BGRA)),
    "an image turned by EXIF, its label not": turned,
    "a JPEG called .png": lambda r: as_jpeg(r, IMAGE),
    "links to files elsewhere": lambda r: (
        (r / IMAGE).rename(r / "elsewhere.png"),
        (r / IMAGE).symlink_to(r / "elsewhere.png"),
    ),
}


@pytest.mark.parametrize("kind", FINE)
def test_run_with_unusual_files_succeeds(kind, run_tool, streets, tmp_path, capfd):
    FINE[kind](streets)
    said = run_tool(
        f"dataloader.streets={streets}",
        "dataloader.train.total_batch_size=4",
        # A norm with one group per channel cannot process the single pixel of a tiny image.
        "model.hidden_dim=64",
    )
    assert said is None, said
    result = json.loads((tmp_path / "run" / "domains.json").read_text())
    assert result["domains"]["day"]["images"] == (1 if FINE[kind] is few else 4)
    assert Image.open(tmp_path / "run" / "pictures" / "day.png").size[1] < 10_000
    assert "Traceback" not in "".join(capfd.readouterr())


def test_run_with_unusual_folder_name_succeeds(run_tool, streets):
    strange = streets.with_name("stra ße 'x' [1], {y}=z")
    streets.rename(strange)
    assert run_tool("dataloader.streets=" + json.dumps(str(strange), ensure_ascii=False)) is None


@pytest.mark.slow
def test_20_megapixels_bound_memory(tmp_path):
    size = (4000, 5000)
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (400, 500, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", compress_level=1)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "label.png")
    record = {"file_name": str(tmp_path / "a.png"), "image_id": "a", "label_map": TRAIN_IDS}
    record["sem_seg_file_name"] = str(tmp_path / "label.png")

    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of memory
    before = peak()
    assert TrainMapper(crop=512)(record, rng)["image"].shape == (3, 512, 512)
    prediction, _, _ = native(long_side=1024).segment(
        lambda images: images.repeat(1, 7, 1, 1)[:, :19], TestMapper()(record), "none"
    )
    assert prediction.shape == size
    assert peak() - before < 1.0e9

    with pytest.raises(
        ValueError, match=r"a\.png: expected at most .* set the protocol's long_side"
    ):
        native().segment(None, TestMapper()(record), "none")


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
