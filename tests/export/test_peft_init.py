import copy

import pytest
import torch
from torch import nn

from recyclelora.adapters.initialisers import INITIALISERS
from recyclelora.export import init_peft

from ..support.outside_models import MODELS, output, relative_difference

peft = pytest.importorskip("peft")

TARGETS = {
    "timm": ["qkv", "attn.proj", "fc1", "fc2"],
    "hugging_face": "all-linear",
    "conv1d": ["c_attn", "c_proj", "c_fc"],
    "two_kinds": ["0", "1"],
}


def lora(base, targets=("0",), **options):
    """Return a new LoRA on a copy of ``base``."""
    targets = targets if isinstance(targets, str) else list(targets)
    options = {"r": 6, "lora_alpha": 9} | options
    config = peft.LoraConfig(target_modules=targets, **options)
    return peft.get_peft_model(copy.deepcopy(base), config)


def one_linear(dtype=torch.float32):
    return nn.Sequential(nn.Linear(40, 24)).to(dtype)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("init", ["rrqr", "svd"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
def test_output_at_initialisation_is_that_of_the_base(kind, init):
    base, x = MODELS[kind]()
    model = lora(base, TARGETS[kind])
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert init_peft(model, init) is model
    assert relative_difference(output(model, x), output(base, x)) < 1e-5
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    assert all(p.count_nonzero() for name, p in model.named_parameters() if name in trainable)
    with model.disable_adapter():  # the residual, as with PiSSA
        assert relative_difference(output(model, x), output(base, x)) > 1e-2


@pytest.mark.parametrize("init", ["rrqr", "svd"])
@pytest.mark.parametrize(
    ("directions", "r_sub", "ranks"),
    [("both", None, (5, 1)), ("both", 2, (4, 2)), ("minor", None, (6, 0)), ("major", None, (0, 6))],
)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_factors_are_the_directions_that_were_asked_for(init, directions, r_sub, ranks, use_rslora):
    base = one_linear()
    model = lora(base, use_rslora=use_rslora)
    layer = model.base_model.model[0]
    init_peft(model, init, directions=directions, r_sub=r_sub)
    s = 9 / 6**0.5 if use_rslora else 9 / 6
    assert layer.scaling["default"] == pytest.approx(s)
    A, B, columns = INITIALISERS[init](base[0].weight.detach(), *ranks, s)
    if A is None:
        A = nn.functional.one_hot(columns, 40).float()
    torch.testing.assert_close(layer.lora_A["default"].weight.detach(), A, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.lora_B["default"].weight.detach(), B, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.base_layer.weight + s * B @ A, base[0].weight)


def test_ranks_and_alphas_of_single_layers_are_used():
    base, x = MODELS["timm"]()
    patterns = {"rank_pattern": {"fc1": 12}, "alpha_pattern": {"qkv": 1}}
    model = lora(base, TARGETS["timm"], **patterns)
    init_peft(model)
    assert relative_difference(output(model, x), output(base, x)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast_adapter_dtype", [True, False])
def test_precision_of_base_and_factors_is_kept(dtype, autocast_adapter_dtype):
    base, x = one_linear(dtype), torch.randn(5, 40, dtype=dtype)
    config = peft.LoraConfig(r=6, lora_alpha=6, target_modules=["0"])
    model = peft.get_peft_model(
        copy.deepcopy(base), config, autocast_adapter_dtype=autocast_adapter_dtype
    )
    before = {name: p.dtype for name, p in model.named_parameters()}
    init_peft(model)
    assert {name: p.dtype for name, p in model.named_parameters()} == before
    tolerance = 1e-12 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps
    assert relative_difference(output(model, x), output(base, x)) < tolerance


def test_dropout_and_modules_to_save_stay():
    base, x = MODELS["timm"]()
    model = lora(base, TARGETS["timm"], lora_dropout=0.3, modules_to_save=["head"], lora_bias=True)
    init_peft(model)
    assert relative_difference(output(model, x), output(base, x)) < 1e-5
    assert not torch.equal(model.train()(x), model(x))
    assert model.base_model.model.head.modules_to_save["default"].weight.requires_grad


def test_trained_lora_is_saved_for_the_original_base(tmp_path):
    base, x = MODELS["timm"]()
    model = lora(base, TARGETS["timm"])
    init_peft(model)
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    expected = output(model, x)
    before = str(tmp_path / "before")
    model.save_pretrained(tmp_path / "lora", path_initial_model_for_weight_conversion=before)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "lora"))
    assert relative_difference(output(loaded, x), expected) < 1e-5


def test_layers_that_are_not_linear_stay_with_a_warning():
    base, x = MODELS["timm"]()
    model = lora(base, ["qkv", "proj"])  # "proj" also matches the convolution of the patches
    with pytest.warns(UserWarning, match=r"1 LoRA layers are not linear .*patch_embed.proj"):
        init_peft(model)
    assert relative_difference(output(model, x), output(base, x)) < 1e-5


def test_layers_injected_without_a_peft_model_are_initialised():
    base, x = MODELS["timm"]()
    config = peft.LoraConfig(r=6, target_modules=TARGETS["timm"])
    model = peft.inject_adapter_in_model(config, copy.deepcopy(base), adapter_name="night")
    init_peft(model)
    assert relative_difference(output(model, x), output(base, x)) < 1e-5


def _several():
    model = lora(one_linear())
    model.add_adapter("night", peft.LoraConfig(r=4, target_modules=["0"]))
    return model


def _merged():
    model = lora(one_linear())
    model.merge_adapter()
    return model


def _disabled():
    model = lora(one_linear())
    model.base_model.disable_adapter_layers()
    return model


def _trained():
    model = lora(one_linear())
    nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
    return model


def _twice():
    return init_peft(lora(one_linear()))


def _shared():
    base = nn.ModuleDict({"embed": nn.Embedding(24, 40), "head": nn.Linear(40, 24, bias=False)})
    base["head"].weight = base["embed"].weight
    return lora(base, ["head"])


def _not_finite():
    base = nn.Sequential(nn.Linear(40, 24), nn.Linear(24, 40))
    nn.init.constant_(base[1].weight, float("nan"))
    return lora(base, ["0", "1"])


REFUSED = {
    "no module": (lambda: "model", "must be an nn.Module, got str"),
    "no layers": (one_linear, "has no LoRA on linear layers"),
    "several": (_several, "layer .* has 2 adapters"),
    "merged": (_merged, "layer .* is merged"),
    "trained": (_trained, "trained or initialised already"),
    "twice": (_twice, "trained or initialised already"),
    "pissa": (lambda: lora(one_linear(), init_lora_weights="pissa"), "initialised already"),
    "shared": (_shared, "shared with another module"),
    "not finite": (_not_finite, "holds NaN or Inf"),
    "rank above the sides": (lambda: lora(one_linear(), r=30), "above min"),
    "rank 1": (lambda: lora(one_linear(), r=1), "has rank 1, which leaves no minor direction"),
    "alpha 0": (lambda: lora(one_linear(), lora_alpha=0), "lora_alpha must be above 0"),
    "embedding": (
        lambda: lora(nn.Sequential(nn.Embedding(24, 40))),
        "has no LoRA on linear layers",
    ),
    "attention": (lambda: lora(nn.Sequential(nn.MultiheadAttention(24, 2))), "not a plain LoRA"),
    "dora": (lambda: lora(one_linear(), use_dora=True), "not a plain LoRA on .*DoraLinearVariant"),
    "disabled": (_disabled, "is not active"),
    "meta": (lambda: lora(one_linear().to("meta")), "meta weight"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_initialised_is_refused_unchanged(case):
    make, message = REFUSED[case]
    model = make()
    state = copy.deepcopy(model.state_dict()) if isinstance(model, nn.Module) else {}
    with pytest.raises((TypeError, ValueError), match=message):
        init_peft(model)
    for name, tensor in state.items():
        assert tensor.is_meta or model.state_dict()[name].equal(tensor) or tensor.isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "pissa"}, "init must be rrqr or svd, got 'pissa'"),
        ({"directions": "up"}, "directions must be one of both, minor, major, got 'up'"),
        ({"r_sub": 0}, "r_sub must be a whole number from 1"),
        ({"r_sub": 6}, "leaves no minor direction in addition to 6"),
        ({"r_sub": 2, "directions": "minor"}, "leave r_sub out"),
    ],
)
def test_invalid_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        init_peft(lora(one_linear()), **options)
