"""The demo's steps and its summary; drawing and training are replaced by stubs."""

import json
import subprocess

import pytest

from recyclelora.reproduce import demo


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(status)``: the demo in ``tmp_path``, whose training ends with this status."""
    drawn, commands = [], []
    monkeypatch.setattr(demo, "locate_weights", lambda name: name)
    monkeypatch.setattr(demo, "write_streets", lambda folder, **_: drawn.append(folder))

    def start(status):
        def train(command, **options):
            commands.append((command[1:], options["cwd"]))
            folder = tmp_path / "output" / "demo" / "run"
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("domains.json", "one_class.json"):
                (folder / name).write_text(json.dumps({"of": name}))
            return subprocess.CompletedProcess(command, status)

        with monkeypatch.context() as patch:
            patch.setattr(demo.subprocess, "run", train)
            patch.setattr(demo, "environment", lambda *_: RECORD)
            demo.run_demo(tmp_path)
        return drawn, commands

    return start


RECORD = {"machine": "an abacus", "versions": {"torch": "2.11"}, "commit": "abc"}


def test_demo_writes_a_summary_that_the_readme_can_read(run, tmp_path, capsys):
    drawn, commands = run(0)
    assert drawn[0] == tmp_path / "output" / "demo" / "streets" / "day" and len(drawn) == 5
    ((command, folder),) = commands
    assert command[:4] == ["-m", "recyclelora.engine.train", "--config-file", "configs/demo.py"]
    assert command[4:] == ["--resume"] and folder == tmp_path
    summary = json.loads((tmp_path / "output" / "demo" / "demo.json").read_text())
    keys = ["machine", "torch", "commit", "seconds", "peak_memory_gb", "result", "one_class"]
    assert list(summary) == keys and list(summary["seconds"]) == ["draw", "train and evaluate"]
    assert (summary["machine"], summary["commit"]) == ("an abacus", "abc")
    assert "output/demo/run/domains.png" in capsys.readouterr().out


def test_demo_of_a_failed_training_is_one_sentence(run, tmp_path):
    with pytest.raises(ValueError, match="run the demo again"):
        run(1)
    assert not (tmp_path / "output" / "demo" / "demo.json").exists()
