"""Pictures with one row per image: input, prediction, truth, and a legend of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recyclelora.common.atomic_write import atomic_write
from recyclelora.data import CLASSES, COLORS

_PAPER, _INK, _SOFT = (250, 250, 250), (25, 25, 25), (110, 110, 110)
_IGNORED = (0, 0, 0)
_GAP = 8


@dataclass(frozen=True)
class Row:
    """One row of a picture.

    Parameters
    ----------
    title : str
        The name of the domain.
    image : ndarray
        The input image (h, w, 3), uint8 RGB.
    prediction, truth : ndarray
        Train ids (H, W), uint8, with 255 for ignored pixels. Any size with the aspect ratio of the
        image is accepted.
    note : str
        Small text on the right.
    """

    title: str
    image: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    note: str = ""

    def shrunk(self, width: int) -> "Row":
        """Return the row at the size at which it is drawn, which saves memory.

        Parameters
        ----------
        width : int
            The width of one column in pixels. The height is limited to four times the width.

        Returns
        -------
        Row
            The smaller row.
        """
        height = max(1, round(self.image.shape[0] * width / self.image.shape[1]))
        height = min(height, 4 * width)
        shrink = cv2.INTER_AREA if width < self.image.shape[1] else cv2.INTER_LINEAR
        return Row(
            self.title,
            cv2.resize(self.image, (width, height), interpolation=shrink),
            cv2.resize(self.prediction, (width, height), interpolation=cv2.INTER_NEAREST),
            cv2.resize(self.truth, (width, height), interpolation=cv2.INTER_NEAREST),
            self.note,
        )


def colorize(ids: np.ndarray) -> np.ndarray:
    """Convert train ids to class colours.

    Parameters
    ----------
    ids : ndarray
        Train ids (H, W).

    Returns
    -------
    ndarray
        Colours (H, W, 3), uint8. Other ids are black.
    """
    table = np.full((256, 3), _IGNORED, np.uint8)
    table[: len(COLORS)] = COLORS
    return table[ids]


class GridRow(NamedTuple):
    """One row of a grid: a title, an image, class maps of the same size, and a small note."""

    title: str
    image: np.ndarray
    maps: Sequence[np.ndarray]
    note: str = ""


def draw_rows(rows: Sequence[Row], width: int = 448) -> Image.Image:
    """Draw rows under the headings "input", "prediction" and "truth", with the legend below.

    Parameters
    ----------
    rows : Sequence[Row]
        The rows from top to bottom.
    width : int
        The width of one column in pixels.

    Returns
    -------
    Image
        The picture.
    """
    shrunk = [row.shrunk(width) for row in rows]
    grid = [GridRow(row.title, row.image, (row.prediction, row.truth), row.note) for row in shrunk]
    return draw_grid(("input", "prediction", "truth"), grid)


def draw_grid(headings: Sequence[str], rows: Sequence[GridRow]) -> Image.Image:
    """Draw an image and its class maps per row, under the headings and with the legend below.

    Parameters
    ----------
    headings : Sequence[str]
        The headings of the image and of each map.
    rows : Sequence[GridRow]
        Images (h, w, 3) uint8 of the same width, and maps (h, w) uint8 of train ids, with 255 for
        ignored pixels.

    Returns
    -------
    Image
        The picture.
    """
    if not rows:
        raise ValueError("expected at least one row to draw, got none; choose some images")
    title_font, small_font = ImageFont.load_default(18), ImageFont.load_default(14)
    head, title_height, width = 34, 28, rows[0].image.shape[1]
    total_width = len(headings) * (width + _GAP) + _GAP
    legend = _Legend([ids for row in rows for ids in row.maps], total_width, small_font)
    body = sum(title_height + row.image.shape[0] + _GAP for row in rows)
    sheet = Image.new("RGB", (total_width, head + body + legend.height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings):
        centre = _GAP + column * (width + _GAP) + width // 2
        draw.text((centre, head // 2 + 2), heading, _SOFT, title_font, anchor="mm")
    top = head
    for row in rows:
        baseline = top + title_height - 8
        draw.text((_GAP, baseline), row.title, _INK, title_font, anchor="ls")
        draw.text((total_width - _GAP, baseline), row.note, _SOFT, small_font, anchor="rs")
        top += title_height
        for column, cell in enumerate((row.image, *map(colorize, row.maps))):
            sheet.paste(Image.fromarray(cell), (_GAP + column * (width + _GAP), top))
        top += row.image.shape[0] + _GAP
    legend.draw(draw, top)
    return sheet


class _Legend:
    """Colour swatches of the classes that occur, wrapped at the width of the picture."""

    def __init__(
        self, maps: Sequence[np.ndarray], width: int, font: ImageFont.FreeTypeFont
    ) -> None:
        seen = np.zeros(256, bool)
        for ids in maps:
            seen[np.unique(ids)] = True
        entries = [
            (name, color)
            for index, (name, color) in enumerate(zip(CLASSES, COLORS, strict=True))
            if seen[index]
        ]
        if seen[len(CLASSES) :].any():
            entries.append(("not labelled", _IGNORED))
        self.font, self.line, self.places = font, 26, []
        x = y = 0
        for name, color in entries:
            length = 24 + int(font.getlength(name)) + 18
            if x and x + length > width - 2 * _GAP:
                x, y = 0, y + self.line
            self.places.append((x, y, name, color))
            x += length
        self.height = y + self.line + _GAP

    def draw(self, draw: ImageDraw.ImageDraw, top: int) -> None:
        for x, y, name, color in self.places:
            left, middle = _GAP + x, top + y + self.line // 2
            draw.rectangle((left, middle - 8, left + 16, middle + 8), color, _SOFT)
            draw.text((left + 24, middle), name, _INK, self.font, anchor="lm")


def save_rows(file: str | Path, rows: Sequence[Row], width: int = 448) -> Path:
    """Draw rows and write the picture as PNG atomically.

    Parameters
    ----------
    file : str or Path
        The file.
    rows : Sequence[Row]
        The rows from top to bottom.
    width : int
        The width of one column in pixels.

    Returns
    -------
    Path
        The file.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        draw_rows(rows, width).save(temporary, "PNG")
    return file
