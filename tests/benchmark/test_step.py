import argparse

import pytest
import torch
from benchmark import measure, segmentor, step, step_sizes, step_systems
from torch import nn

from recyclelora.reproduce.benchmark_tables import step_sizes_table

TINY = ["--backbone", "tiny", "--head", "tiny", "--crop", "64", "--batch", "2", "--rounds", "2"]


@pytest.mark.slow
def test_result_of_tiny_run_has_every_part(run_benchmark):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    result = run_benchmark(step, *TINY, "--precisions", "bfloat16")
    (run,) = result["runs"]
    assert set(run["systems"]) == set(step_systems.SYSTEMS)
    baseline = run["systems"][step_systems.BASELINE]
    for system in run["systems"].values():
        assert system["speedup"] == baseline["median"] / system["median"]
        assert system["losses"][-1] < system["losses"][0]
        assert 0 < system["step_bytes"] < system["peak_bytes"]
        assert system["trained"]["head"] == baseline["trained"]["head"]
    # Per block, in multiples of 64: 4 + 2 + 5 + 5 with a fused qkv, otherwise 3 * 2 + 2 + 5 + 5.
    assert run["systems"]["ours, dense"]["trained"]["adapters"] == 6 * 36 * 64 * 16
    assert baseline["trained"]["adapters"] == 6 * 36 * 64 * 18


@pytest.mark.slow
def test_run_with_different_features_raises(run_benchmark, without_processes, monkeypatch):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    right = segmentor.OurSegmentor.features
    monkeypatch.setattr(
        segmentor.OurSegmentor, "features", lambda self, images: right(self, images.flip(-1))
    )
    with pytest.raises(measure.WrongResult, match="the features of ours, dense are off"):
        run_benchmark(step, *TINY)


def test_missing_package_raises_with_command(monkeypatch):
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"peft is missing: `pip install peft transformers`"):
        step.main(TINY)


@pytest.mark.parametrize(
    ("losses", "words"),
    [([3.0, 2.0, float("nan")], "is not finite"), ([3.0, 3.5, 3.1], "does not fall: 3.00")],
)
def test_losses_that_do_not_fall_raise(losses, words):
    step.check_losses({"a": [3.0, 2.5, 2.0]}, "float32")
    with pytest.raises(measure.WrongResult, match=words):
        step.check_losses({"a": losses}, "float32")


def test_expected_adapters_follow_from_the_shapes():
    model = nn.Module()
    model.backbone = segmentor.adapt(nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64)))
    assert step_systems.expected_adapters(model) == 36 * 2 * (64 + 96)
    assert step_systems.parameters(model) == {"adapters": 36 * 2 * (64 + 96), "head": 0}


def test_step_changes_only_trainable_parameters():
    args = step.parse(TINY)
    model, batch = step_systems.build("ours, sparse", args), segmentor.streets(args)
    assert batch[0].shape == (2, 3, 64, 64) and batch[1].shape == (2, 64, 64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    segmentor.step(model, segmentor.optimizer_of(model), batch, "bfloat16", losses)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert torch.isfinite(losses[0])
    assert changed <= {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_A_main" in name for name in changed)
    assert any("sem_seg_head" in name for name in changed)


def test_head_sizes_are_those_of_the_shipped_configs():
    tiny, demo, full = (segmentor.head_sizes(name) for name in segmentor.HEADS)
    assert tiny.keys() == demo.keys() == full.keys()
    assert (demo["hidden_dim"], demo["nheads"], demo["dec_layers"]) == (128, 8, 3)
    assert (full["hidden_dim"], full["nheads"], full["num_points"]) == (256, 8, 12544)


@pytest.mark.slow
def test_sizes_are_kept_sorted_and_replaced(run_benchmark):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    sizes = ["tiny:tiny:float32", "tiny:tiny:bfloat16"]
    options = ["--crop", "64", "--rounds", "2", "--runs"]
    run_benchmark(step_sizes, *options, sizes[0])
    result = run_benchmark(step_sizes, "--keep", *options, sizes[1])
    assert [run["precision"] for run in result["runs"]] == list(segmentor.PRECISIONS)
    for run in result["runs"]:
        theirs, ours = run["systems"].values()
        assert ours["speedup"] == theirs["median"] / ours["median"]
    lines = step_sizes_table(result).splitlines()
    assert "| tiny       | tiny   | float32" in "\n".join(lines[2:4])
    result = run_benchmark(step_sizes, "--keep", *options, sizes[1])
    assert len(result["runs"]) == 2


def test_unknown_size_raises():
    with pytest.raises(argparse.ArgumentTypeError, match="expected BACKBONE:HEAD:PRECISION"):
        step_sizes.size_of("dinov2_s:demo:float16")
