"""A model for inference together with its protocol and the names and colours of its classes."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import Protocol
from recyclelora.evaluation.protocol import UNLISTED, nearest
from recyclelora.evaluation.scored_map import ScoredMap, Wanted
from recyclelora.evaluation.sliding_window import Predict

from .segmentation import Segmentation


@dataclasses.dataclass(frozen=True)
class Inference:
    """A model with all settings that determine the result for an image.

    Parameters
    ----------
    model : nn.Module
        A segmentor with ``semantic_logits``. Its adapters need not be merged.
    protocol : Protocol
        The sizes and windows at which images are segmented.
    class_names, colors : tuple
        The names and RGB colours of the classes.
    dtype : torch.dtype
        The dtype of autocast.
    temperature : float
        The temperature of the confidences.
    """

    model: nn.Module
    protocol: Protocol
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    dtype: torch.dtype
    temperature: float = 1.0

    @contextlib.contextmanager
    def started(self) -> Iterator[Predict]:
        """Yield the function from images to logits for :meth:`segment`, with merged adapters."""
        with predictor(self.model, dtype=self.dtype) as predict:
            yield predict

    def segment(
        self,
        predict: Predict,
        batch: Sequence[np.ndarray],
        *,
        benchmark: str = UNLISTED,
        logits: bool = False,
        uncertainty: bool = False,
    ) -> list[Segmentation]:
        """Segment a batch of images of one size.

        Parameters
        ----------
        predict : Callable
            The function that :meth:`started` yields.
        batch : sequence of ndarray
            Images (H, W, 3), uint8 RGB.
        benchmark : str
            The benchmark whose image size the protocol applies.
        logits, uncertainty : bool
            Whether the results contain logits, or entropy and margin.

        Returns
        -------
        list of Segmentation
            One result per image, at the size of the image.

        Raises
        ------
        ValueError
            If the logits are not finite, if the images are too large, or if the protocol does not
            list the benchmark.
        """
        wanted = Wanted(logits=logits, uncertainty=uncertainty, temperature=self.temperature)
        stack = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
        maps = self.protocol.score(predict, stack, benchmark, wanted)
        return [self._result(*pair) for pair in zip(batch, maps, strict=True)]

    def _result(self, pixels: np.ndarray, scored: ScoredMap) -> Segmentation:
        def at_size(plane: torch.Tensor) -> np.ndarray:
            return nearest(plane.cpu().numpy(), pixels.shape[:2])

        logits = scored.logits
        uncertain = scored.uncertainty
        return Segmentation(
            image=pixels,
            classes=at_size(scored.classes),
            confidence=at_size(scored.confidence),
            logits=None if logits is None else np.stack([at_size(plane) for plane in logits]),
            entropy=None if uncertain is None else at_size(uncertain.entropy),
            margin=None if uncertain is None else at_size(uncertain.margin),
            class_names=self.class_names,
            colors=self.colors,
        )
