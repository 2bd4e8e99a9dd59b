"""The command line: exit codes, the table, and the JSON file."""

import dataclasses
import json

import pytest
from tools import check_datasets

from recyclelora.data import check_report, get_dataset

from ..support import originals


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run("cityscapes_val")`` returns the exit code and the printed text."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def start(*arguments):
        with pytest.raises(SystemExit) as stopped:
            check_datasets.main([*arguments, "--workers", "1"])
        return stopped.value.code, capsys.readouterr().out

    return start


def test_complete_dataset_exits_with_0(run, tmp_path, monkeypatch):
    truth = originals.write_cityscapes(tmp_path, 3, (32, 64))["cityscapes_val"]
    complete = dataclasses.replace(get_dataset("cityscapes_val"), expected=len(truth))
    monkeypatch.setattr(check_report, "get_dataset", lambda name: complete)
    code, said = run("cityscapes_val", "--json", str(tmp_path / "a.json"))
    assert code == 0
    row = next(line for line in said.splitlines() if line.startswith("cityscapes_val"))
    assert row.split()[:6] == ["cityscapes_val", "complete", "3", "3", "0", "0"]
    written = json.loads((tmp_path / "a.json").read_text())
    report = written["sets"]["cityscapes_val"]
    assert written["quick"] is False and report["state"] == "complete"
    pixels = sum(label.size for label in truth.values())
    for train_id, name in enumerate(originals.NAMES):
        share = 100 * sum((label == train_id).sum() for label in truth.values()) / pixels
        assert report["percent"][name] == pytest.approx(share)
        assert f"{share:.2f}" in next(line for line in said.splitlines() if line.startswith(name))


def test_missing_exits_with_3_and_faulty_with_4(run, tmp_path):
    code, said = run("urbansyn_train", "--quick")
    assert code == 3 and "dataset 'urbansyn_train': expected the folders" in said
    originals.write_urbansyn(tmp_path, 9, (16, 32))
    code, said = run("urbansyn_train", "acdc_fog_val", "--quick")
    assert code == 3 and "expected 7539 pairs, found 9 in" in said
    assert "with published ones; download rgb.zip and ss.zip of UrbanSyn" in said
    for label in (tmp_path / "urbansyn/ss").iterdir():
        label.write_bytes(b"")
    code, said = run("urbansyn_train", "acdc_fog_val", "--json", str(tmp_path / "a.json"))
    assert code == 4
    lines = [line for line in said.splitlines() if ": unreadable: " in line]
    assert len(lines) == 6 and lines[-1].endswith("4 more; --json FILE lists all")
    report = json.loads((tmp_path / "a.json").read_text())["sets"]["urbansyn_train"]
    assert len(report["faults"]) == 9 and report["percent"] is None


def test_no_names_checks_every_benchmark(run, tmp_path):
    truth = originals.write_all(tmp_path, 3, (16, 32))
    code, said = run()
    assert code == 3
    rows = [line.split()[0] for line in said.splitlines() if " incomplete " in line]
    assert [name for name in rows if name in truth] == list(truth)


def test_datasets_of_one_download_share_a_message(run):
    code, said = run("acdc_fog_val", "cityscapes_val", "acdc_night_val", "--quick")
    assert code == 3 and "    the same download contains acdc_night_val" in said.splitlines()
    assert said.count("download rgb_anon_trainvaltest.zip") == 1
    assert said.count("download leftImg8bit_trainvaltest.zip") == 1


def test_keyboard_interrupt_exits_without_traceback(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_report, "check_datasets", interrupted)
    assert run("bdd100k_val") == (130, "")


def test_invalid_arguments_exit_with_one_message(run, tmp_path):
    assert "'citiscapes'; the known names are" in run("citiscapes")[0]
    assert "--json: expected a file" in run("bdd100k_val", "--json", str(tmp_path))[0]
    assert list(tmp_path.iterdir()) == []
