"""Ctrl-C ends every tool with one line and exit code 130."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time

import pytest

from ..support.training_runs import ROOT, TINY, write_blocks

CONFIG = f"--config-file {TINY}"
# The tool with its arguments -> the function that Ctrl-C interrupts.
TOOLS = {
    f"analyze {CONFIG} --weights a.pth --out OUT": "recyclelora.analysis.analyze.analyze_runs",
    f"calibrate {CONFIG} --checkpoint a.pth --fit day --out OUT": (
        "recyclelora.export.calibrate.calibrate"
    ),
    "card_streets": "drawn_streets.card.write_card",
    "check_datasets bdd100k_val": "recyclelora.data.check_report.report_datasets",
    "demo": "recyclelora.reproduce.demo.run_demo",
    "draw_streets OUT --count 1": "drawn_streets.command_line.write_streets",
    "export_onnx s a.onnx": "recyclelora.Segmentor.from_pretrained",
    f"export_trained {CONFIG} a.pth b.pth": "recyclelora.engine.export.export_trained",
    f"lazyconfig_train_net {CONFIG}": "recyclelora.engine.train.load_config",
    f"predict {CONFIG} --checkpoint a.pth --out OUT b.png": (
        "recyclelora.export.prediction.predict_files"
    ),
    "reproduce --list": "recyclelora.reproduce.queue.reproduce",
    "update_readme": "recyclelora.reproduce.readme.update_pages",
}


@pytest.mark.parametrize("command", TOOLS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_interrupt_exits_with_one_line(command, monkeypatch, tmp_path, capfd):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    tool, *arguments = command.replace("OUT", str(tmp_path / "out")).split()
    monkeypatch.setattr(TOOLS[command], interrupted)
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    monkeypatch.chdir(ROOT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(f"tools.{tool}", run_name="__main__")
    signal.signal(signal.SIGINT, before)  # the training tool ignores further signals
    said = "".join(capfd.readouterr()).strip()
    assert stopped.value.code == 130
    assert said.startswith("stopped") and len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 3, 8])
def test_interrupt_from_terminal_prints_no_traceback(seconds, tmp_path):
    """Interrupt the tool during imports, building and evaluation, including its workers."""
    write_blocks(tmp_path / "day", 4)
    command = [sys.executable, "tools/lazyconfig_train_net.py", *CONFIG.split()]
    command += [f"train.output_dir={tmp_path / 'run'}", f"dataloader.streets={tmp_path}"]
    command += ["dataloader.test.night=null", "dataloader.train.num_workers=1"]
    process = subprocess.Popen(
        [*command, "train.max_iter=100000", "train.picture_period=0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_restore_interrupt,
    )
    try:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    saved = list(tmp_path.glob("run/iter_*.pth"))
    assert "Traceback" not in said
    assert process.returncode == (0 if saved else 130), said
    assert said.splitlines()[-1].startswith("stopped")


def _restore_interrupt():
    """A shell starts background jobs, such as a whole test run, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
