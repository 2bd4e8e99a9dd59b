"""Prediction for files, called by ``tools/predict.py``."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import recyclelora
from recyclelora.common.digests import state_digest
from recyclelora.common.validation import check_integer
from recyclelora.data import read_image
from recyclelora.engine.media_files import find_media
from recyclelora.evaluation.protocol import UNLISTED

from .inference import Inference
from .prediction_folder import KINDS, PredictionFolder
from .prediction_job import Job
from .segmentation import Segmentation, check_label_ids
from .video_prediction import predict_video

# The limit for one batch of photographs, so that a batch needs no more memory than a large one.
_MOST_PIXELS = 2**23


class Predicted(NamedTuple):
    """The counts of :func:`predict_files` and a message for each file that failed."""

    files: int
    photographs: int
    frames: int
    complete: int
    failures: list[str]


def predict_files(
    load: Callable[[], Inference],
    paths: Sequence[Path],
    *,
    output: Path,
    kinds: Sequence[str],
    benchmark: str = UNLISTED,
    batch_size: int = 1,
    long_side: int | None = None,
) -> Predicted:
    """Segment photographs and videos. Files that cannot be read are reported and skipped.

    After an interruption, a second call continues: complete files are not computed again.

    Parameters
    ----------
    load : Callable
        Function that returns the model for inference. It is called only if there is something to
        segment.
    paths : sequence of Path
        Files, folders and patterns; see :func:`find_media`.
    output : Path
        The output folder; see :class:`PredictionFolder`.
    kinds : sequence of str
        The kinds of results, from :data:`recyclelora.export.prediction_folder.KINDS`.
    benchmark : str
        The benchmark whose image size the protocol applies.
    batch_size : int
        The number of consecutive images of one size in one call of the model.
    long_side : int, optional
        Replacement for the ``long_side`` of the protocol, for benchmarks without an entry in its
        ``sizes``.

    Returns
    -------
    Predicted
        The counts and the messages.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing to segment, or if ``kinds`` or ``batch_size`` is invalid.
    OSError
        If the output cannot be written.
    """
    check_integer("batch_size", batch_size, least=1, most=10_000)
    media = find_media(paths, output=output)
    inference = load()
    if long_side is not None:
        protocol = dataclasses.replace(inference.protocol, long_side=long_side)
        inference = dataclasses.replace(inference, protocol=protocol)
    if "label_ids" in kinds:
        check_label_ids(inference.class_names)
    settings = {
        "recyclelora": recyclelora.__version__,
        "weights_sha256": state_digest(inference.model.state_dict()),
        "protocol": inference.protocol.as_dict(),
        "benchmark": benchmark,
        "dtype": str(inference.dtype),
        "temperature": inference.temperature,
        "colors": inference.colors,
    }
    folder = PredictionFolder(output, kinds, settings)
    photographs, files = len(media.photographs), len(media.photographs) + len(media.videos)
    with (
        inference.started() as predict,
        tqdm(desc="segmenting", unit="image", total=photographs, smoothing=0.05) as progress,
    ):
        job = Job(inference, predict, folder, benchmark, batch_size, progress, [])
        _predict_photographs(job, media.photographs)
        for name, file in media.videos.items():
            predict_video(job, name, file)
    return Predicted(files, job.photographs, job.frames, job.complete, job.failures)


def _predict_photographs(job: Job, files: Mapping[Path, Path]) -> None:
    """Segment photographs in batches of equal size."""
    targets: dict[str, dict[str, Path]] = {}
    batch: dict[str, np.ndarray] = {}

    def save(name: str, found: Segmentation) -> None:
        for kind, target in targets[name].items():
            found.save(target, KINDS[kind].saved_as)
        job.photographs += 1

    for name, file in files.items():
        written = job.folder.photograph(name)
        if job.folder.is_complete(written.values(), file):
            job.skip()
            continue
        try:
            pixels = read_image(file)
        except (OSError, ValueError, MemoryError) as error:
            job.fail(file, error)
            job.progress.update()
            continue
        if batch and not _fits(batch, pixels, job.batch_size):
            job.segment(batch, save)
            batch.clear()
        targets[str(file)], batch[str(file)] = written, pixels
    if batch:
        job.segment(batch, save)


def _fits(batch: Mapping[str, np.ndarray], pixels: np.ndarray, most: int) -> bool:
    first = next(iter(batch.values()))
    area = (len(batch) + 1) * pixels.shape[0] * pixels.shape[1]
    return len(batch) < most and pixels.shape == first.shape and area <= _MOST_PIXELS
