"""EVA-02 compared with its formulas and with timm, and its properties for any image."""

import copy

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn
from torch.nn import functional as F

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, merged
from recyclelora.backbone import Eva02VisionTransformer, load_weights, presets
from recyclelora.backbone.rotary import rotate, rotations

SIZE = {"embed_dim": 48, "depth": 4, "num_heads": 3}


def tiny(**overrides) -> Eva02VisionTransformer:
    """Set all parameters to random numbers, so that no confusion of parameters goes unnoticed."""
    settings = {"img_size": 56, "patch_size": 14, "out_indices": [0, 1, 2, 3], **SIZE}
    model = Eva02VisionTransformer(**{**settings, **overrides})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def tokens_after_blocks(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of all blocks of ``model.blocks``, ours or timm's."""
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in model.blocks
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return outputs


def turned(heads: torch.Tensor, rows: int, columns: int, side: int) -> torch.Tensor:
    """Rotate patches (B, heads, rows * columns, dim) as complex numbers, by exp(i angle)."""
    dim = heads.shape[-1]
    plane = torch.arange(dim // 4, dtype=torch.float64)
    slowness = 10000.0 ** (2 * plane / (dim // 2))
    position = torch.arange(rows * columns)
    down, right = position.div(columns, rounding_mode="floor") / rows, position % columns / columns
    angle = torch.cat([side * at[:, None].double() / slowness for at in (down, right)], dim=1)
    pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.exp(1j * angle)).flatten(-2)


def by_the_formulas(state: dict, images: torch.Tensor, patch: int, heads: int) -> list:
    """Compute the tokens of every block in float64 from the official keys, one formula per line."""
    w = {name: tensor.double() for name, tensor in state.items()}
    batch, rows, columns = len(images), images.shape[2] // patch, images.shape[3] // patch

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-6)

    patches = F.unfold(images.double(), patch, stride=patch).transpose(1, 2)
    patches = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x = torch.cat([w["cls_token"].expand(batch, -1, -1), patches], dim=1) + w["pos_embed"]
    outputs = []
    for number in range(sum(name.endswith(".attn.k_proj.weight") for name in w)):
        block = f"blocks.{number}"
        h = norm(x, f"{block}.norm1")
        q = h @ w[f"{block}.attn.q_proj.weight"].T + w[f"{block}.attn.q_bias"]
        k = h @ w[f"{block}.attn.k_proj.weight"].T
        v = h @ w[f"{block}.attn.v_proj.weight"].T + w[f"{block}.attn.v_bias"]
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = (
            torch.cat([t[:, :, :1], turned(t[:, :, 1:], rows, columns, 16)], dim=2) for t in (q, k)
        )
        scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        mixed = (scores @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ w[f"{block}.attn.proj.weight"].T + w[f"{block}.attn.proj.bias"]
        h = norm(x, f"{block}.norm2")
        gate, value = (
            h @ w[f"{block}.mlp.{n}.weight"].T + w[f"{block}.mlp.{n}.bias"] for n in ("w1", "w2")
        )
        h = norm(F.silu(gate) * value, f"{block}.mlp.ffn_ln")
        x = x + h @ w[f"{block}.mlp.w3.weight"].T + w[f"{block}.mlp.w3.bias"]
        outputs.append(x)
    return outputs


def official(model: Eva02VisionTransformer) -> dict[str, torch.Tensor]:
    """Return the state dict of the authors' pretraining, including tensors that we leave out."""
    state = {
        name.replace("q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias"): tensor
        for name, tensor in model.state_dict().items()
    }
    dim = model.embed_dim
    for name in ("rope", *(f"blocks.{number}.attn.rope" for number in range(len(model.blocks)))):
        state |= {f"{name}.freqs_{part}": torch.ones(256, 16) for part in ("cos", "sin")}
    state |= {"mask_token": torch.ones(1, 1, dim), "lm_head.weight": torch.ones(7, dim)}
    return state | {name: torch.ones(dim) for name in ("norm.weight", "norm.bias")}


@pytest.mark.parametrize("wrap", [dict, lambda s: {"model": s}, lambda s: {"module": s}])
def test_official_file_gives_the_formulas_tokens(tmp_path, wrap):
    state = official(tiny())
    torch.save(wrap(state), tmp_path / "eva02.pt")
    ours = load_weights(tiny(), tmp_path / "eva02.pt").double()
    images = torch.randn(2, 3, 56, 56)
    theirs = by_the_formulas(state, images, patch=14, heads=3)
    got = tokens_after_blocks(ours, images.double())
    assert len(got) == len(theirs) == 4
    for our_tokens, their_tokens in zip(got, theirs):
        torch.testing.assert_close(our_tokens, their_tokens, atol=1e-9, rtol=1e-9)


def timm_eva02(**overrides) -> nn.Module:
    """Return timm's eva02_base_patch14_224 or eva02_large_patch14_224 with random weights."""
    timm = pytest.importorskip("timm", reason="compares with timm: pip install recyclelora[timm]")
    settings = {
        "img_size": 56,
        "patch_size": 14,
        "num_classes": 5,
        "qkv_fused": False,
        "mlp_ratio": 4 * 2 / 3,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (16, 16),
        "dynamic_img_size": True,
        **SIZE,
    }
    return timm.models.eva.Eva(**{**settings, **overrides}).eval()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(56, 56), (112, 84), (28, 70)])
def test_every_block_agrees_with_timm(tmp_path, size):
    """The features agree on the grid of the position embedding, a larger and a smaller one."""
    theirs = timm_eva02()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    ours = load_weights(tiny(interpolate_antialias=True), tmp_path / "timm.pth")
    images = torch.randn(2, 3, *size)
    compared = zip(tokens_after_blocks(ours, images), tokens_after_blocks(theirs, images))
    for number, (our_tokens, their_tokens) in enumerate(compared):
        assert their_tokens.std() > 0.5, number
        torch.testing.assert_close(our_tokens, their_tokens, atol=1e-4, rtol=0)
    assert number == 3


@pytest.mark.slow
@torch.no_grad()
def test_patch_14_file_at_patch_16_agrees_with_timm(tmp_path):
    """Weights resampled by our loader give the same outputs in timm's model with patch 16."""
    patch_14, patch_16 = timm_eva02(), timm_eva02(patch_size=16, img_size=(96, 64))
    torch.save(patch_14.state_dict(), tmp_path / "timm.pth")
    ours = load_weights(tiny(patch_size=16, img_size=(96, 64)), tmp_path / "timm.pth")
    theirs = patch_14.state_dict()
    for name in ("patch_embed.proj.weight", "pos_embed"):
        assert ours.state_dict()[name].shape == patch_16.state_dict()[name].shape
        theirs[name] = ours.state_dict()[name]
    patch_16.load_state_dict(theirs)
    images = torch.randn(1, 3, 96, 64)
    for pair in zip(tokens_after_blocks(ours, images), tokens_after_blocks(patch_16, images)):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_released_size_agrees_with_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="compares with timm: pip install recyclelora[timm]")
    theirs = timm.create_model("eva02_large_patch14_224", num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    ours = load_weights(Eva02VisionTransformer(**presets.VIT_L), tmp_path / "timm.pth").eval()
    images = torch.randn(1, 3, 224, 224)
    compared = list(zip(tokens_after_blocks(ours, images), tokens_after_blocks(theirs, images)))
    assert len(compared) == 24
    for pair in compared:
        torch.testing.assert_close(*pair, atol=1e-4, rtol=0)


def test_rotated_products_depend_on_relative_position():
    """The product of a query and a key depends only on the distance between their patches."""
    cos_sin = rotations((4, 5), 16, trained_side=16, like=torch.zeros(1, dtype=torch.float64))
    assert cos_sin.shape == (2, 20, 16) and cos_sin.dtype == torch.float64
    query, key = torch.randn(2, 16, dtype=torch.float64)
    queries, keys = (rotate(head.expand(21, 16), cos_sin) for head in (query, key))
    assert torch.equal(queries[0], query)  # cls has no position
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(21))
    products = (queries[1:] @ keys[1:].T).reshape(4, 5, 4, 5)
    torch.testing.assert_close(products[0, 0, 1, 2], products[2, 2, 3, 4])
    assert not torch.isclose(products[0, 0, 1, 2], products[0, 0, 2, 1])


def test_rotations_of_any_grid_span_the_pretraining_grid():
    coarse = rotations((2, 2), 8, trained_side=16, like=torch.zeros(1))
    fine = rotations((4, 8), 8, trained_side=16, like=torch.zeros(1)).unflatten(1, (4, 8))
    torch.testing.assert_close(fine[:, ::2, ::4].flatten(1, 2), coarse)


@pytest.mark.parametrize("size", [(32, 32), (32, 112), (176, 48)])
@torch.no_grad()
def test_pyramid_of_any_image_size_has_scaled_shapes(size):
    model = tiny(patch_size=16)
    shapes = [tuple(level.shape) for level in model(torch.randn(1, 3, *size)).values()]
    rows, columns = size[0] // 16, size[1] // 16
    assert shapes == [(1, 48, int(rows * s), int(columns * s)) for s in (4, 2, 1, 0.5)]


@torch.no_grad()
def test_model_from_meta_device_computes_the_same():
    """Build the model as a resumed run does; rotary positions must not remain on meta."""
    model, images = tiny(patch_size=16, img_size=64), torch.randn(1, 3, 64, 96)
    with torch.device("meta"):
        again = tiny(patch_size=16, img_size=64)
        assert again(images.to("meta"))["res2"].shape == (1, 48, 16, 24)
    again.load_state_dict(model.state_dict(), assign=True)
    for level, feature in model(images).items():
        assert torch.equal(again(images)[level], feature)


def test_adapters_reach_every_linear_and_keep_the_output():
    model, images = tiny(patch_size=16, img_size=64), torch.randn(1, 3, 64, 96)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    kinds = {name.split(".", 2)[2] for name in linears}
    assert kinds == {f"attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "proj")} | {
        f"mlp.{n}" for n in ("w1", "w2", "w3")
    }
    before = {level: feature.detach() for level, feature in model(images).items()}
    adapted = adapt(copy.deepcopy(model), r_main=6, r_sub=2)
    for level, feature in adapted(images).items():
        torch.testing.assert_close(feature, before[level], atol=1e-4, rtol=1e-4)
    main, sub = adapter_parameters(adapted)
    assert len(main) == len(sub) == 2 * 7 * 4
    trainable = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trainable == {*main, *sub}  # norms, biases, tokens and positions stay
    sum(level.square().sum() for level in adapted(images).values()).backward()
    for name, parameter in (main | sub).items():
        assert parameter.grad.abs().sum() > 0, name
    with torch.no_grad():
        for parameter in (main | sub).values():
            parameter += 0.1 * torch.randn_like(parameter)
        unmerged = adapted(images)
        assert not torch.allclose(unmerged["res2"], before["res2"], atol=1e-2)
        with merged(adapted):
            for level, feature in adapted(images).items():
                torch.testing.assert_close(feature, unmerged[level], atol=1e-4, rtol=1e-4)


def test_parameter_counts_of_released_sizes():
    """The model has 304 M parameters, and adapters on seven matrices per block."""
    with torch.device("meta"):
        base = Eva02VisionTransformer(**presets.VIT_B)
        large = Eva02VisionTransformer(**presets.VIT_L, patch_size=16, img_size=512)
        large = adapt(large)
    assert sum(p.numel() for p in base.parameters()) / 1e6 == pytest.approx(85.8, abs=0.1)
    assert large.out_indices == (7, 11, 15, 23)
    dim, hidden = 1024, 2730
    per_block = 36 * (4 * (dim + dim) + 3 * (dim + hidden))
    trainable = sum(p.numel() for p in large.parameters() if p.requires_grad)
    assert trainable == 24 * per_block == 16_808_256
    frozen = sum(p.numel() for p in large.parameters() if not p.requires_grad)
    assert frozen / 1e6 == pytest.approx(304, abs=1)


def test_checkpointing_gives_identical_gradients():
    model, images = tiny(patch_size=16), torch.randn(2, 3, 64, 32)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model.checkpointing = checkpointing
        model.zero_grad()
        sum(level.square().sum() for level in model(images).values()).backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    kept, recomputed = gradients(False), gradients(True)
    for name in kept:
        assert kept[name].abs().sum() > 0 and torch.equal(kept[name], recomputed[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_output_is_near_float32(dtype):
    model, images = tiny(patch_size=16), torch.randn(1, 3, 64, 64)
    exact = model(images)
    with torch.autocast("cpu", dtype=dtype):
        rounded = model(images)
    for level in exact:
        assert rounded[level].dtype == torch.float32  # the residual stream
        error = (rounded[level] - exact[level]).norm() / exact[level].norm()
        assert 0 < error < 10 * torch.finfo(dtype).eps


@pytest.mark.slow
def test_compile_gives_one_graph():
    model, images = tiny(patch_size=16), torch.randn(1, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for level, feature in compiled(images).items():
        torch.testing.assert_close(feature, model(images)[level])


def test_lazy_config_and_registry_build_equal_models():
    arguments = {"img_size": 64, "patch_size": 16, **SIZE}
    lazy = instantiate(LazyCall(Eva02VisionTransformer)(**arguments))
    registered = BACKBONE_REGISTRY.get("Eva02VisionTransformer")(**arguments)
    assert lazy.out_indices == registered.out_indices == (1, 1, 2, 3)
    assert lazy.state_dict().keys() == registered.state_dict().keys()
    assert registered.size_divisibility == 32


def without(state: dict, name: str) -> dict:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: without(s, "blocks.1.attn.q_bias"), r"missing: blocks\.1\.attn\.q_proj\.bias"),
        (lambda s: s | {"blocks.0.attn.k_bias": torch.ones(48)}, r"unexpected: blocks\.0\.attn\.k"),
        (lambda s: s | {"blocks.0.mlp.w1.bias": torch.ones(3)}, r"wrong shape: .*w1\.bias \(3,\)"),
        (lambda s: s | {"cls_token": torch.full((1, 1, 48), torch.nan)}, "not finite: cls_token"),
        (lambda s: {f"{k}.{n}": t for k in "ab" for n, t in s.items()}, "weights of one ViT"),
    ],
)
def test_mismatched_checkpoint_raises_and_changes_nothing(tmp_path, spoil, sentence):
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    torch.save(spoil(official(tiny())), tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=sentence):
        load_weights(model, tmp_path / "wrong.pt")
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"out_indices": [0, 1, 2]}, "out_indices must name four blocks"),
        ({"num_heads": 5}, r"embed_dim must be a multiple of 4 \* num_heads.* got 48 and 5"),
        ({"num_heads": 8}, r"embed_dim must be a multiple of 4 \* num_heads.* got 48 and 8"),
        ({"pt_hw_seq_len": 0}, "pt_hw_seq_len must be a whole number from 1"),
        ({"img_size": 8}, "smaller than one patch"),
    ],
)
def test_invalid_arguments_raise(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**arguments)


def test_invalid_images_raise():
    with pytest.raises(ValueError, match="multiples of the patch size 14, got 56x60"):
        tiny()(torch.zeros(1, 3, 56, 60))
    with pytest.raises(ValueError, match="needs patch_size=16, got a backbone with 14"):
        tiny().output_shape()
