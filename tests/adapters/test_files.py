import copy

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import (
    activate_pair,
    active,
    adapter_parameters,
    load_adapters,
    merge,
    pair_names,
    save_adapters,
)


def base(seed=1, width=20):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, width), nn.GELU(), nn.Linear(width, 12))


@pytest.fixture(params=[("rrqr", False), ("rrqr", True), ("svd", False), ("kaiming", False)])
def trained(request, tmp_path):
    init, sparse_a = request.param
    model = adapt(base(), r_main=3, r_sub=2, alpha=2.0, init=init, sparse_a=sparse_a)
    with torch.no_grad():
        for group in adapter_parameters(model):
            for parameter in group.values():
                parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path / "night.pt"
    save_adapters(model, path)
    return model, path


def test_load_on_plain_base_same_outputs(trained):
    model, path = trained
    other, x = load_adapters(base(), path), torch.randn(4, 12)
    assert torch.equal(other(x), model(x))
    for main, sub in [(True, False), (False, True), (False, False)]:
        with active(other, main, sub), active(model, main, sub):
            assert torch.equal(other(x), model(x))
    state = other.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert {*adapter_parameters(other).main} == {*adapter_parameters(model).main}
    other(x).sum().backward()
    assert other[0].lora_A_main.grad is not None


def test_load_on_adapted_model_adds_or_replaces_pair(trained):
    model, path = trained
    x, expected = torch.randn(4, 12), model(torch.zeros(1, 12)).detach()
    other = adapt(base(), r_main=4, r_sub=1)
    before = other(x).detach()
    load_adapters(other, path, name="night")
    assert pair_names(other) == ("night", ["default", "night"])
    assert torch.equal(other(torch.zeros(1, 12)), expected)
    activate_pair(other, "default")
    assert torch.equal(other(x), before)
    load_adapters(other, path)  # in place of "default"
    assert pair_names(other) == ("default", ["default", "night"])
    assert torch.equal(other(x), model(x))


def test_save_merged_model_same_content(trained, tmp_path):
    model, path = trained
    merge(model)
    save_adapters(model, tmp_path / "merged.pt")
    first, second = (torch.load(p, weights_only=True) for p in (path, tmp_path / "merged.pt"))
    assert first.keys() == second.keys()
    for name, entry in first["layers"].items():
        for key, tensor in entry["tensors"].items():
            assert torch.equal(tensor, second["layers"][name]["tensors"][key])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged.pt", "night.pt"]


def test_load_on_other_base_raises_unchanged(trained):
    _, path = trained
    other = base(seed=2)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="trained on other base weights: layer '0' differs"):
        load_adapters(other, path)
    assert other.state_dict().keys() == before.keys()
    with pytest.raises(ValueError, match=r"layer '0' is \[24, 12\] here and \[20, 12\] in the"):
        load_adapters(base(width=24), path)
    with pytest.raises(ValueError, match="layer '2' is in the file but not in the model"):
        load_adapters(base()[:2], path)
    deeper = adapt(nn.Sequential(*base(), nn.Linear(12, 12)), r_main=3, r_sub=2)
    with pytest.raises(ValueError, match="layer '3' is in the model but not in the file"):
        load_adapters(deeper, path)


def test_load_damaged_file_raises(trained, tmp_path):
    model, path = trained
    with pytest.raises(FileNotFoundError, match="there is no adapter file"):
        load_adapters(base(), tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:1000])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("hello")
    for name in ("cut.pt", "empty.pt", "text.pt"):
        with pytest.raises(ValueError, match="damaged, cut off"):
            load_adapters(base(), tmp_path / name)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match="holds no adapters"):
        load_adapters(base(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapters(base(), tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_adapters(model, tmp_path / "missing" / "x.pt")
    with pytest.raises(ValueError, match="plain word"):
        load_adapters(base(), path, name="a.b")
