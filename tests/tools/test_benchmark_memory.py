"""Peak memory of whole steps: the order that must hold, and what makes a run wrong."""

import pytest


@pytest.mark.slow
def test_checkpointing_and_sparse_a_need_less(run_benchmark):
    sizes = ["--backbones", "dinov2_s", "--head", "tiny", "--crop", "256", "--batch", "2"]
    result = run_benchmark("memory", *sizes)
    (run,) = result["runs"]
    steps = {name: found["step_bytes"] for name, found in run["variants"].items()}
    assert steps["dense, checkpointing"] < steps["sparse"] < steps["dense"]
    for found in run["variants"].values():
        assert found["peak_bytes"] > found["step_bytes"] > 0
        # 12 blocks of 384 x 1536 and 3 x 384 x 384 weights, at least, in float32.
        assert found["model_bytes"] > 12 * 12 * 384 * 384 * 4


def test_another_loss_is_a_wrong_result(benchmark_module):
    tool = benchmark_module("memory")
    good = {"losses": [50.0, 40.0]}
    tool.check("dinov2_s", {"dense": good, "sparse": {"losses": [50.001, 41.0]}})
    for losses in ([52.0, 40.0], [50.0, float("nan")]):
        with pytest.raises(benchmark_module("measure").WrongResult, match="dinov2_s, sparse"):
            tool.check("dinov2_s", {"dense": good, "sparse": {"losses": losses}})
