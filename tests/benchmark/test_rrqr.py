import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from benchmark import rrqr
from benchmark.decompositions import systems
from benchmark.worker import Worker, source_tree

ROOT = Path(__file__).parents[2]

TINY = ["--models", "tiny:40x2", "--sizes", "16", "24", "--rounds", "2", "--threads", "1"]
SYSTEMS = {"published", "SciPy float64", "torch.linalg.qr", "rrqr"}


def test_result_of_tiny_run_has_every_part(run_benchmark, without_processes):
    result = run_benchmark(rrqr, *TINY)
    shapes = {entry["layer"]: entry["shape"] for entry in result["shapes"]}
    assert shapes == {"qkv": [120, 40], "proj": [40, 40], "fc1": [160, 40], "fc2": [40, 160]}
    for entry in result["shapes"]:
        assert entry["check"]["orthonormality"] < 1e-6
        assert {*entry["systems"], *result["left_out"]} == {*systems(torch.device("cpu"))} | {
            "MKL float32", "MKL float64"
        }  # fmt: skip
        assert all(times["peak_bytes"] >= 0 for times in entry["systems"].values())
    assert result["model"]["matrices"] == 8
    assert [entry["n"] for entry in result["sizes"]] == [16, 24]
    assert [entry["threads"] for entry in result["threads"]] == [1]
    assert set(result["roofline"]["rates"]) == {"dgemm", "sgemm", "bandwidth"}
    assert result["roofline"]["block"]["limit"] == pytest.approx(
        sum(layer["limit"] for layer in result["roofline"]["layers"])
    )
    assert result["environment"]["versions"]["scipy"]
    assert result["settings"]["weights"] is None


@pytest.mark.slow  # imports PyTorch in five processes
def test_candidates_run_in_processes_of_their_own(
    run_benchmark, monkeypatch, capfd, tmp_path_factory
):
    copy = tmp_path_factory.mktemp("copy") / "tree"
    shutil.copytree(ROOT / "projects", copy / "projects", ignore=shutil.ignore_patterns("__pyc*"))
    monkeypatch.setattr(rrqr, "source_tree", lambda revision, cuda: nullcontext(copy))
    arguments = [*TINY, "--systems", "torch.linalg.qr", "--against", "HEAD~1"]
    result = run_benchmark(rrqr, *arguments)
    names = [*SYSTEMS, "rrqr, HEAD~1"]
    assert {*result["shapes"][0]["systems"]} == {*names}
    assert {*result["model"]["systems"]} == {*names} - {"torch.linalg.qr"}
    assert "5 candidates, each in a process of its own with" in capfd.readouterr().out


@pytest.mark.slow
def test_worker_has_its_threads_and_passes_errors_on():
    process = Worker("any", 1)
    try:
        assert process(torch.get_num_threads) == 1
        assert len(process(os.sched_getaffinity, 0)) == 1
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            process(divmod, 1, 0)
        assert process(os.getpid) != os.getpid()  # goes on after an error
        with pytest.raises(RuntimeError, match="ended with code 7"):
            process(os._exit, 7)
    finally:
        process.close()


def test_unknown_revision_raises():
    tree = source_tree("no-such-commit", cuda=False)
    with pytest.raises(ValueError, match="--against: cannot build the commit no-such-commit"), tree:
        pass


def test_speedups_follow_from_the_times(run_benchmark, without_processes):
    result = run_benchmark(rrqr, *TINY)
    for part in (result["model"], *result["threads"]):
        systems = part["systems"]
        for times in systems.values():
            assert times["speedup"] == systems["published"]["median"] / times["median"]
            assert min(times["seconds"]) <= times["median"] <= max(times["seconds"])


def test_pivots_are_compared_with_those_in_float64(run_benchmark, without_processes):
    gaussian, decaying = run_benchmark(rrqr, *TINY)["pivots"]
    assert gaussian["matrices"] == 8 and decaying["matrices"] == 4
    for compared in (gaussian, decaying):
        assert compared["rrqr"] == {"all": 1.0, "last": 1.0, "last as a set": 1.0}
        assert 0 <= compared["published"]["last"] <= compared["published"]["last as a set"] <= 1


def test_compare_pivots_returns_shares_of_equal_ones():
    exact = torch.arange(40)[None]
    swapped = exact.clone()
    swapped[0, [0, 1, 38, 39]] = torch.tensor([1, 0, 39, 38])
    pivots = {"published": [swapped], "SciPy float64": [exact], "rrqr": [exact]}
    shares = rrqr.compare_pivots("some", pivots, [(1, 50, 40)])["published"]
    assert shares == pytest.approx({"all": 36 / 40, "last": 30 / 32, "last as a set": 1.0})


@pytest.mark.parametrize("field", ["perm", "q_major", "r_diag"])
def test_run_with_wrong_decomposition_raises(run_benchmark, without_processes, monkeypatch, field):
    right = rrqr.recyclelora.rrqr

    def wrong(weight, n_major, n_minor):
        out = right(weight, n_major, n_minor)
        return out._replace(**{field: getattr(out, field).flip(-1)})

    monkeypatch.setattr(rrqr.recyclelora, "rrqr", wrong)
    with pytest.raises(rrqr.measure.WrongResult):
        run_benchmark(rrqr, *TINY)


def test_compare_pivots_with_different_pivot_raises():
    exact = torch.arange(40)[None]
    pivots = {"published": [exact], "SciPy float64": [exact], "rrqr": [exact.roll(1)]}
    with pytest.raises(rrqr.measure.WrongResult, match="some: a share of 1"):
        rrqr.compare_pivots("some", pivots, [(1, 50, 40)])


def test_decaying_returns_the_singular_values():
    weight = rrqr.decaying(1, (20, 30), seed=0)[0]
    values = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(values, torch.logspace(0, -6, 20).double(), rtol=0.2, atol=0)
