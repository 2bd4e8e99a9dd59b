"""Error messages for missing or incomplete datasets."""

import pytest

from recyclelora.data import get_dataset
from recyclelora.data.benchmarks import BENCHMARKS

from ..support import originals as originals

SIZE = (16, 32)
PACKED, UNFINISHED = "has been downloaded: unpack it", "is an incomplete download: complete it"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def message_for(name):
    with pytest.raises((FileNotFoundError, ValueError)) as raised:
        get_dataset(name).records()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("dataset", BENCHMARKS, ids=lambda dataset: dataset.name)
def test_absent_dataset_names_download_and_folders(dataset, root):
    message = message_for(dataset.name)
    assert len(message) < 1200
    for layout in dataset.layouts:
        assert f"{layout.images} with {layout.labels}" in message
    assert f"which do not exist below {root};" in message
    source, layout = dataset.source, dataset.layouts[0]
    assert "set DETECTRON2_DATASETS to the folder that contains them, or download" in message
    for words in (*source.archives, source.title, source.terms, f"from {source.page} and unpack"):
        assert words in message
    assert f"so that {layout.images} and {layout.labels} exist" in message


def test_packed_archive_is_named(root):
    (root / "cityscapes").mkdir()
    (root / "cityscapes/leftImg8bit_trainvaltest.zip").write_bytes(b"PK")
    (root / "gtFine_trainvaltest.zip.part").write_bytes(b"PK")
    (root / "holiday.zip").write_bytes(b"PK")
    (root / "cityscapes/._gtFine_trainvaltest.zip").write_bytes(b"Mac")
    message = message_for("cityscapes_val")
    assert f"{root / 'cityscapes/leftImg8bit_trainvaltest.zip'} {PACKED}" in message
    assert f"{root / 'gtFine_trainvaltest.zip.part'} {UNFINISHED}" in message
    assert "._" not in message
    assert "holiday" not in message and "holiday" not in message_for("acdc_fog_val")


def test_missing_labels_name_their_packed_archive(root):
    originals.write_cityscapes(root, 2, SIZE)
    (root / "cityscapes/gtFine").rename(root / "gone")
    (root / "cityscapes/gtFine_trainvaltest.zip").write_bytes(b"PK")
    message = message_for("cityscapes_val")
    assert "(found only cityscapes/leftImg8bit/val)" in message
    assert f"gtFine_trainvaltest.zip {PACKED}" in message


def test_missing_label_names_unfinished_download(root):
    originals.write_bdd100k(root, 2, SIZE)
    masks = root / "bdd100k/labels/sem_seg/masks/val"
    min(masks.iterdir()).unlink()
    (root / "bdd100k/bdd100k_sem_seg_labels_trainval.zip.crdownload").write_bytes(b"PK")
    message = message_for("bdd100k_val")
    assert "expected its label" in message and "restore the label or remove the im" in message
    assert message.endswith(UNFINISHED)


def test_empty_folders_name_packed_archive(root):
    for folder in ("RGB", "GT/LABELS"):
        (root / "synthia" / folder).mkdir(parents=True)
    (root / "synthia/SYNTHIA_RAND_CITYSCAPES.rar").write_bytes(b"Rar!")
    message = message_for("synthia_train")
    assert "found none; unpack the dataset there" in message
    assert f"SYNTHIA_RAND_CITYSCAPES.rar {PACKED}" in message


def test_size_warning_reports_too_few_and_too_many(root, tiny_set):
    originals.write_synthia(root, 2, SIZE)
    dataset = get_dataset("synthia_train")
    assert dataset.size_warning(9_400) is None
    assert (
        "found 2 in" in dataset.size_warning()
        and "the download is incomplete" in dataset.size_warning()
    )
    assert "the folder contains other files" in dataset.size_warning(9_401)
    assert get_dataset(tiny_set("tiny_whole")).size_warning() is None
