"""The training input: candidates that return the same samples, and made pairs of the real sizes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from benchmark import input as input_benchmark
from benchmark import measure
from benchmark.worker import Timed
from PIL import Image

SMALL = dataclasses.replace(input_benchmark.KINDS["GTAV"], size=(400, 220), kilobytes=140)


@pytest.fixture
def photos(tmp_path_factory):
    """A folder with two photographs and their labels."""
    folder = tmp_path_factory.mktemp("photos")
    for part in ("images", "labels"):
        (folder / "town" / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image = Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8))
        image.resize((120, 72)).save(folder / "town" / "images" / f"{name}.jpg")
        label = Image.fromarray(rng.integers(0, 19, (6, 10), dtype=np.uint8))
        label.resize((120, 72), Image.Resampling.NEAREST).save(
            folder / "town" / "labels" / f"{name}.png"
        )
    return folder


@pytest.mark.parametrize("name", ["GTAV", "BDD100K"])
def test_made_pairs_have_the_size_of_files_and_valid_ids(photos, tmp_path, name):
    kind = dataclasses.replace(input_benchmark.KINDS[name], size=(400, 220), kilobytes=40)
    if kind.format == "PNG":
        kind = SMALL
    pairs = input_benchmark.make_pairs(kind, photos, tmp_path, 2)
    assert len(pairs) == 2
    for image, label in pairs:
        assert Path(image).stat().st_size == pytest.approx(1000 * kind.kilobytes, rel=0.2)
        with Image.open(image) as picture, Image.open(label) as ids:
            assert picture.size == ids.size == (400, 220)
            assert picture.mode == "RGB" and ids.mode == ("P" if kind.palette else "L")
            assert set(np.unique(np.asarray(ids)).tolist()) <= set(range(19))


def test_too_few_photographs_raise(tmp_path):
    with pytest.raises(ValueError, match=r"^--photos: expected a folder with at least 3 photo.*0 "):
        input_benchmark.make_pairs(SMALL, tmp_path, tmp_path, 3)


def test_unknown_commit_raises_one_sentence():
    with (
        pytest.raises(ValueError, match=r"^--against: expected a commit .*, got no-such-commit"),
        input_benchmark.checkout("no-such-commit"),
    ):
        pass


class Fake:
    """A candidate that answers without a process."""

    def __init__(self, system, digest="0"):
        self.system, self.digest, self.tasks = system, digest, []

    def __call__(self, function, system, pairs, samples, digest):
        assert (function, system) == (input_benchmark.read_samples, self.system)
        self.tasks.append((samples, digest))
        return Timed(samples / 8, 5, self.digest if digest else None)


def test_other_samples_are_a_wrong_result(photos):
    args = input_benchmark.parse(["--photos", str(photos), "--images", "1", "--rounds", "3"])
    candidates = {input_benchmark.NOW: Fake(input_benchmark.NOW), "other": Fake("other", "1")}
    with pytest.raises(measure.WrongResult, match="the samples of other are not those of"):
        input_benchmark.measured(SMALL, candidates, args, "GTAV")
    assert candidates["other"].tasks == [(16, True)]
    candidates["other"].digest = "0"
    found = input_benchmark.measured(SMALL, candidates, args, "GTAV")["candidates"]
    assert found["other"]["samples_per_second"] == 8 and len(found["other"]["seconds"]) == 3


@pytest.mark.slow
def test_candidates_return_the_same_samples(run_benchmark, photos, monkeypatch):
    monkeypatch.setattr(input_benchmark, "KINDS", {"GTAV": SMALL})
    options = ["--photos", str(photos), "--images", "2", "--samples", "4", "--rounds", "1"]
    result = run_benchmark(input_benchmark, *options, "--kinds", "GTAV")
    candidates = result["kinds"]["GTAV"]["candidates"]
    assert list(candidates) == [input_benchmark.NOW, input_benchmark.PILLOW]
    for found in candidates.values():
        assert found["samples_per_second"] > 0 and found["peak_bytes"] > 10**7
    assert str(photos) not in json.dumps(result)
