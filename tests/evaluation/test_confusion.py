import numpy as np
import pytest

from recyclelora.data import CAMVID, CLASSES, LABELMEFACADE
from recyclelora.evaluation import ConfusionMatrix

ROAD, BUILDING, WALL, PERSON, CAR, BUS = (
    CLASSES.index(name) for name in ("road", "building", "wall", "person", "car", "bus")
)


def scored(prediction, truth, **options):
    confusion = ConfusionMatrix(len(CLASSES), **options)
    confusion.update(np.array(prediction), np.array(truth))
    return confusion


def test_iou_matches_golden_metrics(golden):
    reference = golden("miou.npz")
    cases = {key.split("/")[0] for key in reference if "/" in key}
    assert cases
    for case in cases:
        known = {
            key.split("/")[1]: reference[key] for key in reference if key.startswith(f"{case}/")
        }
        ignore = int(reference["ignore_index"])
        confusion = ConfusionMatrix(len(known["area_label"]), ignore_label=ignore)
        for prediction, truth in zip(known["pred"], known["label"], strict=True):
            confusion.update(prediction, truth)
        square = confusion.counts[:, :-1]
        assert square.dtype == np.int64
        assert np.array_equal(square, known["confusion_gt_rows"])
        # mmsegmentation divides in float32, unlike cityscapesscripts and the f64 columns.
        np.testing.assert_allclose(confusion.iou(), known["IoU_per_class"], atol=1e-6)
        np.testing.assert_allclose(confusion.iou(), known["IoU_per_class_f64"], atol=1e-12)
        np.testing.assert_allclose(
            confusion.iou(), known["cityscapesscripts_IoU_per_class"], atol=1e-12
        )
        assert confusion.mean_iou() == pytest.approx(float(known["mIoU"]), abs=1e-6)
        assert confusion.mean_iou() == pytest.approx(float(known["mIoU_f64"]), abs=1e-12)
        np.testing.assert_allclose(confusion.class_accuracy(), known["Acc_per_class"], atol=1e-6)
        assert confusion.pixel_accuracy() == pytest.approx(float(known["aAcc"]), abs=1e-6)


def test_iou_absent_class_is_nan_false_positive_zero():
    confusion = scored([[0, 0, 1, 2]], [[0, 0, 1, 1]])
    iou = confusion.iou()
    assert iou[:3].tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(iou[3:]).all()
    assert confusion.mean_iou() == pytest.approx(0.5)


def test_update_ignores_ignored_pixels():
    confusion = scored([[0, 3]], [[0, 255]])
    assert confusion.counts.sum() == 1 and confusion.mean_iou() == 1.0


def test_folding_maps_predictions_to_labels():
    confusion = scored([[WALL, BUS, ROAD, ROAD]], [[BUILDING, CAR, ROAD, PERSON]], folding=CAMVID)
    iou = confusion.iou()
    assert (iou[BUILDING], iou[CAR], iou[ROAD], iou[PERSON]) == (1, 1, 0.5, 0)
    assert np.isnan(iou[[WALL, BUS]]).all()
    assert confusion.mean_iou() == pytest.approx(2.5 / 4)


def test_folding_unmapped_prediction_counts_as_wrong():
    confusion = scored([[PERSON, CAR, PERSON]], [[CAR, CAR, 255]], folding=LABELMEFACADE)
    iou = confusion.iou()
    assert iou[CAR] == 0.5 and np.isnan(iou[PERSON])
    assert confusion.mean_iou() == 0.5
    assert confusion.pixel_accuracy() == 0.5


def test_folding_false_positive_label_has_iou_zero():
    confusion = scored([[CAR, BUS]], [[CAR, BUILDING]], folding=LABELMEFACADE)
    assert confusion.iou()[BUILDING] == 0
    confusion = scored([[CAR, BUILDING]], [[CAR, CAR]], folding=LABELMEFACADE)
    assert confusion.iou()[BUILDING] == 0 and confusion.mean_iou() == 0.25


def test_folding_unlabelled_truth_raises():
    with pytest.raises(ValueError, match=r"truth has class 11, .* \(it labels \[0, 1, 2, 8"):
        scored([[0]], [[PERSON]], folding=LABELMEFACADE)


@pytest.mark.parametrize(("prediction", "truth"), [([[19]], [[0]]), ([[0]], [[19]])])
def test_update_invalid_ids_raise(prediction, truth):
    with pytest.raises(ValueError, match=r"ids 0\.\.18, got 19\.\.19"):
        scored(prediction, truth)


def test_update_size_mismatch_raises():
    with pytest.raises(ValueError, match=r"truth's size \(1, 2\), got \(1, 1\)"):
        scored([[0]], [[0, 0]])


def test_folding_with_other_class_count_raises():
    with pytest.raises(ValueError, match="folds 19 classes, the model has 5"):
        ConfusionMatrix(5, folding=CAMVID)


def test_scores_without_labelled_pixels_are_nan():
    confusion = scored([[0]], [[255]])
    assert np.isnan(confusion.mean_iou()) and np.isnan(confusion.pixel_accuracy())
    assert np.isnan(confusion.constant_class_miou())


@pytest.mark.parametrize("folding", [None, LABELMEFACADE])
def test_constant_class_miou_matches_exhaustive_search(folding):
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 2, 2, 2, 8, 255], (20, 20))
    tried = [scored(np.full((20, 20), c), truth, folding=folding).mean_iou() for c in range(19)]
    confusion = scored(rng.integers(0, 19, (20, 20)), truth, folding=folding)
    assert confusion.constant_class_miou() == pytest.approx(max(tried))


def test_counts_exceed_float32_precision():
    confusion = scored([[0]], [[0]])
    confusion.counts[0, 0] = 2**24
    confusion.update(np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64))
    assert confusion.counts[0, 0] == 2**24 + 1
