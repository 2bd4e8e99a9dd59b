"""The README's benchmark tables say what the JSON says."""

import importlib.util
import json
from pathlib import Path

import pytest

TINY = {
    "rrqr": ["--models", "tiny:40x2", "--sizes", "16", "--rounds", "1", "--threads", "1"],
    "adapter": ["--width", "48", "--rows", "20", "--rounds", "1", "--precisions", "float32"],
}


@pytest.fixture
def tool():
    path = Path(__file__).parents[2] / "tools" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(tool, run_benchmark, monkeypatch, tmp_path):
    """``table("rrqr")`` -> the JSON of a tiny run and the table made from it."""

    def make(name):
        result = run_benchmark(name, *TINY[name])
        folder = tmp_path / "results" / "benchmark"
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps(result))
        monkeypatch.setattr(tool, "ROOT", tmp_path)
        return result, tool.TABLES[name]()

    return make


def test_rrqr_table(table):
    result, text = table("rrqr")
    ours = result["model"]["systems"]["rrqr"]
    (row,) = (line for line in text.splitlines() if line.startswith("| `recyclelora.rrqr`"))
    assert f"| {ours['median']:.1f} s" in row and f"| {ours['speedup']:.1f}x" in row
    assert f"| {result['pivots'][0]['published']['all']:.1%}" in text
    assert result["environment"]["machine"] in text and result["environment"]["commit"] in text


def test_adapter_table(table):
    result, text = table("adapter")
    (run,) = result["runs"]
    (row,) = (line for line in text.splitlines() if line.startswith("| float32"))
    for name in ("published", "ours, dense", "ours, sparse"):
        assert f"| {run['block'][name]['ratio']:.2f}, " in row
    assert ("peft was not installed" in text) == (result["left_out"] == ["peft"])
