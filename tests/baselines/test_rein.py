"""Rein: refinement and queries equal loops over its definition, and the ViT is frozen."""

import copy

import pytest
import torch

from recyclelora.backbone import DinoVisionTransformer
from recyclelora.baselines import Rein
from recyclelora.mask2former import build_segmentor

IMAGES = torch.randn(2, 3, 64, 96)
SIZES = {"num_tokens": 6, "rank": 4, "query_dim": 32}
HEAD = {"hidden_dim": 32, "nheads": 2, "enc_layers": 1, "enc_dim_feedforward": 64}
HEAD |= {"dec_layers": 2, "dec_dim_feedforward": 64, "num_queries": 6}


def test_rein_refines_a_patch_as_defined(vit):
    backbone = Rein(vit(), **SIZES).double()
    with torch.no_grad():
        backbone.scale.fill_(0.7)
    tokens = torch.randn(2, 5, 32, dtype=torch.float64)
    out = backbone.refined(tokens, 1)
    learned = backbone.tokens_a[1] @ backbone.tokens_b[1]
    assert torch.equal(out[:, 0], tokens[:, 0])  # cls
    for image in range(2):
        for n in range(1, 5):
            f = tokens[image, n]
            share = torch.softmax(torch.stack([f @ t / 32**0.5 for t in learned]), dim=0)
            total = f.clone()
            for m in range(1, 6):  # the first token adds nothing
                total = total + share[m] * backbone.token_to_feature(learned[m])
            torch.testing.assert_close(out[image, n], f + 0.7 * backbone.change(total))


def test_rein_queries_merge_all_blocks(vit):
    backbone = Rein(vit(), **SIZES)
    each = [backbone.token_to_query(a @ b) for a, b in zip(backbone.tokens_a, backbone.tokens_b)]
    largest, mean = torch.stack(each).max(dim=0).values, sum(each) / 4
    weight, bias = backbone.merge_queries.weight.reshape(32, 32, 3), backbone.merge_queries.bias
    expected = largest @ weight[..., 0].T + mean @ weight[..., 1].T + each[3] @ weight[..., 2].T
    torch.testing.assert_close(backbone.queries(), expected + bias)


def test_rein_starts_near_the_pretrained_features(vit):
    module = vit()
    plain = module(IMAGES)
    backbone = Rein(module, **SIZES)
    features = backbone(IMAGES)
    assert features.pop("queries").shape == (6, 32)
    for level, feature in features.items():
        torch.testing.assert_close(feature, plain[level], atol=0.1, rtol=0)
        assert not torch.equal(feature, plain[level])
    with torch.no_grad():
        backbone.scale.zero_()
        for level, feature in plain.items():
            assert torch.equal(backbone(IMAGES)[level], feature)
    assert backbone.output_shape() == module.output_shape()


def test_rein_keeps_registers_and_copies_are_independent(vit):
    module = DinoVisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, num_register_tokens=3
    )
    backbone = Rein(module, prefix_tokens=4, **SIZES)
    tokens = torch.randn(1, 9, 32)
    assert torch.equal(backbone.refined(tokens, 0)[:, :4], tokens[:, :4])
    other = copy.deepcopy(backbone)
    before = backbone(IMAGES)["res5"]
    with torch.no_grad():
        other.scale.fill_(1.0)
    assert torch.equal(backbone(IMAGES)["res5"], before)
    assert not torch.equal(other(IMAGES)["res5"], before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rein_in_a_segmentor_trains_all_its_parameters(vit, checkpointing):
    module = vit()
    module.checkpointing = checkpointing
    model = build_segmentor(Rein(module, **SIZES), learned_queries=False, **HEAD).train()
    assert not any("query_feat" in n or "query_embed" in n for n, _ in model.named_parameters())
    label = torch.randint(0, 19, (64, 64))
    losses = model([{"image": torch.rand(3, 64, 64) * 255, "sem_seg": label, "seed": 3}])
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("backbone.module."), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_unexpected_or_missing_queries_raise(vit):
    given = build_segmentor(Rein(vit(), **SIZES), **HEAD).eval()
    missing = build_segmentor(vit(), learned_queries=False, **HEAD).eval()
    for model, words in ((given, "expects no queries, got some"), (missing, "expects queries")):
        with pytest.raises(ValueError, match=words):
            model.semantic_logits(IMAGES)
    with pytest.raises(ValueError, match="num_tokens must be a whole number from 2"):
        Rein(vit(), num_tokens=1)
