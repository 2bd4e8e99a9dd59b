import json
import logging

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.data import CAMVID, CLASSES, LABELMEFACADE, build_test_loader, real_sets
from recyclelora.evaluation import evaluate_domains, native, preview_domains


def predict(images):
    """Return logits that depend only on the pixel's colour, so that windows have no effect."""
    batch, _, height, width = images.shape
    logits = torch.zeros(batch, len(CLASSES), height, width)
    logits[:, [0, 2, 10]] = images
    return logits


def loaders(tiny_set, **sets):
    return {
        name: build_test_loader(tiny_set(f"tiny_{name}", **options), num_workers=0)
        for name, options in sets.items()
    }


def expected_iou(loader):
    prediction = np.stack([predict(s["image"][None].float())[0].argmax(0) for s in loader])
    truth = np.stack([sample["sem_seg"] for sample in loader])
    prediction, truth = prediction[truth != 255], truth[truth != 255]
    ious = {}
    for index, name in enumerate(CLASSES):
        union = ((prediction == index) | (truth == index)).sum()
        hits = ((prediction == index) & (truth == index)).sum()
        ious[name] = 100 * hits / union if union else None
    return ious


def test_domains_json_has_scores_in_percent(tiny_set, tmp_path):
    domains = loaders(tiny_set, day={"count": 3}, night={"count": 2, "classes": (2, 8, 255)})
    protocol = native(mode="slide", crop=32, stride=20)
    result = evaluate_domains(predict, domains, protocol, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "domains.json").read_text()) == result
    assert result.keys() == {"protocol", "domains", "mean_mIoU"}
    assert result["protocol"] == protocol.as_dict()
    for name, scores in result["domains"].items():
        assert scores.keys() == {"mIoU", "IoU", "images"}
        known = expected_iou(domains[name])
        assert scores["IoU"] == pytest.approx(known, abs=1e-9)
        assert scores["mIoU"] == pytest.approx(
            np.mean([v for v in known.values() if v is not None])
        )
    assert [scores["images"] for scores in result["domains"].values()] == [3, 2]
    means = [scores["mIoU"] for scores in result["domains"].values()]
    assert result["mean_mIoU"] == pytest.approx(np.mean(means))


def test_unlabelled_classes_are_null(tiny_set, tmp_path):
    domains = loaders(tiny_set, facades={"folding": LABELMEFACADE})
    scores = evaluate_domains(predict, domains, native(), tmp_path)["domains"]["facades"]
    nulls = {name for name, value in scores["IoU"].items() if value is None}
    # Three of the six labels occur in the truth or the prediction.
    assert nulls == set(CLASSES) - {"road", "building", "sky"}


def test_log_table_lists_domains_and_classes(tiny_set, tmp_path, caplog):
    domains = loaders(tiny_set, day={}, cambridge={"folding": CAMVID})
    with caplog.at_level(logging.INFO):
        result = evaluate_domains(predict, domains, native(), tmp_path)
    lines = caplog.text.splitlines()
    assert f"protocol {native()}" in lines
    line = next(line for line in lines if line.startswith("day "))
    assert f"{result['domains']['day']['mIoU']:.2f}" in line.split()
    assert "one class" in caplog.text and any(line.startswith("bicycle") for line in lines)


def test_pictures_have_one_row_per_domain(tiny_set, tmp_path):
    domains = loaders(tiny_set, day={}, night={})
    evaluate_domains(predict, domains, native(), tmp_path, pictures=2)
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png")}
    files = {file for file in files if not file.startswith("tiny_")}
    pictures = {"pictures/day.png", "pictures/night.png"}
    assert files == {"domains.png", "best_and_worst.png", *pictures}
    path = preview_domains(predict, domains, native(), tmp_path / "preview.png")
    with Image.open(path) as preview, Image.open(tmp_path / "domains.png") as overview:
        assert preview.size == overview.size


def test_zero_pictures_writes_json_only(tiny_set, tmp_path):
    evaluate_domains(predict, loaders(tiny_set, day={}), native(), tmp_path / "o", pictures=0)
    files = sorted(file.name for file in (tmp_path / "o").iterdir())
    assert files == ["confusion.json", "domains.json", "images.json", "one_class.json"]


def test_confusion_file_gives_the_scores_of_each_class(tiny_set, tmp_path):
    result = evaluate_domains(predict, loaders(tiny_set, day={}), native(), tmp_path, pictures=0)
    counts = np.array(json.loads((tmp_path / "confusion.json").read_text())["day"])
    square, hits = counts[:, :19], np.diag(counts)
    union = square.sum(axis=0) + counts.sum(axis=1) - hits
    for i, iou in enumerate(result["domains"]["day"]["IoU"].values()):
        assert iou == pytest.approx(100 * hits[i] / union[i]) if union[i] else iou is None


def test_best_and_worst_match_image_scores(tiny_set, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "recyclelora.evaluation.domains.save_rows",
        lambda file, rows, width: drawn.setdefault(file.name, rows),
    )
    domains = loaders(tiny_set, day={"count": 6}, mixed={"count": 2, "classes": (0, 10, 255)})
    evaluate_domains(predict, domains, native(), tmp_path)
    images = json.loads((tmp_path / "images.json").read_text())
    assert [len(scores) for scores in images.values()] == [6, 2]
    for name, loader in domains.items():
        for sample in loader:
            known = [v for v in expected_iou([sample]).values() if v is not None]
            assert images[name][sample["image_id"]] == pytest.approx(np.mean(known))
        best, worst = (row.note for row in drawn["best_and_worst.png"] if row.title == name)
        scores = images[name]
        assert best.startswith("best") and max(scores, key=scores.get) in best
        assert worst.startswith("worst") and min(scores, key=scores.get) in worst


def test_domain_without_labels_raises_and_writes_nothing(tiny_set, tmp_path):
    domains = loaders(tiny_set, blank={"classes": (255,)})
    with pytest.raises(ValueError, match="domain 'blank': expected labelled pixels"):
        evaluate_domains(predict, domains, native(), tmp_path / "out")
    assert not (tmp_path / "out" / "domains.json").exists()


def test_no_domain_raises(tmp_path):
    with pytest.raises(ValueError, match="at least one domain"):
        evaluate_domains(predict, {}, native(), tmp_path)


def test_real_images_with_label_predictions_score_100(real_data, tmp_path):
    """Predicting the truth scores 100 on every dataset, with and without a folding."""
    domains = {name: build_test_loader(name, subset=2, num_workers=0) for name in real_sets()}
    for name, loader in domains.items():
        truths = iter([sample["sem_seg"] for sample in loader])

        def oracle(images, truths=truths):
            ids = next(truths).long()
            ids[ids == 255] = 0
            return torch.nn.functional.one_hot(ids, len(CLASSES)).permute(2, 0, 1)[None].float()

        result = evaluate_domains(oracle, {name: loader}, native(), tmp_path / name, pictures=0)
        assert result["mean_mIoU"] == pytest.approx(100), name


def evaluate_in_process(rank, world, folder, name):
    cv2.setNumThreads(0)  # its threads do not survive a fork
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/address", rank=rank, world_size=world
    )
    evaluate_with_everything(name, folder / "two")


def evaluate_with_everything(name, folder):
    domains = {"shared": build_test_loader(name, num_workers=0)}
    protocol = native(mode="slide", crop=32, scales=(0.75, 1, 1.5), flip=True)
    return evaluate_domains(predict, domains, protocol, folder, save_predictions="color")


@pytest.mark.slow
def test_two_processes_match_one(tiny_set, tmp_path):
    name = tiny_set("tiny_two", count=5)
    alone = evaluate_with_everything(name, tmp_path / "one")
    # A fork, so that the registered dataset exists in the child.
    torch.multiprocessing.start_processes(
        evaluate_in_process, (2, tmp_path, name), nprocs=2, start_method="fork"
    )
    assert json.loads((tmp_path / "two" / "domains.json").read_text()) == alone
    maps = [f"predictions/shared/{i:06d}.png" for i in range(5)]
    assert len(list((tmp_path / "two").rglob("predictions/**/*.*"))) == 5
    for picture in ("domains.png", "best_and_worst.png", "pictures/shared.png", *maps):
        one, two = (tmp_path / run / picture for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    one, two = (json.loads((tmp_path / run / "images.json").read_text()) for run in ("one", "two"))
    assert one == two
