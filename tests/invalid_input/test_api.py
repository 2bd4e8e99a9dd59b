"""Public calls with invalid arguments raise TypeError or ValueError with one message."""

import numpy as np
import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear, adapt, rrqr
from recyclelora.adapters import (
    activate_pair,
    add_pair,
    export,
    load_adapters,
    merge,
    save_adapters,
)
from recyclelora.backbone import (
    AnyViT,
    DinoVisionTransformer,
    Eva02VisionTransformer,
    load_weights,
)
from recyclelora.baselines import Rein, dora, fine_tune, soma
from recyclelora.data import Folding, LabelMap, TrainMapper, build_train_loader, register_folder
from recyclelora.engine import Checkpoints, PolyWithAnnealedDecay, parameter_groups
from recyclelora.evaluation import Protocol, native
from recyclelora.mask2former import build_segmentor
from recyclelora.ops import dual_lora_linear

EYE = torch.eye(3)


def linear():
    return nn.Linear(8, 8)


def adapted():
    return adapt(nn.Sequential(linear()), r_main=2, r_sub=1)


def vit():
    return DinoVisionTransformer(img_size=32, patch_size=16, embed_dim=24, depth=4, num_heads=2)


def with_weight(convert):
    module = nn.Sequential(linear())
    module[0].weight = nn.Parameter(convert(module[0].weight.detach()), requires_grad=False)
    return module


def with_nan():
    layer = linear()
    nn.init.constant_(layer.weight, torch.nan)
    return layer


CALLS = {
    "adapt: a list": (lambda: adapt([linear()]), "module must be an nn.Module, got list"),
    "adapt: a rank of text": (lambda: adapt(linear(), "2"), "r_main must be an int, got '2'"),
    "adapt: a rank of True": (lambda: adapt(linear(), True), "r_main must be an int, got True"),
    "adapt: a negative rank": (lambda: adapt(linear(), 2, -1), "r_sub must be 0 or more"),
    "adapt: ranks too high": (lambda: adapt(linear()), "choose lower ranks"),
    "adapt: alpha of True": (lambda: adapt(linear(), 2, 1, alpha=True), "alpha must be a finite"),
    "adapt: alpha NaN": (lambda: adapt(linear(), 2, 1, alpha=torch.nan), "alpha must be a finite"),
    "adapt: another init": (lambda: adapt(linear(), 2, 1, init=["rrqr"]), "init must be one of"),
    "adapt: twice": (lambda: adapt(adapted(), 2, 1), "adapted already"),
    "adapt: NaN": (lambda: adapt(with_nan(), 2, 1), "holds NaN or Inf"),
    "adapt: whole numbers": (
        lambda: adapt(linear().to(torch.complex64), 2, 1),
        "must have a floating-point weight",
    ),
    "adapt: sparse": (lambda: adapt(with_weight(torch.Tensor.to_sparse), 2, 1), "a dense weight"),
    "adapt: sparse rows": (
        lambda: adapt(with_weight(torch.Tensor.to_sparse_csr), 2, 1),
        "'0' must have a dense weight, got torch.sparse_csr",
    ),
    "from_linear: a convolution": (
        lambda: DualLoRALinear.from_linear(nn.Conv2d(3, 3, 1), 1, 1),
        "must be an nn.Linear, got Conv2d",
    ),
    "fine_tune: a list": (lambda: fine_tune([linear()]), "module must be an nn.Module, got list"),
    "fine_tune: no parameter": (lambda: fine_tune(nn.AvgPool2d(2)), "depends on no parameter"),
    "dora: a list": (lambda: dora([linear()]), "module must be an nn.Module, got list"),
    "dora: a rank of text": (lambda: dora(linear(), "2"), "rank must be a whole number from 1"),
    "dora: a rank too high": (lambda: dora(linear(), 9), "rank=9 is above min(out, in) = 8"),
    "dora: alpha NaN": (lambda: dora(linear(), 2, torch.nan), "alpha must be a number"),
    "dora: adapted": (lambda: dora(adapted(), 2), "the module is adapted already"),
    "soma: a linear": (
        lambda: soma(linear()),
        "must be a ViT with blocks, embed_dim",
    ),
    "soma: no such block": (
        lambda: soma(vit(), 2),
        "first_block must be a whole number from 0 to 3",
    ),
    "soma: adapted": (lambda: soma(adapt(vit(), 2, 1), 2, 0), "the module is adapted already"),
    "Rein: a linear": (
        lambda: Rein(linear()),
        "without blocks, embed_dim, patch_size",
    ),
    "Rein: one token": (lambda: Rein(vit(), 1), "num_tokens must be a whole number from 2"),
    "rrqr: whole numbers": (lambda: rrqr(EYE.long(), 1, 1), "must be float32 or float64"),
    "rrqr: half": (lambda: rrqr(EYE.half(), 1, 1), "must be float32 or float64"),
    "rrqr: a list": (lambda: rrqr([[1.0]], 1, 1), "must be a torch.Tensor, got list"),
    "rrqr: an array": (lambda: rrqr(np.eye(3), 1, 1), "must be a torch.Tensor, got ndarray"),
    "rrqr: a vector": (lambda: rrqr(EYE[0], 1, 1), "must be (..., d, k)"),
    "rrqr: sparse": (lambda: rrqr(EYE.to_sparse(), 1, 1), "call to_dense() first"),
    "rrqr: NaN": (lambda: rrqr(EYE * torch.nan, 1, 1), "holds NaN or Inf"),
    "rrqr: too many": (lambda: rrqr(EYE, 4, 1), "n_major must be 0..min(d, k)"),
    "rrqr: astronomically many": (lambda: rrqr(EYE, 10**30, 1), "n_major must be 0..min(d, k)"),
    "rrqr: a fraction": (lambda: rrqr(EYE, 1, 1.0), "n_minor must be an int"),
    "dual_lora_linear: fractions": (
        lambda: dual_lora_linear(EYE, EYE, None, EYE, EYE, EYE, EYE, 1.0, EYE[0]),
        "columns must be (n,) and int64",
    ),
    "dual_lora_linear: outside": (
        lambda: dual_lora_linear(EYE, EYE, None, *[EYE] * 4, 1.0, torch.tensor([7, 0, 1])),
        "columns must be 0..2",
    ),
    "save_adapters: none": (lambda: save_adapters(linear(), "a.pt"), "no adapters to save"),
    "save_adapters: a folder": (lambda: save_adapters(adapted(), "/tmp"), "name a file in it"),
    "save_adapters: nowhere": (
        lambda: save_adapters(adapted(), "/nowhere/a.pt"),
        "there is no folder /nowhere",
    ),
    "load_adapters: a name": (lambda: load_adapters(linear(), "a", "b.c"), "must be a plain word"),
    "load_adapters: nowhere": (lambda: load_adapters(linear(), "/nowhere"), "no adapter file"),
    "add_pair: twice": (lambda: add_pair(adapted(), "default", 2, 1), "choose another name"),
    "activate_pair: unknown": (lambda: activate_pair(adapted(), "x"), "the pairs are: default"),
    "merge: a number": (lambda: merge(3), "must be an nn.Module, got int"),
    "export: text": (lambda: export("model"), "must be an nn.Module, got str"),
    "ViT: a size of text": (lambda: DinoVisionTransformer(embed_dim="384"), "embed_dim must be"),
    "ViT: bytes": (lambda: vit()(torch.zeros(1, 3, 32, 32).byte()), "normalised floats"),
    "ViT: an array": (lambda: vit()(np.zeros((1, 3, 32, 32))), "got ndarray"),
    "ViT: one image": (lambda: vit()(torch.zeros(3, 32, 32)), "images must be (B, 3, H, W)"),
    "ViT: four channels": (lambda: vit()(torch.zeros(1, 4, 32, 32)), "images must be (B, 3, H, W)"),
    "ViT: an odd size": (lambda: vit()(torch.zeros(1, 3, 33, 32)), "multiples of the patch size"),
    "ViT: no pixels": (lambda: vit()(torch.zeros(1, 3, 0, 32)), "multiples of the patch size"),
    "EVA-02: seven heads": (lambda: Eva02VisionTransformer(num_heads=7), "4 * num_heads"),
    "EVA-02: a ratio of text": (lambda: Eva02VisionTransformer(mlp_ratio="4"), "mlp_ratio must be"),
    "AnyViT: no patches": (
        lambda: AnyViT(nn.Identity(), lambda _, images: [images] * 4, img_size=32),
        "must return maps of 2x2 patches",
    ),
    "load_weights: into a linear": (lambda: load_weights(linear(), None), "got Linear"),
    "load_weights: a number": (lambda: load_weights(vit(), 3), "weights must be a path"),
    "segmentor: no backbone": (lambda: build_segmentor(None), "backbone must be a Detectron2"),
    "segmentor: a linear": (lambda: build_segmentor(linear()), "backbone must be a Detectron2"),
    "segmentor: no queries": (lambda: build_segmentor(vit(), num_queries=0), "num_queries must"),
    "register_folder: a number": (
        lambda: register_folder(3, images="a", labels="b"),
        "name must be text, got 3",
    ),
    "LabelMap: a list": (lambda: LabelMap("x", [1, 2]), "must be a dict of whole numbers"),
    "LabelMap: names": (lambda: LabelMap("x", {"road": 0}), "must be a dict of whole numbers"),
    "LabelMap: class 19": (lambda: LabelMap("x", {0: 19}), "must map ids 0..65535 to train ids"),
    "LabelMap: a huge id": (lambda: LabelMap("x", {10**9: 1}), "must map ids 0..65535"),
    "LabelMap: channel 9": (lambda: LabelMap("x", {0: 1}, channel=9), "channel must be 0 (red)"),
    "Folding: text": (lambda: Folding("x", "road"), "must map Cityscapes classes"),
    "TrainMapper: text": (lambda: TrainMapper("64"), "crop, in pixels, must be a whole number"),
    "loader: unknown": (
        lambda: build_train_loader("nope", TrainMapper(), 4, 0),
        "name of a registered dataset, got 'nope'",
    ),
    "Protocol: sizes of text": (lambda: Protocol("x", sizes={"a": "big"}), "benchmark -> (W, H)"),
    "Protocol: huge sizes": (lambda: Protocol("x", sizes={"a": (10**9, 9)}), "1 to 16,384 pixels"),
    "native: text": (lambda: native(long_side="big"), "long_side must be a whole number"),
    "schedule: none": (lambda: PolyWithAnnealedDecay(iterations=0), "iterations must be"),
    "parameter_groups: a number": (
        lambda: parameter_groups(model=3, lr=1, weight_decay=0),
        "must be an nn.Module, got int",
    ),
    "Checkpoints: keep none": (lambda: Checkpoints("a", keep=0), "at least one checkpoint"),
}


@pytest.mark.parametrize("call", CALLS)
def test_invalid_call_raises_one_message(call):
    function, words = CALLS[call]
    with pytest.raises((TypeError, ValueError, IndexError, FileNotFoundError)) as stopped:
        function()
    assert words in str(stopped.value) and "\n" not in str(stopped.value).strip()


def test_register_folder_accepts_a_single_suffix(tmp_path, tiny_set):
    name = tiny_set("one_suffix", count=2, image_suffix=".png")
    from detectron2.data import DatasetCatalog

    assert len(DatasetCatalog.get(name)) == 2
