"""Tensor files: content that is read, and content that is rejected."""

import zipfile

import pytest
import torch

from recyclelora.common.tensor_file import read_tensor_file


def test_read_tensor_file_zip_bomb_raises(tmp_path):
    file = tmp_path / "bomb.pth"
    torch.save({"format": "any", "model": {"a": torch.zeros(64)}}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(10**7) if name.endswith("data/0") else content)
    with pytest.raises(ValueError, match=r"declare 10,0\d\d,\d+ bytes, more than the file has"):
        read_tensor_file(file)


def test_read_tensor_file_accepts_recursive_container(tmp_path):
    content = {"a": torch.ones(2)}
    content["self"] = content
    torch.save(content, tmp_path / "a.pth")
    assert read_tensor_file(tmp_path / "a.pth")["self"]["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(4, 4).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(1).expand(10**9)],
    ids=["sparse", "meta", "expanded"],
)
def test_read_tensor_file_without_dense_values_raises(tensor, tmp_path):
    torch.save({"layer": [tensor]}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: 0 is not a dense array with values"):
        read_tensor_file(tmp_path / "a.pth")
