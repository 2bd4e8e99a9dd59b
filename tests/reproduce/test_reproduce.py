"""The command line of the tables: selected rows, and a whole table, interrupted and resumed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tools import reproduce, update_readme

from drawn_streets import write_streets
from recyclelora.reproduce import runs
from recyclelora.reproduce.checkout import find_checkout
from recyclelora.reproduce.tables import Run
from recyclelora.reproduce.workspace import Workspace

from ..support.forked_runs import differences, state
from ..support.originals import write_all
from ..support.tiny_overrides import TINY, folder

ROOT = Path(__file__).parents[2]


def commands(capsys, *arguments):
    """Return the rows and seeds of a dry run."""
    reproduce.main([*arguments, "--dry-run"])
    found = []
    for line in capsys.readouterr().out.splitlines():
        words = line.split()
        assert words[:4] == ["python", "-m", "recyclelora.engine.train", "--config-file"]
        (output,) = (word for word in words if word.startswith("train.output_dir="))
        row, _, seed = output.rpartition("/")[2].rpartition("_seed")
        assert words[-1] == f"train.seed={seed}" and row.startswith(Path(words[4]).stem)
        found.append((row, int(seed)))
    return found


def test_rows_are_selected_by_number_or_name(capsys, tmp_path):
    base = "recyclelora_dinov2l_g2cbm"
    where = ("--scratch", str(tmp_path))
    assert commands(capsys, "--table", "9", "--row", "2", *where) == [(base, 0)]
    assert commands(capsys, "--table", "9", "--row", base, *where) == [(base, 0)]
    svd = f"{base}_svd"
    assert commands(capsys, "--table", "12", "--row", svd, *where) == [(svd, 0)]
    given = commands(capsys, "--table", "10", "--seeds", "4", "7", *where)
    ranks = ["recyclelora_dinov2l_c2bm", "recyclelora_dinov2l_c2bm_r32_4"]
    assert given == [(name, seed) for seed in (4, 7) for name in ranks]


def test_run_of_several_tables_is_selected_once(capsys, tmp_path):
    given = commands(capsys, "--table", "5", "9", "11", "12", "--scratch", str(tmp_path))
    assert len(given) == len(set(given)) == 3 + 8 + 2 + 2


def test_num_gpus_is_an_option_of_the_training(capsys, tmp_path):
    reproduce.main(["--table", "10", "--num-gpus", "4", "--dry-run", "--scratch", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all(
        "--resume --num-gpus 4 train.output_dir=" in line for line in said
    )


def test_output_moves_checkpoints_but_not_results(capsys, tmp_path):
    reproduce.main(["--table", "10", "--dry-run", "--output", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(f"train.output_dir={tmp_path}/paper/" in line for line in lines)
    assert Workspace(ROOT, output=tmp_path).results == ROOT / "results"
    both = Workspace(ROOT, output=tmp_path / "out", scratch=tmp_path)
    assert (both.output, both.results) == (tmp_path / "out", tmp_path / "results")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("--table 9 train.max_iter=3", "give --scratch FOLDER"),
        ("--table 9 --row 12", "no row 12 in 9: choose from 1, 2, 3"),
        ("--table 3 --row 1", "row 1 of table 3 is only quoted from the paper"),
        (
            "--table streets_to_real --row dora",
            "no row dora in streets_to_real: choose from dual_kaiming, ",
        ),
        ("--table camvid_to_real --seeds 7", "no seed 7 in camvid_to_real: choose from 0, 1, 2"),
        ("--table 9 --seeds -3", "a seed"),
        ("--table 9 --num-gpus 0", "--num-gpus"),
        ("--row 2", "expected names of tables"),
    ],
)
def test_invalid_arguments_end_in_one_sentence(given, sentence):
    with pytest.raises(SystemExit, match=sentence) as stopped:
        reproduce.main(given.split())
    assert len(str(stopped.value).splitlines()) == 1


def test_incomplete_dataset_is_refused_for_published_tables(tmp_path, monkeypatch):
    write_all(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(runs, "folder_lock", lambda *_, **__: pytest.fail("the run has begun"))
    run = Run("paper", "recyclelora_dinov2l_c2bm", 0)
    refused = r"cityscapes_train.*expected 2975 pairs, found 3 .*give --scratch FOLDER"
    with pytest.raises(ValueError, match=refused):
        runs.finish_run(run, Workspace(ROOT))


def test_tools_run_in_any_folder_of_the_checkout(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT / "tests" / "reproduce")
    assert find_checkout() == find_checkout(ROOT) == ROOT
    given = ("--table", "5", "--row", "1", "--scratch", str(tmp_path / "x"))
    inside = commands(capsys, *given)
    monkeypatch.chdir(tmp_path)
    assert commands(capsys, *given, "--root", str(ROOT)) == inside == [("sub_dinov2l_g2cbm", 0)]


def test_tools_outside_a_checkout_end_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()  # without results/
    with pytest.raises(SystemExit, match=f"expected a checkout .*{tmp_path}.*--root"):
        reproduce.main(["--list"])
    monkeypatch.setattr(sys, "argv", ["update_readme.py", "--check"])
    with pytest.raises(SystemExit, match="expected a checkout"):
        update_readme.main()
    monkeypatch.setattr(sys, "argv", ["update_readme.py", "--check", "--root", str(ROOT)])
    update_readme.main()


def start(scratch, overrides):
    command = [sys.executable, "tools/reproduce.py", "--table", "5", "--scratch", str(scratch)]
    return subprocess.Popen(
        [*command, *overrides], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def when_there(file, process, act):
    """Call a function with the process as soon as a file exists."""
    while not file.exists():
        assert process.poll() is None, process.communicate(timeout=1200)[0]
        time.sleep(0.02)
    act()
    return process.communicate(timeout=1200)[0]


def kill_with_children(process):
    """Kill the runner and the training that it started, as in a power failure."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.slow
def test_interrupted_table_in_two_processes_equals_a_whole_run(tmp_path):
    """Table 5 of a tiny model on drawn streets: SIGTERM, SIGKILL, then two processes to the end."""
    overrides = [*TINY, "train.max_iter=4", "train.checkpoint_period=1", "optimizer.lr=0.01"]
    overrides.append("train.checkpoints_kept=4")  # the test must find all of them
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
    assert runner.returncode == 0 and "run the same command again to continue" in said
    runner = start(cut, overrides)
    second = cut / "paper" / "main_dinov2l_g2cbm_seed0" / "iter_0000001.pth"
    said = when_there(second, runner, lambda: kill_with_children(runner))
    assert runner.returncode == -signal.SIGKILL and "Resuming from" in said
    pair = [start(cut, overrides), start(cut, overrides)]
    said = [runner.communicate(timeout=1200)[0] for runner in pair]
    assert [runner.returncode for runner in pair] == [0, 0], said
    assert "postponed" in "".join(said)

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
        assert differences(*states) == []
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
        assert "Settings that differ from the table: model.backbone.module.weights=null" in text
