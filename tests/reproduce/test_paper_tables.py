"""The paper's tables, with our scores and the published ones."""

import csv
import json
from pathlib import Path

import pytest

from recyclelora.reproduce.paper_tables import list_table, write_hyperparameters, write_table
from recyclelora.reproduce.tables import Run
from recyclelora.reproduce.workspace import Workspace

ROOT = Path(__file__).parents[2]

PROTOCOL = {"name": "paper", "sizes": {"cityscapes": [2048, 1024]}, "mode": "slide", "crop": 512}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(ROOT, scratch=tmp_path)


@pytest.fixture
def finished(workspace):
    """``finished("main_dinov2l_g2cbm", 0, cityscapes=70.0, ...)`` writes the result of a run."""

    def write(config, seed, **scores):
        domains = {name: {"mIoU": value, "IoU": {}, "images": 3} for name, value in scores.items()}
        mean = sum(scores.values()) / len(scores)
        overrides = [*workspace.row_of(Run("paper", config, seed)).overrides, f"train.seed={seed}"]
        environment = {"machine": "a GPU", "gpu": "a GPU", "versions": {"torch": "2.11"}}
        result = {
            "table": "paper", "row": config, "seed": seed, "overrides": overrides,
            "iterations": 40_000, "batch": 4, "num_gpus": 2, "seconds": 7200.0,
            "environment": environment | {"commit": "abc"},
            "result": {"protocol": PROTOCOL, "domains": domains, "mean_mIoU": mean},
        }  # fmt: skip
        file = workspace.results / "paper" / f"{config}_seed{seed}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result))

    return write


def lines_of(workspace, name):
    with (workspace.results / "tables" / f"table_{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_write_table_puts_ours_beside_the_published_scores(workspace, finished):
    finished("main_dinov2l_g2cbm", 0, cityscapes=72.0, bdd100k=61.0, mapillary=71.0)
    finished("main_dinov2l_g2cbm", 1, cityscapes=73.0, bdd100k=62.0, mapillary=72.0)
    text = write_table("5", workspace)
    markdown = (workspace.results / "tables" / "table_5.md").read_text()
    (row,) = (line for line in markdown.splitlines() if "Main adapter " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        *("2", "Main adapter", "12.6M", "72.92", "72.50 ± 0.71", "61.22", "61.50 ± 0.71"),
        *("71.75", "71.50 ± 0.71", "68.63", "68.50 ± 0.71", "2"),
    ]
    (row,) = (line for line in markdown.splitlines() if "Sub adapter " in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:] == ["70.64", "", "60.56", "", "71.11", "", "67.44", "", ""]
    for said in ('"name": "paper"', "2 x a GPU", "40000 iterations of batch 4", "2.0 hours"):
        assert said in text and said in markdown
    assert "arXiv:2603.28142" in markdown
    main, both = lines_of(workspace, "5")[1:]
    assert float(main["cityscapes ours"]) == 72.5 and main["cityscapes published"] == "72.92"
    assert float(main["average deviation"]) == pytest.approx(0.5**0.5)
    assert (main["seeds"], main["protocol"], main["ran on"]) == ("0 1", "paper", "a GPU")
    assert both["average ours"] == both["seeds"] == ""


def test_write_table_takes_only_the_given_seeds(workspace, finished):
    for seed, score in enumerate((70.0, 72.0, 76.0)):
        finished("sub_dinov2l_g2cbm", seed, cityscapes=score, bdd100k=score, mapillary=score)
    assert "74.00 ± 2.83" in write_table("5", workspace, [1, 2])
    assert "72.67 ± 3.06" in write_table("5", workspace)
    text = write_table("6", workspace, [1])  # the same run in another table
    assert "72.00" in text and "±" not in text.split("mIoU in percent")[0]


def test_average_without_one_of_the_targets_is_empty(workspace, finished):
    finished("main_dinov2l_g2cbm", 0, cityscapes=72.0, bdd100k=61.0)
    write_table("5", workspace)
    main = lines_of(workspace, "5")[1]
    assert float(main["bdd100k ours"]) == 61.0
    assert main["mapillary ours"] == main["average ours"] == ""


def test_row_beyond_the_paper_has_its_own_targets(workspace, finished):
    weather = {f"acdc_{name}": 60.0 for name in ("fog", "night", "rain", "snow")}
    finished("recyclelora_dinov2l_c2acdc", 0, **weather)
    finished("frozen_dinov2l_g2cbm", 0, cityscapes=50.0, bdd100k=51.0, mapillary=52.0)
    write_table("beyond", workspace)
    by_config = {line["config"]: line for line in lines_of(workspace, "beyond")}
    assert float(by_config["recyclelora_dinov2l_c2acdc"]["average ours"]) == 60
    assert by_config["recyclelora_dinov2l_c2acdc"]["cityscapes ours"] == ""
    assert float(by_config["frozen_dinov2l_g2cbm"]["average ours"]) == 51


def test_list_table_shows_the_state_of_every_row(workspace, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "none"))
    monkeypatch.setenv("RECYCLELORA_CACHE", str(tmp_path))
    config = "recyclelora_dinov2l_g2cbm"
    sets = "gtav_train, cityscapes_val, bdd100k_val, mapillary_vistas_val"
    assert state(list_table("3", workspace), config) == f"needs {sets}, dinov2_vitl14"
    finished(config, 0, cityscapes=70.0, bdd100k=61.0, mapillary=71.0)
    lines = list_table("3", workspace).splitlines()
    (ours,) = (line for line in lines if f" {config} " in line)
    assert "68.95" in ours and "67.33" in ours and ours.endswith("  finished, seeds 0")
    assert sum("quoted from the paper" in line for line in lines) >= 12

    def unpack(*folders):
        for name in folders:
            (tmp_path / "some" / name).mkdir(parents=True)

    unpack("cityscapes/leftImg8bit/train", "cityscapes/gtFine/train")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "some"))
    (tmp_path / "dinov2_vitl14_pretrain.pth").touch()
    config = "recyclelora_dinov2l_c2bm"
    assert state(list_table("4", workspace), config) == "needs bdd100k_val, mapillary_vistas_val"
    unpack("bdd100k/images/10k/val", "bdd100k/labels/sem_seg/masks/val")
    unpack(*(f"mapillary_vistas/validation/{name}" for name in ("images", "v1.2/labels")))
    assert state(list_table("4", workspace), config) == "runnable"
    workspace.folder(Run("paper", config, 1)).mkdir(parents=True)
    assert state(list_table("4", workspace), config) == "begun"


def state(listing, config):
    """Return the last cell in the row of a config."""
    (line,) = (line for line in listing.splitlines() if f" {config} " in line)
    return line.split(f" {config} ")[1].strip()


def test_table_8_is_written_without_a_run(workspace):
    assert "PolyWithAnnealedDecay" in write_hyperparameters(workspace)
    rows = lines_of(workspace, "8")
    assert len(rows) == 13
    assert rows[2]["real to real ours"] == rows[2]["real to real published"] == "2"


def test_write_table_names_only_overrides_of_the_command_line(workspace, finished):
    scores = {"cityscapes": 70.0, "bdd100k": 61.0, "mapillary": 71.0}
    finished("recyclelora_dinov2l_g2cbm_r32_2", 0, **scores)
    assert "Settings that differ from the table" not in write_table("9", workspace)
    workspace.overrides = ("train.max_iter=20",)
    file = workspace.results / "paper" / "recyclelora_dinov2l_g2cbm_r32_2_seed0.json"
    result = json.loads(file.read_text())
    result["overrides"].append("train.max_iter=20")
    file.write_text(json.dumps(result))
    assert "Settings that differ from the table: train.max_iter=20." in write_table("9", workspace)
