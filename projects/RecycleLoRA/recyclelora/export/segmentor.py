"""A trained segmentor as one object that maps images to classes and confidences."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.common.devices import pick_device
from recyclelora.common.paths import expand_path
from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.tensor_file import check_finite
from recyclelora.common.validation import check_integer, short_repr
from recyclelora.data import CLASSES, COLORS
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import Protocol
from recyclelora.evaluation.protocol import UNLISTED

from .images import ImageLike, image_name, image_pixels, is_list
from .inference import Inference
from .segmentation import Segmentation
from .segmentor_folder import SegmentorContent, check_classes, read_segmentor, write_segmentor
from .segmentor_settings import MOST_CLASSES, build_empty, describe, segmentor_state

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FILE_DTYPES = {**DTYPES, "float16": torch.float16}
# A larger relative difference means that the rebuilt model is wrong. Rounding gives about 1e-6.
TOLERANCE = 1e-3


class Segmentor:
    """Segment images with a trained model, without its config and its adapters.

    :meth:`from_pretrained` reads a folder and :meth:`from_model` copies a model in memory. The
    class requires Detectron2.

    Attributes
    ----------
    model : MaskFormer
        The model with merged weights, in eval mode.
    protocol : Protocol
        The sizes and windows at which images are segmented, initially those of the run's
        evaluation. Another :class:`~recyclelora.evaluation.Protocol` can be assigned.
    class_names : tuple of str
        The names of the classes.
    colors : tuple of (int, int, int)
        The RGB colour of each class.
    provenance : dict
        The origin of the weights.
    dtype : torch.dtype
        The dtype of the computation. The weights are float32.
    temperature : float
        The temperature of the confidences: 1, or the one that ``tools/calibrate.py`` has fitted.

    Examples
    --------
    >>> from recyclelora import Segmentor  # doctest: +SKIP
    >>> segmentor = Segmentor.from_pretrained("segmentor")  # doctest: +SKIP
    >>> segmentor.predict("photo.jpg").save("overlay.png")  # doctest: +SKIP
    """

    def __init__(self, content: SegmentorContent, *, device: torch.device, dtype: torch.dtype):
        self._settings = content.settings
        self.model = content.model.to(device)
        self.protocol = content.protocol
        self.class_names = content.classes
        self.colors = content.colors
        self.provenance = dict(content.provenance)
        self.dtype = dtype
        self.temperature = content.temperature

    def __repr__(self) -> str:
        backbone = self._settings["backbone"]["type"]
        return (
            f"Segmentor({backbone}, {len(self.class_names)} classes, {self.device}, {self.dtype})"
        )

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.model.parameters()).device

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        base: str | None = None,
    ) -> "Segmentor":
        """Read a folder of :meth:`save_pretrained` without executing code from it.

        Parameters
        ----------
        path : str or Path
            A folder with ``config.json`` and ``model.safetensors``.
        device : str or torch.device
            The device. "auto" selects the GPU if there is one, and the CPU otherwise.
        dtype : {"float32", "bfloat16"} or torch.dtype
            The dtype of the computation; bfloat16 uses autocast.
        base : str, optional
            For a folder of adapters and head: the base weights to use instead of those that the
            folder refers to. It is a name in ``recyclelora.backbone.WEIGHTS`` or a file. A named
            base is downloaded on first use.

        Returns
        -------
        Segmentor
            The segmentor.

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder is incomplete or damaged, or the device does not exist.
        """
        place, precision = pick_device(str(device), option="device"), _dtype(dtype)
        return cls(read_segmentor(expand_path(path), base=base), device=place, dtype=precision)

    @classmethod
    @torch.no_grad()
    def from_model(
        cls,
        model: nn.Module,
        *,
        protocol: Protocol,
        classes: Sequence[str] = CLASSES,
        colors: Sequence[Sequence[int]] = COLORS,
        provenance: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype = "float32",
    ) -> "Segmentor":
        """Copy a model with merged adapters; ``model`` itself is not changed.

        The output of the copy is compared with that of ``model`` on a random image.

        Parameters
        ----------
        model : MaskFormer
            A model of :func:`recyclelora.mask2former.build_segmentor` in float32 with a
            ``DinoVisionTransformer`` or an ``Eva02VisionTransformer``.
        protocol : Protocol
            A protocol of :mod:`recyclelora.evaluation`.
        classes, colors : sequence
            The names and RGB colours of all classes of the model.
        provenance : Mapping, optional
            Plain data that is stored with the weights.
        dtype : {"float32", "bfloat16"} or torch.dtype
            The dtype of the computation; bfloat16 uses autocast.

        Returns
        -------
        Segmentor
            The segmentor.

        Raises
        ------
        TypeError, ValueError
            If the model is of another kind, if its adapters cannot be merged, or if the number of
            classes does not fit.
        """
        precision = _dtype(dtype)
        check_classes(classes, colors)
        if not isinstance(protocol, Protocol):
            raise TypeError(f"protocol must be a Protocol, got {short_repr(protocol)}")
        state = segmentor_state(model)
        settings = describe(model, state)
        _check_state(state, model.sem_seg_head.num_classes, len(classes))
        copy = build_empty(settings, len(classes))
        if mismatch := describe_mismatch(copy.state_dict(), state):
            raise ValueError(
                f"after its adapters are merged, the model is not a plain segmentor ({mismatch}): "
                "only adapters that merge into linear layers, and the head of build_segmentor, "
                "can be exported"
            )
        copy.load_state_dict(state, assign=True)
        copy.requires_grad_(False)
        content = SegmentorContent(
            model=copy,
            settings=settings,
            classes=tuple(classes),
            colors=tuple(tuple(color) for color in colors),
            protocol=protocol,
            provenance=dict(provenance or {}),
        )
        segmentor = cls(content, device=model.device, dtype=precision)
        _compare(model, segmentor.model)
        return segmentor

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str | torch.dtype = "float32",
        adapted: nn.Module | None = None,
        base: str | None = None,
    ) -> None:
        """Write ``config.json`` (plain data) and ``model.safetensors``.

        Both files are replaced together. If writing fails or is killed, the folder has its previous
        content. Other files in the folder are kept.

        Parameters
        ----------
        folder : str or Path
            The folder. It is created if it does not exist.
        dtype : {"float32", "bfloat16", "float16"} or torch.dtype
            The dtype of the weights in the file. They are converted to float32 when they are read.
        adapted : MaskFormer, optional
            The model that :meth:`from_model` copied. If given, the file contains its adapters and
            head instead of the merged weights, and refers to the base weights. Reading the file
            recomputes the initial factors and compares their SHA-256. The new folder is read once
            before it replaces an earlier one.
        base : str, optional
            The base weights; required with ``adapted``. It is a name in
            ``recyclelora.backbone.WEIGHTS`` or a file. For a file, only its name is stored, and
            :meth:`from_pretrained` needs the file again.

        Raises
        ------
        ValueError
            If a weight is not finite in ``dtype``, or if adapters and base do not reproduce the
            weights of this segmentor.
        OSError
            If the folder cannot be written.
        """
        if (adapted is None) != (base is None):
            raise ValueError(
                "give adapted and base together: base names the weights that were adapted"
            )
        content = SegmentorContent(
            model=self.model,
            settings=self._settings,
            classes=self.class_names,
            colors=self.colors,
            protocol=self.protocol,
            provenance=self.provenance,
            temperature=self.temperature,
        )
        precision = _dtype(dtype, FILE_DTYPES)
        write_segmentor(expand_path(folder), content, dtype=precision, adapted=adapted, base=base)

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        logits: bool = False,
        uncertainty: bool = False,
        batch_size: int = 1,
        benchmark: str = UNLISTED,
    ) -> Segmentation | list[Segmentation]:
        """Segment one image or a list of images, of any size.

        Parameters
        ----------
        images : path, ndarray, PIL image or Tensor, or a list or tuple of these
            Arrays are (H, W, 3) and tensors (3, H, W), both uint8 RGB. Files and PIL images in
            other modes are converted, and their EXIF orientation is applied.
        logits : bool
            Whether the results contain ``logits``, which need 4 bytes per class and pixel.
        uncertainty : bool
            Whether the results contain ``entropy`` and ``margin``.
        batch_size : int
            The number of consecutive images of one size in one call of the model, for protocols
            without windows. Values above 1 are faster on a GPU. For windows, ``protocol.batch`` is
            used.
        benchmark : str
            The benchmark whose image size the protocol applies. Images of benchmarks that it does
            not list are segmented at their own size or at ``long_side``.

        Returns
        -------
        Segmentation or list of Segmentation
            The result, or a list of results for a list. Every map has the size of its image.

        Raises
        ------
        FileNotFoundError, TypeError, ValueError
            If an image cannot be read or segmented. The message contains its name.
        """
        check_integer("batch_size", batch_size, least=1, most=10_000)
        several = is_list(images)
        given = list(images) if several else [images]
        named = ((image_name(x, i if several else None), x) for i, x in enumerate(given))
        inference = self.inference()
        found: list[Segmentation] = []
        with inference.started() as predict:
            for names, batch in _batches(named, batch_size):
                try:
                    found += inference.segment(
                        predict,
                        batch,
                        benchmark=benchmark,
                        logits=logits,
                        uncertainty=uncertainty,
                    )
                except ValueError as error:
                    raise type(error)(f"{', '.join(names)}: {error}") from error
        return found if several else found[0]

    def inference(self) -> Inference:
        """Return the model with its current protocol, precision and temperature.

        Returns
        -------
        Inference
            The model and these settings. Later changes to the segmentor do not affect it.
        """
        return Inference(
            model=self.model,
            protocol=self.protocol,
            class_names=self.class_names,
            colors=self.colors,
            dtype=self.dtype,
            temperature=self.temperature,
        )


def _batches(
    named: Iterator[tuple[str, ImageLike]], batch_size: int
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Read images, and yield consecutive images of equal size together."""
    names: list[str] = []
    batch: list[np.ndarray] = []
    for name, image in named:
        pixels = image_pixels(image, name)
        if batch and (len(batch) == batch_size or pixels.shape != batch[0].shape):
            yield names, batch
            names, batch = [], []
        names.append(name)
        batch.append(pixels)
    if batch:
        yield names, batch


def _dtype(dtype: str | torch.dtype, names: Mapping[str, torch.dtype] = DTYPES) -> torch.dtype:
    known = {**names, **{value: value for value in names.values()}}
    if not isinstance(dtype, str | torch.dtype) or dtype not in known:
        raise ValueError(f"dtype must be {' or '.join(names)}, got {short_repr(dtype)}")
    return known[dtype]


def _check_state(state: Mapping[str, Tensor], num_classes: int, named: int) -> None:
    """Raise an error unless a merged state is finite, in float32 and has ``named`` classes."""
    if num_classes != named or num_classes > MOST_CLASSES:
        raise ValueError(
            f"the model has {num_classes} classes, but {named} were named: give classes and colors"
        )
    for name, tensor in state.items():
        if tensor.dtype != torch.float32 or tensor.is_meta:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}: a Segmentor needs a model in "
                "float32 that has its weights; call model.float()"
            )
    check_finite(dict(state), "the model")


def _compare(model: nn.Module, copy: nn.Module) -> None:
    """Raise an error unless both models compute the same logits."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 64, 96), generator=generator).float()
    with predictor(model) as original, predictor(copy) as copied:
        expected, found = original(images), copied(images)
    difference = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not difference <= TOLERANCE:
        raise ValueError(
            "the merged copy and the model have different outputs (relative difference "
            f"{difference:.2g}): only models of build_segmentor can be exported"
        )
