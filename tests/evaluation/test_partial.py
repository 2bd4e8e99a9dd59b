"""Finished targets of an interrupted evaluation are kept, resumed, and never mixed with others."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.data import CLASSES, build_test_loader
from recyclelora.evaluation import evaluate_domains, native
from recyclelora.evaluation.partial import OtherEvaluationError


def predict(images):
    logits = torch.zeros(len(images), len(CLASSES), *images.shape[-2:])
    logits[:, [0, 2, 10]] = images
    return logits


@pytest.fixture
def domains(tiny_set):
    names = {"a day": "tiny_day", "night": "tiny_night"}
    return {
        name: build_test_loader(tiny_set(dataset, count=3 + i), num_workers=0)
        for i, (name, dataset) in enumerate(names.items())
    }


@pytest.fixture
def interrupted(domains, tmp_path):
    """Return the folder of an evaluation that failed at its second target."""
    broken = tmp_path / "tiny_night" / "images" / "000002.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:40])
    with pytest.raises(ValueError, match=r"000002\.png"):
        evaluate(domains, tmp_path / "run")
    broken.write_bytes(content)
    return tmp_path / "run"


def evaluate(domains, folder, predict=predict, **options):
    given = {"settings": {"weights": "abc"}, "domain_settings": {"a day": {"subset": None}}}
    return evaluate_domains(predict, domains, native(), folder, **(given | options))


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_finished_target_is_kept_when_next_fails(interrupted):
    kept = json.loads((interrupted / "domains.partial.json").read_text())
    assert list(kept["domains"]) == ["a day"] and kept["domains"]["a day"]["images"] == 3
    assert not (interrupted / "domains.json").exists()


def test_resumed_evaluation_matches_whole_one(domains, interrupted, tmp_path):
    whole = evaluate(domains, tmp_path / "whole")
    sizes = []

    def counted(images):
        sizes.append(images.shape)
        return predict(images)

    assert evaluate(domains, interrupted, counted, resume=True) == whole
    assert len(sizes) == 4  # only images of the second target
    assert files_of(interrupted) == files_of(tmp_path / "whole")


def test_evaluation_without_resume_begins_anew(domains, interrupted):
    calls = []
    evaluate(domains, interrupted, lambda images: calls.append(1) or predict(images))
    assert len(calls) == 7
    assert not list(interrupted.glob("*.partial.*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": {"weights": "other"}}, "weights='abc', now 'other'"),
        ({"domain_settings": {"a day": {"subset": 2}}}, "of a day \\(subset=None, now 2"),
        ({"save_predictions": "color"}, "save_predictions=None, now 'color'"),
    ],
)
def test_resume_of_other_evaluation_raises(domains, interrupted, options, words):
    before = files_of(interrupted)
    with pytest.raises(OtherEvaluationError, match=words):
        evaluate(domains, interrupted, resume=True, **options)
    assert files_of(interrupted) == before


def test_resume_with_other_images_raises(domains, interrupted, tmp_path, tiny_set):
    (tmp_path / "tiny_day").rename(tmp_path / "before")
    domains["a day"] = build_test_loader(tiny_set("tiny_other", count=2), num_workers=0)
    with pytest.raises(OtherEvaluationError, match="2 now, 3 then"):
        evaluate(domains, interrupted, resume=True)


@pytest.mark.parametrize("file", ["domains.partial.json", "domains.partial.npz"])
@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 cut off"])
def test_damaged_partial_results_raise(domains, interrupted, file, content):
    (interrupted / file).write_bytes(content)
    with pytest.raises(OtherEvaluationError, match="cannot be read"):
        evaluate(domains, interrupted, resume=True)


def test_finished_target_that_is_left_out_is_dropped(domains, interrupted):
    del domains["a day"]
    assert list(evaluate(domains, interrupted, resume=True)["domains"]) == ["night"]


def test_resume_without_partial_results_evaluates_all(domains, tmp_path):
    result = evaluate(domains, tmp_path / "new", resume=True, checkpoint={"iteration": 3})
    assert len(result["domains"]) == 2 and result["checkpoint"] == {"iteration": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", [{"mode": "slide", "crop": 32}, {"mode": "whole"}])
@pytest.mark.parametrize("views", [{}, {"flip": True}])
def test_non_finite_logits_raise(value, options, views, domains, tmp_path):
    def overflowing(images):
        logits = predict(images).half()
        logits[..., -1, -1] = value
        return logits

    with pytest.raises(ValueError, match=r"000000.png: expected finite logits.* in float16"):
        evaluate_domains(overflowing, domains, native(**options, **views), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_of_pictures_survive(domains, interrupted):
    with np.load(interrupted / "domains.partial.npz", allow_pickle=False) as arrays:
        assert {key.rpartition(".")[2] for key in arrays.files} == {
            *("title", "image", "prediction", "truth", "note")
        }
    evaluate(domains, interrupted, resume=True)
    with Image.open(interrupted / "domains.png") as overview:
        assert overview.height > 600  # both rows
