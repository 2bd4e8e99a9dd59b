import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_two_processes_train_what_one_would(tmp_path):
    """Halves of a batch on two gloo ranks give, after DDP's averaging, the whole's gradient."""
    script = Path(__file__).with_name("rank_gradients.py")
    runs = [(0, 1), (0, 2), (1, 2)]
    outputs = [tmp_path / f"{rank}_of_{world}.pt" for rank, world in runs]
    processes = [
        subprocess.Popen([sys.executable, script, str(r), str(w), tmp_path / "store", out])
        for (r, w), out in zip(runs, outputs, strict=True)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    whole, first, second = (torch.load(path, weights_only=True) for path in outputs)
    for name, loss in whole["losses"].items():
        average = (first["losses"][name] + second["losses"][name]) / 2
        torch.testing.assert_close(average, loss)
    largest = max(gradient.abs().max() for gradient in whole["grads"].values())
    for name, gradient in whole["grads"].items():
        assert torch.equal(first["grads"][name], second["grads"][name]), name
        # Biases that a norm or a softmax takes out again have rounding noise for a gradient.
        scale = max(gradient.abs().max(), 0.05 * largest)
        assert (first["grads"][name] - gradient).abs().max() <= 1e-4 * scale, name
