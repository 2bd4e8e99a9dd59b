import pytest
import torch
from torch import nn

TINY = ["--backbone", "tiny", "--head", "tiny", "--crop", "64", "--batch", "2", "--rounds", "2"]


@pytest.fixture
def tool(benchmark_module):
    return benchmark_module("step")


@pytest.mark.slow
def test_every_part_is_in_the_result(run_benchmark, tool):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    result = run_benchmark("step", *TINY, "--precisions", "bfloat16")
    (run,) = result["runs"]
    assert set(run["systems"]) == set(tool.SYSTEMS)
    baseline = run["systems"][tool.BASELINE]
    for system in run["systems"].values():
        assert system["speedup"] == baseline["median"] / system["median"]
        assert system["losses"][-1] < system["losses"][0]
        assert 0 < system["step_bytes"] < system["peak_bytes"]
        assert system["trained"]["head"] == baseline["trained"]["head"]
    # Per block, in widths of 64: 4 + 2 + 5 + 5 with qkv in one, 3 * 2 + 2 + 5 + 5 in three.
    assert run["systems"]["ours, dense"]["trained"]["adapters"] == 6 * 36 * 64 * 16
    assert baseline["trained"]["adapters"] == 6 * 36 * 64 * 18


@pytest.mark.slow
def test_other_features_stop_it(run_benchmark, tool, monkeypatch):
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    right = tool.OurSegmentor.features
    monkeypatch.setattr(
        tool.OurSegmentor, "features", lambda self, images: right(self, images.flip(-1))
    )
    with pytest.raises(tool.measure.WrongResult, match="the features of ours, dense are off"):
        run_benchmark("step", *TINY)


def test_a_missing_package_gets_a_sentence(tool, monkeypatch):
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"peft is missing: `pip install peft transformers`"):
        tool.main(TINY)


@pytest.mark.parametrize(
    ("losses", "words"),
    [([3.0, 2.0, float("nan")], "is not finite"), ([3.0, 3.5, 3.1], "does not fall: 3.00")],
)
def test_losses_that_do_not_fall_stop_it(tool, losses, words):
    tool.check_losses({"a": [3.0, 2.5, 2.0]}, "float32")
    with pytest.raises(tool.measure.WrongResult, match=words):
        tool.check_losses({"a": losses}, "float32")


def test_adapters_are_counted_from_the_shapes(tool):
    model = nn.Module()
    model.backbone = tool.adapt(nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64)))
    assert tool.expected_adapters(model) == 36 * 2 * (64 + 96)
    assert tool.parameters(model) == {"adapters": 36 * 2 * (64 + 96), "head": 0}


def test_a_step_trains_what_it_should(tool):
    args = tool.parse(TINY)
    model, batch = tool.build("ours, sparse", args), tool.streets(args)
    assert batch[0].shape == (2, 3, 64, 64) and batch[1].shape == (2, 64, 64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    tool.step(model, tool.optimizer_of(model), batch, "bfloat16", losses)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert torch.isfinite(losses[0])
    assert changed <= {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_A_main" in name for name in changed)
    assert any("sem_seg_head" in name for name in changed)
