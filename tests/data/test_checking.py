"""Counts, class shares and faults of datasets in the layouts of their releases."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recyclelora.data import CLASSES, TRAIN_IDS, checking, get_dataset
from recyclelora.data.checking import MISMATCHED, UNKNOWN, UNPAIRED, UNREADABLE, check_datasets

from ..support import originals as originals

SIZE = (32, 64)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def check(*names, **options):
    return check_datasets([get_dataset(name) for name in names], **options)


def counted(labels):
    """Return the pixels of each class and of "ignored", counted from the correct labels."""
    pixels = np.concatenate([label.ravel() for label in labels])
    return [int((pixels == i).sum()) for i in (*range(19), 255)]


def test_class_pixels_equal_the_true_counts(root):
    truth = originals.write_all(root, 2, SIZE)
    reports = check(*truth)
    assert [report.name for report in reports] == list(truth)
    for report in reports:
        labels = truth[report.name].values()
        assert report.found == len(labels) and not report.faults and not report.left_out
        assert report.state == "incomplete" and "the download is incomplete" in report.missing
        if labels:
            assert report.pixels == counted(labels)
            percent = report.as_json()["percent"]
            assert (
                list(percent) == [*CLASSES, "ignored"] and abs(sum(percent.values()) - 100) < 1e-9
            )


def test_check_reports_faults_of_every_kind(root):
    originals.write_bdd100k(root, 7, SIZE)
    images = sorted((root / "bdd100k/images/10k/val").iterdir())
    labels = sorted((root / "bdd100k/labels/sem_seg/masks/val").iterdir())
    whole = images[0].read_bytes()
    images[0].write_bytes(whole[: len(whole) // 2])
    labels[1].write_bytes(b"")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(labels[2])
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(labels[3])
    images[4].unlink()
    labels[5].unlink()
    dataset = dataclasses.replace(get_dataset("bdd100k_val"), skip_unpaired=False)
    (report,) = check_datasets([dataset])
    assert report.state == "faulty" and report.found == 5
    assert report.unpaired == "1 image without a label and 1 label without an image"
    assert {(fault.kind, Path(fault.message.split(": ")[0])) for fault in report.faults} == {
        (UNREADABLE, images[0]),
        (UNREADABLE, labels[1]),
        (MISMATCHED, labels[2]),
        (UNKNOWN, labels[3]),
        (UNPAIRED, labels[4]),
        (UNPAIRED, images[5]),
    }
    assert "2048 pixels have the label value 77" in str(report.faults)
    assert sum(report.pixels) == SIZE[0] * SIZE[1]  # the only valid pair
    assert json.loads(json.dumps(report.as_json()))["state"] == "faulty"


def test_quick_check_reads_only_headers(root):
    originals.write_bdd100k(root, 3, SIZE)
    images = sorted((root / "bdd100k/images/10k/val").iterdir())
    labels = sorted((root / "bdd100k/labels/sem_seg/masks/val").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:700])
    labels[1].write_bytes(b"")
    (report,) = check("bdd100k_val", quick=True)
    assert [fault.kind for fault in report.faults] == [UNREADABLE]
    assert str(labels[1]) in report.faults[0].message and report.shares() is None


def test_known_fault_of_gtav_is_left_out_not_a_fault(root):
    truth = originals.write_gtav(root, 3, SIZE)
    label = root / "gtav/labels/00002.png"
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(label)
    (report,) = check("gtav_all")
    assert not report.faults and report.state == "incomplete"
    (message,) = report.left_out
    assert message.startswith(f"{label}: expected a label of the size of its image")
    assert report.pixels == counted([truth["gtav_all"][key] for key in ("00001", "00003")])


def test_unpaired_files_of_bdd100k_are_left_out_not_faults(root):
    originals.write_bdd100k(root, 4, SIZE)
    min((root / "bdd100k/images/10k/val").iterdir()).unlink()
    max((root / "bdd100k/labels/sem_seg/masks/val").iterdir()).unlink()
    (report,) = check("bdd100k_val")
    assert not report.faults and report.found == 2 and len(report.left_out) == 2
    assert report.unpaired == "1 image without a label and 1 label without an image"


def test_pair_of_several_datasets_is_read_once(root, monkeypatch):
    originals.write_gtav(root, 3, SIZE)
    read = []
    monkeypatch.setattr(
        checking, "read_image", lambda file: read.append(file) or np.zeros((1, 1, 3))
    )
    check("gtav_all", "gtav_train", "gtav_owners_train", "gtav_owners_test")
    assert len(read) == 3


def test_missing_datasets_report_the_download(root):
    originals.write_gtav(root, 3, SIZE)
    (root / "gtav/split.mat").unlink()
    originals.write_mapillary(root, 1, SIZE)
    (root / "mapillary_vistas/config_v1.2.json").unlink()
    gtav, mapillary, urbansyn = check("gtav_owners_val", "mapillary_vistas_val", "urbansyn_train")
    assert {report.state for report in (gtav, mapillary, urbansyn)} == {"missing"}
    assert "read_mapping.zip" in gtav.missing
    assert "expected its list of classes" in mapillary.missing
    assert "download rgb.zip and ss.zip of UrbanSyn" in urbansyn.missing
    assert urbansyn.looked_in == [
        f"{root / name / 'rgb'} with {root / name / 'ss'}" for name in ("urbansyn", "UrbanSyn")
    ]


@pytest.mark.slow
def test_check_with_workers_gives_equal_reports(root):
    truth = originals.write_all(root, 3, SIZE)
    (root / "synthia/RGB/0000001.png").write_bytes(b"")
    alone = check(*truth)
    shared = check(*truth, workers=2)
    assert [report.as_json() for report in alone] == [report.as_json() for report in shared]


@pytest.mark.slow
def test_check_of_22_megapixels_bounds_memory(tmp_path):
    size = (4000, 5600)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((*size, 3), 90, np.uint8))
    Image.fromarray(np.full(size, 3, np.uint8)).save(tmp_path / "a.png")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of memory
    before = peak()
    result = checking.check_pair(tmp_path / "a.jpg", tmp_path / "a.png", TRAIN_IDS)
    assert result.pixels[3] == size[0] * size[1]
    assert peak() - before < 3e8


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
