"""The evaluation benchmark: candidates whose class maps agree, their rates, and the table."""

from pathlib import Path

import numpy as np
import pytest
from benchmark import evaluation, measure
from benchmark.evaluation_systems import HUGGING_FACE, NOW, Task
from benchmark.worker import Timed
from PIL import Image

from recyclelora.reproduce.benchmark_tables import evaluation_table

TASK = Task("{}", "weights.pth", None, 2, "float32")


class Fake:
    """A candidate that answers without a process; ``wrong`` of 1000 pixels have another class."""

    def __init__(self, system, seconds, wrong=0):
        self.system, self.seconds, self.wrong = system, seconds, wrong

    def __call__(self, function, system, task, extra):
        assert system == self.system
        if function is evaluation.segment:
            return Timed(self.seconds, 5, (extra, 19, 512, 512))
        if extra is not None:
            classes = np.zeros((10, 100), np.uint8)
            classes.flat[: self.wrong] = 1
            folder = Path(extra, "predictions", "town")
            folder.mkdir(parents=True)
            Image.fromarray(classes).save(folder / "a.png")
        return Timed(self.seconds, 7, {"mean_mIoU": 42.0, "domains": {"town": {"images": 6}}})


def arguments(tmp_path):
    return evaluation.parse(["--photos", str(tmp_path), "--rounds", "2", "--threads", "1"])


def test_other_class_maps_are_a_wrong_result(tmp_path, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_DATA", "")
    candidates = {NOW: Fake(NOW, 1), "other": Fake(NOW, 2, wrong=20)}
    with pytest.raises(measure.WrongResult, match="the class maps of other differ"):
        evaluation.time_evaluations(candidates, TASK, arguments(tmp_path), "town")


def test_rates_and_equal_pixels_are_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_DATA", "")
    args = arguments(tmp_path)
    candidates = {NOW: Fake(NOW, 2), "other": Fake(NOW, 3, wrong=4)}
    found = evaluation.time_evaluations(candidates, TASK, args, "town")
    assert found[NOW]["images_per_second"] == 3 and found["other"]["images_per_second"] == 2
    assert found["other"]["equal_pixels"] == pytest.approx(0.996)
    models = evaluation.time_model({NOW: Fake(NOW, 2), HUGGING_FACE: Fake(NOW, 3)}, TASK, args)
    assert models[NOW]["windows_per_second"] == 2
    environment = {
        "machine": "a computer", "versions": {"torch": "1", "transformers": "2", "peft": "3"},
        "commit": "abc", "threads": 1,
    }  # fmt: skip
    result = {
        "environment": environment,
        "settings": {"threads": 1, "rounds": 2},
        "evaluations": [{"set": "town", "precision": "float32", "candidates": found}],
        "models": [{"precision": "float32", "candidates": models}],
    }
    table = evaluation_table(result)
    assert "1.50x" in table and "99.60%" in table
    evaluation.plot(result)


def test_too_few_photographs_raise(tmp_path):
    with pytest.raises(ValueError, match=r"^--photos: expected a folder with at least 2 photo"):
        evaluation.write_large(tmp_path, tmp_path / "large", 2)
