"""Adapted models under DDP and FSDP2 train, save, load and switch as in a single process."""

import subprocess
import sys

import pytest
import torch

from ..support.parallel_training import KINDS, RANKS


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return the results of one and of two processes: ``seen[kind, ranks]`` is a list of them."""
    folder = tmp_path_factory.mktemp("parallel")
    processes = [(rank, world) for world in KINDS for rank in range(world)]
    script = [sys.executable, "-m", "tests.support.parallel_training"]
    started = [
        subprocess.Popen([*script, str(rank), str(world), str(folder)]) for rank, world in processes
    ]
    assert [process.wait(timeout=600) for process in started] == [0] * len(started)
    found = {}
    for rank, world in processes:
        for key, values in torch.load(folder / f"seen_{world}_{rank}.pt").items():
            found.setdefault(key, []).append(values)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("kind", KINDS[2])
def test_two_processes_train_save_and_load_as_one(kind, ranks, seen):
    (alone,), both = seen["plain", ranks], seen[kind, ranks]
    assert (alone["trained"] - alone["night"]).abs().max() > 1e-2
    for values in both:
        for key in ("trained", "loaded", "night"):
            torch.testing.assert_close(values[key], alone[key], atol=1e-5, rtol=0)
        assert torch.equal(values["loaded"], values["trained"])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("kind", KINDS[2])
def test_other_settings_in_two_processes_raise(kind, ranks, seen):
    for values in seen[kind, ranks]:
        assert "DDP or FSDP holds" in values["pair"] and "DDP or FSDP holds" in values["file"]
        assert torch.equal(values["kept"], values["trained"])
