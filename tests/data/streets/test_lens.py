"""A lens bends picture and label alike, and a bonnet is nobody's class."""

import numpy as np
import pytest

from recyclelora.data.streets import draw_street
from recyclelora.data.streets.lens import BENDS, IGNORE, Lens


@pytest.mark.parametrize("bend", BENDS)
def test_picture_and_label_are_bent_alike(bend):
    label = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((40, 40), np.uint8))
    picture = np.repeat(label[..., None], 3, 2).astype(np.float32)
    shown, bent = Lens(bend).apply(picture, label)
    whole = shown == np.rint(shown)  # away from edges nothing is mixed
    assert whole.mean() > 0.9
    assert (shown[..., 0] == bent)[whole.all(2)].all()
    corners = np.s_[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (bent[corners] == label[corners]).all()


def test_a_straight_lens_changes_nothing():
    picture, label = np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8)
    shown, bent = Lens().apply(picture, label)
    assert shown is picture and bent is label


def test_bonnets_lie_at_the_bottom_of_some_pictures():
    masks = np.array([draw_street(4, i, "day", 64, 128)[1] == IGNORE for i in range(60)])
    assert 3 <= masks[:, -1, 30:-30].all(1).sum() <= 25
    assert masks.mean((1, 2)).max() < 0.3
