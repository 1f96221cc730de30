"""Whole pictures side by side, with words under each: what was misclassified, what resembles what."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ecodetect.grid import Window
from ecodetect.pictures.background import enlarge, on_paper
from ecodetect.pictures.colours import FAINT, PAPER, TEXT, Pixels
from ecodetect.pictures.files import save, writable
from ecodetect.pictures.frame import MARGIN
from ecodetect.pictures.lettering import fitted, font_of
from ecodetect.pictures.look import Stretch
from ecodetect.raster.options import RasterOptions

SIDE_PX, _COLUMNS, _GAP = 144, 10, 10
_LINE_PX = 17


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture's file and the words under it, a line each; the first stands out."""

    path: Path
    lines: tuple[str, ...]


def draw_thumbnails(
    shown: Sequence[Thumbnail],
    path: str | os.PathLike[str],
    *,
    title: str,
    heading: str,
    options: RasterOptions | None = None,
) -> None:
    """Draw pictures with words under each into a PNG or JPEG.

    options : how the pictures are opened.
    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    columns = max(5, min(_COLUMNS, len(shown)))
    lines = max((len(each.lines) for each in shown), default=0)
    down = SIDE_PX + 6 + _LINE_PX * lines + _GAP
    width = columns * (SIDE_PX + _GAP) - _GAP + 2 * MARGIN
    top = MARGIN + 54
    sheet = Image.new("RGB", (width, top + math.ceil(len(shown) / columns) * down + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    room = width - 2 * MARGIN
    pen.text((MARGIN, MARGIN - 8), fitted(title, font_of(22), room), font=font_of(22), fill=TEXT)
    pen.text((MARGIN, MARGIN + 24), fitted(heading, font_of(14), room), font=font_of(14), fill=FAINT)
    for number, each in enumerate(shown):
        x = MARGIN + number % columns * (SIDE_PX + _GAP)
        paste(sheet, pen, each, (x, top + number // columns * down), options)
    save(sheet, path)


def paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    shown: Thumbnail,
    corner: tuple[int, int],
    options: RasterOptions | None = None,
) -> None:
    """Put a thumbnail with its words onto a sheet.  corner : the upper left, in pixels of the sheet."""
    x, y = corner
    image = thumbnail(shown.path, options)
    high, wide = image.shape[:2]
    sheet.paste(Image.fromarray(image), (x + (SIDE_PX - wide) // 2, y + (SIDE_PX - high) // 2))
    for row, words in enumerate(shown.lines):
        font = font_of(14 if row == 0 else 13)
        text = fitted(words, font, SIDE_PX)
        place = (x + 1, y + SIDE_PX + 5 + _LINE_PX * row)
        pen.text(place, text, font=font, fill=TEXT if row == 0 else FAINT)


def thumbnail(path: Path, options: RasterOptions | None = None) -> Pixels:
    """A picture as RGB (H, W, 3) no larger than `SIDE_PX`; a small one is enlarged by a whole factor."""
    with (options or RasterOptions()).opened(path) as raster:
        longer = max(raster.grid.width, raster.grid.height)
        grid = raster.grid.reduced(max(1.0, longer / SIDE_PX))
        look = Stretch.of(raster, None)
        window = Window(0, 0, min(grid.width, SIDE_PX), min(grid.height, SIDE_PX))
        image = np.zeros((window.height, window.width, 4), np.uint8)
        look.paint(raster.read(window, look.bands, grid), image)
    return on_paper(enlarge(image, max(1, SIDE_PX // max(image.shape[:2]))))
