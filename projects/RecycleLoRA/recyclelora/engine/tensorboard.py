"""TensorBoard events of a training: losses, scores of domains, previews, and adapters."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import numpy as np
from detectron2.utils.events import TensorboardXWriter
from PIL import Image
from torch import nn

from recyclelora.adapters import adapted_layers
from recyclelora.adapters.movement import relative_movement
from recyclelora.adapters.rank import effective_rank, product_singular_values
from recyclelora.adapters.trained_pair import trained_pair

from .metrics import WINDOW


class TensorBoard(TensorboardXWriter):
    """Detectron2's writer of scalars, with panels for domains, previews and adapters.

    A value that is measured after n iterations has the step n - 1, as in Detectron2.

    Parameters
    ----------
    folder : str or Path
        The folder of the events.
    start : int
        The first iteration of the run. TensorBoard hides later events of an earlier attempt.
    """

    def __init__(self, folder: str | Path, *, start: int):
        super().__init__(str(folder), window_size=WINDOW, purge_step=start)

    def add_domains(self, result: Mapping, *, done: int) -> None:
        """Add the mIoU of each domain and the mean mIoU.

        Parameters
        ----------
        result : Mapping
            The content of ``domains.json``.
        done : int
            The number of finished iterations.
        """
        scores = {name: domain["mIoU"] for name, domain in result["domains"].items()}
        for name, score in {**scores, "mean": result["mean_mIoU"]}.items():
            self._writer.add_scalar(f"mIoU/{name}", score, done - 1)

    def add_preview(self, picture: Path, *, done: int) -> None:
        """Add a picture.

        Parameters
        ----------
        picture : Path
            The picture file.
        done : int
            The number of finished iterations.
        """
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image("preview", pixels, done - 1, dataformats="HWC")

    def add_adapters(self, model: nn.Module, *, done: int) -> None:
        """Add the effective rank of B A and the relative movement, each as a mean over layers.

        The movement is :func:`recyclelora.adapters.movement.relative_movement`, relative to
        ||W0||_F. Nothing is added for a model without adapters.

        Parameters
        ----------
        model : nn.Module
            The model.
        done : int
            The number of finished iterations.
        """
        values: dict[str, list[float]] = {}
        for name, layer in adapted_layers(model).items():
            pair = trained_pair(name, layer)
            for kind, factor in pair.factors.items():
                rank = effective_rank(product_singular_values(factor.B, factor.A))
                values.setdefault(f"effective_rank_{kind}", []).append(rank)
            for kind, moved in relative_movement(pair).items():
                values.setdefault(f"moved_{kind}", []).append(moved)
        for name, found in values.items():
            self._writer.add_scalar(f"adapters/{name}", fmean(found), done - 1)
