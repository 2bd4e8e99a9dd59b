"""The state of one run of ``tools/predict.py``: what is done, what failed, the time left."""

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
        """Keep the message of a file that failed."""
        message = error if isinstance(error, str) else format_error(error)
        self.failures.append(message if str(name) in message else f"{name}: {message}")

    def skip(self, count: int = 1) -> None:
        """Leave out images that are complete; the time left does not count them."""
        self.complete += count
        self.progress.total = max(self.progress.total - count, self.progress.n)
        self.progress.refresh()

    def segment(
        self, images: Mapping[str, np.ndarray], save: Callable[[str, Segmentation], None]
    ) -> None:
        """Segment images of one size, one by one if all together fail, and save the results."""
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
            except ValueError as error:  # such as a picture too large for its format
                self.fail(name, error)
            self.progress.update()
