"""One run of a table: skipped if finished, resumed if stopped, locked by one process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from tools import reproduce

from recyclelora.common.folder_lock import folder_lock
from recyclelora.reproduce import queue, runs, tables
from recyclelora.reproduce.workspace import Workspace

ROOT = Path(__file__).parents[2]
SLEEP = ["python", "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def tiny(monkeypatch):
    """A table "tiny" of tiny runs; its streets "day" and "night" are coloured blocks."""
    rows = {
        "majority": tables.MAJORITY,
        "frozen": tables.Row("frozen", tables.adapter_overrides(0, 0)),
        "lora": tables.Row("LoRA", tables.adapter_overrides(10, 0, "kaiming"), (0, 1)),
    }
    table = tables.Table("tests/support/tiny_config.py", rows, streets={"day": 3, "night": 2})
    monkeypatch.setitem(tables.SMALL_TABLES, "tiny", table)
    monkeypatch.setattr(reproduce, "TABLE_NAMES", (*queue.TABLE_NAMES, "tiny"))
    monkeypatch.setattr(runs, "write_streets", write_blocks)
    return table


INITIALISERS = {
    "lora": "kaiming",
    "minor_svd": "svd",
    "dual_kaiming": "kaiming",
    "major_svd": "pissa",
    "dual_svd": "svd",
}


def write_blocks(root, *, domain, count, seed):
    rng = np.random.default_rng(len(domain))
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        label = np.kron(rng.choice([0, 2, 2, 10], (4, 6)), np.ones((16, 16))).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{i}.png"), np.stack([label * 20] * 3, axis=-1))
        cv2.imwrite(str(root / "labels" / f"{i}.png"), label)
    content = {"version": 9, "domain": domain, "count": count, "seed": seed, "complete": True}
    (root / "dataset.json").write_text(json.dumps({**content, "pixel_share": {"road": 0.5}}))


def arguments(folder: Path, *more: str) -> list[str]:
    overrides = ["train.max_iter=4", f"dataloader.streets={folder / 'streets'}"]
    return ["--table", "tiny", *more, "--scratch", str(folder), *overrides]


def result(folder: Path, name: str) -> dict:
    return json.loads((folder / "results" / "tiny" / f"{name}.json").read_text())


def test_rows_of_a_small_table_differ_only_in_their_adapters():
    workspace = Workspace(ROOT)
    for name in ("streets_to_real", "camvid_to_real"):
        sizes, common = {}, None
        for run in tables.runs_of(name, tables.SMALL_TABLES[name]):
            cfg = workspace.config_of(run)
            adapters = dict(cfg.model.backbone)
            del adapters["module"], adapters["_target_"]
            sizes[run.row] = adapters.pop("r_main") + adapters.pop("r_sub")
            assert adapters.pop("init") == INITIALISERS.get(run.row, "rrqr")
            assert adapters == {"alpha": 1}
            assert cfg.train.seed == run.seed
            cfg.model.backbone, cfg.train.seed = None, 0
            common = common or cfg
            assert cfg == common
        full = sizes["recyclelora"]
        assert all(sizes[row] == full for row in INITIALISERS if row in sizes)
        assert sizes["frozen"] == 0


def test_row_of_the_paper_is_its_config_with_its_seed():
    workspace = Workspace(ROOT)
    for run in tables.runs_of("paper", workspace.tables["paper"]):
        cfg, base = workspace.config_of(run), Path(workspace.config_file(run)).stem
        assert cfg.train.output_dir == f"output/{base}" and cfg.train.seed == run.seed
        assert base == run.row or workspace.row_of(run).overrides
        assert f"configs/{base}.py" in workspace.command(run)
        assert f"train.output_dir=output/paper/{run.row}_seed0" in workspace.command(run)


def test_further_seeds_come_after_every_row():
    table = tables.SMALL_TABLES["streets_to_real"]
    names = [run.name for run in tables.runs_of("streets_to_real", table)]
    assert names[0] == "majority_seed0" and len(names) == len(set(names)) == 14
    assert all(name.endswith("seed0") for name in names[:10])
    assert sum(name.startswith("recyclelora") for name in names) == 3


def test_majority_class_is_evaluated_on_every_target_once(tiny, tmp_path, capsys):
    reproduce.main(arguments(tmp_path, "--row", "majority"))
    done = result(tmp_path, "majority_seed0")
    domains = done["result"]["domains"]
    # "building" is the most frequent class. Classes without predictions count as 0 in the mean.
    for name, scores in domains.items():
        assert scores["IoU"]["building"] > 0 == scores["IoU"]["road"] == scores["IoU"]["sky"]
        assert scores["mIoU"] == pytest.approx(done["one_class"][name])
    assert done["streets"]["day"] == {
        "version": 9, "domain": "day", "count": 3, "seed": 0, "complete": True,
    }  # fmt: skip
    assert done["iterations"] == 0 and done["environment"]["commit"]
    head, line = (tmp_path / "results" / "tables" / "tiny.csv").read_text().splitlines()
    assert head == "table,row,seed,day,night,mean" and line.startswith("tiny,majority,0,")
    assert "majority class" in (tmp_path / "results" / "tables" / "tiny.md").read_text()
    before = (tmp_path / "results" / "tiny" / "majority_seed0.json").stat().st_mtime_ns
    reproduce.main(arguments(tmp_path, "--row", "majority"))
    assert (tmp_path / "results" / "tiny" / "majority_seed0.json").stat().st_mtime_ns == before
    assert "already finished" in capsys.readouterr().out


def test_result_of_other_overrides_is_refused(tiny, tmp_path):
    reproduce.main(arguments(tmp_path, "--row", "majority"))
    with pytest.raises(SystemExit, match=r"delete it or choose another --scratch"):
        reproduce.main([*arguments(tmp_path, "--row", "majority"), "train.log_period=7"])


def test_failed_run_is_named_and_the_others_continue(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Workspace, "command", lambda *_: ["python", "-c", "raise SystemExit(3)"])
    with pytest.raises(SystemExit, match="no result for frozen_seed0, lora_seed0"):
        reproduce.main(arguments(tmp_path, "--seeds", "0"))
    assert "status 3" in capsys.readouterr().err
    assert result(tmp_path, "majority_seed0")
    assert not (tmp_path / "results" / "tiny" / "lora_seed0.json").exists()


def test_list_and_dry_run_write_nothing(tiny, tmp_path, capsys):
    reproduce.main(arguments(tmp_path, "--list"))
    reproduce.main(arguments(tmp_path, "--dry-run"))
    said = capsys.readouterr().out
    assert "to do" in said and "model.backbone.init=kaiming train.seed=1" in said
    assert list(tmp_path.iterdir()) == []


def test_run_of_another_process_is_run_when_that_dies(tiny, tmp_path, monkeypatch, capsys):
    """Another process holds the frozen row. The others are run first, then it dies and is run."""
    folder = tmp_path / "tiny" / "frozen_seed0"
    with folder_lock(folder, inheritable=True) as lock:
        other = subprocess.Popen([sys.executable, *SLEEP[1:]], pass_fds=[lock])

    def wait(_seconds: float) -> None:
        other.kill()
        other.wait()

    monkeypatch.setattr(queue.time, "sleep", wait)
    monkeypatch.setattr(
        runs,
        "train",
        lambda run, workspace, lock: runs.evaluate_majority(
            workspace.config_of(run), workspace.folder(run)
        ),
    )
    reproduce.main(arguments(tmp_path, "--seeds", "0"))
    said = capsys.readouterr().out
    order = [
        said.index(text)
        for text in ("frozen_seed0: postponed", "lora_seed0: mean", "frozen_seed0: mean")
    ]
    assert order == sorted(order)
    assert result(tmp_path, "frozen_seed0")["row"] == "frozen"


def test_run_that_another_process_finished_is_not_repeated(tiny, tmp_path, monkeypatch):
    reproduce.main(arguments(tmp_path, "--row", "majority"))
    monkeypatch.setattr(runs, "evaluate_majority", lambda *_: pytest.fail("done twice"))
    workspace = Workspace(ROOT, scratch=tmp_path, overrides=arguments(tmp_path)[-2:])
    (run,) = (run for run in tables.runs_of("tiny", tiny) if run.row == "majority")
    assert runs.finish_run(run, workspace) == result(tmp_path, "majority_seed0")


def test_sigterm_ends_the_child_and_then_the_runner(tmp_path, capsys):
    """The child sends the signal itself, so the signal arrives while the child runs."""
    code = (
        "import os, pathlib, signal, sys, time;"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()));"
        f"os.kill({os.getpid()}, signal.SIGTERM); time.sleep(3600)"
    )
    child, before = tmp_path / "child", signal.getsignal(signal.SIGTERM)
    with (tmp_path / "lock").open("w") as lock, pytest.raises(SystemExit) as ended:
        runs.run_command(["python", "-c", code, str(child)], ROOT, lock.fileno())
    assert ended.value.code == 0 and "run the same command again" in capsys.readouterr().out
    assert not psutil.pid_exists(int(child.read_text()))
    assert signal.getsignal(signal.SIGTERM) == before


def test_folder_without_streets_is_named(tmp_path):
    table = tables.SMALL_TABLES["streets_to_real"]
    folder = tmp_path / next(iter(table.streets))
    folder.mkdir()
    (folder / "dataset.json").write_text("[]")
    with pytest.raises(ValueError, match=f"{folder} is not empty and has no readable dataset.json"):
        runs.draw_missing_streets(table, tmp_path)


def test_killed_attempt_counts_until_its_last_log_line(tmp_path):
    with runs.record_seconds(tmp_path):
        pass
    (tmp_path / "began").touch()  # the process was killed 30 seconds later
    (tmp_path / "log.txt").touch()
    began = (tmp_path / "began").stat().st_mtime
    os.utime(tmp_path / "log.txt", (began + 30, began + 30))
    with pytest.raises(SystemExit), runs.record_seconds(tmp_path):
        raise SystemExit(0)
    seconds = [float(line) for line in (tmp_path / "seconds.txt").read_text().split()]
    assert seconds == [pytest.approx(expected, abs=5) for expected in (0, 30, 0)]
    assert not (tmp_path / "began").exists()


@pytest.mark.slow
def test_interrupted_table_ends_equal_to_a_whole_run(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    streets = f"dataloader.streets={tmp_path / 'streets'}"
    reproduce.main([*arguments(whole), streets])
    # The files of a run that was killed after two of its four iterations.
    (stopped / "tiny" / "lora_seed0").mkdir(parents=True)
    for file in ("iter_0000002.pth", "lock"):
        shutil.copy(whole / "tiny" / "lora_seed0" / file, stopped / "tiny" / "lora_seed0")
    capfd.readouterr()
    reproduce.main([*arguments(stopped, "--row", "lora"), streets])
    assert "iterations 2 to 4" in "".join(capfd.readouterr())
    for run in tables.runs_of("tiny", tiny):
        first = result(whole, run.name)
        assert first["iterations"] == (run.row != "majority") * 4
        assert first["seconds"] > 0 and set(first["result"]["domains"]) == {"day", "night"}
        if run.row == "lora":
            assert result(stopped, run.name)["result"] == first["result"]
    scores = [result(whole, f"lora_seed{seed}")["result"] for seed in (0, 1)]
    assert scores[0] != scores[1]
