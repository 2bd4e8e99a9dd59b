"""A user's model as a backbone: its maps, rejected models, and checkpoints."""

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters
from recyclelora.backbone import AnyViT, load_weights
from recyclelora.mask2former import build_segmentor


class Plain(nn.Module):
    """Two blocks on patches, with a non-persistent buffer."""

    def __init__(self, patch=16, unused=0, read=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, patch, patch)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.read = read
        self.heads = nn.ModuleList([nn.Linear(8, 8) for _ in range(unused)])
        self.register_buffer("scale", torch.full((8,), 3.0), persistent=False)

    def forward(self, images):
        tokens = self.patches(images).movedim(1, -1) * self.scale
        outputs = []
        for block in self.blocks:
            new = nn.functional.linear(tokens, block.weight) if self.read else block(tokens)
            tokens = tokens + new
            outputs.append(tokens.movedim(-1, 1))
        return outputs


def maps(vit, images):
    first, second = vit(images)
    return [first, first, second, second]


def test_pyramid_is_made_of_the_maps():
    vit, images = Plain(), torch.randn(2, 3, 64, 96)
    backbone = AnyViT(vit, maps, img_size=64)
    first, second = vit(images)
    levels = backbone(images)
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (8, 16, 24), (8, 8, 12), (8, 4, 6), (8, 2, 3)
    ]  # fmt: skip
    assert torch.equal(levels["res4"], second)
    torch.testing.assert_close(
        levels["res2"], nn.functional.interpolate(first, scale_factor=4, mode="bilinear")
    )
    assert [shape.stride for shape in backbone.output_shape().values()] == [4, 8, 16, 32]
    assert backbone.embed_dim == 8 and backbone.size_divisibility == 32


def test_adapted_backbone_works_in_a_segmentor():
    backbone = adapt(AnyViT(Plain(), maps, img_size=64), r_main=2, r_sub=1)
    model = build_segmentor(backbone, num_classes=3, hidden_dim=32, nheads=2, num_queries=4)
    image = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 64, "width": 64}
    with torch.no_grad():
        (result,) = model.eval()([image])
    assert result["sem_seg"].shape == (3, 64, 64)
    main, _ = adapter_parameters(model)
    assert all(name.startswith("backbone.vit.blocks.") for name in main)


def test_buffers_are_saved_and_restored_from_meta():
    backbone, images = AnyViT(Plain(), maps, img_size=64), torch.randn(1, 3, 64, 64)
    with torch.device("meta"):
        again = AnyViT(Plain(), maps, img_size=64)
    again.load_state_dict(backbone.state_dict(), assign=True)
    assert torch.equal(again(images)["res4"], backbone(images)["res4"])


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: AnyViT(Plain(patch=8), maps, img_size=64), "maps of 4x4 patches.* 64x64 pixels"),
        (lambda: AnyViT(Plain(), lambda v, x: v(x), img_size=64), "needs 4 maps, got 2"),
        (lambda: AnyViT(Plain(unused=2), maps, img_size=64), "2 linear layers of Plain .vit.heads"),
        (lambda: AnyViT(Plain(), maps, img_size=60), "multiples of the patch size 16, got 60x60"),
    ],
)
def test_unsuitable_models_raise(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_adapters_in_weights_that_are_read_get_gradients():
    backbone = adapt(AnyViT(Plain(read=True), maps, img_size=64), r_main=2, r_sub=1)
    sum(level.square().sum() for level in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    main, sub = adapter_parameters(backbone)
    assert len(main) == 4 and all(p.grad.any() for p in [*main.values(), *sub.values()])


def test_load_weights_calls_pretrained():
    def pretrained(weights):
        if weights != "good":
            raise ValueError(f"no weights {weights!r}")
        vit = Plain()
        nn.init.constant_(vit.blocks[0].weight, 0.5)
        return vit

    backbone = AnyViT(Plain(), maps, img_size=64, pretrained=pretrained)
    assert load_weights(backbone, "good") is backbone
    assert (backbone.vit.blocks[0].weight == 0.5).all() and "vit.scale" in backbone.state_dict()
    before = backbone.vit
    with pytest.raises(ValueError, match="no weights 'bad'"):
        load_weights(backbone, "bad")
    assert backbone.vit is before
    with pytest.raises(
        TypeError, match="has no function to load weights: load 'good' into its Plain"
    ):
        load_weights(AnyViT(Plain(), maps, img_size=64), "good")
