"""What a user is told of a dataset that is not there, or not all of it."""

import pytest

from recyclelora.data import folder_of
from recyclelora.data.benchmarks import BENCHMARKS

from ..support import released_datasets as originals

SIZE = (16, 32)
PACKED, UNFINISHED = "lies there packed: unpack it", "is an unfinished download: finish it"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def said(name):
    with pytest.raises((FileNotFoundError, ValueError)) as raised:
        folder_of(name).records()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_a_set_that_is_not_there_says_what_to_download_and_where_to_put_it(folder, root):
    sentence = said(folder.name)
    assert len(sentence) < 1200
    for layout in folder.layouts:
        assert f"{layout.images} with {layout.labels}" in sentence
    assert f"which are not there below {root};" in sentence
    origin, layout = folder.origin, folder.layouts[0]
    assert "set DETECTRON2_DATASETS to the folder that has them, or download" in sentence
    for words in (*origin.archives, origin.title, origin.terms, f"from {origin.page} and unpack"):
        assert words in sentence
    assert f"so that {layout.images} and {layout.labels} are there" in sentence


def test_an_archive_that_was_not_unpacked_is_named(root):
    (root / "cityscapes").mkdir()
    (root / "cityscapes/leftImg8bit_trainvaltest.zip").write_bytes(b"PK")
    (root / "gtFine_trainvaltest.zip.part").write_bytes(b"PK")
    (root / "holiday.zip").write_bytes(b"PK")
    sentence = said("cityscapes_val")
    assert f"{root / 'cityscapes/leftImg8bit_trainvaltest.zip'} {PACKED}" in sentence
    assert f"{root / 'gtFine_trainvaltest.zip.part'} {UNFINISHED}" in sentence
    assert "holiday" not in sentence and "holiday" not in said("acdc_fog_val")


def test_labels_without_their_archive_unpacked(root):
    originals.write_cityscapes(root, 2, SIZE)
    (root / "cityscapes/gtFine").rename(root / "gone")
    (root / "cityscapes/gtFine_trainvaltest.zip").write_bytes(b"PK")
    sentence = said("cityscapes_val")
    assert "(only cityscapes/leftImg8bit/val)" in sentence
    assert f"gtFine_trainvaltest.zip {PACKED}" in sentence


def test_an_image_without_its_label_and_a_download_that_stopped(root):
    originals.write_bdd100k(root, 2, SIZE)
    masks = root / "bdd100k/labels/sem_seg/masks/val"
    min(masks.iterdir()).unlink()
    (root / "bdd100k/bdd100k_sem_seg_labels_trainval.zip.crdownload").write_bytes(b"PK")
    sentence = said("bdd100k_val")
    assert "expected its label" in sentence and "restore the label or remove the im" in sentence
    assert sentence.endswith(UNFINISHED)


def test_folders_that_are_still_empty(root):
    for folder in ("RGB", "GT/LABELS"):
        (root / "synthia" / folder).mkdir(parents=True)
    (root / "synthia/SYNTHIA_RAND_CITYSCAPES.rar").write_bytes(b"Rar!")
    sentence = said("synthia_train")
    assert "found none; unpack the dataset there" in sentence
    assert f"SYNTHIA_RAND_CITYSCAPES.rar {PACKED}" in sentence


def test_a_whole_set_has_no_shortfall_and_one_too_large_has(root, tiny_set):
    originals.write_synthia(root, 2, SIZE)
    folder = folder_of("synthia_train")
    assert folder.shortfall(9_400) is None
    assert "found 2 in" in folder.shortfall() and "the download is incomplete" in folder.shortfall()
    assert "there are files of something else" in folder.shortfall(9_401)
    assert folder_of(tiny_set("tiny_whole")).shortfall() is None
