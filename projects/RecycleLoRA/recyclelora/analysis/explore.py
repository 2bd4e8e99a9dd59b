"""Predictions of a trained model for one photograph, with each adapter on and off."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from torch import nn

from recyclelora.adapters import active, adapter_parameters
from recyclelora.common.devices import pick_device
from recyclelora.config.objects import instantiate
from recyclelora.data import read_image
from recyclelora.engine.build import build_run
from recyclelora.engine.predictor import predictor
from recyclelora.engine.trainer import amp_dtype
from recyclelora.evaluation import Protocol
from recyclelora.evaluation.pictures import colorize
from recyclelora.evaluation.protocol import UNLISTED, nearest

from .analyze import Run
from .features import block_path, change_colors

LONGEST = 1024  # pixels of the long side; larger photographs are reduced


class Prediction(NamedTuple):
    """The segmentation of a photograph.

    Attributes
    ----------
    classes : np.ndarray
        Train ids (H, W), uint8.
    confidence : np.ndarray
        Confidence (H, W), float32 from 0 to 1.
    """

    classes: np.ndarray
    confidence: np.ndarray


class Transition(NamedTuple):
    """A change of class by an adapter.

    Attributes
    ----------
    before, after : int
        The classes without and with the adapter.
    share : float
        Share of the pixels, from 0 to 1.
    """

    before: int
    after: int
    share: float


@dataclass(frozen=True)
class Exploration:
    """The predictions for one photograph in every state of the adapters.

    Attributes
    ----------
    image : ndarray
        The photograph (H, W, 3), uint8 RGB.
    kinds : tuple of str
        The adapters of the model: "main", "sub", both or none.
    predictions : Mapping
        The predictions by the frozenset of the adapters that are on.
    colors : Mapping
        By adapter, the principal components of its feature change, (H, W, 3) uint8.
    """

    image: np.ndarray
    kinds: tuple[str, ...]
    predictions: Mapping[frozenset[str], Prediction]
    colors: Mapping[str, np.ndarray]

    def prediction(self, on: Collection[str]) -> Prediction:
        """Return the prediction with some adapters on.

        Parameters
        ----------
        on : Collection[str]
            The adapters that are on. Adapters that the model lacks are ignored.

        Returns
        -------
        Prediction
            The prediction.
        """
        return self.predictions[frozenset(on) & frozenset(self.kinds)]

    def changed(self, kind: str) -> np.ndarray:
        """Return the pixels whose class an adapter changes.

        Parameters
        ----------
        kind : str
            "main" or "sub".

        Returns
        -------
        np.ndarray
            (H, W) bool, True where the full model and the model with this adapter off differ.
        """
        return self.prediction(self.kinds).classes != self._without(kind).classes

    def transitions(self, kind: str, most: int = 3) -> list[Transition]:
        """Return the most frequent changes of class by an adapter, in decreasing order.

        Parameters
        ----------
        kind : str
            "main" or "sub".
        most : int
            The largest number of changes to return.

        Returns
        -------
        list[Transition]
            The changes.
        """
        before, after = self._without(kind).classes, self.prediction(self.kinds).classes
        pairs, counts = np.unique(
            np.stack([before[before != after], after[before != after]]), axis=1, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")[:most]
        return [Transition(*pairs[:, i].tolist(), counts[i].item() / before.size) for i in order]

    def _without(self, kind: str) -> Prediction:
        return self.prediction([other for other in self.kinds if other != kind])


class Explorer:
    """A trained model that segments photographs with each adapter on and off.

    Parameters
    ----------
    model : nn.Module
        A segmentor with or without adapters.
    protocol : Protocol
        The sizes and windows for the segmentation of photographs.
    block : int, optional
        The block of the feature changes, by default the last one.
    dtype : torch.dtype
        The dtype of autocast. float32 disables autocast.

    Attributes
    ----------
    kinds : tuple of str
        The adapters of the model: "main", "sub", both or none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        protocol: Protocol,
        block: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model.eval()
        self.protocol = protocol
        self.dtype = dtype
        parameters = adapter_parameters(model)
        self.kinds = tuple(kind for kind in ("main", "sub") if getattr(parameters, kind))
        self.block = block_path(model.backbone, block) if self.kinds else None

    @classmethod
    def from_run(cls, run: Run, *, block: int | None = None) -> "Explorer":
        """Build the model of a run, on the GPU if there is one.

        Parameters
        ----------
        run : Run
            The run.
        block : int or None
            The block of the feature changes, by default the last one.

        Returns
        -------
        Explorer
            The explorer.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file does not exist or cannot be used, or if the weights belong to another model.
        """
        device = pick_device("auto")
        model, cfg, _ = build_run(run.config_file, run.overrides, run.weights, device=device)
        protocol = instantiate(cfg.evaluation.protocol)
        dtype = amp_dtype(cfg.train.amp.dtype, device)
        return cls(model, protocol=protocol, block=block, dtype=dtype)

    def explore(self, pixels: np.ndarray) -> Exploration:
        """Segment a photograph with every adapter on and off.

        Parameters
        ----------
        pixels : ndarray
            A photograph (H, W, 3) of any size, uint8 RGB.

        Returns
        -------
        Exploration
            The predictions and the feature changes.

        Raises
        ------
        ValueError
            If the logits are not finite.
        """
        states = [frozenset[str]()]
        for kind in self.kinds:
            states += [state | {kind} for state in states]
        colors = {}
        if self.block is not None:
            changes = change_colors(self.model, pixels, self.block)[1]
            colors = {kind: _resized(changes[kind], pixels.shape[:2]) for kind in self.kinds}
        predictions = {state: self._predict(pixels, state) for state in states}
        return Exploration(pixels, self.kinds, predictions, colors)

    def _predict(self, pixels: np.ndarray, on: Collection[str]) -> Prediction:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        with (
            active(self.model, main="main" in on, sub="sub" in on),
            predictor(self.model, dtype=self.dtype) as predict,
        ):
            scored = self.protocol.score(predict, images, UNLISTED)[0]
        maps = (scored.classes, scored.confidence)
        return Prediction(*(nearest(one.cpu().numpy(), pixels.shape[:2]) for one in maps))


def read_photograph(file: str | Path) -> np.ndarray:
    """Read a photograph, and reduce its long side to 1024 pixels.

    Parameters
    ----------
    file : str or Path
        The file.

    Returns
    -------
    np.ndarray
        The photograph (H, W, 3), uint8 RGB.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file cannot be read. The message names the file.
    """
    pixels = read_image(file)
    scale = LONGEST / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def confidence_colors(confidence: np.ndarray) -> np.ndarray:
    """Return the colours of confidences in the colour map viridis.

    Parameters
    ----------
    confidence : np.ndarray
        Values (...) from 0 to 1.

    Returns
    -------
    np.ndarray
        Colours (..., 3), uint8 RGB.
    """
    return matplotlib.colormaps["viridis"](confidence, bytes=True)[..., :3]


def changed_classes(exploration: Exploration, kind: str) -> np.ndarray:
    """Draw the new classes of the pixels that an adapter changes.

    All other pixels show the photograph in light grey.

    Parameters
    ----------
    exploration : Exploration
        The predictions for the photograph.
    kind : str
        "main" or "sub".

    Returns
    -------
    np.ndarray
        The picture (H, W, 3), uint8.
    """
    grey = cv2.cvtColor(exploration.image, cv2.COLOR_RGB2GRAY)[..., None]
    faded = np.repeat(160 + grey * 0.35, 3, axis=2).astype(np.uint8)
    full = exploration.prediction(exploration.kinds)
    return np.where(exploration.changed(kind)[..., None], colorize(full.classes), faded)


def _resized(colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return colours in [0, 1] as uint8 of ``size`` (H, W)."""
    picture = (255 * colors).round().astype(np.uint8)
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST)
