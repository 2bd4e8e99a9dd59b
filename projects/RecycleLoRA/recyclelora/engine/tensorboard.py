"""TensorBoard events of a training: losses, domains, previews, and what the adapters learned."""

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

    The step of all that is measured after n iterations is n - 1, as Detectron2 counts.

    Parameters
    ----------
    folder : str or Path
    start : int
        First iteration of the run. Events of an earlier attempt from there on are hidden.
    """

    def __init__(self, folder: str | Path, *, start: int):
        super().__init__(str(folder), window_size=WINDOW, purge_step=start)

    def add_domains(self, result: Mapping, *, done: int) -> None:
        """Add the mIoU of each domain in percent and their mean, of ``domains.json``."""
        scores = {name: domain["mIoU"] for name, domain in result["domains"].items()}
        for name, score in {**scores, "mean": result["mean_mIoU"]}.items():
            self._writer.add_scalar(f"mIoU/{name}", score, done - 1)

    def add_preview(self, picture: Path, *, done: int) -> None:
        """Add a picture file."""
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image("preview", pixels, done - 1, dataformats="HWC")

    def add_adapters(self, model: nn.Module, *, done: int) -> None:
        """Add means over the layers: effective rank of B A, and how far it moved, by ||W0||_F.

        The distance is :func:`recyclelora.adapters.movement.relative_movement`. A model without
        adapters adds nothing.
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
