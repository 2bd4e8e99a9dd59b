"""Predictions with each adapter on and off, and the changes that adapters make."""

import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.adapters import active, adapter_parameters, export
from recyclelora.analysis.explore import (
    Exploration,
    Explorer,
    Prediction,
    Transition,
    changed_classes,
    confidence_colors,
    read_photograph,
)
from recyclelora.data import COLORS
from recyclelora.evaluation import native

from ..support.trained_adapters import learn
from ..support.trained_segmentor import tiny_segmentor

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
BOTH = ("main", "sub")


def explorer(model, **settings):
    return Explorer(model, protocol=native(long_side=96), **settings)


@torch.no_grad()
def classes_of(model, main=True, sub=True):
    image = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].float()
    with active(model, main=main, sub=sub):
        return model.semantic_logits(image)[0].argmax(0).numpy()


def test_explore_predicts_every_state_and_keeps_the_weights():
    model = tiny_segmentor()
    learn(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = explorer(model).explore(PHOTO)
    assert found.kinds == BOTH
    for on in ((), ("main",), ("sub",), BOTH):
        expected = classes_of(model, main="main" in on, sub="sub" in on)
        assert (found.prediction(on).classes == expected).mean() > 0.99  # merged: rounding
        assert found.prediction(on).confidence.shape == PHOTO.shape[:2]
    assert found.changed("main").any()
    assert {kind: colors.shape for kind, colors in found.colors.items()} == dict.fromkeys(
        BOTH, PHOTO.shape
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_adapter_at_its_initial_value_changes_nothing():
    model = tiny_segmentor()
    with torch.no_grad():
        for factor in adapter_parameters(model).main.values():
            factor += 0.2 * torch.randn_like(factor)
    found = explorer(model).explore(PHOTO)
    assert found.changed("main").any() and not found.changed("sub").any()
    assert found.transitions("sub") == []
    assert np.ptp(found.colors["sub"].reshape(-1, 3), axis=0).max() == 0


def test_model_without_sub_adapter_has_two_states():
    found = explorer(tiny_segmentor("model.backbone.r_sub=0")).explore(PHOTO)
    assert found.kinds == ("main",) and len(found.predictions) == 2
    assert found.prediction(BOTH) is found.prediction(["main"])


def test_model_without_adapters_has_one_state():
    found = explorer(export(tiny_segmentor())).explore(PHOTO)
    assert found.kinds == () and found.colors == {}
    assert found.prediction(BOTH) is found.prediction(())


def test_block_out_of_range_raises():
    with pytest.raises(ValueError, match="--block must be 0 to 3, got 4"):
        explorer(tiny_segmentor(), block=4)


@pytest.fixture
def exploration():
    """Sub changes one of eight pixels from car to road and two from sky to road."""
    without = np.array([[0, 13, 10, 10], [0, 0, 8, 8]], np.uint8)
    full = np.array([[0, 0, 0, 0], [0, 0, 8, 8]], np.uint8)
    confidence = np.ones((2, 4), np.float32)
    predictions = {
        frozenset(): Prediction(without, confidence),
        frozenset({"sub"}): Prediction(full, confidence),
    }
    return Exploration(np.full((2, 4, 3), 100, np.uint8), ("sub",), predictions, {})


def test_transitions_are_sorted_by_share(exploration):
    assert exploration.transitions("sub") == [Transition(10, 0, 2 / 8), Transition(13, 0, 1 / 8)]
    assert exploration.transitions("sub", most=1) == [Transition(10, 0, 2 / 8)]


def test_changed_pixels_have_their_new_colour(exploration):
    picture = changed_classes(exploration, "sub")
    assert (picture[exploration.changed("sub")] == COLORS[0]).all()
    assert (picture[~exploration.changed("sub")] == 195).all()


def test_confidence_colours_span_viridis():
    low, high = confidence_colors(np.array([0.0, 1.0], np.float32))
    assert low.tolist() == [68, 1, 84] and high.tolist() == [253, 231, 36]


def test_large_photograph_is_reduced(tmp_path):
    Image.new("I;16", (3000, 1500), 65535).save(tmp_path / "grey.png")
    pixels = read_photograph(tmp_path / "grey.png")
    assert pixels.shape == (512, 1024, 3) and (pixels == 255).all()


def test_broken_photograph_raises_with_its_name(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg: expected a complete picture"):
        read_photograph(tmp_path / "broken.jpg")
