"""What stands around a map: title, legend, scale bar and small print."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ecodetect.grid import Grid
from ecodetect.pictures.colours import FAINT, PALETTE, PAPER, TEXT, Colour, Pixels
from ecodetect.pictures.lettering import distance_in_words, fitted, font_of, text_px
from ecodetect.pictures.marks import SHIFT

MARGIN = 24


def framed(
    image: Pixels,
    picture: Grid,
    classes: Sequence[str],
    counts: NDArray[np.int64],
    native_per_px: float,
    title: str | None,
    lines: Sequence[str | None],
) -> Image.Image:
    """The map on paper: title above, legend and scale bar below, then lines of small print."""
    height, width = image.shape[:2]
    text = text_px(max(width, height))
    body, small, large = font_of(text), font_of(max(13, round(0.8 * text))), font_of(round(1.35 * text))
    inner = max(width, 24 * text)
    bar = scale_bar(picture, native_per_px, inner)
    room_px = inner - bar[0] - 2 * text
    legend = _legend(classes, counts, body, room_px)
    print_lines = [line for line in lines if line]
    top = MARGIN + (round(2.1 * text) if title else 0)
    rows = max(len(legend), 1)
    below = round(text * (0.9 + 1.7 * rows + 1.25 * len(print_lines) + 0.3 * bool(print_lines)))
    sheet = Image.new("RGB", (inner + 2 * MARGIN, top + height + below + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN - 0.3 * text), fitted(title, large, inner), font=large, fill=TEXT)
    sheet.paste(Image.fromarray(image), (MARGIN, top))
    y = top + height + 0.9 * text
    for row, entries in enumerate(legend):
        x = float(MARGIN)
        for colour, words, taken in entries:
            line = y + 1.7 * text * row
            draw_key(sheet, x, line - 0.05 * text, text, colour)
            pen.text((x + 1.7 * text, line + 0.55 * text), words, font=body, fill=TEXT, anchor="lm")
            x += taken
    if not legend:
        pen.text((MARGIN, y + 0.55 * text), "no objects found", font=body, fill=TEXT, anchor="lm")
    length, label = bar
    right, foot = MARGIN + inner, round(y + 1.15 * text)
    pen.rectangle((right - length, foot, right - 1, foot + 2), fill=TEXT)
    for end in (right - length, right - 2):
        pen.rectangle((end, foot - 4, end + 1, foot + 2), fill=TEXT)
    pen.text((right - length / 2, foot - 4), label, font=body, fill=TEXT, anchor="ms")
    y += 1.7 * text * rows + 0.3 * text
    for line_text in print_lines:
        pen.text((MARGIN, y), fitted(line_text, small, inner), font=small, fill=FAINT)
        y += 1.25 * text
    return sheet


def draw_key(sheet: Image.Image, x: float, y: float, text: int, colour: Colour) -> None:
    """A ring as on the map, on a dark ground: the light colours are none on paper."""
    side = round(1.2 * text)
    key = np.full((side, side, 3), (74, 78, 74), np.uint8)
    centre, radius = (side * 8 - 8, side * 8 - 8), round(0.32 * side * 16)
    cv2.circle(key, centre, radius, colour, 2, cv2.LINE_AA, SHIFT)
    sheet.paste(Image.fromarray(key), (round(x), round(y)))


def _legend(
    classes: Sequence[str], counts: NDArray[np.int64], font: ImageFont.FreeTypeFont, room_px: float
) -> list[list[tuple[Colour, str, float]]]:
    """Colour, words and width of each class found, in card order, in rows no wider than `room_px`."""
    entries = []
    for index in np.flatnonzero(counts).tolist():
        words = f"{fitted(classes[index], font, room_px / 2)}  {counts[index]:,}"
        entries.append((PALETTE[index % len(PALETTE)], words, font.getlength(words) + 3.3 * font.size))
    if not entries:
        return []
    if sum(width for _, _, width in entries) <= room_px:
        return [entries]
    column = max(width for _, _, width in entries)
    across = max(1, int(room_px // column))
    even = [(colour, words, column) for colour, words, _ in entries]
    return [even[start : start + across] for start in range(0, len(even), across)]


def scale_bar(picture: Grid, native_per_px: float, width_px: int) -> tuple[int, str]:
    """Length in picture pixels of a round distance, and its name: in raster pixels where no GSD is known.

    native_per_px : pixels of the raster per pixel of the picture.
    """
    gsd = picture.gsd
    per_px = native_per_px if gsd is None else gsd[0]
    distance = _round_down(min(0.22 * width_px, 300) * per_px)
    words = f"{distance:g} px" if gsd is None else distance_in_words(distance)
    return max(2, round(distance / per_px)), words


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that isn't larger."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))
