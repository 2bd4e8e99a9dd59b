"""Checkpoints are written atomically, safe to read, and compared with the model."""

import errno
import os
import pickle
import resource

import pytest
import torch
from torch import nn

from recyclelora.engine.checkpoint import (
    Checkpoints,
    load_model,
    read_checkpoint,
    save_checkpoint,
)


def model(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


def test_save_checkpoint_round_trip_restores_state(tmp_path):
    saved = model()
    optimizer = torch.optim.AdamW(saved.parameters(), lr=0.1)
    saved(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    training = {"optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "c.pth", model=saved, iteration=7, training=training)
    content = read_checkpoint(tmp_path / "c.pth")
    assert content["iteration"] == 7
    other = model()
    load_model(other, content["model"], source="c.pth")
    torch.testing.assert_close(dict(other.state_dict()), dict(saved.state_dict()), rtol=0, atol=0)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.5)
    fresh.load_state_dict(content["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1


def test_save_checkpoint_failure_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save_checkpoint(path, model=model(), iteration=1)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(path, model=model(), iteration=2)
    before_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before_limit[1]))
    try:  # an error of the disk during torch.save
        with pytest.raises(OSError, match="File too large") as refused:
            save_checkpoint(path, model=model(), iteration=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before_limit)
    assert refused.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.pth"]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_read_checkpoint_with_flipped_bit_raises(tmp_path):
    path = tmp_path / "c.pth"
    save_checkpoint(path, model=model(), iteration=1)
    whole = path.read_bytes()
    start = whole.index(model()[0].weight.detach().numpy().tobytes())
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    torch.load(path, weights_only=True)  # torch does not detect the damage
    with pytest.raises(ValueError, match=r"c.pth is damaged \(in its part"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_read_checkpoint_damaged_file_raises(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"c.pth cannot be read as tensors only: it is damaged"):
        read_checkpoint(tmp_path / "c.pth")


def test_read_checkpoint_malicious_file_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="contains Python objects, which are not loaded"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "executed").exists()


def test_read_checkpoint_missing_or_other_format_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save(model().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not a checkpoint of this program"):
        read_checkpoint(tmp_path / "weights.pth")


def test_load_model_other_model_raises_unchanged(tmp_path):
    target = model(3)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    shapes = r"another model: wrong shape: 0.weight \(5, 2\) for \(3, 2\)"
    with pytest.raises(ValueError, match=shapes):
        load_model(target, model(5).state_dict(), source="c.pth")
    with pytest.raises(ValueError, match=r"missing: 1.weight, 1.bias; unexpected: 2.weight"):
        state = model(3).state_dict()
        state["2.weight"] = state.pop("1.weight")
        del state["1.bias"]
        load_model(target, state, source="c.pth")
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


def test_latest_skips_damaged_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.latest() is None
    net = model()
    for iteration in (5, 10, 15):
        checkpoints.save(model=net, iteration=iteration)
    assert [p.name for p in checkpoints.paths()] == [
        "iter_0000010.pth",
        "iter_0000015.pth",
    ]
    newest = checkpoints.paths()[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole[:100])
    said = []
    path, content = checkpoints.latest(log=said.append)
    assert (path.name, content["iteration"]) == ("iter_0000010.pth", 10)
    assert "iter_0000015.pth" in said[0]
    checkpoints.set_aside_after(path)
    assert [p.name for p in checkpoints.paths()] == ["iter_0000010.pth"]
    assert newest.with_name("iter_0000015.pth.damaged").read_bytes() == whole[:100]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints in .* can be read"):
        checkpoints.latest(log=said.append)


def test_load_model_of_other_precision_keeps_that_of_the_model():
    half = model().half().state_dict()
    for assign in (False, True):
        target = model()
        load_model(target, half, source="c.pth", assign=assign)
        assert target[0].weight.dtype == torch.float32
        assert torch.equal(target[0].weight.half(), half["0.weight"])
