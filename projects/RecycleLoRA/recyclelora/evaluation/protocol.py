"""Evaluation protocols: at which size and in which windows an image is seen and scored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from recyclelora.bad_input import whole_number

from .sliding_window import Predict, sliding_window_logits

# In one piece: the masks of 100 queries then take 7 GB.
_WHOLE_PIXELS = 2**23


@dataclass(frozen=True)
class Protocol:
    """Plain values that fix how every image of a domain is evaluated.

    An image (and its label) is halved if its set is in ``halve``; the image is then resized into
    its set's (W, H) of ``sizes`` keeping its shape; logits are made of it whole or in windows,
    resized bilinearly to the label's size, and the argmax is taken there.

    Args:
        name: as it appears in ``domains.json``.
        sizes: benchmark -> (W, H): the image is scaled by min(max(W, H) / long side,
            min(W, H) / short side), so the order of W and H does not matter.
        halve: benchmarks whose images and labels are halved first.
        long_side: for sets without an entry in ``sizes``: images are resized to this long side,
            None leaves them at their own size.
        only_listed: sets without an entry in ``sizes`` are an error.
        mode: "slide" (windows) or "whole".
        crop, stride: of the windows, in pixels.
        batch: windows in one call of the model.
    """

    name: str
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    halve: tuple[str, ...] = ()
    long_side: int | None = None
    only_listed: bool = False
    mode: str = "slide"
    crop: int = 512
    stride: int = 341
    batch: int = 4

    def __post_init__(self) -> None:
        try:
            sizes = {str(k): tuple(int(side) for side in v) for k, v in dict(self.sizes).items()}
        except (TypeError, ValueError):
            raise ValueError(
                f"protocol '{self.name}': sizes must be benchmark -> (W, H), got {self.sizes!r}"
            ) from None
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "halve", tuple(self.halve))
        if self.mode not in ("slide", "whole"):
            raise ValueError(
                f"protocol '{self.name}': mode must be 'slide' or 'whole', got '{self.mode}'"
            )
        if any(len(s) != 2 or not 1 <= min(s) <= max(s) <= 16_384 for s in sizes.values()):
            raise ValueError(
                f"protocol '{self.name}': sizes must be (W, H) of 1 to 16,384 pixels, got {sizes}"
            )
        if self.long_side is not None:
            whole_number(f"protocol '{self.name}': long_side", self.long_side, least=1, most=16_384)
        whole_number(f"protocol '{self.name}': crop", self.crop, least=1, most=16_384)
        whole_number(f"protocol '{self.name}': stride", self.stride, least=1, most=self.crop)
        whole_number(f"protocol '{self.name}': batch", self.batch, least=1, most=10_000)

    def as_dict(self) -> dict:
        """Plain values, for ``domains.json``."""
        values = asdict(self)
        values["sizes"] = {key: list(size) for key, size in self.sizes.items()}
        values["halve"] = list(self.halve)
        return values

    def input_size(self, width: int, height: int, benchmark: str) -> tuple[int, int]:
        """(width, height) at which the model sees an image of this size (after any halving)."""
        long, short = max(width, height), min(width, height)
        if benchmark in self.sizes:
            size = self.sizes[benchmark]
            scale = min(max(size) / long, min(size) / short)
        elif self.only_listed:
            raise ValueError(
                f"protocol '{self.name}' says nothing about '{benchmark}' (it knows "
                f"{', '.join(sorted(self.sizes))}); add its size or evaluate it with 'native'"
            )
        else:
            scale = 1.0 if self.long_side is None else self.long_side / long
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))

    def prepare(self, image: Tensor, truth: Tensor, benchmark: str) -> tuple[Tensor, Tensor]:
        """What the model sees, (3, h, w) uint8, and the truth it is scored on, (H', W') uint8."""
        pixels, labels = image.permute(1, 2, 0).numpy(), truth.numpy()
        if benchmark in self.halve:
            pixels, labels = halved(pixels, labels)
        size = self.input_size(pixels.shape[1], pixels.shape[0], benchmark)
        pixels = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)

    def logits(self, predict: Predict, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB 0..255 -> (B, C, h, w), whole or in windows."""
        images = images.float()
        if self.mode == "whole":
            height, width = images.shape[-2:]
            if height * width > _WHOLE_PIXELS:
                raise ValueError(
                    f"expected at most {_WHOLE_PIXELS:,} pixels to look at as a whole, got "
                    f"{width}x{height}: set the protocol's long_side, or mode=slide"
                )
            return predict(images)
        return sliding_window_logits(predict, images, self.crop, self.stride, self.batch)

    @torch.no_grad()
    def segment(
        self, predict: Predict, sample: Mapping, benchmark: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate one sample of a test loader.

        Returns:
            prediction (H, W) uint8 train ids and truth (H, W) uint8 on the same grid, and the
            (h, w, 3) uint8 image that the model saw.
        """
        image, truth = self.prepare(sample["image"], sample["sem_seg"], benchmark)
        try:
            logits = self.logits(predict, image[None])
        except ValueError as error:
            raise ValueError(f"{sample['file_name']}: {error}") from error
        prediction = best_class(logits[0].float(), tuple(truth.shape)).cpu()
        return prediction.numpy(), truth.numpy(), image.permute(1, 2, 0).contiguous().numpy()


def best_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (C, h, w) resized bilinearly to ``size`` (H, W), and their argmax there, uint8.

    One class at a time: all of them at 20 megapixels would be 1.5 GB. The lowest class wins a tie.
    """
    best, prediction = None, None
    for index, plane in enumerate(logits[:, None, None]):
        plane = F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]
        if best is None:
            best, prediction = plane.clone(), torch.zeros_like(plane, dtype=torch.uint8)
        else:
            prediction.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
    return prediction


def halved(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half size in both directions (rounded down), image bicubic and label nearest, by Pillow.

    Deviation: the published tool stores the halved image as a JPEG in between; we do not.
    """
    height, width = label.shape
    size = max(width // 2, 1), max(height // 2, 1)
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.array(small), np.array(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


def paper(batch: int = 4) -> Protocol:
    """The sizes of RecycleLoRA and SoMA."""
    return _published("paper", (2048, 1024), batch)


def rein(batch: int = 4) -> Protocol:
    """The sizes of Rein."""
    return _published("rein", (1024, 512), batch)


def _published(name: str, size: tuple[int, int], batch: int) -> Protocol:
    return Protocol(
        name=name,
        sizes={"cityscapes": size, "bdd100k": (1280, 720), "mapillary_vistas": size},
        halve=("mapillary_vistas",),
        only_listed=True,
        batch=batch,
    )


def native(
    long_side: int | None = None,
    mode: str = "whole",
    crop: int = 512,
    stride: int = 341,
    batch: int = 4,
) -> Protocol:
    """Every set at its images' own size, or at ``long_side``: for small sets and the demo."""
    return Protocol(
        name="native", long_side=long_side, mode=mode, crop=crop, stride=stride, batch=batch
    )
