import copy
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import active, merge
from recyclelora.export import save_peft

from ..support.outside_models import MODELS, output, relative_difference
from ..support.trained_adapters import learn

peft = pytest.importorskip("peft")


def saved(model, base, folder, rank=None, **options):
    """Return ``base`` with the adapters of ``model`` in peft, and the reported error."""
    error = save_peft(model, folder, rank=rank)
    return peft.PeftModel.from_pretrained(base, str(folder), **options), error


def adapted(base, seed=0, **options):
    torch.manual_seed(seed)
    model = adapt(copy.deepcopy(base), **{"r_main": 4, "r_sub": 2, "alpha": 3.0} | options)
    learn(model, scale=0.05)
    return model


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "options",
    [{}, {"init": "svd"}, {"init": "kaiming"}, {"sparse_a": True}, {"r_sub": 0}, {"r_main": 0}],
    ids=["rrqr", "svd", "kaiming", "sparse", "main", "sub"],
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
def test_peft_on_original_base_computes_the_same(kind, options, tmp_path):
    base, x = MODELS[kind]()
    model = adapted(base, **options)
    expected, before = output(model, x), output(base, x)
    loaded, error = saved(model, base, tmp_path)
    assert error < 1e-9 and relative_difference(before, expected) > 1e-2
    assert relative_difference(output(loaded, x), expected) < 1e-5
    with loaded.disable_adapter():
        assert torch.equal(output(loaded, x), before)
    assert relative_difference(output(loaded.merge_and_unload(), x), expected) < 1e-5


def test_chosen_layers_and_ranks_are_kept(tmp_path):
    base, x = MODELS["timm"]()
    ranks = {"blocks.1.*": (2, 1), "blocks.1.mlp.fc1": (5, 3)}
    model = adapted(base, include="blocks.*", exclude="*.proj", ranks=ranks)
    loaded, _ = saved(model, base, tmp_path)
    assert relative_difference(output(loaded, x), output(model, x)) < 1e-5
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (6, 6) or config["r"] == 12
    assert config["rank_pattern"] == config["alpha_pattern"] != {}
    assert not any(name.endswith("proj") for name in config["target_modules"])


class _FourLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 12)
        self.mid = nn.ModuleDict({"fc": nn.Linear(12, 12)})
        self.out = nn.ModuleDict({"fc": nn.Linear(12, 12), "x-fc": nn.Linear(12, 12)})

    def forward(self, x):
        for layer in (self.fc, self.mid["fc"], self.out["fc"], self.out["x-fc"]):
            x = layer(x).tanh()
        return x


@pytest.mark.parametrize(
    "options",
    [
        {"include": "fc"},
        {"ranks": {"fc": (2, 1), "out.fc": (3, 0)}},
        {"exclude": "out.fc", "ranks": {"out.x-fc": (1, 1)}},
    ],
)
def test_names_that_end_alike_are_told_apart(options, tmp_path):
    base, x = _FourLayers(), torch.randn(3, 12)
    model = adapted(base, **options)
    loaded, _ = saved(model, base, tmp_path)
    assert relative_difference(output(loaded, x), output(model, x)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_of_the_base(dtype, tmp_path):
    base = nn.Sequential(nn.Linear(48, 64), nn.Tanh(), nn.Linear(64, 32)).to(dtype)
    model, x = adapted(base), torch.randn(4, 48, dtype=dtype)
    loaded, _ = saved(model, base, tmp_path)
    tolerance = 1e-12 if dtype == torch.float64 else 4 * torch.finfo(dtype).eps
    assert relative_difference(output(loaded, x), output(model, x)) < tolerance
    stored = {tensor.dtype for tensor in load_file(tmp_path / "adapter_model.safetensors").values()}
    assert stored == {torch.float64 if dtype == torch.float64 else torch.float32}


def test_truncation_is_the_best_of_its_rank_and_error_is_returned(tmp_path):
    base = nn.Sequential(nn.Linear(40, 30))
    model = adapted(base)
    change = model[0].weight.detach() - base[0].weight.detach()
    values = torch.linalg.svdvals(change.double())
    for rank in (1, 3, 12, 50):
        _, error = saved(model, copy.deepcopy(base), tmp_path, rank=rank)
        expected = float((values[rank:].square().sum() / values.square().sum()).sqrt())
        assert abs(error - expected) < 1e-5
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        A, B = (tensors[f"base_model.model.0.lora_{factor}.weight"] for factor in "AB")
        assert len(A) == B.shape[1] == min(rank, 12)
        assert abs(float((B @ A - change).norm() / change.norm()) - expected) < 1e-5


def test_untrained_model_is_saved_as_no_change(tmp_path):
    base, x = MODELS["timm"]()
    model = adapt(copy.deepcopy(base), r_main=4, r_sub=2)
    loaded, error = saved(model, base, tmp_path)
    assert error == 0
    assert torch.equal(output(loaded, x), output(base, x))


def test_active_adapters_alone_are_saved(tmp_path):
    base, x = MODELS["timm"]()
    model = adapted(base)
    with active(model, sub=False):
        expected = output(model, x)
        loaded, _ = saved(model, base, tmp_path)
    assert relative_difference(output(loaded, x), expected) < 1e-5


def test_wrapped_and_merged_model_has_plain_names(tmp_path):
    base, x = MODELS["timm"]()
    model = adapted(base)
    expected = output(model, x)
    merge(model)
    loaded, _ = saved(nn.DataParallel(model), base, tmp_path)
    assert relative_difference(output(loaded, x), expected) < 1e-5


def test_trained_head_is_saved_with_the_adapters(tmp_path):
    base, x = MODELS["timm"]()
    model = adapted(base, exclude="head")
    for module in (model.head, model.norm):
        module.requires_grad_(True)
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
    loaded, _ = saved(model, base, tmp_path)
    assert relative_difference(output(loaded, x), output(model, x)) < 1e-5


def test_saved_adapters_can_be_trained_on_in_peft(tmp_path):
    base, x = MODELS["hugging_face"]()
    loaded, _ = saved(adapted(base), base, tmp_path, is_trainable=True)
    loaded(x)[0].square().sum().backward()
    assert all(p.grad is not None for p in loaded.parameters() if p.requires_grad)


class _Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.called = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        x = nn.functional.linear(x, self.read.weight, self.read.bias)
        return self.called(x.to(self.called.weight.dtype))


def test_layer_whose_weight_is_read_is_named(tmp_path):
    model = adapted(_Reader())
    with pytest.warns(UserWarning, match=r"weight of 1 adapted layers \(read\)"):
        save_peft(model, tmp_path)


class _TwoPlaces(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(12, 12))
        self.b = nn.Sequential(self.a[0])


def _half_trained():
    model = adapt(nn.Sequential(nn.Linear(12, 12)), r_main=2, r_sub=1)
    model[0].bias.requires_grad_(True)
    return model


def _with_nan():
    model = adapt(nn.Sequential(nn.Linear(12, 12)), r_main=2, r_sub=1)
    nn.init.constant_(model[0].lora_A_main, float("nan"))
    return model


def _two_places():
    return adapt(_TwoPlaces(), r_main=2, r_sub=1)


def _attention():
    return adapt(nn.MultiheadAttention(24, 2), r_main=2, r_sub=1, exclude="in_proj*")


REFUSED = {
    "not adapted": (lambda: nn.Sequential(nn.Linear(4, 4)), "call adapt"),
    "no module": (lambda: "model", "must be an nn.Module, got str"),
    "one layer": (lambda: adapt(nn.Linear(12, 12), r_main=2, r_sub=1), "itself an adapted layer"),
    "meta": (
        lambda: adapt(nn.Sequential(nn.Linear(12, 12, device="meta")), r_main=2, r_sub=1),
        "meta device",
    ),
    "nan": (_with_nan, "lora_A_main of layer '0' holds NaN"),
    "two places": (_two_places, "'a.0' is part of several modules"),
    "attention": (_attention, "nn.MultiheadAttention"),
    "bias": (_half_trained, "got also 0.bias"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_peft_cannot_hold_is_refused(case, tmp_path):
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        save_peft(make(), tmp_path / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [0, -1, 2.0, True])
def test_rank_that_is_no_count_is_refused(rank, tmp_path):
    model = adapt(nn.Sequential(nn.Linear(12, 12)), r_main=2, r_sub=1)
    with pytest.raises(ValueError, match="rank must be a whole number from 1"):
        save_peft(model, tmp_path, rank=rank)


def test_failed_write_leaves_previous_folder(tmp_path, monkeypatch):
    folder, base = tmp_path / "lora", nn.Sequential(nn.Linear(24, 24))
    model = adapted(base)
    save_peft(model, folder, rank=2)
    (folder / "README.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", full_disk)
        save_peft(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    save_peft(model, folder)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "adapter_model.safetensors").read_bytes() != before[
        "adapter_model.safetensors"
    ]
