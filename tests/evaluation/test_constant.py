import pytest

from recyclelora.data import build_test_loader, get_dataset
from recyclelora.evaluation import constant_prediction, evaluate_domains, majority_class, native


def test_majority_class_counts_labelled_pixels(tiny_set):
    records = get_dataset(tiny_set("tiny_road", classes=(0, 255, 255, 255))).records()
    assert majority_class(records) == 0
    assert (
        majority_class(records + get_dataset(tiny_set("tiny_sky", classes=(10,))).records()) == 10
    )


def test_majority_class_without_labels_raises(tiny_set):
    with pytest.raises(ValueError, match="got only ignored ones"):
        majority_class(get_dataset(tiny_set("tiny_blank", classes=(255,))).records())


def test_constant_prediction_scores_its_class_only(tiny_set, tmp_path):
    loader = build_test_loader(tiny_set("tiny_two", classes=(0, 2)), num_workers=0)
    found = evaluate_domains(constant_prediction(2), {"two": loader}, native(), tmp_path)
    truth = [int((sample["sem_seg"] == 2).sum()) for sample in loader]
    share = 100 * sum(truth) / sum(sample["sem_seg"].numel() for sample in loader)
    assert found["domains"]["two"]["mIoU"] == pytest.approx(share / 2)
