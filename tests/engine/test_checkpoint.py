"""Checkpoints are whole, safe to read, and refuse another model."""

import os
import pickle

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


def test_what_is_saved_comes_back(tmp_path):
    saved = model()
    optimizer = torch.optim.AdamW(saved.parameters(), lr=0.1)
    saved(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c.pth", model=saved, optimizer=optimizer, iteration=7)
    content = read_checkpoint(tmp_path / "c.pth")
    assert content["iteration"] == 7
    other = model()
    load_model(other, content["model"], source="c.pth")
    torch.testing.assert_close(dict(other.state_dict()), dict(saved.state_dict()), rtol=0, atol=0)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.5)
    fresh.load_state_dict(content["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save_checkpoint(path, model=model(), iteration=1)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, model=model(), iteration=2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.pth"]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_damaged_files_are_one_sentence(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or not a PyTorch file"):
        read_checkpoint(tmp_path / "c.pth")


def test_files_from_strangers_execute_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="damaged or not"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "executed").exists()


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save(model().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not a checkpoint of this program"):
        read_checkpoint(tmp_path / "weights.pth")


def test_another_model_is_refused_and_nothing_is_loaded(tmp_path):
    target = model(3)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"another model: 0.weight is \(5, 2\) there and \(3, 2\)"):
        load_model(target, model(5).state_dict(), source="c.pth")
    with pytest.raises(ValueError, match=r"missing 1.bias and 1 more; unexpected 2.weight"):
        state = model(3).state_dict()
        state["2.weight"] = state.pop("1.weight")
        del state["1.bias"]
        load_model(target, state, source="c.pth")
    torch.testing.assert_close(dict(target.state_dict()), before, rtol=0, atol=0)


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.latest() is None
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for iteration in (5, 10, 15):
        checkpoints.save(model=net, optimizer=optimizer, iteration=iteration)
    assert [p.name for p in checkpoints.paths()] == [
        "iter_0000010.pth",
        "iter_0000015.pth",
    ]
    newest = checkpoints.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    said = []
    path, content = checkpoints.latest(log=said.append)
    assert (path.name, content["iteration"]) == ("iter_0000010.pth", 10)
    assert "iter_0000015.pth" in said[0]
