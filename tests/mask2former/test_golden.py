"""Agreement with the published implementation, within the tolerances of the reference files."""

import pytest
import torch
from detectron2.layers import ShapeSpec

from recyclelora.mask2former import (
    HungarianMatcher,
    MaskFormer,
    MaskFormerHead,
    MSDeformAttnPixelDecoder,
    MultiScaleMaskedTransformerDecoder,
    SetCriterion,
    loss_weights,
)
from recyclelora.mask2former.inference import resize_masks
from recyclelora.mask2former.losses import dice_loss, sigmoid_ce_loss
from recyclelora.mask2former.points import point_sample


@pytest.fixture(scope="module")
def reference(golden):
    return golden("mask2former_small.pt")


def build_head(config: dict, channels: list[int]) -> MaskFormerHead:
    names, strides = config["feature_names"], config["strides"]
    shapes = {
        n: ShapeSpec(channels=c, stride=s) for n, c, s in zip(names, channels, strides, strict=True)
    }
    return MaskFormerHead(
        shapes,
        num_classes=config["num_classes"],
        pixel_decoder=MSDeformAttnPixelDecoder(
            shapes,
            transformer_dropout=config["dropout"],
            transformer_nheads=config["nheads"],
            transformer_dim_feedforward=config["encoder_dim_feedforward"],
            transformer_enc_layers=config["transformer_enc_layers"],
            conv_dim=config["conv_dim"],
            mask_dim=config["mask_dim"],
            norm="GN",
            transformer_in_features=config["transformer_in_features"],
            common_stride=config["common_stride"],
        ),
        transformer_predictor=MultiScaleMaskedTransformerDecoder(
            config["conv_dim"],
            num_classes=config["num_classes"],
            hidden_dim=config["hidden_dim"],
            num_queries=config["num_queries"],
            nheads=config["nheads"],
            dim_feedforward=config["decoder_dim_feedforward"],
            dec_layers=config["decoder_layers_built"],
            pre_norm=config["pre_norm"],
            mask_dim=config["mask_dim"],
            enforce_input_project=config["enforce_input_project"],
        ),
    )


@pytest.fixture(scope="module")
def head(reference):
    head = build_head(reference["config"], reference["config"]["in_channels"]["hetero"])
    head.load_state_dict(reference["hetero"]["state_dict"])  # strict: exactly the official keys
    return head


def build_criterion(config: dict, matcher=None) -> SetCriterion:
    c = config["criterion"]
    w = c["weights"]
    return SetCriterion(
        num_classes=config["num_classes"],
        matcher=matcher
        or HungarianMatcher(w["loss_ce"], w["loss_mask"], w["loss_dice"], c["num_points"]),
        weight_dict=loss_weights(aux_layers=config["decoder_layers_built"]),
        eos_coef=c["eos_coef"],
        losses=["labels", "masks"],
        num_points=c["num_points"],
        oversample_ratio=c["oversample_ratio"],
        importance_sample_ratio=c["importance_sample_ratio"],
    )


def leaves(case: dict) -> dict:
    """Return the reference predictions as leaves that record gradients."""

    def leaf(prediction):
        keys = ("pred_logits", "pred_masks")
        return {k: prediction[k].clone().requires_grad_() for k in keys}

    return {**leaf(case), "aux_outputs": [leaf(aux) for aux in case["aux_outputs"]]}


def assert_gradient(actual, expected, name=""):
    scale = expected.abs().max()
    assert (actual - expected).abs().max() <= 1e-4 * scale, name


def predictions(outputs):
    return [outputs, *outputs["aux_outputs"]]


def test_head_outputs_agree_with_published(reference, head):
    case = reference["hetero"]
    mask_features, encoded, multi_scale = head.pixel_decoder.forward_features(case["inputs"])
    close = {"atol": 5e-5, "rtol": 0}
    torch.testing.assert_close(mask_features, case["mask_features"], **close)
    torch.testing.assert_close(encoded, case["transformer_encoder_features"], **close)
    torch.testing.assert_close(multi_scale, case["multi_scale_features"], **close)
    outputs = head(case["inputs"])
    assert len(outputs["aux_outputs"]) == len(case["aux_outputs"])
    for ours, theirs in zip(predictions(outputs), predictions(case), strict=True):
        torch.testing.assert_close(ours["pred_logits"], theirs["pred_logits"], **close)
        torch.testing.assert_close(ours["pred_masks"], theirs["pred_masks"], **close)


def test_attention_masks_equal_published(reference, head, monkeypatch):
    case = reference["hetero"]
    heads, blocked = head.predictor.forward_prediction_heads, []

    def recording(*args):
        result = heads(*args)
        blocked.append(result[2])
        return result

    monkeypatch.setattr(head.predictor, "forward_prediction_heads", recording)
    head(case["inputs"])
    for ours, theirs, full in zip(
        blocked, case["attn_masks"], case["attn_mask_fully_masked_rows"], strict=True
    ):
        assert ours.all(dim=-1).sum() == full
        assert torch.equal(ours, theirs)


def test_head_gradients_agree_with_published(reference, head):
    case = reference["hetero"]
    inputs = {k: v.clone().requires_grad_() for k, v in case["inputs"].items()}
    head.zero_grad()
    outputs = head(inputs)
    order = [*outputs["aux_outputs"], outputs]
    value = sum(
        (prediction[k] * g[k]).sum()
        for prediction, g in zip(order, case["linear_functional"]["G"], strict=True)
        for k in ("pred_logits", "pred_masks")
    )
    torch.testing.assert_close(value, case["linear_functional"]["value"], rtol=1e-4, atol=1e-3)
    value.backward()
    for name, expected in case["linear_functional"]["input_grads"].items():
        assert_gradient(inputs[name].grad, expected, name)
    for name, parameter in head.named_parameters():
        actual = parameter.grad
        expected = case["linear_functional"]["param_grads"][name]
        if name.endswith("in_proj_bias"):  # the keys' third is rounding noise: softmax shifts
            (q, _, v), (eq, _, ev) = actual.chunk(3), expected.chunk(3)
            actual, expected = torch.cat([q, v]), torch.cat([eq, ev])
        assert_gradient(actual, expected, name)


def test_criterion_at_recorded_points_agrees(reference, monkeypatch):
    case = reference["hetero"]
    recorded = case["criterion"]
    remaining = list(recorded["rand_points"])

    def replay(*shape, **_):
        points = remaining.pop(0)
        assert tuple(points.shape) == shape
        return points

    monkeypatch.setattr(torch, "rand", replay)
    criterion = build_criterion(reference["config"])
    matcher, assigned = criterion.matcher.forward, []

    def recording(*args):
        assigned.append(matcher(*args))
        return assigned[-1]

    monkeypatch.setattr(criterion.matcher, "forward", recording)
    outputs = leaves(case)
    losses = criterion(outputs, reference["targets"])
    assert not remaining
    for layer, ours in zip(("final", "aux_0", "aux_1", "aux_2"), assigned, strict=True):
        for pair, expected in zip(ours, recorded["assignments"][layer], strict=True):
            assert torch.equal(pair[0], expected[0])
            assert torch.equal(pair[1], expected[1])
    assert list(losses) == list(recorded["losses_unweighted"])
    for name, expected in recorded["losses_unweighted"].items():
        torch.testing.assert_close(losses[name], expected, rtol=1e-5, atol=0)
    assert criterion.weight_dict == recorded["weight_dict"]
    total = sum(loss * criterion.weight_dict[name] for name, loss in losses.items())
    torch.testing.assert_close(total, recorded["total_weighted"], rtol=1e-5, atol=0)
    total.backward()
    for key in ("pred_logits", "pred_masks"):
        assert_gradient(outputs[key].grad, recorded["grads"][key], key)
        for aux, expected in zip(outputs["aux_outputs"], recorded["grads"]["aux"], strict=True):
            assert_gradient(aux[key].grad, expected[key], key)


def test_criterion_draws_points_in_the_published_order(reference):
    """With the same seed, the losses equal the recorded ones: same calls of the generator."""
    recorded = reference["hetero"]["criterion"]
    torch.manual_seed(recorded["seed"])
    losses = build_criterion(reference["config"])(reference["hetero"], reference["targets"])
    for name, expected in recorded["losses_unweighted"].items():
        torch.testing.assert_close(losses[name], expected, rtol=1e-5, atol=0)


def test_uncertain_points_equal_published(reference, monkeypatch):
    recorded = reference["hetero"]["criterion"]
    drawn = []
    criterion = build_criterion(reference["config"])

    def recording(maps, coords):
        drawn.append(coords)
        return point_sample(maps, coords)

    monkeypatch.setattr("recyclelora.mask2former.criterion.point_sample", recording)
    torch.manual_seed(recorded["seed"])
    criterion(reference["hetero"], reference["targets"])
    for ours, theirs in zip(drawn[0], recorded["final_loss_point_coords"], strict=True):
        assert set(map(tuple, ours.tolist())) == set(map(tuple, theirs.tolist()))


@pytest.mark.parametrize("layer", ["final", "aux_0"])
def test_matcher_costs_agree_with_published(reference, layer):
    case = reference["hetero"]
    prediction = case if layer == "final" else case["aux_outputs"][0]
    order = case["criterion"]["rand_call_order"]
    matcher = build_criterion(reference["config"]).matcher
    for i, target in enumerate(reference["targets"]):
        points = case["criterion"]["rand_points"][order.index(f"{layer}:matcher_img{i}")]
        cost = matcher.cost_matrix(
            prediction["pred_logits"][i], prediction["pred_masks"][i], target, points
        )
        expected = case["criterion"][f"matcher_costs_{layer}"][i]["C"]
        torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", ["empty_second_image", "all_images_empty"])
def test_losses_without_targets_agree_with_published(reference, which):
    recorded = reference["hetero"]["criterion"][which]
    empty = {"labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 128, 160) > 0}
    first = empty if which == "all_images_empty" else reference["targets"][0]
    torch.manual_seed(recorded["seed"])
    outputs = leaves(reference["hetero"])
    last = {k: outputs[k] for k in ("pred_logits", "pred_masks")}
    losses = build_criterion(reference["config"])(last, [first, empty])
    for name, expected in recorded["losses_unweighted"].items():
        torch.testing.assert_close(losses[name], expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert all(t.grad.isfinite().all() for t in last.values())


def pixel_centres(h, w):
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([x, y], dim=-1).view(1, -1, 2)


@pytest.mark.parametrize("assignment", ["given", "matched"])
@pytest.mark.parametrize("kind", ["grid_lowres", "grid_highres", "interp_highres"])
def test_losses_on_every_pixel_agree_with_published(reference, assignment, kind):
    case = reference["hetero"]
    recorded = case["full_pixel"][f"{assignment}_{kind}"]
    indices = (
        case["full_pixel"]["given_assignment"]
        if assignment == "given"
        else case["criterion"]["assignments"]["final"]
    )
    outputs = leaves(case)
    criterion = build_criterion(reference["config"])
    loss_ce = criterion.loss_labels(outputs, reference["targets"], indices)["loss_ce"]
    height, width = (32, 40) if kind == "grid_lowres" else (128, 160)
    masks = torch.cat([outputs["pred_masks"][i, j] for i, (j, _) in enumerate(indices)])
    wanted = torch.cat(
        [t["masks"][j].float() for t, (_, j) in zip(reference["targets"], indices, strict=True)]
    )
    points = pixel_centres(height, width).expand(len(masks), -1, -1)
    if kind == "interp_highres":
        logits = resize_masks(masks, (height, width)).flatten(1)
    else:
        logits = point_sample(masks[:, None], points)[:, 0]
    labels = point_sample(wanted[:, None], points)[:, 0]
    loss_mask = sigmoid_ce_loss(logits, labels, len(masks))
    loss_dice = dice_loss(logits, labels, len(masks))
    total = 2 * loss_ce + 5 * loss_mask + 5 * loss_dice
    ours = {
        "loss_ce": loss_ce,
        "loss_mask": loss_mask,
        "loss_dice": loss_dice,
        "total_weighted": total,
    }
    for name, loss in ours.items():
        torch.testing.assert_close(loss, recorded[name], rtol=1e-5, atol=0)
    total.backward()
    assert_gradient(outputs["pred_logits"].grad, recorded["grad_pred_logits"])
    assert_gradient(outputs["pred_masks"].grad, recorded["grad_pred_masks"])


class Recorded(torch.nn.Module):
    """Replaces backbone and head, and returns the recorded predictions."""

    size_divisibility = 32
    num_classes = 19
    ignore_value = 255

    def __init__(self, case):
        super().__init__()
        self.case = case

    def forward(self, features):
        return {k: self.case[k] for k in ("pred_logits", "pred_masks")}


@pytest.mark.parametrize("padding", ["nopad", "pad"])
@pytest.mark.parametrize("order", ["after", "before"])
def test_semantic_inference_agrees_with_published(golden, padding, order):
    case = golden("semantic_inference.pt")["hetero"]
    model = MaskFormer(
        backbone=torch.nn.Identity(),
        sem_seg_head=Recorded(case),
        criterion=None,
        size_divisibility=32,
        sem_seg_postprocess_before_inference=order == "before",
    ).eval()
    inputs = [
        {"image": torch.zeros(3, h, w), "height": 100, "width": 140}
        for h, w in case[padding]["image_sizes"]
    ]
    scores = torch.stack([result["sem_seg"] for result in model(inputs)])
    expected = case[padding].get(f"semseg_100x140_post_{order}")
    if expected is not None:
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    argmax = case[padding][f"argmax_post_{order}"]
    assert (scores.argmax(1) != argmax).float().mean() <= 5e-4


def test_semantic_logits_agree_with_published(golden):
    case = golden("semantic_inference.pt")["hetero"]
    model = MaskFormer(
        backbone=torch.nn.Identity(),
        sem_seg_head=Recorded(case),
        criterion=None,
        size_divisibility=32,
    ).eval()
    scores = model.semantic_logits(torch.zeros(2, 3, 128, 160))
    expected = case["semseg_128x160_every4th_row_col"]
    torch.testing.assert_close(scores[..., ::4, ::4], expected, atol=1e-5, rtol=0)
    assert (scores.argmax(1) != case["argmax_128x160"]).float().mean() <= 5e-4
