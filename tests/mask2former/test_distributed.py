import subprocess
import sys

import pytest
import torch


def run(processes):
    """Start the script once with each of these lists of arguments, and wait for all processes."""
    script = ["-m", "tests.support.rank_gradients"]
    started = [subprocess.Popen([sys.executable, *script, *map(str, each)]) for each in processes]
    assert [process.wait(timeout=600) for process in started] == [0] * len(started)


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path):
    """With DDP, two ranks with half a batch each have the gradient of the whole batch."""
    runs = [(0, 1), (0, 2), (1, 2)]
    outputs = [tmp_path / f"{rank}_of_{world}.pt" for rank, world in runs]
    run([(*which, tmp_path / "store", out) for which, out in zip(runs, outputs, strict=True)])
    whole, first, second = (torch.load(path, weights_only=True) for path in outputs)
    for name, loss in whole["losses"].items():
        average = (first["losses"][name] + second["losses"][name]) / 2
        torch.testing.assert_close(average, loss)
    largest = max(gradient.abs().max() for gradient in whole["grads"].values())
    for name, gradient in whole["grads"].items():
        assert torch.equal(first["grads"][name], second["grads"][name]), name
        # Biases that a norm or a softmax cancels have only rounding noise as gradient.
        scale = max(gradient.abs().max(), 0.05 * largest)
        assert (first["grads"][name] - gradient).abs().max() <= 1e-4 * scale, name


@pytest.mark.slow
def test_nonfinite_predictions_raise_in_all_processes(tmp_path):
    outputs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    run([(rank, 2, tmp_path / "store", outputs[rank], 1) for rank in range(2)])
    first, second = (torch.load(path, weights_only=True) for path in outputs)
    assert first == "the predictions of another process are not finite"
    assert "image 0 of the batch" in second
