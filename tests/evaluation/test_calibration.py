"""Confidences, their calibration error and their temperature, against independent computations."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from recyclelora.data import CLASSES, Folding, build_test_loader
from recyclelora.evaluation import evaluate_domains, native
from recyclelora.evaluation.calibration import (
    ConfidenceHistogram,
    Sample,
    confidence_at,
    fit_temperature,
    negative_log_likelihood,
    sample_pixels,
    segment_with_confidence,
)
from recyclelora.evaluation.scored_map import Wanted


def predict(images):
    """Scores of 19 classes that are sharper where the image is bright."""
    base = torch.linspace(0.1, 1.0, 19)[:, None, None]
    grey = images.mean(1, keepdim=True) / 255
    waves = 1 + torch.sin(7 * base * (1 + images[:, :1] / 40))
    return base * waves * (0.05 + grey)


def image(height=20, width=30):
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    )


def probabilities(scores, temperature):
    """Few lines of NumPy: softmax of log scores, in float64."""
    return special.softmax(np.log(np.asarray(scores, np.float64)) / temperature, axis=0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("protocol", [native(), native(mode="slide", crop=16)], ids=str)
def test_uncertainty_equals_that_of_scipy(protocol, temperature):
    wanted = Wanted(True, True, True, temperature)
    found = protocol.score(predict, image()[None], "any", wanted)[0]
    expected = probabilities(found.logits, temperature)
    ordered = np.sort(expected, axis=0)
    close = {"rtol": 1e-4, "atol": 1e-6}
    assert np.array_equal(found.classes, expected.argmax(0))
    assert np.allclose(found.probabilities, probabilities(found.logits, 1), **close)
    assert np.allclose(found.confidence, ordered[-1], **close)
    assert np.allclose(found.uncertainty.confidence, ordered[-1], **close)
    assert np.allclose(found.uncertainty.margin, ordered[-1] - ordered[-2], **close)
    assert np.allclose(found.uncertainty.entropy, stats.entropy(expected), **close)


def test_uncertainty_of_several_views_is_that_of_averaged_probabilities():
    protocol = native(scales=(0.5, 1.0), flip=True)
    wanted = Wanted(True, True, True, 2.0)
    found = protocol.score(predict, image()[None], "any", wanted)[0]
    expected = probabilities(found.probabilities, 2.0)
    chosen = np.take_along_axis(expected, found.classes[None].numpy().astype(int), 0)[0]
    assert np.array_equal(found.classes, found.logits.argmax(0))
    assert np.allclose(found.confidence, chosen, atol=1e-5)
    assert np.allclose(found.uncertainty.entropy, stats.entropy(expected), atol=1e-5)


def test_pixels_without_any_score_are_uncertain():
    def nothing(images):
        return torch.zeros(1, 19, *images.shape[2:])

    for temperature in (1.0, 0.1):
        wanted = Wanted(uncertainty=True, temperature=temperature)
        found = native().score(nothing, image()[None], "any", wanted)[0]
        assert found.confidence.eq(0).all() and found.uncertainty.margin.eq(0).all()
        assert np.allclose(found.uncertainty.entropy, math.log(19))


def test_calibration_error_and_auroc_equal_independent_ones():
    rng = np.random.default_rng(0)
    confidence = np.append(rng.beta(5, 2, 20_000), [0.0, 1.0, 1.0]).astype(np.float32)
    right = rng.random(len(confidence)) < confidence**2
    histogram = ConfidenceHistogram()
    for part in (slice(0, 7000), slice(7000, None)):
        histogram.update(confidence[part], right[part])
    bins = np.minimum((confidence.astype(float) * 15).astype(int), 14)
    error = sum(
        (bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean(dtype=float))
        for b in np.unique(bins)
    )
    assert histogram.expected_calibration_error() == pytest.approx(error, abs=1e-9)
    test = stats.mannwhitneyu(confidence[right], confidence[~right])
    auroc = test.statistic / (right.sum() * (~right).sum())
    assert histogram.auroc_of_errors() == pytest.approx(auroc, abs=1e-4)


def test_scores_without_errors_or_pixels_are_null():
    histogram = ConfidenceHistogram()
    assert histogram.scores() == {"ECE": None, "AUROC": None}
    histogram.update(np.array([1.0, 1.0]), np.array([True, True]))
    assert histogram.scores() == {"ECE": 0.0, "AUROC": None}
    histogram.update(np.array([1.0, 1.0]), np.array([False, False]))
    assert histogram.scores() == {"ECE": 50.0, "AUROC": 50.0}


def sample_of(true_temperature, folding=None, count=4000):
    """Labels drawn from probabilities at a temperature."""
    rng = np.random.default_rng(0)
    shares = special.softmax(2 * rng.normal(size=(count, 19)), axis=1)
    drawn = special.softmax(np.log(shares) / true_temperature, axis=1)
    labels = (drawn.cumsum(1) < rng.random((count, 1))).sum(1).clip(max=18)
    table = np.arange(19) if folding is None else folding.table
    allowed = table[None] == table[labels][:, None]
    return Sample(torch.from_numpy(shares).float(), torch.from_numpy(allowed)), labels


@pytest.mark.parametrize("true_temperature", [0.5, 3.0])
def test_fitted_temperature_is_that_of_another_optimiser(true_temperature):
    sample, labels = sample_of(true_temperature)
    logs = np.log(sample.shares.numpy().astype(float))

    def loss(temperature):
        return -special.log_softmax(logs / temperature, axis=1)[range(len(labels)), labels].mean()

    expected = optimize.minimize(lambda x: loss(x[0]), [1.0], method="Nelder-Mead").x[0]
    halves = [Sample(*(part[half::2] for part in sample)) for half in (0, 1)]
    found = fit_temperature(halves)
    assert found == pytest.approx(expected, rel=1e-3)
    assert found == pytest.approx(true_temperature, rel=0.1)
    assert negative_log_likelihood(sample, found) == pytest.approx(loss(found), abs=1e-6)


def test_folded_labels_add_the_probabilities_of_their_classes():
    folding = Folding("two", ("road", "person"), {"sidewalk": "road", "rider": "person"})
    shares = torch.tensor([[0.2, 0.3, *[0.5 / 17] * 17]])
    allowed = torch.from_numpy(folding.table[None] == 0)
    found = negative_log_likelihood(Sample(shares, allowed), 1.0)
    assert found == pytest.approx(-math.log(0.5), abs=1e-6)
    with pytest.raises(ValueError, match="expected labelled pixels"):
        fit_temperature([Sample(shares, torch.zeros(1, 19, dtype=torch.bool))])


def segmented(**options):
    truth = np.random.default_rng(1).choice([0, 2, 10, 255], (40, 60)).astype(np.uint8)
    sample = {
        "image": image(40, 60),
        "sem_seg": torch.from_numpy(truth),
        "file_name": "x.png",
    }
    protocol = native(long_side=30, **options)
    return segment_with_confidence(protocol, predict, sample, "any", probabilities=True)


@pytest.mark.parametrize("argmax", ["label", "input"])
def test_sampled_pixels_have_the_probabilities_at_their_place(argmax):
    found = segmented(argmax=argmax)
    sample = sample_pixels(found, None, count=300, seed=(0, 1))
    assert sample.shares.shape == (300, 19)
    again = sample_pixels(found, None, count=300, seed=(0, 1))
    assert torch.equal(sample.shares, again.shares)
    assert torch.equal(sample.allowed.int().argmax(1).unique(), torch.tensor([0, 2, 10]))
    everything = sample_pixels(found, None, count=10**6, seed=(0, 1))
    assert len(everything.shares) == (found.truth != 255).sum()
    classes = found.prediction[found.truth != 255]
    assert (everything.shares.argmax(1).numpy() == classes).mean() > 0.9
    assert np.allclose(confidence_at(found, 1.0), found.confidence, atol=1e-6)


def test_domains_json_has_calibration_when_it_is_asked_for(tiny_set, tmp_path):
    name = tiny_set("day_of_calibration", classes=(*range(19), 255))
    loaders = {"day": build_test_loader(name, num_workers=0)}
    plain = evaluate_domains(predict, loaders, native(), tmp_path / "plain")
    asked = evaluate_domains(predict, loaders, native(), tmp_path / "asked", temperature=2.0)
    stored = json.loads((tmp_path / "asked" / "domains.json").read_text())
    assert "ECE" not in plain["domains"]["day"] and stored == asked
    assert asked["domains"]["day"]["mIoU"] == plain["domains"]["day"]["mIoU"]
    confidence, right = [], []
    for sample in loaders["day"]:
        scores = predict(sample["image"][None].float())[0]
        expected, truth = probabilities(scores, 2.0), sample["sem_seg"].numpy()
        confidence.append(expected.max(0)[truth != 255])
        right.append((expected.argmax(0) == truth)[truth != 255])
    confidence, right = np.concatenate(confidence), np.concatenate(right)
    auroc = stats.mannwhitneyu(confidence[right], confidence[~right]).statistic
    auroc /= right.sum() * (~right).sum()
    assert asked["domains"]["day"]["AUROC"] == pytest.approx(100 * auroc, abs=0.1)
    histogram = ConfidenceHistogram()
    histogram.update(confidence, right)
    ece = 100 * histogram.expected_calibration_error()
    assert asked["domains"]["day"]["ECE"] == pytest.approx(ece, abs=0.01)
    with pytest.raises(ValueError, match="temperature must be a number"):
        evaluate_domains(predict, loaders, native(), tmp_path / "x", temperature=0)


def test_image_whose_logits_are_not_finite_is_named():
    sample = {
        "image": image(),
        "sem_seg": torch.zeros(20, 30, dtype=torch.uint8),
        "file_name": "x.png",
    }
    with pytest.raises(ValueError, match=r"x\.png: expected finite logits"):
        segment_with_confidence(
            native(), lambda x: torch.full((1, len(CLASSES), 20, 30), torch.nan), sample, "any"
        )
