import pytest
import torch
import torch.nn.functional as F

from recyclelora.evaluation import sliding_window_logits
from recyclelora.evaluation.sliding_window import finished_rows


def published_network(reference):
    def predict(crops):
        height, width = crops.shape[-2:]
        bias = reference["position_bias"][:, :height, :width]
        return F.conv2d(crops, reference["conv_weight"], padding=2) + bias

    return predict


def test_logits_and_argmax_match_golden(golden):
    reference = golden("slide_inference.pt")
    cases = [case for case in reference.values() if isinstance(case, dict)]
    assert cases
    for case in cases:
        seen = []

        def predict(crops, seen=seen):
            seen.append(list(crops.shape))
            return published_network(reference)(crops)

        images = case["x"]
        crop, stride = tuple(case["crop"]), tuple(case["stride"])
        logits = sliding_window_logits(predict, images, crop, stride, batch=1)
        torch.testing.assert_close(logits, case["slide_logits"], atol=1e-5, rtol=0)
        if len(images) == 1:
            assert seen == [list(shape) for shape in case["windows_in_order"]]
        size = tuple(case["ori_shape"])
        resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        same = resized.argmax(1).to(torch.uint8) == case["argmax_ori"]
        assert same.float().mean() >= 0.9995


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_batch_size_changes_rounding_only(batch):
    network = torch.nn.Conv2d(3, 5, 3, padding=1)
    images = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        one = sliding_window_logits(network, images[:1], 24, 16)
        two = sliding_window_logits(network, images[1:], 24, 16)
        both = sliding_window_logits(network, images, 24, 16, batch=batch)
    torch.testing.assert_close(both, torch.cat([one, two]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "windows"),
    [
        ((20, 30), [((0, 20), (0, 30))]),  # smaller than the crop: a window of the image's size
        ((20, 64), [((0, 20), (0, 64))]),
        ((20, 65), [((0, 20), (0, 64)), ((0, 20), (1, 65))]),
        ((64, 150), [((0, 64), (0, 64)), ((0, 64), (43, 107)), ((0, 64), (86, 150))]),
        ((64, 151), [((0, 64), x) for x in ((0, 64), (43, 107), (86, 150), (87, 151))]),
    ],
)
def test_last_window_is_shifted_inside(size, windows):
    rows, columns = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    images = torch.stack([rows, columns, rows]).float()[None]
    seen = []

    def predict(crops):
        for crop in crops:
            first, last = crop[:2, 0, 0].int().tolist(), crop[:2, -1, -1].int().tolist()
            seen.append(tuple((a, b + 1) for a, b in zip(first, last, strict=True)))
        return crops

    logits = sliding_window_logits(predict, images, 64, 43, batch=2)
    assert seen == windows
    torch.testing.assert_close(logits, images)


def test_half_precision_is_summed_in_float32():
    logits = sliding_window_logits(lambda x: x.bfloat16(), torch.rand(1, 3, 40, 40), 16, 5)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    "options", [{"stride": 20}, {"stride": 0}, {"batch": 0}, {"crop": 0}, {"crop": (16, 4)}]
)
def test_windows_with_gaps_raise(options):
    arguments = {"crop": 16, "stride": 8, "batch": 1} | options
    with pytest.raises(ValueError, match="windows need a batch of at least 1 and 0 < stride"):
        sliding_window_logits(lambda x: x, torch.rand(1, 3, 32, 32), **arguments)


def test_logits_of_other_size_raise():
    with pytest.raises(ValueError, match=r"\(1, C, 16, 16\), got \(1, 3, 8, 8\)"):
        sliding_window_logits(lambda x: x[..., ::2, ::2], torch.rand(1, 3, 32, 32), 16, 8)


def slow_slide(predict, image, crop, stride):
    """The published sliding windows, pixel by pixel: the average of all windows of a pixel."""
    height, width = image.shape[1:]
    boxes = []
    for y in range(max(height - crop + stride - 1, 0) // stride + 1):
        for x in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(y * stride + crop, height), min(x * stride + crop, width)
            boxes.append((max(bottom - crop, 0), bottom, max(right - crop, 0), right))
    total, count = 0, torch.zeros(height, width)
    for top, bottom, left, right in boxes:
        logits = predict(image[None, :, top:bottom, left:right])
        total = total + F.pad(logits, (left, width - right, top, height - bottom))
        count[top:bottom, left:right] += 1
    assert count.min() > 0
    return total[0] / count


@pytest.mark.parametrize(
    "size", [(50, 70), (24, 24), (10, 70), (70, 10), (9, 5), (25, 48), (23, 100)]
)
@pytest.mark.parametrize(("crop", "stride"), [(24, 16), (24, 24), (24, 1), (7, 5)])
def test_odd_sizes_match_slow_implementation(size, crop, stride):
    network = torch.nn.Conv2d(3, 5, 3, padding=1)  # outputs depend on the window's border
    image = torch.rand(3, *size)
    with torch.no_grad():
        expected = slow_slide(network, image, crop, stride)
    found = sliding_window_logits(network, image[None], crop, stride, batch=3)[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_finished_rows_are_ordered_bands():
    images = torch.rand(2, 3, 100, 30)
    found = list(finished_rows(lambda crops: crops, images, 24, 16, batch=5))
    for index in (0, 1):
        rows = [rows for i, _, rows in found if i == index]
        tops = [top for i, top, _ in found if i == index]
        assert tops == [0, 16, 32, 48, 64, 76]
        assert max(part.shape[1] for part in rows) <= 24
        torch.testing.assert_close(torch.cat(rows, 1), images[index])
    assert [i for i, _, _ in found] == [0] * 6 + [1] * 6
