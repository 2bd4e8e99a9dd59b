import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from recyclelora.backbone import DinoVisionTransformer
from recyclelora.mask2former import (
    HungarianMatcher,
    MaskFormer,
    MaskFormerHead,
    MSDeformAttnPixelDecoder,
    MultiScaleMaskedTransformerDecoder,
    SetCriterion,
    build_segmentor,
    loss_weights,
)


def as_instances(batch_item):
    label = batch_item["sem_seg"]
    classes = label.unique()
    classes = classes[classes != 255]
    instances = Instances(tuple(label.shape))
    instances.gt_classes = classes
    instances.gt_masks = BitMasks(label == classes[:, None, None])
    rest = {k: v for k, v in batch_item.items() if k != "sem_seg"}
    return {**rest, "instances": instances}


def test_training_step_gives_every_parameter_a_gradient(model, sample):
    losses = model([sample(0), sample(1, 64, 64)])
    assert set(losses) == set(loss_weights(aux_layers=2))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_losses_are_weighted_by_name(model, sample):
    weighted = model([sample()])
    model.criterion.weight_dict = {"loss_ce": 1.0, "loss_mask": 1.0}
    plain = model([sample()])
    assert set(plain) == {"loss_ce", "loss_mask"}
    torch.testing.assert_close(weighted["loss_ce"], 2 * plain["loss_ce"])
    torch.testing.assert_close(weighted["loss_mask"], 5 * plain["loss_mask"])


def test_instances_give_the_losses_of_labels(model, sample):
    batch = [sample(0), sample(1)]
    losses, again = model(batch), model([as_instances(x) for x in batch])
    assert all(torch.equal(losses[k], again[k]) for k in losses)


def test_image_with_only_ignored_pixels_is_finite(model, sample):
    empty = sample(1)
    empty["sem_seg"][:] = 255
    for batch in ([sample(0), empty], [empty]):
        losses = model(batch)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())


def test_padding_is_the_mean_colour(model, sample):
    """An image of 60 x 90 has the same scores as one that is padded to 64 x 96 beforehand."""
    model.eval()
    image = sample(h=60, w=90)["image"].float()
    mean = model.pixel_mean.expand(3, 64, 96).clone()
    mean[:, :60, :90] = image
    padded = model([{"image": image}])[0]["sem_seg"]
    assert padded.shape == (19, 60, 90)
    whole = model([{"image": mean}])[0]["sem_seg"]
    torch.testing.assert_close(padded, whole[:, :60, :90])


def test_semantic_logits_equal_inference(model, sample):
    model.eval()
    images = torch.stack([sample(i, h=60, w=90)["image"] for i in range(2)])
    scores = model.semantic_logits(images)
    assert scores.shape == (2, 19, 60, 90)
    assert not scores.requires_grad
    results = model([{"image": image} for image in images])
    torch.testing.assert_close(scores, torch.stack([r["sem_seg"] for r in results]))


def test_output_has_the_requested_size(model, sample):
    result = model.eval()([{**sample(), "height": 100, "width": 140}])
    assert result[0]["sem_seg"].shape == (19, 100, 140)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_losses_are_near_float32(model, sample, dtype):
    batch = [sample(0), sample(1)]
    full = model(batch)
    with torch.amp.autocast("cpu", dtype):
        half = model(batch)
    sum(half.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, full[name], rtol=0.05, atol=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_cuda_losses_and_scores_are_finite(model, sample, dtype):
    model = model.cuda()
    with torch.amp.autocast("cuda", dtype, enabled=dtype is not None):
        losses = model([sample(0), sample(1)])
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.amp.autocast("cuda", dtype, enabled=dtype is not None):
        scores = model.eval().semantic_logits(sample()["image"][None])
    assert scores.is_cuda
    assert scores.dtype == torch.float32


def test_state_dict_has_the_published_keys(model):
    state = model.state_dict()
    allowed = ("backbone.", "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor.")
    others = [name for name in state if not name.startswith(allowed)]
    assert others == ["criterion.empty_weight"]  # a persistent buffer there, too
    assert (
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.value_proj.weight"
        in (state)
    )
    fpn = {name.split(".")[2] for name in state if name.startswith("sem_seg_head.pixel_decoder")}
    assert {"adapter_1", "layer_1", "mask_features", "input_proj", "transformer"} == fpn


def test_invalid_inputs_raise(model, sample):
    with pytest.raises(ValueError, match=r"street_0.png: expected \"image\" \(3, H, W\)"):
        model([{**sample(), "image": torch.zeros(1, 64, 96)}])
    with pytest.raises(ValueError, match=r"street_0.png: expected a label of the image's size"):
        model([{**sample(), "sem_seg": torch.zeros(64, 80, dtype=torch.int64)}])
    with pytest.raises(ValueError, match=r"class ids \[19\], expected 0..18 or 255"):
        model([{**sample(), "sem_seg": torch.full((64, 96), 19)}])
    with pytest.raises(ValueError, match="as integers"):
        model([{**sample(), "sem_seg": torch.zeros(64, 96)}])
    with pytest.raises(ValueError, match='expected "sem_seg" or "instances"'):
        model([{"image": sample()["image"]}])
    with pytest.raises(ValueError, match="expected images"):
        model.semantic_logits(sample()["image"])


def test_diverged_model_raises_with_image_and_iteration(model, sample):
    with torch.no_grad():
        model.sem_seg_head.predictor.class_embed.bias[0] = float("inf")
    message = r"image 0 of the batch \(street_5.png\) at iteration 42 are not finite"
    with EventStorage(42), pytest.raises(FloatingPointError, match=message):
        model([sample(5)])
    with pytest.raises(FloatingPointError, match=r"\(street_5.png\) are not finite"):
        model([sample(5)])


@pytest.mark.parametrize("choice", [{"panoptic_on": True}, {"instance_on": True}])
def test_panoptic_or_instance_inference_raises(backbone, small, choice):
    with pytest.raises(NotImplementedError, match="only semantic inference"):
        build_segmentor(backbone, **small, **choice)


def test_unsupported_arguments_raise(backbone):
    shapes = backbone.output_shape()
    with pytest.raises(NotImplementedError, match="pre_norm"):
        MultiScaleMaskedTransformerDecoder(32, num_classes=19, pre_norm=True)
    with pytest.raises(NotImplementedError, match="mask_classification"):
        MultiScaleMaskedTransformerDecoder(32, False, num_classes=19)
    with pytest.raises(NotImplementedError, match="transformer_in_feature"):
        MaskFormerHead(
            shapes,
            num_classes=19,
            pixel_decoder=None,
            transformer_predictor=None,
            transformer_in_feature="pixel_embedding",
        )
    with pytest.raises(ValueError, match=r"\['res9'\] are not among"):
        MSDeformAttnPixelDecoder(shapes, transformer_in_features=["res4", "res9"])
    with pytest.raises(ValueError, match="multiple of 32"):
        MSDeformAttnPixelDecoder(shapes, conv_dim=48)
    with pytest.raises(ValueError, match=r"input_shape\['res2'\]"):
        MSDeformAttnPixelDecoder({"res2": {"channels": 8}}, transformer_in_features=["res2"])


def head_config():
    """Return the head as nested LazyCalls with the names of all official arguments."""
    shapes = {
        "res2": L(ShapeSpec)(channels=16, stride=4),
        **{f"res{i}": {"channels": 16, "stride": 2**i} for i in (3, 4, 5)},
    }
    return L(MaskFormerHead)(
        input_shape=shapes,
        num_classes=19,
        pixel_decoder=L(MSDeformAttnPixelDecoder)(
            input_shape=shapes,
            transformer_dropout=0.0,
            transformer_nheads=8,
            transformer_dim_feedforward=64,
            transformer_enc_layers=1,
            conv_dim=32,
            mask_dim=64,
            norm="GN",
            transformer_in_features=["res3", "res4", "res5"],
            common_stride=4,
        ),
        loss_weight=1.0,
        ignore_value=255,
        transformer_predictor=L(MultiScaleMaskedTransformerDecoder)(
            in_channels=32,
            mask_classification=True,
            num_classes=19,
            hidden_dim=64,
            num_queries=8,
            nheads=4,
            dim_feedforward=64,
            dec_layers=2,
            pre_norm=False,
            mask_dim=64,
            enforce_input_project=True,
        ),
        transformer_in_feature="multi_scale_pixel_decoder",
    )


def model_config():
    """Return the model as nested LazyCalls."""
    return L(MaskFormer)(
        backbone=None,
        sem_seg_head=head_config(),
        criterion=L(SetCriterion)(
            num_classes=19,
            matcher=L(HungarianMatcher)(
                cost_class=2.0, cost_mask=5.0, cost_dice=5.0, num_points=64
            ),
            weight_dict=L(loss_weights)(aux_layers=2),
            eos_coef=0.1,
            losses=["labels", "masks"],
            num_points=64,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
        ),
        num_queries=8,
        object_mask_threshold=0.8,
        overlap_threshold=0.8,
        metadata=None,
        size_divisibility=32,
        sem_seg_postprocess_before_inference=False,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        semantic_on=True,
        panoptic_on=False,
        instance_on=False,
        test_topk_per_image=100,
    )


def test_lazy_config_builds_a_working_model(backbone, sample):
    config = OmegaConf.create({"model": model_config()}, flags={"allow_objects": True})
    LazyConfig.apply_overrides(config, ["model.sem_seg_head.transformer_predictor.dec_layers=1"])
    config.model.backbone = backbone
    model = instantiate(config.model)
    assert len(model.sem_seg_head.predictor.transformer_ffn_layers) == 1
    assert "loss_ce_0" in model([sample()])
    assert model.eval()([sample()])[0]["sem_seg"].shape == (19, 64, 96)


def test_classes_are_registered():
    assert META_ARCH_REGISTRY.get("MaskFormer") is MaskFormer
    assert SEM_SEG_HEADS_REGISTRY.get("MaskFormerHead") is MaskFormerHead
    assert SEM_SEG_HEADS_REGISTRY.get("MSDeformAttnPixelDecoder") is MSDeformAttnPixelDecoder


def test_pixel_decoder_of_two_levels_gives_three_scales(sample, backbone):
    """With two FPN levels above an encoder of two levels, the decoder still gets three scales."""
    shapes = backbone.output_shape()
    decoder = MSDeformAttnPixelDecoder(
        shapes,
        transformer_in_features=["res4", "res5"],
        transformer_enc_layers=1,
        conv_dim=32,
        mask_dim=48,
        norm="",
    )
    features = backbone(torch.randn(1, 3, 64, 96))
    mask_features, encoded, scales = decoder.forward_features(features)
    assert mask_features.shape == (1, 48, 16, 24)
    assert [tuple(s.shape[-2:]) for s in scales] == [(2, 3), (4, 6), (8, 12)]
    assert encoded is scales[0]
    assert decoder.adapter_1.bias is not None


def test_paper_head_has_the_published_parameter_count(backbone):
    """The paper's head has the expected number of parameters; only shapes are computed."""
    with torch.device("meta"):
        model = build_segmentor(type(backbone)(channels=1024))
    head = sum(p.numel() for p in model.sem_seg_head.parameters())
    assert all(p.is_meta for p in model.parameters())
    assert head == 20_565_204


def test_head_seed_alone_determines_the_head(backbone, small):
    def head(seed, drawn):
        torch.manual_seed(0)
        torch.rand(drawn)
        state = build_segmentor(backbone, **small, head_seed=seed).sem_seg_head.state_dict()
        return torch.cat([tensor.flatten() for tensor in state.values()]), torch.rand(1)

    (first, after), (again, _) = head(5, 0), head(5, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, head(6, 0)[0])
    assert not torch.equal(head(None, 0)[0], head(None, 3)[0])
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))  # the global generator is not affected


def test_maps_enlarged_after_projection_give_the_same_loss(small, sample):
    vit = DinoVisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2)
    model, batch = build_segmentor(vit, **small), [sample(0), sample(1)]
    trained = [*vit.blocks.parameters(), *model.sem_seg_head.parameters()]
    forward, asked = vit.forward, []

    def enlarged_before(images, *, enlarge):
        asked.append(enlarge)
        return forward(images)

    found = model(batch)
    vit.forward = enlarged_before
    expected = model(batch)
    assert asked == [False]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(sum(x.values()), trained) for x in (found, expected)]
    for mine, theirs in zip(*gradients, strict=True):  # some are zero up to rounding
        torch.testing.assert_close(
            mine, theirs, rtol=1e-3, atol=1e-6 + 1e-3 * float(theirs.abs().max())
        )
