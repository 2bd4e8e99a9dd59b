"""Photographs and videos predicted file by file, stopped in the middle, and continued."""

import dataclasses
import json
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora.data import CLASSES, COLORS
from recyclelora.evaluation import native
from recyclelora.export import prediction_job
from recyclelora.export.inference import Inference
from recyclelora.export.prediction import predict_files
from recyclelora.export.prediction_folder import DEFAULT, KINDS
from recyclelora.mask2former import build_segmentor

from ..support.small_segmentor import SMALL, Patches


@pytest.fixture(scope="module")
def inference():
    torch.manual_seed(0)
    return Inference(
        model=build_segmentor(Patches(), **SMALL).eval(),
        protocol=native(long_side=64),
        class_names=tuple(CLASSES),
        colors=tuple(map(tuple, COLORS)),
        dtype=torch.float32,
    )


def photograph(path, size=(20, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def video(path, frames=5, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size[::-1])
    for shade in range(frames):
        writer.write(np.full((*size, 3), 40 * shade, np.uint8))
    writer.release()


def predict(inference, output, *paths, kinds=DEFAULT, **options):
    return predict_files(lambda: inference, paths, output=output, kinds=kinds, **options)


def written(folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


class Interrupted(Exception):
    """Replacement for the end of the process."""


def stop_after(monkeypatch, count):
    """End the run after ``count`` images."""
    original, seen = prediction_job.Job.segment, []

    def segment(self, images, save):
        if len(seen) == count:
            raise Interrupted
        seen.append(images)
        original(self, images, save)

    monkeypatch.setattr(prediction_job.Job, "segment", segment)
    return seen


def test_every_kind_is_written_at_the_size_of_the_photograph(inference, tmp_path):
    photograph(tmp_path / "in" / "a.png")
    done = predict(inference, tmp_path / "out", tmp_path / "in", kinds=tuple(KINDS))
    assert done == (1, 1, 0, 0, [])
    sizes = {}
    for name in written(tmp_path / "out").keys() - {".predict.json"}:
        with Image.open(tmp_path / "out" / name) as image:
            sizes[name] = (image.size, image.mode)
    grey = ("ids", "label_ids", "confidence", "entropy", "margin")
    assert sizes == {
        "a_color.png": ((30, 20), "RGB"),
        "a_overlay.jpg": ((30, 20), "RGB"),
        **{f"a_{kind}.png": ((30, 20), "L") for kind in grey},
    }


@pytest.mark.parametrize(("kind", "name"), [("overlay", "a.jpg"), ("confidence", "a.png")])
def test_single_kind_has_the_name_of_the_photograph(kind, name, inference, tmp_path):
    photograph(tmp_path / "a.bmp")
    predict(inference, tmp_path / "out", tmp_path / "a.bmp", kinds=(kind,))
    assert set(written(tmp_path / "out")) == {name, ".predict.json"}


def test_stopped_run_computes_only_what_is_missing(inference, tmp_path, monkeypatch):
    for index in range(4):
        photograph(tmp_path / "in" / f"{index}.png", seed=index)
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        predict(inference, tmp_path / "out", tmp_path / "in")
    before = written(tmp_path / "out")
    assert {name[0] for name in before} == {"0", "1", "."}
    monkeypatch.undo()
    done = predict(inference, tmp_path / "out", tmp_path / "in")
    assert (done.photographs, done.complete) == (2, 2)
    after = written(tmp_path / "out")
    assert len(after) == 13 and after.items() >= before.items()


def test_photographs_of_another_model_are_computed_again(inference, tmp_path):
    photograph(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    for changed in (
        inference,
        dataclasses.replace(inference, protocol=native(long_side=96)),
        dataclasses.replace(inference, temperature=2.0),
    ):
        before = written(out) if out.exists() else {}
        assert predict(changed, out, tmp_path / "in").photographs == 1
        assert all(written(out)[name] > time for name, time in before.items())
        assert predict(changed, out, tmp_path / "in").complete == 1
    assert predict(changed, out, tmp_path / "in", kinds=("train_ids",)).photographs == 1


def test_changed_photograph_is_computed_again(inference, tmp_path):
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "b.png")
    future = 4e9
    os.utime(tmp_path / "in" / "b.png", (future, future))  # a camera with a wrong clock
    predict(inference, tmp_path / "out", tmp_path / "in")
    photograph(tmp_path / "in" / "a.png", seed=1)
    done = predict(inference, tmp_path / "out", tmp_path / "in")
    assert (done.photographs, done.complete) == (1, 1)


def test_damaged_record_starts_anew(inference, tmp_path):
    photograph(tmp_path / "in" / "a.png")
    predict(inference, tmp_path / "out", tmp_path / "in")
    (tmp_path / "out" / ".predict.json").write_text("[" * 10)
    assert predict(inference, tmp_path / "out", tmp_path / "in").photographs == 1
    assert json.loads((tmp_path / "out" / ".predict.json").read_text())["benchmark"]


def test_batches_give_the_classes_of_single_photographs(inference, tmp_path):
    for index in range(3):
        photograph(tmp_path / "in" / f"{index}.png", seed=index)
    photograph(tmp_path / "in" / "other_size.png", size=(30, 20))
    (tmp_path / "in" / "1.5.png").write_text("broken")
    maps = []
    for size in (1, 2):
        out = tmp_path / str(size)
        done = predict(inference, out, tmp_path / "in", kinds=("train_ids",), batch_size=size)
        assert done.photographs == 4 and len(done.failures) == 1
        maps.append([np.asarray(Image.open(file)) for file in sorted(out.glob("*.png"))])
    assert all((a == b).mean() > 0.99 for a, b in zip(*maps, strict=True))


def test_image_that_fails_in_a_batch_does_not_fail_the_others(inference, tmp_path):
    class Fails(torch.nn.Module):
        weight = inference.model.pixel_mean

        def parameters(self):
            yield self.weight

        def semantic_logits(self, images):
            scores = inference.model.semantic_logits(images)
            scores[images.mean((1, 2, 3)) > 250] = torch.nan
            return scores

    for index in range(2):
        photograph(tmp_path / "in" / f"{index}.png", seed=index)
    Image.new("RGB", (30, 20), "white").save(tmp_path / "in" / "1.white.png")
    changed = dataclasses.replace(inference, model=Fails())
    done = predict(changed, tmp_path / "out", tmp_path / "in", batch_size=3)
    assert done.photographs == 2 and done.files == 3
    assert done.failures[0].startswith(f"{tmp_path / 'in' / '1.white.png'}: expected finite logits")


def test_video_becomes_overlay_and_numbered_class_maps(inference, tmp_path):
    video(tmp_path / "in" / "day" / "a.mp4")
    out = tmp_path / "out"
    done = predict(inference, out, tmp_path / "in", kinds=("overlay", "train_ids"))
    assert done == (1, 0, 5, 0, [])
    names = {"day/a_overlay.mp4", *(f"day/a_ids/{i:06d}.png" for i in range(5)), ".predict.json"}
    assert set(written(out)) == names
    capture = cv2.VideoCapture(str(out / "day" / "a_overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and capture.get(cv2.CAP_PROP_FPS) == 10
    shown = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    ids = np.asarray(Image.open(out / "day" / "a_ids" / "000000.png"))
    assert shown.shape == (48, 64, 3) and ids.shape == (48, 64)
    assert np.abs(shown - np.array(COLORS)[ids] / 2).mean() < 8  # the first frame is black
    again = predict(inference, out, tmp_path / "in", kinds=("overlay", "train_ids"))
    assert (again.frames, again.complete) == (0, 5)


def test_video_alone_leaves_no_other_files(inference, tmp_path):
    video(tmp_path / "a.mp4", size=(35, 51))
    done = predict(inference, tmp_path / "out", tmp_path / "a.mp4", kinds=("color",), batch_size=2)
    assert done.frames == 5 and not done.failures
    assert set(written(tmp_path / "out")) == {"a_color.mp4", ".predict.json"}
    again = predict(inference, tmp_path / "out", tmp_path / "a.mp4", kinds=("color",))
    assert (again.frames, again.complete) == (0, 1)


@pytest.mark.parametrize("kinds", [("overlay",), ("color", "train_ids"), ("confidence",)])
def test_stopped_video_continues_at_its_frame(kinds, inference, tmp_path, monkeypatch):
    video(tmp_path / "a.mp4")
    predict(inference, tmp_path / "whole", tmp_path / "a.mp4", kinds=kinds)
    stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        predict(inference, tmp_path / "out", tmp_path / "a.mp4", kinds=kinds)
    assert not list((tmp_path / "out").glob("*.mp4"))
    monkeypatch.undo()
    done = predict(inference, tmp_path / "out", tmp_path / "a.mp4", kinds=kinds)
    assert (done.frames, done.complete) == (2, 3)
    assert set(written(tmp_path / "out")) == set(written(tmp_path / "whole"))
    for name in set(written(tmp_path / "whole")) - {".predict.json"}:
        contents = [(tmp_path / run / name).read_bytes() for run in ("out", "whole")]
        assert contents[0] == contents[1], name


def test_files_of_a_killed_encoding_are_replaced_or_removed(inference, tmp_path):
    video(tmp_path / "a.mp4")
    out = tmp_path / "out"
    for complete in (False, True):
        if complete:  # killed after the last video and before the folder was removed
            assert (out / "a_color.mp4").stat().st_size > 1000
        (out / ".a.frames").mkdir(parents=True)
        (out / ".a.frames" / "color.mp4").write_bytes(b"half of a video")
        done = predict(inference, out, tmp_path / "a.mp4", kinds=("color",))
        assert (done.frames, done.complete, done.failures) == (0 if complete else 5, complete, [])
        assert set(written(out)) == {"a_color.mp4", ".predict.json"}
        assert not (out / ".a.frames").exists()


def test_broken_videos_are_listed_and_do_not_stop_the_others(inference, tmp_path):
    video(tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "b.mp4").write_bytes((tmp_path / "in" / "a.mp4").read_bytes()[:300])
    (tmp_path / "in" / "c.mkv").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    photograph(tmp_path / "in" / "a.png")
    done = predict(inference, tmp_path / "out", tmp_path / "in")
    assert (done.files, done.photographs, done.frames) == (4, 1, 5)
    assert [failure.split(":")[0] for failure in done.failures] == [
        str(tmp_path / "in" / name) for name in ("b.mp4", "c.mkv")
    ]
    assert (tmp_path / "out" / "a_overlay.mp4").exists()


def test_frame_that_fails_ends_the_video_without_an_overlay(inference, tmp_path):
    video(tmp_path / "a.mp4")
    huge = dataclasses.replace(inference, protocol=native(long_side=3400))
    done = predict(huge, tmp_path / "out", tmp_path / "a.mp4", kinds=("overlay",))
    assert len(done.failures) == 1 and "a.mp4, frame 0: expected at most" in done.failures[0]
    assert not (tmp_path / "out" / "a_overlay.mp4").exists()


def test_patterns_find_files_by_their_names_below_the_fixed_part(inference, tmp_path):
    for name in ("in/a/1.png", "in/b/1.png", "in/b/2.jpg", "in/.hidden/3.png", "in/@eaDir/4.png"):
        photograph(tmp_path / name)
    pattern = tmp_path / "in" / "**" / "*.png"
    predict(inference, tmp_path / "out", pattern, kinds=("train_ids",))
    assert set(written(tmp_path / "out")) == {"a/1.png", "b/1.png", ".predict.json"}
    predict(inference, tmp_path / "all", tmp_path / "in" / "*", kinds=("train_ids",))
    assert set(written(tmp_path / "all")) == {"a/1.png", "b/1.png", "b/2.png", ".predict.json"}
    photograph(tmp_path / "in" / "[1].png")  # exists, so it is no pattern
    predict(inference, tmp_path / "one", tmp_path / "in" / "[1].png", kinds=("train_ids",))
    assert "[1].png" in written(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        predict(inference, tmp_path / "none", tmp_path / "in" / "*.webp")
    assert not (tmp_path / "none").exists()


def test_label_ids_of_other_classes_raise(inference, tmp_path):
    photograph(tmp_path / "a.png")
    other = dataclasses.replace(inference, class_names=("a", "b"))
    with pytest.raises(ValueError, match="only for the 19 classes of Cityscapes"):
        predict(other, tmp_path / "out", tmp_path / "a.png", kinds=("label_ids",))
    assert not (tmp_path / "out").exists()


def test_panorama_too_long_for_jpeg_is_listed(inference, tmp_path):
    Image.new("RGB", (65_600, 2)).save(tmp_path / "a.png")
    done = predict(inference, tmp_path / "out", tmp_path / "a.png", kinds=("overlay",))
    assert "a JPEG has at most 65,500 pixels per side" in done.failures[0]
