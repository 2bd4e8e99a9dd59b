"""The command line of the tables: rows by number or name, and a whole table cut off and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drawn_streets import write_streets

from ..support.forked_runs import different, state
from ..support.released_datasets import write_all
from ..support.tiny_overrides import TINY, folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(tool_module):
    return tool_module("reproduce")


def commands(tool, capsys, *arguments):
    """The configs and seeds that a dry run names."""
    tool.main([*arguments, "--dry-run"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return [
        (Path(words[words.index("--config-file") + 1]).stem, int(words[-1].split("=")[1]))
        for words in lines
    ]


def test_rows_by_number_and_by_name(tool, capsys, tmp_path):
    base = "recyclelora_dinov2l_g2cbm"
    where = ("--scratch", str(tmp_path))
    assert commands(tool, capsys, "--table", "9", "--row", "2", *where) == [(base, 0)]
    assert commands(tool, capsys, "--table", "9", "--row", base, *where) == [(base, 0)]
    given = commands(tool, capsys, "--table", "10", "--seeds", "4", "7", *where)
    ranks = ["recyclelora_dinov2l_c2bm", "recyclelora_dinov2l_c2bm_r32_4"]
    assert given == [(name, seed) for seed in (4, 7) for name in ranks]


def test_a_run_of_several_tables_is_done_once(tool, capsys, tmp_path):
    given = commands(tool, capsys, "--table", "5", "9", "11", "12", "--scratch", str(tmp_path))
    assert len(given) == len(set(given)) == 3 + 8 + 2 + 2


def test_the_number_of_gpus_goes_to_the_training_tool(tool, capsys, tmp_path):
    tool.main(["--table", "10", "--num-gpus", "4", "--dry-run", "--scratch", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all(
        "--resume --num-gpus 4 train.output_dir=" in line for line in said
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("--table 9 train.max_iter=3", "give --scratch FOLDER"),
        ("--table 9 --row 12", "no row 12 in 9: there are 1, 2, 3"),
        ("--table 3 --row 1", "row 1 of table 3 is quoted from the paper"),
        (
            "--table streets_to_real --row dora",
            "no row dora in streets_to_real: there are frozen, ",
        ),
        ("--table camvid_to_real --seeds 7", "no seed 7 in camvid_to_real: there are 0, 1, 2"),
        ("--table 9 --seeds -3", "a seed"),
        ("--table 9 --num-gpus 0", "--num-gpus"),
        ("--row 2", "which tables"),
    ],
)
def test_mistakes_end_in_one_sentence(tool, given, sentence):
    with pytest.raises(SystemExit, match=sentence) as stopped:
        tool.main(given.split())
    assert len(str(stopped.value).splitlines()) == 1


def test_half_a_dataset_is_refused_beside_published_numbers(tool_module, tmp_path, monkeypatch):
    write_all(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    runs, tables = tool_module("runs"), tool_module("tables")
    monkeypatch.setattr(runs, "held", lambda *_: pytest.fail("the run has begun"))
    run = tables.Run("paper", "recyclelora_dinov2l_c2bm", 0)
    refused = r"cityscapes_train.*expected 2975 pairs, found 3 .*give --scratch FOLDER"
    with pytest.raises(ValueError, match=refused):
        runs.complete(run, runs.Place(None, []))


def start(scratch, overrides):
    command = [sys.executable, "tools/reproduce.py", "--table", "5", "--scratch", str(scratch)]
    return subprocess.Popen(
        [*command, *overrides], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def when_there(file, process, act):
    """Do something to the process as soon as a file is there."""
    while not file.exists():
        assert process.poll() is None, process.communicate(timeout=1200)[0]
        time.sleep(0.02)
    act()
    return process.communicate(timeout=1200)[0]


def kill_with_children(process):
    """As a power cut: the runner and the training that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.slow
def test_a_whole_table_stopped_killed_and_shared_by_two_ends_complete_and_correct(tmp_path):
    """Table 5 of a tiny model on drawn streets: SIGTERM, SIGKILL, then two processes to the end."""
    overrides = [*TINY, "train.max_iter=4", "train.checkpoint_period=1", "optimizer.lr=0.01"]
    overrides.append("train.checkpoints_kept=4")  # so that none is gone before it is seen
    sets = {"cityscapes": "night", "bdd100k": "fog", "mapillary": "rain"}
    for domain in ("day", *sets.values()):
        root = tmp_path / domain
        write_streets(root, domain=domain, count=2, seed=0, height=64, width=128, workers=1)
    overrides.append(f"dataloader.train.dataset=[{folder('day', tmp_path / 'day')}]")
    for target, domain in sets.items():
        overrides += [
            f"dataloader.test.{target}.dataset={folder(domain, tmp_path / domain)}",
            f"dataloader.test.{target}.num_workers=0",
        ]
    overrides.append("evaluation.protocol={_target_:recyclelora.evaluation.native,long_side:128}")
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    reference = start(whole, overrides)
    said = reference.communicate(timeout=1200)[0]
    assert reference.returncode == 0, said

    runner = start(cut, overrides)
    first = cut / "paper" / "sub_dinov2l_g2cbm_seed0" / "iter_0000002.pth"
    said = when_there(first, runner, runner.terminate)
    assert runner.returncode == 0 and "the same command goes on from here" in said
    runner = start(cut, overrides)
    second = cut / "paper" / "main_dinov2l_g2cbm_seed0" / "iter_0000001.pth"
    said = when_there(second, runner, lambda: kill_with_children(runner))
    assert runner.returncode == -signal.SIGKILL and "Resuming from" in said
    pair = [start(cut, overrides), start(cut, overrides)]
    said = [runner.communicate(timeout=1200)[0] for runner in pair]
    assert [runner.returncode for runner in pair] == [0, 0], said
    assert "left for now" in "".join(said)

    names = ("sub_dinov2l_g2cbm", "main_dinov2l_g2cbm", "recyclelora_dinov2l_g2cbm")
    results = []
    for name in names:
        found = [
            json.loads((place / "results" / "paper" / f"{name}_seed0.json").read_text())
            for place in (whole, cut)
        ]
        assert found[0]["result"] == found[1]["result"] and found[0]["iterations"] == 4
        results.append(found[0]["result"])
        states = [state(place / "paper" / f"{name}_seed0") for place in (whole, cut)]
        assert different(*states) == []
    for place in (whole, cut):
        with (place / "results" / "tables" / "table_5.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, result in zip(rows, results, strict=True):
            assert float(row["average ours"]) == pytest.approx(result["mean_mIoU"])
            assert row["average published"] and row["seeds"] == "0"
            for target in sets:
                score = result["domains"][target]["mIoU"]
                assert float(row[f"{target} ours"]) == pytest.approx(score)
        text = (place / "results" / "tables" / "table_5.md").read_text()
        assert "Not the table's own settings: model.backbone.module.weights=null" in text
