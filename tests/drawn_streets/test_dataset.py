"""A dataset on disk: the same whoever draws it, resumable, never a mix of two."""

import json

import numpy as np
import pytest
from PIL import Image

from drawn_streets import draw_street, write_streets

SMALL = {"seed": 2, "height": 48, "width": 96}


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.*"))}


def test_workers_do_not_matter(tmp_path):
    one = write_streets(tmp_path / "one", count=5, workers=1, **SMALL)
    two = write_streets(tmp_path / "two", count=5, workers=2, **SMALL)
    assert contents(one) == contents(two)
    assert len(contents(one)) == 11


def test_files_hold_what_was_drawn(tmp_path):
    root = write_streets(
        tmp_path / "d", domain="fog", count=2, workers=1, image_format="png", **SMALL
    )
    image, label = draw_street(2, 1, "fog", 48, 96)
    assert np.array_equal(np.asarray(Image.open(root / "images/000001.png")), image)
    assert np.array_equal(np.asarray(Image.open(root / "labels/000001.png")), label)
    about = json.loads((root / "dataset.json").read_text())
    assert about["domain"] == "fog" and about["count"] == 2 and about["complete"]
    assert sum(about["pixel_share"].values()) == pytest.approx(1, abs=1e-4)


def test_resumes_and_mends(tmp_path):
    whole = contents(write_streets(tmp_path / "whole", count=4, workers=1, **SMALL))
    root = write_streets(tmp_path / "part", count=3, workers=1, **SMALL)
    kept = root / "images/000002.jpg"
    before = kept.stat().st_mtime_ns
    (root / "labels/000000.png").unlink()
    cut = root / "images/000001.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    write_streets(root, count=4, workers=1, **SMALL)
    assert contents(root) == whole
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "word"),
    [({"domain": "night"}, "domain"), ({"seed": 3}, "seed"), ({"count": 1}, "already")],
)
def test_never_mixes_two_datasets(tmp_path, change, word):
    asked = {"count": 2, "workers": 1, **SMALL}
    root = write_streets(tmp_path, **asked)
    before = contents(root)
    with pytest.raises(ValueError, match=word):
        write_streets(root, **{**asked, **change})
    assert contents(root) == before


def test_leaves_a_foreign_folder_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_streets(tmp_path, count=1, workers=1, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "bad", [{"count": 0}, {"count": 1, "workers": 0}, {"count": 1, "image_format": "bmp"}]
)
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError, match=r"at least 1|bmp"):
        write_streets(tmp_path / "x", **SMALL, **bad)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", ["[]", "3", '{"count": "many"}', "{"])
def test_a_dataset_json_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="not empty and has no readable dataset"):
        write_streets(tmp_path, count=1, workers=1, **SMALL)
    assert (tmp_path / "dataset.json").read_text() == content
