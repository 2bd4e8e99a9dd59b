import pytest
import torch
from detectron2.utils.events import EventStorage

from recyclelora.mask2former import HungarianMatcher, SetCriterion, loss_weights


def build(num_points=64, **kwargs):
    matcher = HungarianMatcher(2.0, 5.0, 5.0, num_points)
    weights = loss_weights(aux_layers=1)
    return SetCriterion(19, matcher, weights, num_points=num_points, **kwargs)


def predictions(batch=3, queries=6, **kwargs):
    def one():
        return {
            "pred_logits": torch.randn(batch, queries, 20),
            "pred_masks": torch.randn(batch, queries, 8, 10),
        }

    return {**one(), "aux_outputs": [one()], **kwargs}


def targets(counts=(4, 2, 3), seeded=True):
    made = []
    for i, count in enumerate(counts):
        target = {
            "labels": torch.randint(0, 19, (count,)),
            "masks": torch.rand(count, 32, 40) > 0.5,
        }
        made.append({**target, "seed": 100 + i} if seeded else target)
    return made


def part(outputs, images):
    piece = {k: outputs[k][images] for k in ("pred_logits", "pred_masks")}
    if "aux_outputs" in outputs:
        piece["aux_outputs"] = [part(aux, images) for aux in outputs["aux_outputs"]]
    return piece


def test_seeded_image_loss_is_independent_of_the_batch():
    outputs, wanted, criterion = predictions(), targets(), build()
    whole = criterion(outputs, wanted)
    first = criterion(part(outputs, slice(0, 1)), wanted[:1])
    rest = criterion(part(outputs, slice(1, 3)), wanted[1:])
    for name in ("loss_mask", "loss_dice", "loss_mask_0", "loss_dice_0"):
        torch.testing.assert_close(whole[name], first[name] * 4 / 9 + rest[name] * 5 / 9)


def test_seeds_do_not_change_the_global_generator():
    outputs, wanted, criterion = predictions(), targets(), build()
    before = torch.get_rng_state()
    losses = criterion(outputs, wanted)
    assert torch.equal(torch.get_rng_state(), before)
    again = criterion(outputs, wanted)
    assert all(torch.equal(losses[k], again[k]) for k in losses)
    wanted[0]["seed"] += 1
    assert not torch.equal(criterion(outputs, wanted)["loss_mask"], losses["loss_mask"])


def test_seeds_in_some_targets_raise():
    wanted = targets()
    del wanted[1]["seed"]
    with pytest.raises(ValueError, match=r'"seed" in every target .* \[100, None, 102\]'):
        build()(predictions(), wanted)


def test_more_targets_than_queries_are_matched():
    wanted = targets(counts=(9, 0, 3))
    losses = build()(predictions(), wanted)
    assert all(loss.isfinite() for loss in losses.values())
    indices = HungarianMatcher(num_points=16)(predictions(), wanted)
    assert [len(i) for i, _ in indices] == [6, 0, 3]


def test_perfect_predictions_have_small_losses():
    labels, masks = torch.tensor([3, 7]), torch.zeros(2, 32, 40, dtype=torch.bool)
    masks[0, :16], masks[1, 16:] = True, True
    logits = torch.full((1, 4, 20), -20.0)
    logits[0, 2, 3] = logits[0, 0, 7] = logits[0, 1, 19] = logits[0, 3, 19] = 20
    mask_logits = torch.full((1, 4, 32, 40), -20.0)
    mask_logits[0, 2][masks[0]] = mask_logits[0, 0][masks[1]] = 20
    outputs = {"pred_logits": logits, "pred_masks": mask_logits}
    wanted = [{"labels": labels, "masks": masks}]
    (sources, matches), *_ = HungarianMatcher(2, 5, 5, 64)(outputs, wanted)
    assert dict(zip(sources.tolist(), matches.tolist(), strict=True)) == {0: 1, 2: 0}
    losses = build(importance_sample_ratio=0.0)(outputs, wanted)
    assert losses["loss_ce"] < 1e-3
    assert losses["loss_mask"] < 1  # points between two rows have uncertain labels
    assert losses["loss_dice"] < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_losses_are_float32(dtype):
    outputs = predictions()
    half = {k: outputs[k].to(dtype) for k in ("pred_logits", "pred_masks")}
    rounded = {k: v.float() for k, v in half.items()}
    criterion, wanted = build(), targets()
    expected = criterion(rounded, wanted)
    with torch.amp.autocast("cpu", torch.bfloat16):
        losses = criterion(half, wanted)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize("key", ["pred_logits", "pred_masks"])
def test_nonfinite_predictions_raise(key):
    outputs, wanted = predictions(), targets()
    outputs[key][1, 2] = float("nan")
    wanted[1]["file_name"] = "aachen_17.png"
    kind = {"pred_logits": "class logits", "pred_masks": "mask logits"}[key]
    message = rf"image 1 of the batch \(aachen_17.png\) at iteration 321 are not finite \({kind}"
    with EventStorage(321), pytest.raises(FloatingPointError, match=message):
        build()(outputs, wanted)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match='"labels" or "masks"'):
        build(losses=["labels", "boxes"])
    with pytest.raises(ValueError, match="importance_sample_ratio within"):
        build(importance_sample_ratio=1.5)
    with pytest.raises(ValueError, match="at least one of the three costs"):
        HungarianMatcher(0, 0, 0)


def test_state_dict_has_the_published_keys():
    assert list(build().state_dict()) == ["empty_weight"]
