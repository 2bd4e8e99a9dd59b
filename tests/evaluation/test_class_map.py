import pytest
import torch
import torch.nn.functional as F

from recyclelora.evaluation import class_map as module
from recyclelora.evaluation.class_map import View, best_class, class_map, in_parts, resized_rows

SIZES = [
    ((30, 40), (30, 40)),
    ((30, 40), (61, 83)),
    ((30, 40), (17, 9)),
    ((7, 5), (100, 3)),
    ((1, 1), (4, 6)),
    ((50, 60), (1, 1)),
]


def resized(logits, size):
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def cut(logits, lengths):
    """Yield the rows in parts of these lengths, repeatedly."""
    top = index = 0
    while top < logits.shape[1]:
        yield logits[:, top : top + lengths[index % len(lengths)]]
        top += lengths[index % len(lengths)]
        index += 1


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 7), (1000,)])
@pytest.mark.parametrize(("size", "wanted"), SIZES)
@pytest.mark.parametrize("at_once", [1, 500, 2**24])
def test_resized_rows_match_full_interpolation(size, wanted, lengths, at_once, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    logits = torch.randn(5, *size)
    found = list(resized_rows(cut(logits, lengths), size, wanted))
    tops = [top for top, _ in found]
    assert tops == [sum(rows.shape[1] for _, rows in found[:i]) for i in range(len(found))]
    assert max(rows.numel() for _, rows in found) <= max(at_once, 5 * wanted[1])
    joined = torch.cat([rows for _, rows in found], 1)
    torch.testing.assert_close(joined, resized(logits, wanted), atol=1e-5, rtol=0)


def test_resized_rows_of_the_wanted_size_keep_their_bits():
    logits = torch.randn(5, 30, 40) * 1e6
    found = resized_rows(cut(logits, (7,)), (30, 40), (30, 40))
    assert torch.equal(torch.cat([rows for _, rows in found], 1), logits)


def test_in_parts_covers_all_rows(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 1000)
    logits = torch.randn(3, 50, 20)
    parts = list(in_parts(logits))
    assert len(parts) > 1 and max(part.numel() for part in parts) <= 1000
    assert torch.equal(torch.cat(parts, 1), logits)


def test_one_view_gives_argmax_of_logits():
    logits = torch.randn(19, 20, 30)
    expected = resized(logits, (50, 41)).argmax(0)
    assert torch.equal(best_class(logits, (50, 41)).long(), expected)
    found = class_map([View((20, 30), cut(logits, (6,)))], 1, (50, 41))
    assert found.dtype == torch.uint8
    assert (found == expected).float().mean() > 0.999


def test_several_views_give_argmax_of_mean_softmax():
    # One is sure where the other is not: the mean of logits would decide otherwise.
    sure, unsure = torch.tensor([9.0, 0.0]), torch.tensor([-30.0, 1.0])
    views = [View((1, 1), [logits[:, None, None]]) for logits in (sure, sure, unsure)]
    assert class_map(views, 3, (1, 1)).item() == 0
    assert torch.stack([sure, sure, unsure]).mean(0).argmax() == 1
    logits = [torch.randn(19, 8, 9), torch.randn(19, 12, 13)]
    mean = sum(resized(one, (10, 11)).softmax(0) for one in logits) / 2
    views = [View(one.shape[1:], cut(one, (5, 2))) for one in logits]
    assert torch.equal(class_map(views, 2, (10, 11)).long(), mean.argmax(0))


def test_tie_gives_lowest_class():
    logits = torch.zeros(4, 3, 3)
    logits[[1, 2]] = 5
    assert best_class(logits, (6, 6)).unique().tolist() == [1]
    view = View((3, 3), [logits])
    assert class_map([view], 1, (6, 6)).unique().tolist() == [1]
    assert class_map([view, view], 2, (6, 6)).unique().tolist() == [1]
