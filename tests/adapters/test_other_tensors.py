import copy

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapted_layers, load_adapters, save_adapters

from ..support.adapter_files import read_header_and_tensors
from ..support.trained_adapters import learn


class Classifier(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 12)
        self.block = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Linear(12, 12))
        self.head = nn.Linear(12, classes)
        self.register_buffer("mask", torch.ones(1, 12).expand(3, 12), persistent=True)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x):
        return self.head(self.block(self.embedding(x)))


def trained(**settings):
    model = adapt(Classifier(), 3, 2, exclude="head", **settings)
    learn(model)
    with torch.no_grad():
        for module in (model.head, model.block[1], model.embedding):
            for parameter in module.parameters():
                parameter.add_(0.1)
        model.block[0].bias.add_(1)
    model(torch.arange(7))  # running statistics
    return model.eval()


ALL = ["head", "block.1", "*.bias", "embedding.weight"]


def test_also_puts_back_head_norm_bias_and_buffers(tmp_path):
    model, x = trained(), torch.arange(7)
    save_adapters(model, tmp_path / "a.safetensors", also=ALL)
    header, _ = read_header_and_tensors(tmp_path / "a.safetensors")
    assert {"head.weight", "block.0.bias", "block.1.num_batches_tracked"} <= header["also"].keys()
    assert not {"mask", "scratch"} & header["also"].keys()
    base = Classifier()
    head = base.head.weight
    loaded = load_adapters(base, tmp_path / "a.safetensors").eval()
    assert torch.equal(loaded(x), model(x))
    assert loaded.head.weight is head and head.requires_grad
    adapted = adapt(Classifier(), 3, 2, exclude="head")
    assert torch.equal(load_adapters(adapted, tmp_path / "a.safetensors").eval()(x), model(x))


def test_also_one_pattern_selects_nothing_else(tmp_path):
    save_adapters(trained(), tmp_path / "a.safetensors", also="head.*")
    header, _ = read_header_and_tensors(tmp_path / "a.safetensors")
    assert sorted(header["also"]) == ["head.bias", "head.weight"]


@pytest.mark.parametrize(
    ("also", "error", "message"),
    [
        ("hed", ValueError, "the pattern 'hed' in also matches no parameter"),
        (["head", "block.0.lora_*"], ValueError, "matches no parameter or buffer outside"),
        ([3], TypeError, "also must be one or several glob patterns"),
        ("scratch", ValueError, "matches no parameter"),
        ("mask", ValueError, "mask cannot be saved: it is an expanded view"),
    ],
)
def test_also_invalid_raises_nothing_written(also, error, message, tmp_path):
    with pytest.raises(error, match=message):
        save_adapters(trained(), tmp_path / "a.safetensors", also=also)
    assert not [*tmp_path.iterdir()]


OTHERS = {
    "more classes": (
        lambda: Classifier(classes=6),
        r"'head\.weight' has shape \[6, 12\] in the model",
    ),
    "no head": (lambda: without("head"), "'head.weight' is in the file but not in the model"),
    "no bias": (lambda: no_bias(), "'block.0.bias' is in the file but not in the model"),
    "whole numbers": (lambda: whole_numbers(), "is torch.int64 in the model and torch.float32"),
    "no values": (lambda: meta_head(), "'head.weight' is on the meta device"),
}


def without(name):
    model = Classifier()
    delattr(model, name)
    return model


def no_bias():
    model = Classifier()
    model.block[0].bias = None
    return model


def whole_numbers():
    model = Classifier()
    model.block[1].running_mean = torch.zeros(12, dtype=torch.int64)
    return model


def meta_head():
    model = Classifier()
    model.head.to("meta")
    return model


@pytest.mark.parametrize("fault", OTHERS)
def test_also_mismatch_raises_nothing_changed(fault, tmp_path):
    make, message = OTHERS[fault]
    save_adapters(trained(), tmp_path / "a.safetensors", also=ALL)
    model = make()
    before = {k: v.clone() for k, v in model.state_dict().items() if not v.is_meta}
    with pytest.raises(ValueError, match=message):
        load_adapters(model, tmp_path / "a.safetensors")
    after = model.state_dict()
    assert not adapted_layers(model) and all(torch.equal(after[k], before[k]) for k in before)


def test_also_tied_weights_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.block = nn.Embedding(50, 12), nn.Linear(12, 12)
            self.head = nn.Linear(12, 50, bias=False)
            self.head.weight = self.embedding.weight

    model = adapt(Tied(), 3, 2, exclude="head")
    model.embedding.weight.data.add_(1)
    save_adapters(model, tmp_path / "a.safetensors", also=["embedding", "head"])
    header, tensors = read_header_and_tensors(tmp_path / "a.safetensors")
    assert header["also"] == dict.fromkeys(["embedding.weight", "head.weight"], "embedding.weight")
    assert "head.weight" not in tensors
    loaded, untied = Tied(), Tied()
    untied.head.weight = nn.Parameter(torch.zeros(50, 12))
    for other in (loaded, untied):
        load_adapters(other, tmp_path / "a.safetensors")
        assert torch.equal(other.head.weight, model.head.weight)
        assert torch.equal(other.embedding.weight, model.head.weight)
    assert loaded.head.weight is loaded.embedding.weight


def test_also_in_half_precision_is_cast(tmp_path):
    model = trained()
    save_adapters(model, tmp_path / "a.safetensors", also="head")
    base = Classifier()
    base.head.bfloat16()
    loaded = load_adapters(base, tmp_path / "a.safetensors")
    assert torch.equal(loaded.head.weight, model.head.weight.bfloat16())


def test_also_names_of_wrapped_model_are_plain(tmp_path):
    model, x = trained(), torch.arange(7)
    outer = nn.DataParallel(copy.deepcopy(model))
    outer.module.head = torch.compile(outer.module.head, backend="eager")
    save_adapters(outer, tmp_path / "a.safetensors", also=ALL)
    assert torch.equal(load_adapters(Classifier(), tmp_path / "a.safetensors").eval()(x), model(x))
