"""Evaluation protocols: the sizes and windows with which images are segmented and scored."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recyclelora.common.validation import check_integer, check_number, short_repr

from .class_map import View, best_class, class_map, in_parts
from .scored_map import ScoredMap, Wanted, scored_views, scored_whole
from .sliding_window import NonFiniteLogitsError, Predict, check_logits, finished_rows

UNLISTED = "photographs"  # stands for images of no benchmark; every protocol accepts it
_WHOLE_PIXELS = 2**23  # limit without windows, at which the masks of 100 queries take 7 GB
_LONGEST = 16_384  # longest side in pixels
_CLASSES = Wanted()


@dataclass(frozen=True)
class Protocol:
    """Settings that define how every image of a domain is evaluated.

    An image and its label are halved if their benchmark is in ``halve``. The image is then resized
    to the (W, H) of its benchmark in ``sizes`` and keeps its aspect ratio. The logits are computed
    from the whole image or in windows and resized bilinearly to the size of the label, where the
    argmax is taken. With several ``scales`` or ``flip``, the softmax over the classes is averaged
    before the argmax.

    Parameters
    ----------
    name : str
        The name in ``domains.json``.
    sizes : Mapping
        (W, H) for each benchmark. The image is scaled by min(max(W, H) / long side, min(W, H) /
        short side), so the order of W and H does not matter.
    halve : tuple of str
        The benchmarks whose images and labels are halved first.
    long_side : int, optional
        The long side to which images of benchmarks without an entry in ``sizes`` are resized. With
        None they keep their size.
    only_listed : bool
        Whether a benchmark without an entry in ``sizes`` is an error, except for :data:`UNLISTED`.
    mode : str
        "slide" (windows) or "whole".
    crop, stride : int
        Size and stride of the windows in pixels.
    scales : tuple of float
        The image is segmented at each of these multiples of the size above.
    flip : bool
        Whether the image is also segmented mirrored, at each scale.
    argmax : str
        The size at which the argmax is taken: "label" (the size of the label, as in every published
        protocol we know) or "input" (the size of the input at scale 1; the class map is then
        resized to the label by nearest neighbour).
    batch : int
        The number of windows in one call of the model.
    """

    name: str
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    halve: tuple[str, ...] = ()
    long_side: int | None = None
    only_listed: bool = False
    mode: str = "slide"
    crop: int = 512
    stride: int = 341
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    argmax: str = "label"
    batch: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"the name of a protocol must be text, got {short_repr(self.name)}")
        where = f"protocol '{self.name}'"
        try:
            sizes = {str(k): tuple(int(side) for side in v) for k, v in dict(self.sizes).items()}
        except (TypeError, ValueError):
            raise ValueError(
                f"{where}: sizes must be benchmark -> (W, H), got {self.sizes!r}"
            ) from None
        object.__setattr__(self, "sizes", sizes)
        halve = self.halve
        if not isinstance(halve, Iterable) or isinstance(halve, str | Mapping):
            halve = [None]
        if not all(isinstance(name, str) for name in halve):
            raise ValueError(
                f"{where}: halve must be a list of benchmarks, got {short_repr(self.halve)}"
            )
        object.__setattr__(self, "halve", tuple(halve))
        object.__setattr__(self, "scales", self._checked_scales())
        for what, known in (("mode", ("slide", "whole")), ("argmax", ("label", "input"))):
            if (value := getattr(self, what)) not in known:
                raise ValueError(
                    f"{where}: {what} must be '{known[0]}' or '{known[1]}', got '{value}'"
                )
        if any(len(s) != 2 or not 1 <= min(s) <= max(s) <= _LONGEST for s in sizes.values()):
            raise ValueError(
                f"{where}: sizes must be (W, H) of 1 to {_LONGEST:,} pixels, got {sizes}"
            )
        if self.long_side is not None:
            check_integer(f"{where}: long_side", self.long_side, least=1, most=_LONGEST)
        check_integer(f"{where}: crop", self.crop, least=1, most=_LONGEST)
        check_integer(f"{where}: stride", self.stride, least=1, most=self.crop)
        check_integer(f"{where}: batch", self.batch, least=1, most=10_000)
        for what in ("flip", "only_listed"):
            if not isinstance(value := getattr(self, what), bool):
                raise ValueError(f"{where}: {what} must be True or False, got {short_repr(value)}")

    def _checked_scales(self) -> tuple[float, ...]:
        try:
            scales = tuple(self.scales)
        except TypeError:
            scales = ()
        if not scales:
            raise ValueError(
                f"protocol '{self.name}': scales must be a list of at least one number, as [1.0], "
                f"got {short_repr(self.scales)}"
            )
        for scale in scales:
            check_number(f"protocol '{self.name}': each of its scales", scale, least=0.1, most=8)
        return tuple(map(float, scales))

    def as_dict(self) -> dict:
        """Return plain values for ``domains.json``.

        Returns
        -------
        dict
            The values; ``Protocol(**values)`` equals this protocol.
        """
        values = asdict(self)
        values["sizes"] = {key: list(size) for key, size in self.sizes.items()}
        values["halve"], values["scales"] = list(self.halve), list(self.scales)
        return values

    def __str__(self) -> str:
        """Return the protocol in one line, for the log and the table.

        Examples
        --------
        >>> print(Protocol("mine", sizes={"acdc": (960, 540)}, scales=(1, 1.5), only_listed=True))
        mine: acdc at 960x540; windows of 512 every 341; scales 1, 1.5; argmax at the label's size
        """
        halved = [f"{name} halved first" for name in self.halve]
        sizes = [f"{name} at {width}x{height}" for name, (width, height) in self.sizes.items()]
        if not self.only_listed:
            rest = "its own size" if self.long_side is None else f"a long side of {self.long_side}"
            sizes.append(f"every {'other ' if sizes else ''}set at {rest}")
        parts = [
            ", ".join(sizes + halved),
            "in one piece"
            if self.mode == "whole"
            else f"windows of {self.crop} every {self.stride}",
        ]
        if self.scales != (1.0,) or self.flip:
            scales = ", ".join(f"{scale:g}" for scale in self.scales)
            parts.append(f"scales {scales}{', each mirrored too' if self.flip else ''}")
        parts.append(f"argmax at the {self.argmax}'s size")
        return f"{self.name}: {'; '.join(parts)}"

    def input_size(
        self, width: int, height: int, benchmark: str, scale: float = 1.0
    ) -> tuple[int, int]:
        """Return the size of the model's input for an image, after halving.

        Parameters
        ----------
        width, height : int
            The size of the image in pixels.
        benchmark : str
            The benchmark of the dataset.
        scale : float
            One of ``scales``.

        Returns
        -------
        tuple of int
            Width and height.
        """
        long, short = max(width, height), min(width, height)
        if benchmark in self.sizes:
            size = self.sizes[benchmark]
            scale *= min(max(size) / long, min(size) / short)
        elif self.only_listed and benchmark != UNLISTED:
            raise ValueError(
                f"protocol '{self.name}' does not list '{benchmark}' (it lists "
                f"{', '.join(sorted(self.sizes))}); add its size or evaluate it with 'native'"
            )
        elif self.long_side is not None:
            scale *= self.long_side / long
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))

    def prepare(
        self, image: Tensor, truth: Tensor, benchmark: str, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return the input of the model and the truth for the score.

        Parameters
        ----------
        image : Tensor
            The image (3, H, W), uint8 RGB.
        truth : Tensor
            The label (H, W), uint8.
        benchmark : str
            The benchmark of the dataset.
        scale : float
            One of ``scales``.

        Returns
        -------
        image, truth : Tensor
            The input (3, h, w) and the truth (H', W'), both uint8.
        """
        pixels, labels = image.permute(1, 2, 0).numpy(), truth.numpy()
        if benchmark in self.halve:
            pixels, labels = halved(pixels, labels)
        size = self.input_size(pixels.shape[1], pixels.shape[0], benchmark, scale)
        pixels = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)

    @torch.no_grad()
    def segment(
        self, predict: Predict, sample: Mapping, benchmark: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segment one sample of a test loader.

        Parameters
        ----------
        predict : Callable
            The function from images to logits.
        sample : Mapping
            The sample.
        benchmark : str
            The benchmark of the dataset.

        Returns
        -------
        prediction, truth : ndarray
            Train ids (H, W), uint8.
        image : ndarray
            The input of the model at scale 1, (h, w, 3) uint8.

        Raises
        ------
        ValueError
            If the logits are not finite or the image is too large. The message names the file.
        """

        def resized(scale: float) -> Tensor:
            return self.prepare(sample["image"], sample["sem_seg"], benchmark, scale)[0]

        image, truth = self.prepare(sample["image"], sample["sem_seg"], benchmark)
        images = (image if scale == 1 else resized(scale) for scale in self.scales)
        size = tuple(truth.shape) if self.argmax == "label" else tuple(image.shape[1:])
        count = len(self.scales) * (2 if self.flip else 1)
        try:
            if self.mode == "whole" and count == 1:
                prediction = best_class(self._whole(predict, next(images)[None])[0], size)
            else:
                prediction = class_map(self._views(predict, images), count, size)
        except NonFiniteLogitsError as error:
            raise NonFiniteLogitsError(f"{sample['file_name']}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{sample['file_name']}: {error}") from error
        prediction = nearest(prediction.cpu().numpy(), tuple(truth.shape))
        return prediction, truth.numpy(), image.permute(1, 2, 0).contiguous().numpy()

    @torch.no_grad()
    def score(
        self, predict: Predict, images: Tensor, benchmark: str, wanted: Wanted = _CLASSES
    ) -> list[ScoredMap]:
        """Segment images of one size as :meth:`segment` does, with a confidence for each pixel.

        Without windows, scales and flip, all images are passed to the model as one batch.

        Parameters
        ----------
        predict : Callable
            The function from images to logits.
        images : Tensor
            Images (B, 3, H, W), uint8 RGB.
        benchmark : str
            The benchmark whose sizes are applied.
        wanted : Wanted
            The contents of the maps in addition to classes and confidence.

        Returns
        -------
        list of ScoredMap
            One map per image, at the size where the argmax is taken.

        Raises
        ------
        ValueError
            If the logits are not finite or the images are too large.
        """
        label = torch.zeros(images.shape[-2:], dtype=torch.uint8)

        def resized(image: Tensor, scale: float = 1.0) -> Tensor:
            return self.prepare(image, label, benchmark, scale)[0]

        image, truth = self.prepare(images[0], label, benchmark)
        size = tuple(truth.shape) if self.argmax == "label" else tuple(image.shape[1:])
        count = len(self.scales) * (2 if self.flip else 1)
        if self.mode == "whole" and count == 1:
            batch = torch.stack([resized(image, self.scales[0]) for image in images])
            logits = self._whole(predict, batch)
            return [scored_whole(one, size, wanted) for one in logits]
        return [
            scored_views(
                self._views(predict, (resized(image, scale) for scale in self.scales)),
                count,
                size,
                wanted,
            )
            for image in images
        ]

    def _views(self, predict: Predict, images: Iterable[Tensor]) -> Iterator[View]:
        for image in images:
            size = tuple(image.shape[1:])
            yield View(size, self._rows(predict, image))
            if self.flip:
                rows = self._rows(predict, image.flip(-1))
                yield View(size, (part.flip(-1) for part in rows))

    def _rows(self, predict: Predict, image: Tensor) -> Iterator[Tensor]:
        """Yield logits (C, n, w) of an image (3, h, w), from top to bottom."""
        if self.mode == "whole":
            yield from in_parts(self._whole(predict, image[None])[0])
            return

        def predict_windows(windows: Tensor) -> Tensor:  # the whole image stays uint8
            return predict(windows.float())

        found = finished_rows(predict_windows, image[None], self.crop, self.stride, self.batch)
        for _, _, rows in found:
            yield from in_parts(rows)

    def _whole(self, predict: Predict, images: Tensor) -> Tensor:
        """Return logits (B, C, h, w) for images (B, 3, h, w), computed without windows."""
        height, width = images.shape[-2:]
        if height * width > _WHOLE_PIXELS:
            raise ValueError(
                f"expected at most {_WHOLE_PIXELS:,} pixels to segment as a whole, got "
                f"{width}x{height}: set the protocol's long_side, or mode=slide"
            )
        logits = predict(images.float())
        check_logits(logits)
        return logits.float()


def halved(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve width and height, rounded down.

    The image is resized bicubically and the label by nearest neighbour, with Pillow. The published
    tool stores the halved image as a JPEG, which this function does not do.

    Parameters
    ----------
    image : ndarray
        The image (H, W, 3), uint8.
    label : ndarray
        The label (H, W).

    Returns
    -------
    image, label : ndarray
        The halved arrays.
    """
    height, width = label.shape
    size = max(width // 2, 1), max(height // 2, 1)
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.array(small), nearest(label, size[::-1])


def nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map of ids by nearest neighbour.

    Parameters
    ----------
    ids : ndarray
        The map (h, w).
    size : tuple of int
        The new height and width (H, W).

    Returns
    -------
    ndarray
        The map (H, W).
    """
    if ids.shape == tuple(size):
        return ids
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
