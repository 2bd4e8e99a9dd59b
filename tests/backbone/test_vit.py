"""The ViT compared with the published outputs, and its properties for any image."""

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from recyclelora.backbone import DinoVisionTransformer, dinov2_vit


@pytest.fixture(scope="module")
def published(golden):
    return golden("dinov2_small.pt")


def built(part: dict) -> DinoVisionTransformer:
    model = DinoVisionTransformer(**part["config"])
    model.load_state_dict(part["state_dict"])
    return model.eval()


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("size", ["84x112", "70x70"])
@torch.no_grad()
def test_every_block_agrees_with_published(published, size, norm):
    part = published["official"]
    ours = built(part).get_intermediate_layers(
        part[f"x_{size}"], n=range(4), reshape=True, return_class_token=True, norm=norm
    )
    theirs = part[f"layers_{size}_norm{norm}"]
    assert len(ours) == len(theirs["cls"]) == 4
    for (patches, cls), their_patches, their_cls in zip(
        ours, theirs["patch_reshaped_BCHW"], theirs["cls"]
    ):
        assert_near(patches, their_patches)
        assert_near(cls, their_cls)


@torch.no_grad()
def test_tokens_agree_with_published(published):
    part = published["official"]
    model, images = built(part), part["x_84x112"]
    assert_near(model.patch_embed(images), part["patch_embed_84x112"])
    assert_near(model.position_embedding(6, 8), part["pos_embed_interpolated_84x112"])
    assert_near(model.prepare_tokens(images), part["tokens_after_prepare_84x112"])
    ((patches, cls),) = model.get_intermediate_layers(images, return_class_token=True)
    assert_near(patches, part["forward_features_84x112"]["x_norm_patchtokens"])
    assert_near(cls, part["forward_features_84x112"]["x_norm_clstoken"])


@torch.no_grad()
def test_resampling_by_factor_and_size_differ_as_published(published):
    """Sampling with the factor (h + 0.1) / 5 differs from resizing to h, as in the golden file."""
    part = published["official"]
    with_factor = built(part).position_embedding(6, 8)
    part = {**part, "config": {**part["config"], "interpolate_offset": 0.0}}
    with_size = built(part).position_embedding(6, 8)
    difference = (with_factor - with_size).abs().max().item()
    assert difference == pytest.approx(part["pos_embed_diff_scale_factor_vs_size"], abs=1e-5)


@pytest.mark.parametrize("size", ["80x80", "96x128", "64x64"])
@torch.no_grad()
def test_pyramid_agrees_with_published(published, size):
    part = published["rein_dense"]
    model, images = built(part), part[f"x_{size}"]
    rows, columns = (side // 16 for side in images.shape[-2:])
    assert_near(model.position_embedding(rows, columns), part[f"pos_embed_{size}"])
    levels = model(images)
    assert list(levels) == ["res2", "res3", "res4", "res5"]
    for ours, theirs in zip(levels.values(), part[f"pyramid_x4_x2_x1_x0.5_{size}"]):
        assert_near(ours, theirs)
    raw = model.get_intermediate_layers(
        images, n=part["config"]["out_indices"], reshape=True, norm=False
    )
    for ours, theirs in zip(raw, part[f"raw_features_{size}"]):
        assert_near(ours, theirs)


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [(32, 32), (32, 112), (176, 48), (80, 96)])
@torch.no_grad()
def test_pyramid_of_any_image_size_has_scaled_shapes(tiny, size, registers):
    model = tiny(patch_size=16, num_register_tokens=registers)
    rows, columns = size[0] // 16, size[1] // 16
    shapes = [tuple(level.shape) for level in model(torch.randn(1, 3, *size)).values()]
    assert shapes == [(1, 24, int(rows * s), int(columns * s)) for s in (4, 2, 1, 0.5)]
    assert model.position_embedding(rows, columns).shape == (1, 1 + rows * columns, 24)


@torch.no_grad()
def test_positions_transpose_with_the_image(tiny):
    """The transposed positions of a wide image equal those of the tall one on a transposed grid."""
    model = tiny(patch_size=16)
    wide = model.position_embedding(2, 5)[:, 1:].unflatten(1, (2, 5))
    side = model.patch_embed.grid[0]
    grid = model.pos_embed[:, 1:].unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)
    model.pos_embed[:, 1:] = grid
    tall = model.position_embedding(5, 2)[:, 1:].unflatten(1, (5, 2))
    torch.testing.assert_close(wide, tall.transpose(1, 2))


@torch.no_grad()
def test_registers_have_no_position_and_no_patch(tiny):
    model = tiny(num_register_tokens=3)
    images = torch.randn(2, 3, 56, 56)
    tokens = model.prepare_tokens(images)
    assert tokens.shape == (2, 1 + 3 + 16, 24)
    torch.testing.assert_close(tokens[:, 1:4], model.register_tokens.expand(2, -1, -1))
    (patches,) = model.get_intermediate_layers(images, norm=False)
    torch.testing.assert_close(patches, model._block_outputs(images, [3])[0][:, 4:])


def test_checkpointing_gives_identical_gradients(tiny):
    model, images = tiny(patch_size=16), torch.randn(2, 3, 64, 32)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model.checkpointing = checkpointing
        model.zero_grad()
        sum(level.square().sum() for level in model(images).values()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    kept, recomputed = gradients(False), gradients(True)
    assert kept.keys() == recomputed.keys() and len(kept) > 50
    for name in kept:
        assert torch.equal(kept[name], recomputed[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_output_is_near_float32(tiny, dtype):
    model, images = tiny(patch_size=16), torch.randn(1, 3, 64, 64)
    exact = model(images)
    with torch.autocast("cpu", dtype=dtype):
        rounded = model(images)
    sum(level.sum() for level in rounded.values()).backward()
    for level in exact:
        assert rounded[level].dtype == torch.float32  # the residual stream
        error = (rounded[level] - exact[level]).norm() / exact[level].norm()
        assert 0 < error < 4 * torch.finfo(dtype).eps
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("size", "millions"),
    [("s", 22.1), ("b", 86.6), ("l", 304.4), ("g", 1136.5)],
)
def test_released_sizes_have_official_counts(size, millions):
    """The numbers of parameters equal those in DINOv2's model card."""
    with torch.device("meta"):
        plain, registers = dinov2_vit(size), dinov2_vit(size, registers=True)
    count = sum(parameter.numel() for parameter in plain.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    assert registers.state_dict().keys() - plain.state_dict().keys() == {"register_tokens"}
    assert (registers.interpolate_offset, registers.interpolate_antialias) == (0.0, True)
    linear = [m for m in plain.modules() if isinstance(m, nn.Linear)]
    assert len(linear) == 4 * len(plain.blocks)


def test_vit_l_adapters_count_as_in_the_paper():
    """Adapters of rank 32 + 4 on qkv, proj, fc1 and fc2 have 14.2 M parameters (paper, Table 5)."""
    with torch.device("meta"):
        model = dinov2_vit("l", patch_size=16, img_size=512)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert sum(36 * (m.in_features + m.out_features) for m in linear) == 14_155_776
    assert model.out_indices == (7, 11, 15, 23)


def test_output_shape_has_strides_and_divisibility(tiny):
    model = tiny(patch_size=16)
    shapes = model.output_shape()
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    assert {shape.channels for shape in shapes.values()} == {24}
    assert model.size_divisibility == 32


def test_pyramid_of_patch_14_raises(tiny):
    for ask in (lambda model: model.output_shape(), lambda model: model.size_divisibility):
        with pytest.raises(ValueError, match=r"strides 4, 8, 16, 32 needs patch_size=16, .* 14"):
            ask(tiny())


def test_lazy_config_and_registry_build_equal_models():
    arguments = {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2}
    lazy = instantiate(LazyCall(DinoVisionTransformer)(**arguments, out_indices=[0, 0, 1, 1]))
    registered = BACKBONE_REGISTRY.get("DinoVisionTransformer")(**arguments)
    assert lazy.out_indices == registered.out_indices == (0, 0, 1, 1)
    assert lazy.state_dict().keys() == registered.state_dict().keys()


def test_dinov2_vit_unknown_size_raises():
    with pytest.raises(ValueError, match="size must be one of s, b, l, g, got 'h'"):
        dinov2_vit("h")


@pytest.mark.slow
def test_compile_gives_one_graph(tiny):
    model, images = tiny(patch_size=16).eval(), torch.randn(1, 3, 64, 96)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for level, feature in compiled(images).items():
        torch.testing.assert_close(feature, model(images)[level])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"out_indices": [0, 1, 2]}, "out_indices must name four blocks"),
        ({"out_indices": [0, 1, 2, 4]}, "four blocks between 0 and 3"),
        ({"num_heads": 5}, "multiple of num_heads, got 24 and 5"),
        ({"ffn_layer": "moe"}, "ffn_layer must be one of"),
        ({"block_chunks": 4}, "block_chunks must be 0"),
        ({"img_size": 8}, "smaller than one patch"),
    ],
)
def test_invalid_arguments_raise(tiny, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**arguments)


def test_invalid_images_raise(tiny):
    with pytest.raises(ValueError, match="multiples of the patch size 14, got 56x60"):
        tiny()(torch.zeros(1, 3, 56, 60))
    with pytest.raises(ValueError, match="at least 2x2 patches, got 1x4"):
        tiny()(torch.zeros(1, 3, 14, 56))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got shape \(3, 56, 56\)"):
        tiny()(torch.zeros(3, 56, 56))
    with pytest.raises(ValueError, match="n must name blocks between 0 and 3"):
        tiny().get_intermediate_layers(torch.zeros(1, 3, 56, 56), n=[4])
