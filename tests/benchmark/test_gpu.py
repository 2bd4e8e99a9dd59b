"""The run of benchmark/gpu.sh: its parts, their time, their failures and the table."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmark import gpu, gpu_parts, measure, smallest_cases, whole_model
from benchmark.gpu_parts import PARTS, Command, Part, Skipped

from recyclelora.ops import library
from recyclelora.reproduce.formatting import NOT_RUN
from recyclelora.reproduce.gpu_table import gpu_table

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def args(tmp_path, monkeypatch):
    """The options of a tiny run on the CPU into a temporary folder."""
    environment = {"machine": "a GPU", "versions": {"torch": "2.11"}, "commit": "abc"}
    monkeypatch.setattr(measure, "in_new_process", lambda *_: environment)
    output = tmp_path / "benchmark" / "gpu"
    return gpu.parse(["--device", "cpu", "--tiny", "--output", str(output)])


def part(name, code, seconds=60):
    return Part(name, seconds, lambda args: [Command([sys.executable, "-c", code])])


def skipped(args):
    raise Skipped("no tool")


def test_failing_part_does_not_stop_the_others(args, capsys):
    parts = [
        part("first", "print('the reason'); raise SystemExit(3)"),
        Part("second", 1, skipped),
        part("third", "pass"),
    ]
    states = gpu.run_parts(args, parts, time.monotonic())
    assert [state["status"] for state in states.values()] == ["failed", "skipped", "done"]
    assert states["first"]["sentence"].endswith("ended with code 3")
    assert "  | the reason" in capsys.readouterr().out
    summary = json.loads((args.output / "summary.json").read_text())
    assert summary["parts"] == states and summary["environment"]["machine"] == "a GPU"
    assert not (args.output / "second.log").exists()


def test_summary_is_written_as_each_part_ends(args):
    code = f"import json; assert 'first' in json.load(open({str(args.output / 'summary.json')!r}))"
    second = part("second", code.replace("))", "))['parts']"))
    states = gpu.run_parts(args, [part("first", "pass"), second], time.monotonic())
    assert states["second"]["status"] == "done"


def test_part_beyond_its_time_ends_with_its_processes(args, monkeypatch):
    monkeypatch.setattr(gpu, "TINY_SHARE", 1)
    file = args.output / "process"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    states = gpu.run_parts(args, [part("slow", code, 2), part("next", "pass")], time.monotonic())
    assert states["slow"]["status"] == "failed"
    assert "its time limit" in states["slow"]["sentence"]
    assert states["next"]["status"] == "done"
    child = Path("/proc", file.read_text(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_files_of_an_earlier_run_are_removed(args):
    (args.output / "first.json").write_text("{}")
    gpu.run_parts(args, [part("first", "raise SystemExit(1)")], time.monotonic())
    assert not (args.output / "first.json").exists()


def test_failed_part_gives_exit_code(args, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "PARTS", {"build": part("build", "raise SystemExit(1)")})
    with pytest.raises(SystemExit, match="these parts failed: build"):
        gpu.main(["--device", "cpu", "--parts", "build", "--output", str(tmp_path)])


def test_all_shares_end_within_nine_minutes():
    assert PARTS["build"].seconds <= 150
    assert sum(each.seconds for each in PARTS.values()) + 2 * gpu.GRACE <= 540
    assert list(PARTS)[-1] == "compiled"


def test_gpu_device_without_a_gpu_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.parse([])
    assert "needs a GPU, but torch finds none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("built", "result"), [("9.0", True), ("8.0 9.0+PTX", True), ("8.0", False), ("none", False)]
)
def test_library_of_another_gpu_is_built_again(built, result, monkeypatch, tmp_path):
    file = tmp_path / "library.so"
    file.touch()
    info = {"torch": torch.__version__, "cuda": "none", "architectures": built}
    monkeypatch.setattr(library, "library_path", lambda: file)
    monkeypatch.setattr(library, "build_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert gpu_parts.is_built(torch.device("cuda")) is result
    assert gpu_parts.is_built(CPU)
    os.utime(file, (0, 0))  # older than the sources
    assert not gpu_parts.is_built(CPU)


def test_build_is_for_the_architecture_of_the_gpu(args, monkeypatch):
    monkeypatch.setattr(gpu_parts, "is_built", lambda device: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    args.device = torch.device("cuda:0")
    (command,) = gpu_parts.build(args)
    assert command.variables == {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}


def test_sanitizer_is_skipped_without_the_tool(args, monkeypatch):
    args.device = torch.device("cuda:0")
    monkeypatch.setattr(gpu_parts.shutil, "which", lambda *_, **__: None)
    with pytest.raises(Skipped, match="compute-sanitizer is not installed"):
        gpu_parts.sanitizer(args)
    monkeypatch.setattr(gpu_parts.shutil, "which", lambda name, **_: f"/bin/{name}")
    words = [command.words for command in gpu_parts.sanitizer(args)]
    assert [line[:3] for line in words] == [
        ["/bin/compute-sanitizer", "--tool", check] for check in ("memcheck", "racecheck")
    ]


@pytest.mark.parametrize(("skips", "failed"), [(3, True), (1, False)])
def test_gpu_run_in_which_no_test_passes_is_a_failure(args, skips, failed):
    args.device = torch.device("cuda:0")
    gpu_parts.report(args).write_text(
        f'<testsuites><testsuite tests="3" failures="0" errors="0" skipped="{skips}"/></testsuites>'
    )
    found = gpu_parts.count_tests(args)
    assert found["passed"] == 3 - skips and found["failed"] == failed


def test_smallest_cases_are_correct_on_the_cpu(capsys):
    smallest_cases.main([])
    assert capsys.readouterr().out == "all cases are correct\n"


def test_whole_model_has_every_batch(run_benchmark):
    result = run_benchmark(whole_model, "--width", "40", "--blocks", "2", "--rounds", "2")
    assert {entry["batch"]: entry["matrices"] for entry in result["batches"]} == {
        "q, k, v, proj": 8, "fc1": 2, "fc2": 2, "qkv, fused": 2
    }  # fmt: skip
    separate = [entry["device"]["median"] for entry in result["batches"][:3]]
    assert result["model"]["device"]["median"] == pytest.approx(sum(separate))
    assert all(entry["difference"] == 0 for entry in result["batches"])


def test_whole_model_with_other_pivots_raises():
    expected = whole_model.decompose(torch.randn(2, 40, 30))
    other = expected._replace(perm=expected.perm.flip(-1))
    with pytest.raises(measure.WrongResult, match=r"fc1: 60 of 60 entries of perm differ"):
        whole_model.check("fc1", other, expected)
    other = expected._replace(q_minor=expected.q_minor + 1e-3)
    with pytest.raises(measure.WrongResult, match=r"fc1: an entry of Q differs by 1\.0e-03"):
        whole_model.check("fc1", other, expected)


def test_table_has_a_row_for_each_part(args):
    results = args.output.parents[1]
    assert gpu_table(results) == NOT_RUN
    parts = {"tests": part("tests", "pass"), "build": Part("build", 1, skipped)}
    gpu.run_parts(args, [*parts.values(), part("rrqr", "raise SystemExit(1)")], time.monotonic())
    lines = gpu_table(results).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines[2:5]]
    assert rows[:2] == [["tests", "done"], ["build", "skipped: no tool"]]
    assert rows[2][1].startswith("failed: ")
    assert lines[-1] == "On a GPU; torch 2.11, commit abc."


@pytest.mark.slow  # every part, in about ten processes
def test_tiny_run_on_the_cpu_is_green(tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    done = subprocess.run(
        [ROOT / "benchmark" / "gpu.sh", "--device", "cpu", "--tiny", "--output", tmp_path],
        env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert list(parts) == list(PARTS)
    measured = {name for name, state in parts.items() if state["status"] == "done"}
    assert measured >= {"tests", "sanitizer", "rrqr", "adapter", "step_bfloat16", "input"}
    for name in measured - {"build", "tests", "sanitizer"}:
        content = json.loads((tmp_path / f"{name}.json").read_text())
        assert content["environment"]["machine"]
        assert f"\n{name} " in done.stdout
