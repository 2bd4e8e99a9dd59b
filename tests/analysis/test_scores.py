"""The paired bootstrap over the images of two runs."""

import numpy as np
import pytest

from recyclelora.analysis.scores import paired_difference


def test_interval_of_normal_differences_matches_theory():
    rng = np.random.default_rng(0)
    first = {str(i): float(x) for i, x in enumerate(rng.normal(50, 10, 400))}
    second = {key: value + rng.normal(1, 2) for key, value in first.items()}
    found = paired_difference(first, second)
    half = 1.96 * 2 / 20  # standard error of 400 differences with deviation 2
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.15)
    assert found["low"] < found["difference"] < found["high"]


def test_images_without_labels_are_left_out():
    assert paired_difference({"a": 1.0, "b": None}, {"a": 2.0, "b": 3.0})["images"] == 1


def test_runs_without_common_images_are_refused():
    with pytest.raises(ValueError, match="common images, got two without"):
        paired_difference({"a": 1.0}, {"b": 1.0})
