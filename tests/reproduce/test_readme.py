"""The README's benchmark tables contain the values of the JSON files."""

import json

import pytest
from benchmark import adapter, hours, rrqr

from recyclelora.reproduce.formatting import NOT_RUN
from recyclelora.reproduce.readme import benchmark_table, runs_table

BENCHMARKS = {"rrqr": rrqr, "adapter": adapter}
TINY = {
    "rrqr": ["--models", "tiny:40x2", "--sizes", "16", "--rounds", "1", "--threads", "1"],
    "adapter": ["--width", "48", "--rows", "20", "--rounds", "1", "--precisions", "float32"],
}


@pytest.fixture
def table(run_benchmark, tmp_path):
    """``table("rrqr")`` returns the JSON of a tiny run and the table made from it."""

    def make(name):
        result = run_benchmark(BENCHMARKS[name], *TINY[name])
        folder = tmp_path / "results" / "benchmark"
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps(result))
        return result, benchmark_table(name, tmp_path / "results")

    return make


def test_rrqr_table_has_the_measured_values(table):
    result, text = table("rrqr")
    ours = result["model"]["systems"]["rrqr"]
    (row,) = (line for line in text.splitlines() if line.startswith("| `recyclelora.rrqr`"))
    assert f"| {ours['median']:.1f} s" in row and f"| {ours['speedup']:.1f}x" in row
    assert f"| {result['pivots'][0]['published']['all']:.1%}" in text
    assert result["environment"]["machine"] in text and result["environment"]["commit"] in text


def test_adapter_table_has_the_measured_values(table):
    result, text = table("adapter")
    (run,) = result["runs"]
    row = next(line for line in text.splitlines() if line.startswith("| float32"))
    for name in ("published", "ours, dense", "ours, sparse"):
        assert f"| {run['block'][name]['ratio']:.2f}, " in row
    assert ("peft was not installed" in text) == (result["left_out"] == ["peft"])


def run_json(mious, seed, **more):
    domains = {name: {"mIoU": miou, "IoU": {}, "images": 100} for name, miou in mious.items()}
    mean = sum(mious.values()) / len(mious)
    return {
        "iterations": 300,
        "batch": 4,
        "seconds": 600,
        "streets": {"day": {"count": 900}, "fog": {"count": 300}},
        "environment": {"machine": "2 cores", "versions": {"torch": "2.11"}, "commit": "abc"},
        "result": {"domains": domains, "mean_mIoU": mean},
        **more,
    }


def test_runs_table_has_mean_and_std_of_the_rows_with_runs(tmp_path):
    assert runs_table("streets_to_real", tmp_path / "results") == NOT_RUN == "*Not run yet.*"
    folder = tmp_path / "results" / "streets_to_real"
    folder.mkdir(parents=True)
    for seed, miou in enumerate((30.0, 32.0, 37.0)):
        content = run_json({"dusk": miou, "usa": miou + 10}, seed)
        (folder / f"lora_seed{seed}.json").write_text(json.dumps(content))
    (folder / "sub_seed0.json").write_text(json.dumps(run_json({"dusk": 20.0, "usa": 21.0}, 0)))
    lines = runs_table("streets_to_real", tmp_path / "results").splitlines()
    cells = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in lines
        if line.startswith("|")
    }
    assert cells["LoRA, rank 36"] == ["3", "33.0 ± 3.6", "43.0 ± 3.6", "38.0 ± 3.6"]
    assert cells["sub adapter only, 4"] == ["1", "20.0", "21.0", "20.5"]
    assert "RecycleLoRA, 32 + 4" not in cells
    said = lines[-1]
    for part in (
        "300 iterations with batch size 4 on 1,200 drawn streets",
        "100 images",
        "10 minutes",
    ):
        assert part in said


def test_memory_table_has_a_row_for_each_backbone_and_batch(tmp_path):
    assert benchmark_table("memory", tmp_path / "results") == NOT_RUN
    found = {"peak_bytes": 6.5e9, "step_bytes": 4e9, "model_bytes": 1.4e9}
    variants = {"dense": found, "sparse, checkpointing": {**found, "peak_bytes": 2.5e9}}
    settings = {"head": "full", "precision": "float32", "crop": 512}
    environment = {"machine": "1 CPU cores (a chip), 1 threads", "versions": {"torch": "2.11"}}
    runs = [
        {"backbone": "dinov2_l", "batch": 1, "variants": variants},
        {"backbone": "dinov2_l", "batch": 4, "variants": variants},
    ]
    for run, commit in zip(runs, ("abc", "def"), strict=True):
        run["environment"] = {**environment, "commit": commit}
    (tmp_path / "results" / "benchmark").mkdir(parents=True)
    file = tmp_path / "results" / "benchmark" / "memory.json"
    file.write_text(json.dumps({"runs": runs, "settings": settings}))
    lines = benchmark_table("memory", tmp_path / "results").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:4])]
    assert cells[0] == ["backbone", "batch", "model", "dense", "sparse, checkpointing"]
    assert cells[1] == ["dinov2_l", "1", "1.4 GB", "6.5 GB", "2.5 GB"]
    assert "512 x 512 pixels" in lines[-1] and "Values in brackets" not in lines[-1]
    assert lines[-1].endswith("On 1 CPU core (a chip), 1 thread; torch 2.11, commit abc, def.")
    runs[1]["variants"] = {name: {"expected_bytes": 17.3e9} for name in variants}
    file.write_text(json.dumps({"runs": runs, "settings": settings}))
    lines = benchmark_table("memory", tmp_path / "results").splitlines()
    assert "| 1.4 GB  | (17 GB) | (17 GB)" in lines[3] and "Values in brackets" in lines[-1]
    assert lines[-1].endswith("commit abc.")


def test_hours_table_is_marked_as_an_estimate(tmp_path):
    assert benchmark_table("hours", tmp_path / "results") == NOT_RUN
    counted = {
        "dense": {"operations": 2 * 10**12, "calls": 10_000},
        "dense, checkpointing": {"operations": 3 * 10**12, "calls": 12_000},
        "prediction": {"operations": 10**12},
    }
    result = {
        "environment": {"machine": "a machine", "versions": {"torch": "2.11"}, "commit": "abc"},
        "assumed": {"shares": hours.SHARES, "seconds_a_call": hours.CALL},
        "iterations": 40_000,
        "batch": 4,
        "counted": counted,
        "hours": {"dense": hours.hours(**counted["dense"])},
        "evaluation_share": hours.evaluation_share(counted),
    }
    (tmp_path / "results" / "benchmark").mkdir(parents=True)
    (tmp_path / "results" / "benchmark" / "hours.json").write_text(json.dumps(result))
    lines = benchmark_table("hours", tmp_path / "results").splitlines()
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    # 8e12 operations at 60 %, or at 30 % with 0.15 s of calls, 40,000 times.
    assert cells[:2] == ["RTX A6000", "3.8 to 9.3 h"]
    for said in ("not a measurement on a GPU", "1.50 times the work", "30% to 60% in float32"):
        assert said in lines[-1]
