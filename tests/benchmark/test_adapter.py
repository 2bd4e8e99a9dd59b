import itertools

import pytest
import torch
from benchmark import adapter, adapter_systems, measure
from torch import nn

TINY = ["--width", "48", "--rows", "20", "--rounds", "2", "--blocks", "3", "--host-rounds", "2"]
SYSTEMS = {"frozen", "published", "ours, dense", "ours, sparse"}


def test_result_of_tiny_run_has_every_part(run_benchmark, without_processes):
    result = run_benchmark(adapter, *TINY)
    expected = SYSTEMS if result["left_out"] else SYSTEMS | {"peft"}
    assert result["left_out"] == ([] if adapter_systems.peft else ["peft"])
    precisions = [(run["rows"], run["precision"]) for run in result["runs"]]
    assert precisions == [(20, "float32"), (20, "bfloat16"), (20, "autocast")]
    hosts = [(host["precision"], host["bias"]) for host in result["host"]]
    assert hosts == list(itertools.product(adapter_systems.PRECISIONS, (True, False)))
    assert all(set(host["systems"]) == expected for host in result["host"])
    for run in result["runs"]:
        assert [layer["layer"] for layer in run["layers"]] == ["qkv", "proj", "fc1", "fc2"]
        assert set(run["block"]) == expected
        for layer in run["layers"]:
            ours = layer["systems"]["ours, sparse"]
            assert set(ours["errors"]) == {"output", "x", "A_main", "B_main", "A_sub", "B_sub"}


def test_ratios_and_sums_follow_from_the_times(run_benchmark, without_processes):
    for run in run_benchmark(adapter, *TINY)["runs"]:
        block, layers = run["block"], [layer["systems"] for layer in run["layers"]]
        for name, times in block.items():
            rounds = [sum(layer[name]["seconds"][i] for layer in layers) for i in range(2)]
            assert times["seconds"] == pytest.approx(rounds)
            assert times["ratio"] == times["median"] / block["frozen"]["median"]
            assert times["saved_bytes"] == 3 * sum(layer[name]["saved_bytes"] for layer in layers)


def test_saved_bytes_match_the_formulas():
    modules = adapter_systems.build(nn.Linear(64, 96).requires_grad_(False))
    x = torch.randn(1000, 64, requires_grad=True)
    saved = {
        name: adapter_systems.saved_bytes(module, x, "float32") for name, module in modules.items()
    }
    assert saved["frozen"] == 0
    assert saved["published"] == 4 * 1000 * (64 + 32 + 4)  # x once, and x A' of both branches
    assert saved["ours, sparse"] < 4 * 1000 * (64 + 32)  # not x
    if adapter_systems.peft:
        assert saved["peft"] == saved["published"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
def test_systems_compute_the_same_function(precision):
    dtype, _ = adapter_systems.PRECISIONS[precision]
    modules = adapter_systems.build(nn.Linear(48, 64).requires_grad_(False).to(dtype))
    x = torch.randn(10, 48, dtype=dtype, requires_grad=True)
    grad = torch.randn(10, 64, dtype=dtype)
    tolerance = 1e-5 if precision == "float32" else 0.05
    wanted = adapter_systems.run(modules["ours, dense"], x, grad, precision)
    for name in {"published", "peft"} & set(modules):
        found = adapter_systems.run(modules[name], x, grad, precision)
        # Our factors, and so their gradients, are float32 where the base is bfloat16.
        close = {"atol": tolerance, "rtol": tolerance, "check_dtype": False}
        torch.testing.assert_close(found, wanted, **close)


def test_run_with_wrong_gradient_raises(run_benchmark, without_processes, monkeypatch):
    right = adapter_systems.DualLoRALinear.forward
    half = lambda grad: grad / 2  # noqa: E731

    def wrong(self, x):
        x = x * 1
        if x.requires_grad:
            x.register_hook(half)
        return right(self, x)

    monkeypatch.setattr(adapter_systems.DualLoRALinear, "forward", wrong)
    with pytest.raises(measure.WrongResult, match=r"ours, dense is off by 5.0e-01 .* in x"):
        run_benchmark(adapter, *TINY)
