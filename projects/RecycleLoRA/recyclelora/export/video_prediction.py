"""Prediction for videos: class maps frame by frame, then videos of overlays and colours.

Numbered pictures are lossless and allow a stopped run to continue at its frame. Videos are encoded
last, from the pictures of the classes.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from .prediction_folder import KINDS
from .prediction_job import Job
from .segmentation import Segmentation, blended, colored

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# A playlist in a video file may refer to network addresses. Only files may be opened.
_FILES_ONLY = "protocol_whitelist;file"
_CODEC = "mp4v"
_USUAL_RATE = 25.0  # frames per second for a file without a rate
# Containers round the number of frames. If more frames are missing, the file is damaged.
_TOLERANCE = 0.02


class _Frames(NamedTuple):
    """The frame rate of a video, its number of frames, and whether all were segmented."""

    rate: float
    count: int
    whole: bool


def predict_video(job: Job, name: Path, file: Path) -> None:
    """Segment one video; a video that cannot be read is recorded as a failure.

    Parameters
    ----------
    job : Job
        The state of the run.
    name : Path
        The name of the video.
    file : Path
        The video.
    """
    folder = job.folder
    kinds = [kind for kind in folder.kinds if not KINDS[kind].is_video]
    videos = {kind: folder.video(name, kind) for kind in folder.kinds if KINDS[kind].is_video}
    due = {kind: path for kind, path in videos.items() if not folder.is_complete([path], file)}
    if not due and not kinds:
        shutil.rmtree(folder.unfinished_video(name), ignore_errors=True)
        job.complete += 1
        return
    # The pictures of each frame: the requested kinds, and the classes for the videos.
    pictures = {kind: folder.video(name, kind) for kind in kinds}
    if due:
        pictures.setdefault("train_ids", folder.unfinished_video(name))
    try:
        with _opened(file) as capture:
            frames = _predict_frames(job, file, capture, pictures)
        if frames.count == 0:
            raise ValueError(
                f"{file}: expected a video, got a file without frames: restore the file"
            )
        if not frames.whole:
            return
        for kind, path in due.items():
            part = folder.unfinished_video(name) / f"{kind}.mp4"
            _encode(part, path, file, pictures["train_ids"], job.inference.colors, frames.rate)
    except (ValueError, MemoryError) as error:
        job.fail(file, error)
        return
    shutil.rmtree(folder.unfinished_video(name), ignore_errors=True)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[cv2.VideoCapture]:
    """Open a video with FFmpeg; OpenCV applies the rotation of the video."""
    before = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = _FILES_ONLY
    try:
        capture = cv2.VideoCapture(str(file.resolve()), cv2.CAP_FFMPEG)
    finally:
        if before is None:
            del os.environ[_OPTIONS]
        else:
            os.environ[_OPTIONS] = before
    try:
        if not capture.isOpened():
            raise ValueError(
                f"{file}: expected a video that OpenCV can read, got another file: restore it, or "
                "convert it, for example to MP4"
            )
        yield capture
    finally:
        capture.release()


def _predict_frames(
    job: Job, file: Path, capture: cv2.VideoCapture, pictures: dict[str, Path]
) -> _Frames:
    """Write the missing pictures of all frames; stop at a frame that fails."""
    expected = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    rate = capture.get(cv2.CAP_PROP_FPS)
    job.progress.total += expected
    targets: dict[str, dict[str, Path]] = {}
    batch: dict[str, np.ndarray] = {}

    def save(frame: str, found: Segmentation) -> None:
        for kind, target in targets.pop(frame).items():
            found.save(target, KINDS[kind].saved_as)
        job.frames += 1

    count, failed = 0, len(job.failures)
    while len(job.failures) == failed and capture.grab():
        written = {kind: path / f"{count:06d}.png" for kind, path in pictures.items()}
        frame = f"{file}, frame {count}"
        count += 1
        if job.folder.is_complete(written.values(), file):
            job.skip()
            continue
        targets[frame], batch[frame] = written, _retrieved(capture, frame)
        if len(batch) == job.batch_size:
            job.segment(batch, save)
            batch.clear()
    if batch:
        job.segment(batch, save)
    whole = len(job.failures) == failed
    job.progress.total += count - expected
    if whole and count and count < expected * (1 - _TOLERANCE) - 2:
        job.fail(
            file,
            f"expected {expected} frames, got {count}: the file is damaged or truncated; the "
            "frames before this point were segmented",
        )
    return _Frames(rate if 0 < rate <= 1000 else _USUAL_RATE, count, whole)


def _retrieved(capture: cv2.VideoCapture, frame: str) -> np.ndarray:
    done, pixels = capture.retrieve()
    if not done or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"{frame}: expected a frame of three channels, got none: restore the file")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _encode(
    part: Path,
    path: Path,
    file: Path,
    classes: Path,
    colors: tuple[tuple[int, int, int], ...],
    rate: float,
) -> None:
    """Write the video of a kind to ``part``, which then replaces ``path``.

    The stem of ``part`` is the name of the kind. The folder of ``part`` is removed after the last
    video, so that a process that is killed leaves nothing that the next run does not replace or
    remove.
    """
    for folder in (part.parent, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(file) as capture:
            _write_frames(part, capture, part.stem, classes, colors, rate)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_frames(
    part: Path,
    capture: cv2.VideoCapture,
    kind: str,
    classes: Path,
    colors: tuple[tuple[int, int, int], ...],
    rate: float,
) -> None:
    writer, count = None, 0
    try:
        while capture.grab():
            with Image.open(classes / f"{count:06d}.png", formats=["PNG"]) as image:
                ids = np.array(image)
            if kind == "color":
                shown = colored(ids, colors)
            else:
                shown = blended(_retrieved(capture, f"frame {count}"), ids, colors)
            if writer is None:
                size = shown.shape[1], shown.shape[0]
                codec = cv2.VideoWriter_fourcc(*_CODEC)
                writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, codec, rate, size)
                if not writer.isOpened():
                    raise OSError(f"OpenCV cannot write a video to {part.parent}")
            writer.write(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    with _opened(part) as written:  # OpenCV reports no error on a full disk
        found = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
    if found != count:
        raise OSError(f"wrote {found} of {count} frames to {part.parent}: is the disk full?")
