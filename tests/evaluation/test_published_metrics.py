"""Scores of random label maps compared with cityscapesscripts and mmsegmentation's metric."""

import importlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.data import CITYSCAPES_IDS, CLASSES, build_test_loader, register_folder
from recyclelora.evaluation import ConfusionMatrix, evaluate_domains, native
from recyclelora.evaluation.predictions import encode

ORACLES = Path(sys.prefix) / "oracles"  # packages that `make test-slow` installs for tests
NOT_INSTALLED = "compares with cityscapesscripts: `make test-slow` installs it"
CASES = {
    "all classes": (range(19), range(19), 0.1),
    "few in the truth": ([0, 2, 8], range(19), 0.3),
    "few predicted": (range(19), [0, 13], 0.0),
    "nothing in common": ([1, 2], [3, 4], 0.5),
}


def random_maps(case, shape=(4, 50, 60)):
    truth_classes, predicted, ignored = CASES[case]
    rng = np.random.default_rng(len(case))
    truth = rng.choice(list(truth_classes), shape).astype(np.uint8)
    guess = rng.choice(list(predicted), shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.4, truth, guess)
    if set(predicted) != set(range(19)):
        prediction = guess
    truth[rng.random(shape) < ignored] = 255
    return prediction, truth


def mmsegmentation(predictions, truths, classes=19):
    """Return the result of mmsegmentation's IoUMetric: histograms, summed; 0/0 is left out."""
    areas = torch.zeros(3, classes, dtype=torch.float64)
    for prediction, truth in zip(predictions, truths, strict=True):
        keep = torch.from_numpy(truth != 255)
        sides = [torch.from_numpy(ids)[keep].float() for ids in (prediction, truth)]
        agreed = sides[0][sides[0] == sides[1]]
        for area, ids in zip(areas, (agreed, *sides), strict=True):
            area += torch.histc(ids, bins=classes, min=0, max=classes - 1)
    intersect, predicted, labelled = areas
    iou = intersect / (predicted + labelled - intersect)
    return iou.numpy(), np.nanmean(iou.numpy()), (intersect.sum() / labelled.sum()).item()


@pytest.mark.parametrize("case", CASES)
def test_confusion_matches_mmsegmentation_metric(case):
    predictions, truths = random_maps(case)
    confusion = ConfusionMatrix(19)
    for prediction, truth in zip(predictions, truths, strict=True):
        confusion.update(prediction, truth)
    iou, mean, accuracy = mmsegmentation(predictions, truths)
    np.testing.assert_allclose(confusion.iou(), iou, atol=1e-12)
    assert confusion.mean_iou() == pytest.approx(mean, abs=1e-12)
    assert confusion.pixel_accuracy() == pytest.approx(accuracy, abs=1e-12)


class Recall:
    """A ``predict`` that recognises the image by its first pixel and returns a stored class map."""

    def __init__(self, maps):
        self.maps = torch.from_numpy(maps).long()

    def __call__(self, images):
        (image,) = images
        ids = self.maps[int(image[0, 0, 0])]
        return torch.nn.functional.one_hot(ids, len(CLASSES)).permute(2, 0, 1)[None].float()


def write_cityscapes(root, truths):
    """Write files in the layout of Cityscapes; image i has the colour i."""
    ids = encode(np.where(truths == 255, 0, truths), "label_ids")
    ids[truths == 255] = 1
    for i, label in enumerate(ids):
        for kind, suffix, pixels in (
            ("leftImg8bit", "leftImg8bit", np.full((*label.shape, 3), i, np.uint8)),
            ("gtFine", "gtFine_labelIds", label),
        ):
            folder = root / kind / "val" / "ulm"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"ulm_{i:06d}_000019_{suffix}.png")


@pytest.fixture
def city(tmp_path):
    """Return the name of the dataset that :func:`write_cityscapes` writes to ``tmp_path``."""
    return register_folder(
        "random city",
        images=tmp_path / "leftImg8bit" / "val",
        labels=tmp_path / "gtFine" / "val",
        image_suffix="_leftImg8bit.png",
        label_suffix="_gtFine_labelIds.png",
        label_map=CITYSCAPES_IDS,
    )


def evaluate_in_process(rank, world, folder, name, predictions):
    cv2.setNumThreads(0)  # its threads do not survive a fork
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/address", rank=rank, world_size=world
    )
    evaluate(name, predictions, folder / "two")


def evaluate(name, predictions, folder):
    domains = {"city": build_test_loader(name, num_workers=0)}
    predict = Recall(predictions)
    return evaluate_domains(predict, domains, native(), folder, save_predictions="label_ids")


def files_below(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.png")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_saved_maps_match_cityscapesscripts_scores(case, city, tmp_path, monkeypatch):
    """Return the score that cityscapesscripts computes for the files of a submission."""
    monkeypatch.syspath_prepend(ORACLES)
    name = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
    pytest.importorskip("cityscapesscripts", reason=NOT_INSTALLED)
    theirs = importlib.import_module(name)
    predictions, truths = random_maps(case, (5, 30, 40))
    write_cityscapes(tmp_path, truths)
    # A fork, so that the registered dataset exists in the child.
    torch.multiprocessing.start_processes(
        evaluate_in_process,
        (2, tmp_path, city, predictions),
        nprocs=2,
        start_method="fork",
    )
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(tmp_path / "two" / "predictions"))
    settings = dict.fromkeys(("JSONOutput", "evalInstLevelScore"), False) | {"quiet": True}
    settings |= dict.fromkeys(("predictionPath", "predictionWalk"))
    for key, value in settings.items():
        monkeypatch.setattr(theirs.args, key, value)
    labels = sorted(map(str, tmp_path.rglob("*_gtFine_labelIds.png")))
    files = [theirs.getPrediction(theirs.args, label) for label in labels]
    assert len(set(files)) == 5
    scores = theirs.evaluateImgLists(files, labels, theirs.args)
    ours = json.loads((tmp_path / "two" / "domains.json").read_text())["domains"]["city"]
    known = {name: scores["classScores"][name] for name in CLASSES}
    known = {name: None if np.isnan(score) else 100 * score for name, score in known.items()}
    assert ours["IoU"] == pytest.approx(known, abs=1e-9)
    assert ours["mIoU"] == pytest.approx(100 * scores["averageScoreClasses"], abs=1e-9)
    assert ours["images"] == 5
    _, mean, _ = mmsegmentation(predictions, truths)
    assert ours["mIoU"] == pytest.approx(100 * mean, abs=1e-9)
    alone = evaluate(city, predictions, tmp_path / "one")
    assert alone["domains"]["city"] == ours
    one, two = (files_below(tmp_path / run / "predictions") for run in ("one", "two"))
    assert one == two and len(one) == 5
