"""The state of one run of ``tools/predict.py``: progress, failures and the remaining time."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recyclelora.common.validation import format_error
from recyclelora.evaluation.sliding_window import Predict

from .inference import Inference
from .prediction_folder import UNCERTAINTY, PredictionFolder
from .segmentation import Segmentation


@dataclasses.dataclass
class Job:
    """The state of one call of :func:`predict_files`."""

    inference: Inference
    predict: Predict
    folder: PredictionFolder
    benchmark: str
    batch_size: int
    progress: tqdm
    failures: list[str]
    photographs: int = 0
    frames: int = 0
    complete: int = 0

    def fail(self, name: str | Path, error: BaseException | str) -> None:
        """Record the message of a file that failed.

        Parameters
        ----------
        name : str or Path
            The file.
        error : BaseException or str
            The error or its message.
        """
        message = error if isinstance(error, str) else format_error(error)
        self.failures.append(message if str(name) in message else f"{name}: {message}")

    def skip(self, count: int = 1) -> None:
        """Skip images that are complete; the remaining time does not include them.

        Parameters
        ----------
        count : int
            The number of images.
        """
        self.complete += count
        self.progress.total = max(self.progress.total - count, self.progress.n)
        self.progress.refresh()

    def segment(
        self, images: Mapping[str, np.ndarray], save: Callable[[str, Segmentation], None]
    ) -> None:
        """Segment images of one size and save the results.

        If the images fail together, they are segmented one by one.

        Parameters
        ----------
        images : Mapping[str, ndarray]
            The images by name.
        save : Callable
            Function that saves the result of an image, by name.
        """
        try:
            found = self.inference.segment(
                self.predict,
                list(images.values()),
                benchmark=self.benchmark,
                uncertainty=bool(UNCERTAINTY & {*self.folder.kinds}),
            )
        except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
            if len(images) > 1:
                for name, image in images.items():
                    self.segment({name: image}, save)
                return
            self.fail(next(iter(images)), error)
            self.progress.update()
            return
        for name, result in zip(images, found, strict=True):
            try:
                save(name, result)
            except ValueError as error:  # for instance, a picture is too large for its format
                self.fail(name, error)
            self.progress.update()
