"""write_streets: independent of the workers, resumable, and never a mix of two datasets."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from drawn_streets import draw_street, streets_in, write_streets

SMALL = {"seed": 2, "height": 48, "width": 96}


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.*"))}


@pytest.mark.slow
def test_write_streets_in_unguarded_script_raises(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from drawn_streets import write_streets\n"
        f"write_streets({str(tmp_path / 'streets')!r}, count=3, workers=2, height=32, width=64)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert 'only below `if __name__ == "__main__":`' in run.stderr


def test_write_streets_files_do_not_depend_on_workers(tmp_path):
    one = write_streets(tmp_path / "one", count=5, workers=1, **SMALL)
    two = write_streets(tmp_path / "two", count=5, workers=2, **SMALL)
    assert contents(one) == contents(two)
    assert len(contents(one)) == 11


def test_write_streets_files_equal_draw_street(tmp_path):
    root = write_streets(
        tmp_path / "d", domain="fog", count=2, workers=1, image_format="png", **SMALL
    )
    image, label = draw_street(2, 1, "fog", 48, 96)
    assert np.array_equal(np.asarray(Image.open(root / "images/000001.png")), image)
    assert np.array_equal(np.asarray(Image.open(root / "labels/000001.png")), label)
    about = json.loads((root / "dataset.json").read_text())
    assert about["generator"] == "recyclelora.data.streets"  # existing datasets resume
    assert about["domain"] == "fog" and about["count"] == 2 and about["complete"]
    assert sum(about["pixel_share"].values()) == pytest.approx(1, abs=1e-4)


def test_write_streets_resume_repairs_incomplete_pairs(tmp_path):
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
def test_write_streets_other_parameters_raise(tmp_path, change, word):
    asked = {"count": 2, "workers": 1, **SMALL}
    root = write_streets(tmp_path, **asked)
    before = contents(root)
    with pytest.raises(ValueError, match=word):
        write_streets(root, **{**asked, **change})
    assert contents(root) == before


def test_write_streets_into_other_folder_raises(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_streets(tmp_path, count=1, workers=1, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_write_streets_beside_a_file_of_the_system_writes(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0")
    write_streets(tmp_path, count=1, workers=1, **SMALL)
    assert streets_in(tmp_path)["complete"] and (tmp_path / name).exists()


@pytest.mark.parametrize(
    "bad", [{"count": 0}, {"count": 1, "workers": 0}, {"count": 1, "image_format": "bmp"}]
)
def test_write_streets_invalid_argument_raises(tmp_path, bad):
    with pytest.raises(ValueError, match=r"at least 1|bmp"):
        write_streets(tmp_path / "x", **SMALL, **bad)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", ["[]", "3", '{"count": "many"}', "{"])
def test_write_streets_invalid_dataset_json_raises(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="not empty and has no readable dataset"):
        write_streets(tmp_path, count=1, workers=1, **SMALL)
    assert (tmp_path / "dataset.json").read_text() == content
