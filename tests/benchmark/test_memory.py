"""Peak memory of whole steps: the expected order, and faults that end a run."""

import json
import os
import signal

import pytest
from benchmark import measure, memory


@pytest.mark.slow
def test_checkpointing_and_sparse_a_need_less_memory(run_benchmark):
    sizes = ["--runs", "dinov2_s:2", "--head", "tiny", "--crop", "256"]
    result = run_benchmark(memory, *sizes)
    (run,) = result["runs"]
    assert run["batch"] == 2 and run["environment"]["cores"] > 0
    steps = {name: found["step_bytes"] for name, found in run["variants"].items()}
    assert steps["dense, checkpointing"] < steps["sparse"] < steps["dense"]
    for found in run["variants"].values():
        assert found["peak_bytes"] > found["step_bytes"] > 0
        # At least 12 blocks of 384 x 1536 and 3 x 384 x 384 weights in float32.
        assert found["model_bytes"] > 12 * 12 * 384 * 384 * 4


def test_run_that_would_not_fit_is_extrapolated(monkeypatch, capsys):
    assert memory.expected_bytes({1: 5}, 4) is None
    assert memory.expected_bytes({1: 50, 2: 7, 3: 9}, 6) == 15
    monkeypatch.setattr(memory, "free_bytes", lambda device: 13)
    runs = [
        {"backbone": "dinov2_l", "batch": batch, "variants": {"dense": {"peak_bytes": peak}}}
        for batch, peak in ((1, 5), (2, 8))
    ]
    options = memory.parse(["--runs", "dinov2_l:4"])
    assert memory.in_own_process(runs, "dense", "dinov2_l", 4, options) == {"expected_bytes": 14}
    assert "batch 4: not run" in capsys.readouterr().out
    runs[1]["variants"]["dense"]["peak_bytes"] = 10**9
    options = memory.parse(["--runs", "dinov2_l:4", "--most-gb", "2"])
    expected = memory.in_own_process(runs, "dense", "dinov2_l", 4, options)["expected_bytes"]
    assert expected == 3 * 10**9 - 10


def end_at_once(*_):
    """Replace the measurement."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_killed_process_raises_memory_error(monkeypatch):
    monkeypatch.setattr(memory, "measured", end_at_once)
    options = memory.parse(["--runs", "dinov2_s:1"])
    with pytest.raises(MemoryError, match=r"dinov2_s, dense, batch 1 was killed: lower --most-gb"):
        memory.in_own_process([], "dense", "dinov2_s", 1, options)


def test_keep_returns_runs_of_the_output_file(tmp_path):
    runs = [{"backbone": "dinov2_l", "batch": batch} for batch in (1, 2, 8)]
    (tmp_path / "memory.json").write_text(json.dumps({"runs": runs}))
    output = ["--output", str(tmp_path / "memory.json")]
    wanted = ["--runs", "dinov2_l:2", "dinov2_l:1", "dinov2_l:4"]
    assert memory.kept(memory.parse([*wanted, *output])) == []
    assert memory.kept(memory.parse([*wanted, *output, "--keep"])) == runs[:2]


def test_different_first_loss_raises():
    good = {"losses": [50.0, 40.0]}
    memory.check("dinov2_s", {"dense": good, "sparse": {"losses": [50.001, 41.0]}})
    for losses in ([52.0, 40.0], [50.0, float("nan")]):
        with pytest.raises(measure.WrongResult, match="dinov2_s, sparse"):
            memory.check("dinov2_s", {"dense": good, "sparse": {"losses": losses}})
