import pytest
import torch
from benchmark import rrqr

TINY = ["--models", "tiny:40x2", "--sizes", "16", "24", "--rounds", "2", "--threads", "1"]
SYSTEMS = {
    "published",
    "SciPy float32",
    "SciPy float64",
    "torch.linalg.qr",
    "torch.linalg.svd",
    "rrqr",
}


@pytest.fixture(autouse=True)
def threads_stay():
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def test_result_of_tiny_run_has_every_part(run_benchmark):
    result = run_benchmark(rrqr, *TINY)
    shapes = {entry["layer"]: entry["shape"] for entry in result["shapes"]}
    assert shapes == {"qkv": [120, 40], "proj": [40, 40], "fc1": [160, 40], "fc2": [40, 160]}
    for entry in result["shapes"]:
        assert entry["check"]["orthonormality"] < 1e-6
        assert set(entry["systems"]) == SYSTEMS
    assert result["model"]["matrices"] == 8
    assert [entry["n"] for entry in result["sizes"]] == [16, 24]
    assert [entry["threads"] for entry in result["threads"]] == [1]
    assert result["environment"]["versions"]["scipy"]
    assert result["settings"]["weights"] is None


def test_speedups_follow_from_the_times(run_benchmark):
    result = run_benchmark(rrqr, *TINY)
    for part in (result["model"], *result["threads"]):
        systems = part["systems"]
        for times in systems.values():
            assert times["speedup"] == systems["published"]["median"] / times["median"]
            assert min(times["seconds"]) <= times["median"] <= max(times["seconds"])


def test_pivots_are_compared_with_those_in_float64(run_benchmark):
    gaussian, decaying = run_benchmark(rrqr, *TINY)["pivots"]
    assert gaussian["matrices"] == 8 and decaying["matrices"] == 4
    for compared in (gaussian, decaying):
        assert compared["rrqr"] == {"all": 1.0, "last": 1.0, "last as a set": 1.0}
        assert 0 <= compared["published"]["last"] <= compared["published"]["last as a set"] <= 1


def test_compare_pivots_returns_shares_of_equal_ones():
    stack = torch.zeros(1, 50, 40)
    exact = torch.arange(40)[None]
    swapped = exact.clone()
    swapped[0, [0, 1, 38, 39]] = torch.tensor([1, 0, 39, 38])
    pivots = {"published": [swapped], "SciPy float64": [exact], "rrqr": [exact]}
    shares = rrqr.compare_pivots("some", pivots, [stack])["published"]
    assert shares == pytest.approx({"all": 36 / 40, "last": 30 / 32, "last as a set": 1.0})


@pytest.mark.parametrize("field", ["perm", "q_major", "r_diag"])
def test_run_with_wrong_decomposition_raises(run_benchmark, monkeypatch, field):
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
        rrqr.compare_pivots("some", pivots, [torch.zeros(1, 50, 40)])


def test_decaying_returns_the_singular_values():
    weight = rrqr.decaying(1, (20, 30), seed=0)[0]
    values = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(values, torch.logspace(0, -6, 20).double(), rtol=0.2, atol=0)
