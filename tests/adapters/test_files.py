import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from recyclelora import DualLoRALinear, __version__, adapt
from recyclelora.adapters import (
    activate_pair,
    active,
    adapted_layers,
    adapter_parameters,
    add_pair,
    load_adapters,
    merge,
    pair_names,
    save_adapters,
)
from recyclelora.adapters.initialisers import INITIALISERS

from ..support.adapter_files import read_header_and_tensors
from ..support.trained_adapters import learn


def base(seed=1, width=20):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, width), nn.GELU(), nn.Linear(width, 12))


@pytest.fixture(params=[("rrqr", False), ("rrqr", True), ("svd", False), ("kaiming", False)])
def trained(request, tmp_path):
    init, sparse_a = request.param
    model = adapt(base(), r_main=3, r_sub=2, alpha=2.0, init=init, sparse_a=sparse_a)
    learn(model)
    path = tmp_path / "night.safetensors"
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
    load_adapters(other, path)  # replaces "default"
    assert pair_names(other) == ("default", ["default", "night"])
    assert torch.equal(other(x), model(x))


def test_save_merged_model_same_content(trained, tmp_path):
    model, path = trained
    merge(model)
    save_adapters(model, tmp_path / "merged.safetensors")
    assert path.read_bytes() == (tmp_path / "merged.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged.safetensors", "night.safetensors"]


def test_load_on_other_base_raises_unchanged(trained):
    _, path = trained
    other = base(seed=2)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="trained on other base weights: layer '0' differs"):
        load_adapters(other, path)
    assert other.state_dict().keys() == before.keys()
    with pytest.raises(ValueError, match=r"layer '0' has shape \[24, 12\] here and"):
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
        with pytest.raises(
            ValueError, match="is not a safetensors file, or it is damaged or truncated"
        ):
            load_adapters(base(), tmp_path / name)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_adapters(base(), tmp_path / "state.pt")
    save_file(base().state_dict(), tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="contains no adapters"):
        load_adapters(base(), tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapters(base(), tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_adapters(model, tmp_path / "missing" / "x.pt")
    with pytest.raises(ValueError, match="plain word"):
        load_adapters(base(), path, name="a.b")


def test_save_header_has_settings_base_and_version(tmp_path):
    model = adapt(base(), r_main=3, r_sub=2, alpha=2.0)
    save_adapters(model, tmp_path / "a.safetensors")
    header, tensors = read_header_and_tensors(tmp_path / "a.safetensors")
    assert header["format"] == "recyclelora adapters" and header["format_version"] == 1
    assert header["recyclelora_version"] == __version__
    layer = header["layers"]["0"]
    settings = {"r_main": 3, "r_sub": 2, "alpha": 2.0, "init": "rrqr", "sparse_a": False}
    assert layer["settings"] == settings and layer["shape"] == [20, 12]
    assert layer["weight_dtype"] == "float32" and len(layer["weight_sha256"]) == 64
    assert torch.equal(tensors["0.lora_A_main"], model[0].lora_A_main)


@pytest.mark.parametrize("settings", [{"r_main": 3, "r_sub": 0}, {"r_main": 0, "r_sub": 3}])
@pytest.mark.parametrize("initial_factors", [True, False])
def test_load_one_rank_zero_same_outputs(settings, initial_factors, tmp_path):
    model = adapt(base(), **settings)
    learn(model)
    save_adapters(model, tmp_path / "a.safetensors", initial_factors=initial_factors)
    x = torch.randn(4, 12)
    assert torch.equal(load_adapters(base(), tmp_path / "a.safetensors")(x), model(x))


def test_load_layer_without_rank_and_root_linear(tmp_path):
    torch.manual_seed(0)
    linear, x = nn.Linear(8, 8), torch.randn(2, 8)
    for ranks in ((0, 0), (3, 1)):
        layer = DualLoRALinear.from_linear(linear, *ranks)
        learn(layer)
        save_adapters(layer, tmp_path / "a.safetensors")
        loaded = load_adapters(copy.deepcopy(linear), tmp_path / "a.safetensors")
        assert isinstance(loaded, DualLoRALinear) and torch.equal(loaded(x), layer(x))


def test_load_linear_in_two_places_stays_one_layer(tmp_path):
    def tied():
        torch.manual_seed(0)
        linear = nn.Linear(12, 12)
        return nn.Sequential(linear, nn.GELU(), linear)

    model, x = adapt(tied(), 3, 2), torch.randn(4, 12)
    learn(model)
    save_adapters(model, tmp_path / "a.safetensors")
    loaded = load_adapters(tied(), tmp_path / "a.safetensors")
    assert loaded[0] is loaded[2] and torch.equal(loaded(x), model(x))


def test_save_views_of_one_storage_loads(tmp_path):
    model, x = adapt(base(), 3, 2), torch.randn(4, 12)
    storage = 0.1 * torch.randn(2000)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data = storage[7 : 7 + 2 * parameter.numel() : 2].view(parameter.shape)
    model[0].lora_B_main = nn.Parameter(storage[:60].view(3, 20).T)
    save_adapters(model, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 12_000
    assert torch.equal(load_adapters(base(), tmp_path / "a.safetensors")(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("initial_factors", [True, False])
def test_load_half_precision_adapters_on_float32_base(dtype, initial_factors, tmp_path):
    model = adapt(base().to(dtype), r_main=3, r_sub=2)
    learn(model)
    path = tmp_path / "a.safetensors"
    save_adapters(model, path, initial_factors=initial_factors)
    half = load_adapters(base().to(dtype), path)
    x = torch.randn(4, 12)
    assert torch.equal(half(x.to(dtype)), model(x.to(dtype)))
    with pytest.warns(UserWarning, match=rf"{dtype}.*equal them only after a cast") as warned:
        loaded = load_adapters(base(), path)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert torch.equal(loaded[0].lora_A_main, model[0].lora_A_main)
    with active(loaded, False, False):
        assert torch.equal(loaded(x), base()(x))
    torch.testing.assert_close(loaded(x), model(x.to(dtype)).float(), atol=0.1, rtol=0)


def test_load_on_less_precise_base_raises(tmp_path):
    save_adapters(adapt(base(), r_main=3, r_sub=2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"other base weights: layer '0' differs.*cast the model"):
        load_adapters(base().bfloat16(), tmp_path / "a.safetensors")


def halves(weight, r, side):
    """Return factors that are rows of the weight, like a user's function."""
    first = 0 if side == "main" else 5
    return weight[first : first + r], torch.eye(len(weight), dtype=weight.dtype)[:, :r]


@pytest.mark.parametrize("init", [*INITIALISERS, ("rrqr", "svd"), ("olora", "kaiming"), halves])
def test_save_without_initial_factors_recomputes_them(init, tmp_path):
    model, x = adapt(base(), r_main=3, r_sub=2, init=init), torch.randn(4, 12)
    learn(model)
    sizes = {}
    for kept in (True, False):
        save_adapters(model, tmp_path / "a.safetensors", initial_factors=kept)
        sizes[kept] = (tmp_path / "a.safetensors").stat().st_size
        loaded = load_adapters(base(), tmp_path / "a.safetensors")
        assert torch.equal(loaded[0].initial_B, model[0].initial_B)
        assert torch.equal(loaded(x), model(x))
        assert loaded[0].settings == model[0].settings
    assert (sizes[False] < sizes[True]) == (not model[0].settings.random)


def test_save_other_initial_factors_left_out_raises(tmp_path):
    model = adapt(base(), r_main=3, r_sub=2).double()
    with pytest.raises(ValueError, match="layer '0' differ from a decomposition"):
        save_adapters(model, tmp_path / "a.safetensors", initial_factors=False)
    assert not [*tmp_path.iterdir()]


def test_load_recomputed_factors_differ_raises(tmp_path, monkeypatch):
    path, plain = tmp_path / "a.safetensors", base()
    save_adapters(adapt(base(), r_main=3, r_sub=2, init="svd"), path, initial_factors=False)
    svd = torch.linalg.svd

    def other_rounding(*args, **options):
        u, s, vt = svd(*args, **options)
        return u * (1 + 1e-6), s, vt

    monkeypatch.setattr(torch.linalg, "svd", other_rounding)
    with pytest.raises(ValueError, match=r"cannot be recomputed here: those of layer '0' differ"):
        load_adapters(plain, path)
    assert not adapted_layers(plain)


def test_save_named_pair_leaves_active_pair(tmp_path):
    model, x = adapt(base(), r_main=3, r_sub=2), torch.randn(4, 12)
    add_pair(model, "night", r_main=1, r_sub=2, init="svd")
    before = model(x).detach()
    save_adapters(model, tmp_path / "night.safetensors", name="night")
    assert torch.equal(model(x), before) and pair_names(model)[0] == "default"
    header, _ = read_header_and_tensors(tmp_path / "night.safetensors")
    assert header["layers"]["0"]["settings"]["init"] == "svd"
    with pytest.raises(
        ValueError, match="no adapter pair 'dusk' to save; the pairs are: default, nigh"
    ):
        save_adapters(model, tmp_path / "dusk.safetensors", name="dusk")


def test_load_same_settings_keeps_parameters(tmp_path):
    model, x = adapt(base(), r_main=3, r_sub=2), torch.randn(4, 12)
    learn(model)
    save_adapters(model, tmp_path / "a.safetensors")
    other = adapt(base(), r_main=3, r_sub=2)
    add_pair(other, "night", r_main=3, r_sub=2)
    held = dict(other.named_parameters())
    for name in ("default", "night", "dusk"):
        load_adapters(other, tmp_path / "a.safetensors", name=name)
        assert torch.equal(other(x), model(x))
        active = {key: p for key, p in other.named_parameters() if ".pairs." not in key}
        assert all(p is held[key] for key, p in active.items())


def test_load_on_meta_device_raises(tmp_path):
    save_adapters(adapt(base(), r_main=3, r_sub=2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="layer '0', which is on the meta device"):
        load_adapters(base().to("meta"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="on the meta device and has no values to save"):
        save_adapters(adapt(base().to("meta"), 3, 2), tmp_path / "b.safetensors")


def test_save_diverged_adapters_raises(tmp_path):
    model = adapt(base(), r_main=3, r_sub=2)
    model[2].lora_B_sub.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"lora_B_sub .* contains NaN or Inf in layer '2'"):
        save_adapters(model, tmp_path / "a.safetensors")
    assert not [*tmp_path.iterdir()]


def test_save_on_full_disk_keeps_file_before(trained, monkeypatch):
    model, path = trained
    before = path.read_bytes()

    def write_half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", write_half)
    learn(model)
    with pytest.raises(OSError, match="No space left"):
        save_adapters(model, path)
    assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]
