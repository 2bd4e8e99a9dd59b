import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from recyclelora.data import (
    CAMVID,
    CITYSCAPES_IDS,
    CLASSES,
    COLORS,
    REAL_SETS,
    FolderDataset,
    Layout,
    get_dataset,
    read_pair,
    real_sets,
    register,
    register_folder,
)


def write(file, value=0, size=(8, 6), mode="L"):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L" if mode == "P" else mode, size, value)
    if mode == "P":  # as in GTAV and Mapillary: the index is the id, the palette is for display
        image.putpalette([255 - i // 3 for i in range(768)])
    image.save(file)
    return file


def read(record):
    return read_pair(record["file_name"], record["sem_seg_file_name"], record["label_map"])


def test_register_folder_fills_both_catalogs(tiny_set):
    name = tiny_set("tiny_catalog", count=3, folding=CAMVID)
    records = DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == ["000000", "000001", "000002"]
    assert [(record["height"], record["width"]) for record in records] == [(48, 64)] * 3
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == list(CLASSES)
    assert metadata.stuff_colors == [list(color) for color in COLORS]
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")
    assert metadata.folding == CAMVID


def test_register_twice_accepts_only_equal_datasets(tmp_path, tiny_set):
    name = tiny_set("tiny_repeated")
    root = tmp_path / name
    register_folder(name, images=root / "images", labels=root / "labels")
    with pytest.raises(ValueError, match="'tiny_repeated' is already registered with other"):
        register_folder(name, images="elsewhere", labels="elsewhere")


def test_register_does_not_access_the_root(monkeypatch):
    monkeypatch.setattr(
        FolderDataset, "root", property(lambda dataset: pytest.fail("asked for the root"))
    )
    for name in (*REAL_SETS, "gtav_train", "cityscapes_val", "mapillary_vistas_val"):
        dataset = MetadataCatalog.get(name).dataset
        DatasetCatalog.remove(name)
        assert register(dataset) == name and name in DatasetCatalog


def test_get_dataset_unknown_name_lists_known_names():
    with pytest.raises(ValueError, match=r"got 'citiscapes'; the known names are .*cityscapes_val"):
        get_dataset("citiscapes")


def test_records_of_missing_or_empty_folder_raise(tmp_path, monkeypatch):
    folder = FolderDataset("f", (Layout(str(tmp_path / "images"), str(tmp_path / "labels")),))
    with pytest.raises(FileNotFoundError, match=r"'f': expected the folders .*images with"):
        folder.records()
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="labels, which do not exist"):
        folder.records()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError, match=r"'f': expected images \(\*\.png, .*found none"):
        folder.records()
    monkeypatch.delenv("RECYCLELORA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="environment variable RECYCLELORA_DATA is not set"):
        DatasetCatalog.get("camvid_dusk")


def test_records_with_unpaired_file_raise(tmp_path, tiny_set):
    name = tiny_set("tiny_pairs", count=2)
    write(tmp_path / name / "images" / "extra.jpg", mode="RGB")
    with pytest.raises(ValueError, match=r"extra\.jpg: expected its label .*extra\.png"):
        get_dataset(name).records()
    (tmp_path / name / "images" / "extra.jpg").unlink()
    write(tmp_path / name / "labels" / "more.png")
    with pytest.raises(ValueError, match=r"more\.png: a label without an image"):
        get_dataset(name).records()
    write(tmp_path / name / "images" / "more.png")
    write(tmp_path / name / "images" / "more.jpg", mode="RGB")
    with pytest.raises(ValueError, match="has the same name"):
        get_dataset(name).records()


def test_records_count_all_unpaired_files(tmp_path, tiny_set):
    name = tiny_set("tiny_counts", count=3)
    for number in (0, 1):
        (tmp_path / name / f"labels/00000{number}.png").unlink()
    write(tmp_path / name / "labels/more.png")
    counts = "2 images without a label and 1 label without an image"
    with pytest.raises(ValueError, match=rf"000000\.png: .*{counts}; skip_unpaired=True"):
        get_dataset(name).records()


def test_skip_unpaired_leaves_out_with_one_warning(tmp_path, tiny_set, caplog):
    name = tiny_set("tiny_skip", count=3, skip_unpaired=True)
    (tmp_path / name / "labels/000000.png").unlink()
    (tmp_path / name / "images/000001.png").unlink()
    assert [record["image_id"] for record in get_dataset(name).records()] == ["000002"]
    (message,) = (record.getMessage() for record in caplog.records)
    assert "1 image without a label and 1 label without an image" in message
    (tmp_path / name / "labels/000002.png").unlink()
    with pytest.raises(ValueError, match="expected its label"):  # no pairs would remain
        get_dataset(name).records()


def test_bdd100k_skips_unpaired_files(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for key in "ab":
        write(tmp_path / f"bdd100k/images/10k/val/{key}.jpg", mode="RGB")
    for key in "bc":
        write(tmp_path / f"bdd100k/labels/sem_seg/masks/val/{key}.png")
    assert [record["image_id"] for record in DatasetCatalog.get("bdd100k_val")] == ["b"]
    assert "left out of 'bdd100k_val': 1 image without a label and 1 label" in caplog.text


HIDDEN = [
    *(".ipynb_checkpoints/000000-checkpoint.png", "@eaDir/000000.png/SYNO_THUMB_M.png"),
    *(".thumbnails/000000.png", ".Trash-1000/files/000001.png", "a/.Trash-1000/a/b/1.png"),
    *("._000000.png", "THUMBS.DB", "a/desktop.ini", "__MACOSX/000000.png", "@EADIR/1.png"),
]


@pytest.mark.parametrize("kinds", [("images",), ("labels",), ("images", "labels")])
def test_hidden_files_are_not_data(tmp_path, tiny_set, kinds):
    name = tiny_set("tiny_hidden", count=2)
    for kind in kinds:
        for file in HIDDEN:
            path = tmp_path / name / kind / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((tmp_path / name / kind / "000000.png").read_bytes())
    keys = [record["image_id"] for record in get_dataset(name).records()]
    assert keys == ["000000", "000001"]


def test_links_to_one_another_give_each_pair_once(tmp_path, tiny_set):
    name = tiny_set("tiny_links", count=1)
    for kind in ("images", "labels"):
        for folder, link in (("a", "b"), ("b", "a")):
            write(
                tmp_path / name / kind / folder / "1.png", mode="RGB" if kind == "images" else "L"
            )
            (tmp_path / name / kind / folder / "x").symlink_to(f"../{link}")
    keys = [record["image_id"] for record in get_dataset(name).records()]
    assert keys == ["000000", "a/1", "b/1"]


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        ("old", ["1", "2_debug", "new/3"]),
        ("*_debug*", ["1", "new/3", "old/4"]),
        (["new/*", "1.png"], ["2_debug", "old/4"]),
        (["*.jpg"], ["1", "new/3", "old/4"]),
        (["/nothing"], ["1", "2_debug", "new/3", "old/4"]),
    ],
)
def test_exclude_leaves_out_files_with_their_partners(tmp_path, patterns, keys):
    for key, suffix in (("1", "png"), ("2_debug", "jpg"), ("new/3", "png"), ("old/4", "png")):
        write(tmp_path / f"images/{key}.{suffix}", mode="RGB")
        write(tmp_path / f"labels/{key}.png")
    folders = {"images": tmp_path / "images", "labels": tmp_path / "labels"}
    name = register_folder("tiny_exclude", **folders, exclude=patterns)
    assert [record["image_id"] for record in get_dataset(name).records()] == keys


def test_exclude_of_one_of_two_images_keeps_the_label(tmp_path):
    for suffix in ("png", "jpg"):
        write(tmp_path / f"images/1.{suffix}", mode="RGB")
    write(tmp_path / "labels/1.png")
    folders = {"images": tmp_path / "images", "labels": tmp_path / "labels"}
    name = register_folder("tiny_twice", **folders, exclude="*.jpg")
    (record,) = get_dataset(name).records()
    assert record["file_name"].endswith("1.png")
    with pytest.raises(ValueError, match="exclude must be patterns"):
        register_folder("tiny_wrong", **folders, exclude=[3])


def test_records_with_size_mismatch_raise(tmp_path, tiny_set):
    name = tiny_set("tiny_sizes", count=2)
    write(tmp_path / name / "labels" / "000001.png", size=(64, 47))
    with pytest.raises(ValueError, match=r"labels/000001\.png: .*\(64x48\), got 64x47"):
        get_dataset(name).records()
    (tmp_path / name / "labels" / "000001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"000001\.png: expected a complete picture"):
        get_dataset(name).records()


def test_subset_is_seeded_sorted_and_fixed(tiny_set):
    folder = get_dataset(tiny_set("tiny_subset", count=12))
    keys = [record["image_id"] for record in folder.records(subset=5, seed=0)]
    # Explicit names: other machines and versions of NumPy or Python must draw the same images.
    assert keys == ["000000", "000002", "000006", "000007", "000011"]
    assert [record["image_id"] for record in folder.records(subset=5, seed=1)] != keys
    assert len(folder.records(subset=50)) == 12
    with pytest.raises(ValueError, match="from 1 to 1,000,000,000, got 0"):
        folder.records(subset=0)


def gtav(root, count=3):
    for index in range(count):
        write(root / f"gtav/images/{index:05d}.png", mode="RGB")
        write(root / f"gtav/labels/{index:05d}.png", value=26, mode="P")


def test_gtav_skips_mismatched_labels_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    gtav(tmp_path)
    write(tmp_path / "gtav/labels/00001.png", value=26, mode="P", size=(9, 6))
    records = DatasetCatalog.get("gtav_all")
    assert [record["image_id"] for record in records] == ["00000", "00002"]
    assert "labels/00001.png" in caplog.text and "got 9x6" in caplog.text
    assert (read(records[0])[1] == CLASSES.index("car")).all()


def test_gtav_train_incomplete_uses_all_and_warns(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    gtav(tmp_path)
    assert len(DatasetCatalog.get("gtav_train")) == 3
    assert "'gtav_train': expected 24966 pairs, found 3 in" in caplog.text


def test_subset_larger_than_own_dataset_raises(tiny_set):
    with pytest.raises(ValueError, match=r"'tiny_draw' draws 9 pairs .* has only 3"):
        get_dataset(tiny_set("tiny_draw", count=3, subset=9)).records()


def test_cityscapes_in_its_layout_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    root = tmp_path / "cityscapes"
    for city in ("bonn", "ulm"):
        stem = f"{city}/{city}_000000_000019"
        write(root / f"leftImg8bit/val/{stem}_leftImg8bit.png", mode="RGB")
        write(root / f"gtFine/val/{stem}_gtFine_labelIds.png", value=7)
        write(root / f"gtFine/val/{stem}_gtFine_color.png", mode="RGB")
        (root / f"gtFine/val/{stem}_gtFine_polygons.json").write_text("{}")
    records = DatasetCatalog.get("cityscapes_val")
    assert len(records) == 2 and (read(records[1])[1] == 0).all()
    assert MetadataCatalog.get("cityscapes_val").benchmark == "cityscapes"
    with pytest.raises(FileNotFoundError, match="leftImg8bit/train"):
        DatasetCatalog.get("cityscapes_train")


@pytest.mark.parametrize("release", ["images/10k/val labels/sem_seg/masks/val", "seg"])
def test_bdd100k_in_both_layouts_is_read(tmp_path, monkeypatch, release):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    images, labels, end = "seg/images/val", "seg/labels/val", "_train_id.png"
    if release != "seg":
        (images, labels), end = release.split(), ".png"
    write(tmp_path / "bdd100k" / images / "7d06fefd-f7be05a6.jpg", mode="RGB")
    write(tmp_path / "bdd100k" / labels / f"7d06fefd-f7be05a6{end}", value=13)
    (record,) = DatasetCatalog.get("bdd100k_val")
    assert (read(record)[1] == 13).all()


@pytest.mark.parametrize("labels", ["v1.2/labels", "labels"])
def test_mapillary_reads_its_class_list(tmp_path, monkeypatch, labels):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    root = tmp_path / "mapillary_vistas"
    write(root / "validation/images/a.jpg", mode="RGB")
    write(root / "validation" / labels / "a.png", value=1, mode="P")
    with pytest.raises(FileNotFoundError, match=r"config_v1\.2\.json or .*config\.json"):
        DatasetCatalog.get("mapillary_vistas_val")
    config = {"labels": [{"readable": "Bird"}, {"readable": "Curb Cut"}]}
    (root / "config_v1.2.json").write_text(json.dumps(config))
    (record,) = DatasetCatalog.get("mapillary_vistas_val")
    assert (read(record)[1] == CLASSES.index("sidewalk")).all()


def test_register_folder_applies_its_label_map(tmp_path, tiny_set):
    name = tiny_set("tiny_ids", classes=(7, 26), label_map=CITYSCAPES_IDS)
    assert set(np.unique(read(get_dataset(name).records()[0])[1])) <= {0, 13}


def test_real_sets_are_registered_with_foldings(tmp_path, monkeypatch):
    monkeypatch.delenv("RECYCLELORA_DATA", raising=False)
    assert real_sets() == []
    monkeypatch.setenv("RECYCLELORA_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="RECYCLELORA_DATA: expected a folder"):
        real_sets()
    for name in ("camvid_test_only", "other_test_only", ".Trash-1000", "@eaDir"):
        write(tmp_path / name / "images/a.jpg", mode="RGB")
        write(tmp_path / name / "labels/a.png")
    monkeypatch.setenv("RECYCLELORA_DATA", str(tmp_path))
    assert real_sets() == ["camvid_test_only", "other_test_only"]
    assert get_dataset("camvid_test_only").folding == CAMVID
    assert get_dataset("other_test_only").folding is None


def test_shared_real_sets_match_their_label_maps(real_data):
    sizes = dict.fromkeys(REAL_SETS, 20)
    assert sizes.keys() <= set(real_sets())
    for name in REAL_SETS:
        records = get_dataset(name).records(subset=sizes[name])
        assert len(records) == sizes[name]
        for record in records[:5]:
            image, label = read(record)
            assert image.shape == (*label.shape, 3)


def test_folders_of_variables_and_arguments_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISK", str(tmp_path))
    for kind in ("images", "labels"):
        (tmp_path / "sets" / "town" / kind).mkdir(parents=True)
    for value in ("~/sets", "$DISK/sets"):
        monkeypatch.setenv("RECYCLELORA_DATA", value)
        assert real_sets() == ["town"]
        assert get_dataset("town").layout()
        monkeypatch.setenv("DETECTRON2_DATASETS", value)
        assert get_dataset("cityscapes_val").root == tmp_path / "sets"
    register_folder("mine", images="~/sets/town/images", labels="$DISK/sets/town/labels")
    assert get_dataset("mine").is_available()
