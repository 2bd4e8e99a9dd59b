"""Figures show the values that they are given."""

import numpy as np

from recyclelora.analysis.figures import confusion_maps
from recyclelora.data import CLASSES


def test_confusion_maps_show_shares_of_each_true_class():
    first, second = np.zeros((2, 19, 20), int)
    first[0, [0, 1, 19]] = 6, 3, 1  # road, of which a tenth has no label
    second[2, [2, 0]] = 1, 3  # building, only in the second run's truth
    figure = confusion_maps({"a": first.tolist(), "b": second.tolist()}, "day")
    one, other = (ax for ax in figure.axes if ax.images)
    columns = [tick.get_text() for tick in one.get_xticklabels()]
    assert columns == [*CLASSES[:3], "no label"]
    assert [tick.get_text() for tick in one.get_yticklabels()] == [CLASSES[0], CLASSES[2]]
    np.testing.assert_allclose(one.images[0].get_array(), [[60, 30, 0, 10], [0, 0, 0, 0]])
    np.testing.assert_allclose(other.images[0].get_array(), [[0, 0, 0, 0], [75, 0, 25, 0]])
    assert (one.get_xlabel(), one.get_ylabel()) == ("predicted class", "true class")
    assert one.get_title() == "a: day"
