"""Measures of the adapters of runs: from checkpoints, and those that are committed."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from recyclelora.adapters.rank import effective_rank, product_singular_values
from recyclelora.analysis.similarity import mean_off_diagonal, row_cosines, subspace_similarity
from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model, load_config
from recyclelora.reproduce import learned, tables
from recyclelora.reproduce.learned_table import learned_table
from recyclelora.reproduce.workspace import Workspace

from ..support.training_runs import ROOT, TINY

COMMITTED = sorted((ROOT / "results" / "adapters").glob("*.safetensors"))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The output of a finished run "recyclelora" of a tiny table, with random trained factors."""
    rows = {
        "recyclelora": tables.Row("RecycleLoRA", tables.adapter_overrides(6, 2)),
        "frozen": tables.Row("frozen", tables.adapter_overrides(0, 0)),
    }
    monkeypatch.setitem(tables.SMALL_TABLES, "tiny", tables.Table(TINY, rows))
    workspace = Workspace(ROOT, scratch=tmp_path, overrides=["train.max_iter=4"])
    for row in rows:
        run = tables.Run("tiny", row, 0)
        config = load_config(str(ROOT / TINY), workspace.overrides_of(run))
        model = build_model(config, device=torch.device("cpu"))
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        workspace.folder(run).mkdir(parents=True)
        save_checkpoint(workspace.folder(run) / "iter_0000004.pth", model=model, iteration=4)
        (workspace.folder(run) / "domains.json").write_text('{"mean_mIoU": 43.21}')
    return workspace


def entropy_rank(matrix):
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = values[values > 1e-9 * values[0]] / values.sum()
    return math.exp(-(shares * np.log(shares)).sum())


def test_finished_run_gets_measures_and_float16_factors(workspace):
    file = learned.measure_run(tables.Run("tiny", "recyclelora", 0), workspace)
    found = json.loads(file.read_text())
    factors = load_file(file.with_suffix(".safetensors"))
    assert file == workspace.results / "adapters" / "recyclelora_seed0.json"
    assert {factor.dtype for factor in factors.values()} == {np.dtype("float16")}
    names = {name.removesuffix(".main.A") for name in factors if name.endswith(".main.A")}
    assert len(factors) == 4 * len(names) and set(found["moved"]) == names
    ranks = [entropy_rank(factors[f"{n}.main.B"] @ factors[f"{n}.main.A"]) for n in names]
    assert found["overall"]["main"]["effective_rank"] == pytest.approx(np.mean(ranks), rel=5e-3)
    assert found["overall"]["main"]["column_norms"]["mean_ratio"] > 1
    table = learned_table(["recyclelora", "absent"], workspace.results)
    assert "| RecycleLoRA |" in table and " of 6 " in table and " 43.2 " in table


def test_run_without_checkpoint_or_adapters_raises(workspace):
    with pytest.raises(
        FileNotFoundError, match="recyclelora_seed1 has not been trained and evaluated"
    ):
        learned.measure_run(tables.Run("tiny", "recyclelora", 1), workspace)
    with pytest.raises(ValueError, match="without adapters"):
        learned.measure_run(tables.Run("tiny", "frozen", 0), workspace)
    assert not workspace.results.exists()


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_committed_factors_give_the_committed_measures(file):
    found = json.loads(file.with_suffix(".json").read_text())["overall"]
    factors = load_file(file)
    ranks, cosines, phis = [], [], []
    for name in sorted(factors):
        if not name.endswith(".main.A"):
            continue
        A, B = (factors[name[:-1] + part].astype(np.float64) for part in "AB")
        ranks.append(entropy_rank(B @ A))
        tensors = torch.from_numpy(B), torch.from_numpy(A)
        own = effective_rank(product_singular_values(*tensors))
        assert own == pytest.approx(ranks[-1], rel=1e-5)
        cosine = (A @ A.T) / np.outer(*[np.linalg.norm(A, axis=1)] * 2)
        off = np.abs(cosine[~np.eye(len(A), dtype=bool)]).mean()
        cosines.append(off)
        assert mean_off_diagonal(row_cosines(tensors[1])) == pytest.approx(off, rel=1e-5)
        if (sub := factors.get(name.replace("main.A", "sub.A"))) is not None:
            sub = sub.astype(np.float64)
            angles = np.linalg.qr(A.T)[0].T @ np.linalg.qr(sub.T)[0]
            phis.append((angles**2).sum() / len(sub))
            phi = subspace_similarity(tensors[1], torch.from_numpy(sub))
            assert phi == pytest.approx(phis[-1], rel=1e-5)
    assert found["main"]["effective_rank"] == pytest.approx(np.mean(ranks), rel=2e-3)
    assert found["main"]["row_cosine"] == pytest.approx(np.mean(cosines), rel=1e-2)
    if phis:
        assert found["subspace"]["input"] == pytest.approx(np.mean(phis), rel=1e-2)
