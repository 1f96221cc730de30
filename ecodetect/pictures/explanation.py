"""Why a classifier said so, as one picture: the window, its answers, heat over it, and what resembles it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecodetect.pictures.colours import FAINT, PALETTE, PAPER, TEXT, Colour, Pixels
from ecodetect.pictures.files import save, writable
from ecodetect.pictures.frame import MARGIN
from ecodetect.pictures.lettering import fitted, font_of
from ecodetect.pictures.thumbnails import SIDE_PX, Thumbnail, paste
from ecodetect.raster.options import RasterOptions

_PANEL_PX, _GAP, _SCORES_PX = 300, 22, 250
_FOR, _AGAINST = PALETTE[3], PALETTE[6]  # vermilion and blue
_STRONGEST = 0.85  # what of the picture the strongest heat covers


@dataclass(frozen=True, eq=False, slots=True)
class Heat:
    """Values over the window and what they are.

    values : (H, W); above 0 they speak for the answer, below against it.
    title, low, high : words above, and at the ends of the scale; low is None where nothing is below 0.
    """

    values: NDArray[np.float32]
    title: str
    low: str | None
    high: str


def draw_explanation(
    path: str | os.PathLike[str],
    *,
    image: Pixels,
    title: str,
    facts: str,
    scores: Sequence[tuple[str, float]],
    heats: Sequence[Heat],
    examples: Sequence[Thumbnail],
    options: RasterOptions | None = None,
) -> None:
    """Draw it into a PNG or JPEG.

    image : (H, W, 3), what the network saw.
    scores : answers with their scores, the first one first.
    examples : pictures that resemble it, the most similar first; `options` say how their files are opened.
    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    panels = 1 + len(heats)
    width = 2 * MARGIN + panels * (_PANEL_PX + _GAP) + _SCORES_PX
    top = MARGIN + 84
    below = top + _PANEL_PX + 46
    room = width - 2 * MARGIN
    height = below + (30 + SIDE_PX + 62 if examples else 0) + MARGIN // 2
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: float, y: float, words: str, px: int, fill: Colour = TEXT, wide: float = room) -> None:
        font = font_of(px)
        pen.text((x, y), fitted(words, font, wide), font=font, fill=fill)

    write(MARGIN, MARGIN - 8, title, 22)
    write(MARGIN, MARGIN + 24, facts, 14, FAINT)
    write(MARGIN, top - 24, "What it saw", 15)
    sheet.paste(Image.fromarray(_sized(image)), (MARGIN, top))
    for number, heat in enumerate(heats, start=1):
        x = MARGIN + number * (_PANEL_PX + _GAP)
        write(x, top - 24, heat.title, 15, wide=_PANEL_PX)
        sheet.paste(Image.fromarray(_sized(_heated(image, heat.values))), (x, top))
        _draw_scale(sheet, pen, heat, x, top + _PANEL_PX + 8)
    x = MARGIN + panels * (_PANEL_PX + _GAP)
    write(x, top - 24, "Its answers", 15)
    for row, (name, score) in enumerate(scores):
        y = top + 40 * row
        write(x, y, f"{score:.3f}  {name}", 14, wide=_SCORES_PX)
        pen.rectangle((x, y + 20, x + _SCORES_PX - 1, y + 26), fill=(232, 232, 232))
        pen.rectangle((x, y + 20, x + max(1, round(score * _SCORES_PX)) - 1, y + 26), fill=_FOR)
    if examples:
        write(MARGIN, below, "The most similar pictures, by the network's own features (cosine)", 15)
        for number, each in enumerate(examples):
            paste(sheet, pen, each, (MARGIN + number * (SIDE_PX + 10), below + 26), options)
    save(sheet, path)


def _sized(image: Pixels) -> Pixels:
    """A square picture as large as a panel, its pixels to be seen."""
    return np.asarray(cv2.resize(image, (_PANEL_PX, _PANEL_PX), interpolation=cv2.INTER_NEAREST), np.uint8)


def _heated(image: Pixels, values: NDArray[np.float32]) -> Pixels:
    """The picture in grey with the values in colour over it."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    most = float(np.abs(values).max()) or 1.0
    share = (_STRONGEST * np.abs(values) / most)[:, :, None]
    colour = np.where(values[:, :, None] >= 0, np.array(_FOR), np.array(_AGAINST))
    return np.asarray(np.rint(grey * (1 - share) + colour * share), np.uint8)


def _draw_scale(sheet: Image.Image, pen: ImageDraw.ImageDraw, heat: Heat, x: int, y: int) -> None:
    """A strip with the colours from the lowest value to the highest, with words at its ends."""
    high = max(0.0, float(heat.values.max()))
    low = min(0.0, float(heat.values.min()))
    ramp = np.tile(np.linspace(low, high, _PANEL_PX, dtype=np.float32), (8, 1))
    most = float(np.abs(heat.values).max())
    ramp = ramp if most > 0 else np.zeros_like(ramp)
    sheet.paste(Image.fromarray(_heated(np.full((8, _PANEL_PX, 3), 200, np.uint8), ramp)), (x, y))
    font = font_of(13)
    left = fitted(heat.low if low < 0 and heat.low is not None else "0", font, _PANEL_PX / 2)
    pen.text((x, y + 11), left, font=font, fill=FAINT)
    pen.text(
        (x + _PANEL_PX, y + 11), fitted(heat.high, font, _PANEL_PX / 2), font=font, fill=FAINT, anchor="ra"
    )
