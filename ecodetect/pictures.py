"""What was found, as pictures to look at: a map over the raster, and a sheet of cut-outs.

Pictures are drawn from the raster at a size to look at and from a stream of detections, in memory that
depends on the picture only. They are for people: coordinates come from the files that `formats` writes.
"""

from __future__ import annotations

import io
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, Window

if TYPE_CHECKING:
    from ecodetect.aoi import Area
    from ecodetect.raster import Raster

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

SUFFIXES = (".png", ".jpg", ".jpeg")
MARK = "ecodetect"

# Okabe & Ito (2008), told apart with any colour vision; first those that stand out on soil, plants and black.
# More classes than colours begin anew: nobody tells more apart in a map.
PALETTE: tuple[Colour, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (0, 158, 115),
    (230, 159, 0),
    (0, 114, 178),
    (255, 255, 255),
)
PAPER, TEXT, FAINT = (255, 255, 255), (32, 32, 32), (112, 112, 112)
CASING = (18, 18, 18)  # the dark edge that keeps a light outline readable on light ground

DOT_BELOW_PX = 5.0  # an outline narrower than this in the picture is a blot: it becomes a dot
HEAD = 20_000  # so many objects are held back to choose width and opacity by their number and size
READ_PX = 1 << 23  # native pixels read at once for the background: some 25 MB of 8-bit RGB
SAMPLED = 36  # blocks from which the contrast is taken
DULL = 100  # 8-bit data whose values span less than this of 255 are stretched
MIDDLE_POOL = 4_000  # a sample of so many knows its median's rank to 0.8 % (one standard error)
CUTOUT_PX, COLUMNS = 144, 12  # 144 is a multiple of most small enlargements


def writable(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless a picture can be written to `path`: known suffix, existing folder."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target} can't be drawn: its name must end in .png or .jpg, not '{target.suffix}'.")
    if not target.parent.is_dir():
        raise UserError(f"{target} can't be written: there is no folder {target.parent}.")


# -- the map -----------------------------------------------------------------------------------------------


def draw_map(
    raster: Raster,
    detections: Iterable[Detections],
    path: str | os.PathLike[str],
    *,
    largest_side_px: int = 1600,
    title: str | None = None,
    area: Area | None = None,
    info: str | None = None,
) -> None:
    """Draw detections over the raster, with legend and scale bar, into a PNG or JPEG.

    Parameters
    ----------
    raster : read at reduced GSD, in pieces of bounded size; empty blocks aren't read.
    detections : batches on the raster's ground, all of the same kind and classes; drawn in their order.
    path : where to; replaced whole or not at all.
    largest_side_px : longer side of the map in pixels. A smaller raster is enlarged by a whole factor.
    title : a line above the map.
    area : area of interest; only it and a margin are read and shown, and what lies outside is faded.
    info : a line below the legend, for the model and what else a reader must know.

    Notes
    -----
    Where the ground size of a pixel is known the picture's pixels are square on the ground. Objects narrower
    than 5 px in the picture become dots. Stored pixels aren't turned: where north isn't up an arrow shows it.

    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    grid, view = _view(raster.grid, area, largest_side_px)
    look = _Look.of(raster, area)
    enlarged = _enlargement(max(view.width, view.height), largest_side_px)
    image = _on_paper(_enlarge(_background(raster, look, grid, view), enlarged))
    picture = grid.crop(view).reduced(1 / enlarged)
    if area is not None:
        _fade_outside(image, area.moved_to(picture).shape)
    marks = _Marks(image.shape[1], image.shape[0])
    classes: tuple[str, ...] = ()
    counts = np.zeros(0, np.int64)
    for part in _with_style(detections, picture, marks):
        if classes != part.classes:
            classes, counts = part.classes, np.zeros(len(part.classes), np.int64)
        counts += np.bincount(part.label, minlength=len(classes))
        marks.draw(part.moved_to(picture))
    image = marks.over(image)
    _draw_north(image, picture)
    native_px = raster.grid.width / grid.width / enlarged
    _save(_framed(image, picture, classes, counts, native_px, title, [info, look.described]), path)


def _view(native: Grid, area: Area | None, largest_side_px: int) -> tuple[Grid, Window]:
    """The grid to read at, and the part of it to show."""
    grid = _square(native)
    shown = grid.window
    if area is not None:
        bounds = area.moved_to(grid).bounds
        shown = bounds.grown(math.ceil(0.05 * max(bounds.width, bounds.height))).clipped(grid.window)
    factor = max(shown.width, shown.height, 1) / largest_side_px
    if factor <= 1:
        return grid, shown
    reduced = grid.reduced(factor)
    x, y = math.floor(shown.x / factor), math.floor(shown.y / factor)
    right, bottom = math.ceil(shown.right / factor - 1e-6), math.ceil(shown.bottom / factor - 1e-6)
    return reduced, Window(x, y, right - x, bottom - y).clipped(reduced.window)


def _square(grid: Grid) -> Grid:
    """The grid itself, or with pixels square on the ground where they clearly aren't (lat/lon)."""
    gsd = grid.gsd
    if gsd is None or max(gsd) / min(gsd) < 1.02:
        return grid
    return grid.resampled(max(gsd))


def _enlargement(side_px: int, largest_side_px: int) -> int:
    """By which whole factor a small picture is shown."""
    return max(1, min(16, min(largest_side_px, 1400) // side_px))


def _enlarge(image: Pixels, factor: int) -> Pixels:
    if factor == 1:
        return image
    size = (image.shape[1] * factor, image.shape[0] * factor)
    # Pixels stay pixels: smoothing would show what was not recorded.
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _background(raster: Raster, look: _Look, grid: Grid, view: Window) -> Pixels:
    """The part `view` of the raster at `grid`, as RGBA (H, W, 4)."""
    image = np.zeros((view.height, view.width, 4), np.uint8)
    across = grid.pixels_from(raster.grid)
    per_x, per_y = 1 / math.hypot(across[0], across[3]), 1 / math.hypot(across[1], across[4])  # native px
    rows, columns = raster.block_shape
    # Whole blocks, so that few are decoded twice: about square for tiles, the full width for strips.
    wide = max(columns, int(READ_PX**0.5) // columns * columns)
    wide = min(wide, raster.grid.width)
    high = max(rows, READ_PX // wide // rows * rows)
    step_x, step_y = max(1, round(wide / per_x)), max(1, round(high / per_y))
    for y in range(view.y, view.bottom, step_y):
        for x in range(view.x, view.right, step_x):
            part = Window(x, y, step_x, step_y).clipped(view)
            if raster.is_empty(_native(part, per_x, per_y).clipped(raster.grid.window)):
                continue
            chip = raster.read(part, look.bands, grid)
            spot = image[y - view.y : part.bottom - view.y, x - view.x : part.right - view.x]
            look.paint(chip, spot)
    return image


def _native(window: Window, per_x: float, per_y: float) -> Window:
    x, y = math.floor(window.x * per_x), math.floor(window.y * per_y)
    return Window(x, y, math.ceil(window.right * per_x) - x, math.ceil(window.bottom * per_y) - y)


def _on_paper(image: Pixels) -> Pixels:
    """RGB of an RGBA image; a light checker, which no raster looks like, shows where there is no data."""
    height, width = image.shape[:2]
    odd = (np.arange(height)[:, None] // 8 + np.arange(width)[None, :] // 8) % 2
    paper = np.where(odd == 1, 241, 250).astype(np.uint8)[:, :, None]
    return np.where(image[:, :, 3:] > 0, image[:, :, :3], paper)


def _fade_outside(image: Pixels, shape: shapely.Geometry) -> None:
    """Whiten what lies outside the area of interest and draw its border."""
    rings = _rings(np.array([shape], dtype=object))
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, _fixed(rings), 255, cv2.LINE_AA, SHIFT)
    keep = (0.45 + 0.55 / 255 * inside)[:, :, None].astype(np.float32)
    image[:] = np.rint(image * keep + 255 * (1 - keep)).astype(np.uint8)
    cv2.polylines(image, _fixed(rings), True, PAPER, 3, cv2.LINE_AA, SHIFT)
    cv2.polylines(image, _fixed(rings), True, TEXT, 1, cv2.LINE_AA, SHIFT)


# -- how values become colours -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """Which bands are shown, and which values are black and white.

    bands : one name (grey) or three (shown as red, green, blue).
    low, high : per band, in the raster's values.
    described : what a reader must know about it; None for ordinary pictures.
    """

    bands: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    described: str | None

    @classmethod
    def of(cls, raster: Raster, area: Area | None) -> _Look:
        """The look of a raster: as it is for ordinary 8-bit pictures, else between its own extremes.

        The 0.5 and 99.5 percentiles of full-resolution blocks are black and white. 8-bit data are stretched
        with one pair of values, so that hues stay; others band by band, as their scales may differ.
        """
        bands = _shown_bands(raster.bands)
        where = None if area is None else area.moved_to(raster.grid).bounds
        chips = list(raster.samples(raster.grid, bands, where, SAMPLED))
        spans = [_span(chips, band) for band in range(len(bands))]
        low, high = min(lo for lo, _ in spans), max(hi for _, hi in spans)
        notes = []
        if len(bands) == 3 and bands != ("red", "green", "blue"):
            notes.append(f"{', '.join(bands)} shown as red, green, blue")
        if raster.dtype == "uint8" and (high - low >= DULL or high == low):
            return cls(bands, (0.0,) * len(bands), (255.0,) * len(bands), "; ".join(notes) or None)
        if raster.dtype == "uint8":
            spans = [(low, high)] * len(bands)
        # A band of nothing but noise must not be blown up to full contrast.
        least = (high - low) / 8
        spans = [(lo, max(hi, lo + least)) for lo, hi in spans]
        shown = ", ".join(dict.fromkeys(f"{lo:.4g} to {hi:.4g}" for lo, hi in spans))
        if chips:
            notes.append(f"contrast stretched: {shown}")
        return cls(
            bands, tuple(lo for lo, _ in spans), tuple(hi for _, hi in spans), "; ".join(notes) or None
        )

    def paint(self, chip: Chip, onto: Pixels) -> None:
        """Write the chip as RGBA into `onto` (H, W, 4), transparent where it isn't valid."""
        valid = np.ones(onto.shape[:2], np.bool_) if chip.valid is None else chip.valid
        for channel in range(3):
            band = channel if len(self.bands) == 3 else 0
            values = chip.pixels[band]
            if (self.low[band], self.high[band]) == (0.0, 255.0) and values.dtype == np.uint8:
                onto[:, :, channel] = values
                continue
            shown = values.astype(np.float32) if values.dtype.itemsize < 4 else values.astype(np.float64)
            finite = np.isfinite(shown)
            valid = valid & finite
            span = (self.high[band] - self.low[band]) or 1.0
            share = (np.where(finite, shown, 0) - self.low[band]) / span
            onto[:, :, channel] = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
        onto[:, :, 3] = np.where(valid, 255, 0)


def _shown_bands(bands: Sequence[str]) -> tuple[str, ...]:
    if {"red", "green", "blue"} <= set(bands):
        return ("red", "green", "blue")
    if "grey" in bands or len(bands) < 3:
        return ("grey",) if "grey" in bands else (bands[0],)
    return tuple(bands[:3])


def _span(chips: Sequence[Chip], band: int) -> tuple[float, float]:
    """Values between which nearly all of a band lies; (0, 1) where it has none."""
    parts = []
    for chip in chips:
        values = chip.pixels[band] if chip.valid is None else chip.pixels[band][chip.valid]
        values = values.ravel()[:: values.size // 65_536 | 1]  # odd, so that no column is left out
        parts.append(values[np.isfinite(values)].astype(np.float64))
    values = np.concatenate(parts) if parts else np.empty(0)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:  # rare things on even ground, such as a mask
        low, high = values.min(), values.max()
    return float(low), float(high)


# -- marks -------------------------------------------------------------------------------------------------

SHIFT = 4  # OpenCV draws with coordinates in 1/16 px
_CIRCLE = np.stack([np.cos(np.arange(24) * math.pi / 12), np.sin(np.arange(24) * math.pi / 12)], axis=1)


@dataclass(slots=True)
class _Marks:
    """Outlines, rings and dots on a transparent layer of `width` x `height` pixels.

    line_px : width of outlines.
    cased : whether outlines have a dark edge.
    opacity : of the whole layer.
    ring_px : radius of the ring around a point without a diameter; 0 for a dot.
    """

    width: int
    height: int
    line_px: int = 2
    cased: bool = True
    opacity: float = 1.0
    ring_px: float = 6.0
    _ink: Pixels = field(init=False)  # RGBA, colours premultiplied
    _shade: Pixels = field(init=False)
    _dots: dict[int, NDArray[np.float32]] = field(init=False)  # palette index -> dots per pixel

    def __post_init__(self) -> None:
        self._ink = np.zeros((self.height, self.width, 4), np.uint8)
        self._shade = np.zeros((self.height, self.width), np.uint8)
        self._dots = {}

    def draw(self, part: Detections) -> None:
        """Add detections, in pixels of this layer."""
        if not len(part):
            return
        sized = part.kind != "point" or part.diameter is not None
        sizes = _sizes(part) if sized else np.full(len(part), 2 * self.ring_px)
        small = sizes < DOT_BELOW_PX
        colours = part.label % len(PALETTE)
        for colour in np.unique(colours):
            mine = colours == colour
            self._add_dots(int(colour), part.centres()[mine & small])
            self._add_outlines(PALETTE[colour], part[mine & ~small], sizes[mine & ~small])

    def _add_outlines(self, colour: Colour, part: Detections, sizes: Floats) -> None:
        if part.kind == "point":
            rings = list(part.geometry[:, None, :] + _CIRCLE * (sizes / 2)[:, None, None])
        else:
            rings = _rings(part.shapes())
        lines = _fixed(rings)
        if self.cased:
            cv2.polylines(self._shade, lines, True, 255, self.line_px + 2, cv2.LINE_AA, SHIFT)
        for _ in range(
            2 if self.line_px == 1 else 1
        ):  # one pass of a thin line covers its pixels only partly
            cv2.polylines(self._ink, lines, True, (*colour, 255), self.line_px, cv2.LINE_AA, SHIFT)

    def _add_dots(self, colour: int, centres: Floats) -> None:
        if colour not in self._dots:
            self._dots[colour] = np.zeros((self.height, self.width), np.float32)
        x, y = np.floor(centres).astype(np.int64).T
        seen = (x >= 0) & (y >= 0) & (x < self.width) & (y < self.height)
        np.add.at(self._dots[colour], (y[seen], x[seen]), 1)

    def over(self, image: Pixels) -> Pixels:
        """The layer over an RGB image of its size."""
        number = sum(float(plane.sum()) for plane in self._dots.values())
        # Radius by the room that each dot has: dots that touch can't be counted.
        radius = min(2.4, max(0.6, 0.25 * (self.width * self.height / max(number, 1)) ** 0.5))
        dots = {colour: _spread(plane, radius) for colour, plane in sorted(self._dots.items())}
        shade = self._shade
        if dots and radius > 1.5:
            around = sum(_spread(plane, radius + 1) for plane in self._dots.values())
            shade = np.maximum(shade, np.rint(np.minimum(np.asarray(around), 1) * 255).astype(np.uint8))
        out = np.empty_like(image)
        for top in range(0, self.height, 128):  # in strips: floats of the whole would take 100 MB and more
            rows = slice(top, top + 128)
            strip = _blend(image[rows].astype(np.float32), CASING, shade[rows] * np.float32(0.5 / 255))
            for colour, plane in dots.items():
                strip = _blend(strip, PALETTE[colour], np.minimum(plane[rows], 1) * 0.95)
            ink = self._ink[rows] * np.float32(self.opacity)
            strip = strip * (1 - ink[:, :, 3:] / 255) + ink[:, :, :3]
            out[rows] = np.rint(np.clip(strip, 0, 255)).astype(np.uint8)
        return out


def _with_style(detections: Iterable[Detections], picture: Grid, marks: _Marks) -> Iterator[Detections]:
    """The same detections, after the style of `marks` was chosen by how many there are to `HEAD`."""
    stream = iter(detections)
    head: list[Detections] = []
    number = 0
    for part in stream:
        head.append(part)
        number += len(part)
        if number >= HEAD:
            break
    room = (picture.width * picture.height / max(number, 1)) ** 0.5  # px from one object to the next
    many = number >= HEAD
    marks.ring_px = 0.0 if many else min(9.0, max(3.0, 0.3 * room))
    sizes = np.concatenate([_sizes(part.moved_to(picture)) for part in head]) if number else np.zeros(1)
    typical = float(np.median(sizes)) or 2 * marks.ring_px
    marks.line_px = 2 if room >= 24 and typical >= 24 else 1
    marks.cased = room >= 12
    marks.opacity = 1.0 if not many else 0.85
    yield from chain(head, stream)


def _blend(image: NDArray[np.float32], colour: Colour, opacity: NDArray[Any]) -> NDArray[np.float32]:
    alpha = opacity[:, :, None].astype(np.float32)
    return np.asarray(image * (1 - alpha) + np.array(colour, np.float32) * alpha, np.float32)


def _spread(plane: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    """Each dot as a disc with a soft edge, of 1 at its centre."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return np.asarray(cv2.filter2D(plane, -1, disc, borderType=cv2.BORDER_CONSTANT), np.float32)


def _rings(shapes: NDArray[np.object_]) -> list[Floats]:
    """Outer and inner rings of polygons, each (N, 2)."""
    rings = shapely.get_rings(shapely.get_parts(shapes))
    xy, which = shapely.get_coordinates(rings, return_index=True)
    return np.split(xy, np.flatnonzero(np.diff(which)) + 1) if len(xy) else []


def _fixed(rings: Sequence[Floats]) -> list[NDArray[np.int32]]:
    """Continuous pixel positions as OpenCV takes them: pixel centres whole, in 1/16 px, near the picture."""
    return [np.rint(np.clip((ring - 0.5) * (1 << SHIFT), -(2**26), 2**26)).astype(np.int32) for ring in rings]


# -- the frame: title, legend, scale -----------------------------------------------------------------------

MARGIN = 24


def _framed(
    image: Pixels,
    picture: Grid,
    classes: Sequence[str],
    counts: NDArray[np.int64],
    native_px: float,
    title: str | None,
    lines: Sequence[str | None],
) -> Image.Image:
    """The map on paper: title above, legend and scale bar below, then lines of small print."""
    height, width = image.shape[:2]
    text = _text_px(max(width, height))
    body, small, large = _font(text), _font(max(13, round(0.8 * text))), _font(round(1.35 * text))
    inner = max(width, 24 * text)
    bar = _scale_bar(picture, native_px, inner)
    room = inner - bar[0] - 2 * text
    legend = _legend(classes, counts, body, room)
    print_lines = [line for line in lines if line]
    top = MARGIN + (round(2.1 * text) if title else 0)
    rows = max(len(legend), 1)
    below = round(text * (0.9 + 1.7 * rows + 1.25 * len(print_lines) + 0.3 * bool(print_lines)))
    sheet = Image.new("RGB", (inner + 2 * MARGIN, top + height + below + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN - 0.3 * text), _fitted(title, large, inner), font=large, fill=TEXT)
    sheet.paste(Image.fromarray(image), (MARGIN, top))
    y = top + height + 0.9 * text
    for row, entries in enumerate(legend):
        x = float(MARGIN)
        for colour, words, taken in entries:
            line = y + 1.7 * text * row
            _draw_key(sheet, x, line - 0.05 * text, text, colour)
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
        pen.text((MARGIN, y), _fitted(line_text, small, inner), font=small, fill=FAINT)
        y += 1.25 * text
    return sheet


def _draw_key(sheet: Image.Image, x: float, y: float, text: int, colour: Colour) -> None:
    """A ring as on the map, on a dark ground: the light colours are none on paper."""
    side = round(1.2 * text)
    key = np.full((side, side, 3), (74, 78, 74), np.uint8)
    centre, radius = (side * 8 - 8, side * 8 - 8), round(0.32 * side * 16)
    cv2.circle(key, centre, radius, colour, 2, cv2.LINE_AA, SHIFT)
    sheet.paste(Image.fromarray(key), (round(x), round(y)))


def _legend(
    classes: Sequence[str], counts: NDArray[np.int64], font: ImageFont.FreeTypeFont, room: float
) -> list[list[tuple[Colour, str, float]]]:
    """Colour, words and width of each class found, in card order, in rows no wider than `room`."""
    entries = []
    for index in np.flatnonzero(counts).tolist():
        words = f"{_fitted(classes[index], font, room / 2)}  {counts[index]:,}"
        entries.append((PALETTE[index % len(PALETTE)], words, font.getlength(words) + 3.3 * font.size))
    if not entries:
        return []
    if sum(width for _, _, width in entries) <= room:
        return [entries]
    column = max(width for _, _, width in entries)
    across = max(1, int(room // column))
    even = [(colour, words, column) for colour, words, _ in entries]
    return [even[start : start + across] for start in range(0, len(even), across)]


def _scale_bar(picture: Grid, native_px: float, width_px: int) -> tuple[int, str]:
    """Length in picture pixels of a round distance, and its name: in raster pixels where no GSD is known.

    native_px : pixels of the raster per pixel of the picture.
    """
    gsd = picture.gsd
    per_px = native_px if gsd is None else gsd[0]
    distance = _round_down(min(0.22 * width_px, 300) * per_px)
    return max(2, round(distance / per_px)), f"{distance:g} px" if gsd is None else _distance(distance)


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that isn't larger."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


def _distance(metres: float) -> str:
    for unit, size in (("km", 1e3), ("m", 1.0), ("cm", 1e-2), ("mm", 1e-3)):
        if metres >= size * 0.999:
            return f"{metres / size:.4g} {unit}"
    return f"{metres / 1e-6:.4g} um"


def _draw_north(image: Pixels, picture: Grid) -> None:
    """A small arrow to the north in the corner, where north isn't up."""
    jacobian = picture.metres_per_pixel([(picture.width / 2, picture.height / 2)])[0]
    if picture.crs is None or not np.isfinite(jacobian).all() or np.linalg.det(jacobian) == 0:
        return
    north = np.linalg.solve(jacobian, (0.0, 1.0))
    north /= np.hypot(*north)
    if north[1] < -math.cos(math.radians(3)) or min(image.shape[:2]) < 160:
        return
    size = 1.3 * _text_px(max(image.shape[:2]))
    centre = np.array([image.shape[1] - 2.6 * size, 2.6 * size])
    side = np.array([-north[1], north[0]])
    arrow = np.array([centre + 1.1 * size * north, centre - size * north + 0.55 * size * side,
                      centre - 0.6 * size * north, centre - size * north - 0.55 * size * side])  # fmt: skip
    cv2.fillPoly(image, _fixed([arrow]), TEXT, cv2.LINE_AA, SHIFT)
    cv2.polylines(image, _fixed([arrow]), True, PAPER, 2, cv2.LINE_AA, SHIFT)
    sheet = Image.fromarray(image)
    place = tuple(centre + 1.9 * size * north)
    ImageDraw.Draw(sheet).text(
        place, "N", font=_font(round(size)), fill=PAPER, stroke_width=2, stroke_fill=TEXT, anchor="mm"
    )
    image[:] = np.asarray(sheet)


# -- the sheet of cut-outs ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Band:
    """Rows of cut-outs under one heading.

    objects : in the order in which they are shown.
    number : 1-based place of each in the stream, (N,).
    """

    heading: str
    objects: Detections
    number: NDArray[np.int64]


def draw_sheet(
    raster: Raster,
    detections: Iterable[Detections],
    path: str | os.PathLike[str],
    *,
    most: int = 60,
    order: Literal["score", "size"] = "score",
) -> None:
    """Draw cut-outs of the surest, of middling and of the least sure objects into a PNG or JPEG.

    Parameters
    ----------
    raster : read at full resolution around each object shown.
    detections : batches on the raster's ground, all of the same kind and classes, gone through once.
    path : where to; replaced whole or not at all.
    most : number of cut-outs. Of more objects two fifths are the first by `order`, one fifth those around the
        median (of a random sample of 4,000), two fifths the last; where `order` can't tell objects apart, a
        random sample.
    order : "score", or "size": the longer side of the bounding box.

    Notes
    -----
    All cut-outs have the same scale, except of objects too large for it: these say by how much they are
    reduced. The number below a cut-out is the object's place in the stream, from 1. Ties go by that place.

    Raises UserError for an unknown suffix or a folder that can't be written to.
    """
    writable(path)
    bands, total = _chosen(detections, most, order)
    look = _Look.of(raster, None)
    base = _square(raster.grid)
    scale = _common_scale([_sizes(band.objects.moved_to(base)) for band in bands])
    cutouts = _cutouts(raster, look, base, bands, scale)
    columns = max(6, min(COLUMNS, max((len(band.number) for band in bands), default=1)))
    several = any(len(band.objects.classes) > 1 for band in bands)
    across, down = CUTOUT_PX + 10, CUTOUT_PX + (46 if several else 30)
    width = columns * across - 10 + 2 * MARGIN
    height = 2 * MARGIN + 44 + sum(46 + math.ceil(len(band.number) / columns) * down for band in bands)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(x: float, y: float, words: str, px: int, fill: Colour = TEXT, anchor: str = "la") -> None:
        font = _font(px)
        room = CUTOUT_PX if anchor == "ra" else width - MARGIN - x
        pen.text((x, y), _fitted(words, font, room), font=font, fill=fill, anchor=anchor)

    write(MARGIN, MARGIN - 8, raster.name, 22)
    number_of = "1 object" if total == 1 else f"{total:,} objects"
    facts = [number_of, _width_of_cutouts(base, scale), look.described] if total else ["no objects found"]
    write(MARGIN, MARGIN + 22, "; ".join(fact for fact in facts if fact), 14, FAINT)
    y = MARGIN + 44
    for band in bands:
        write(MARGIN, y + 16, band.heading, 16)
        y += 46
        for index, number in enumerate(band.number):
            cutout, reduced = cutouts[int(number)]
            left, top = MARGIN + index % columns * across, y + index // columns * down
            sheet.paste(Image.fromarray(cutout), (left, top))
            write(left + 1, top + CUTOUT_PX + 5, f"{band.objects.score[index]:.2f}", 14)
            words = f"{number:,}" if reduced == 1 else f"1/{reduced:g} size  {number:,}"
            write(left + CUTOUT_PX - 1, top + CUTOUT_PX + 6, words, 13, FAINT, "ra")
            if several:
                name = _fitted(band.objects.classes[band.objects.label[index]], _font(13), CUTOUT_PX)
                write(left + 1, top + CUTOUT_PX + 22, name, 13)
        y += math.ceil(len(band.number) / columns) * down
    _save(sheet, path)


class _Pool:
    """The `size` objects of a stream with the lowest keys, lowest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.objects: Detections | None = None
        self.number = np.empty(0, np.int64)
        self._key = np.empty(0)
        self._tie = np.empty(0, np.int64)

    def add(self, part: Detections, number: NDArray[np.int64], key: Floats, tie: NDArray[np.int64]) -> None:
        """Take what is lower than the highest held; equal keys go by the lower `tie`."""
        if self.size and len(self._key) == self.size:
            hopeful = key <= self._key[-1]
            part, number, key, tie = part[hopeful], number[hopeful], key[hopeful], tie[hopeful]
        if not len(part):
            return
        if self.objects is not None:
            part = Detections.concatenate([self.objects, part])
            number, tie = np.concatenate([self.number, number]), np.concatenate([self._tie, tie])
            key = np.concatenate([self._key, key])
        rows = np.lexsort((tie, key))[: self.size]
        self.objects, self.number, self._key, self._tie = part[rows], number[rows], key[rows], tie[rows]


def _chosen(
    detections: Iterable[Detections], most: int, order: Literal["score", "size"]
) -> tuple[list[_Band], int]:
    """The objects to show and the number of all, in one pass."""
    ends = 2 * most // 5
    first, last, sample = _Pool(most), _Pool(ends), _Pool(max(MIDDLE_POOL, most))
    total, lowest, highest = 0, math.inf, -math.inf
    for part in detections:
        if not len(part):
            continue
        number = total + 1 + np.arange(len(part))
        total += len(part)
        value = _sort_values(part, order)
        lowest, highest = min(lowest, float(value.min())), max(highest, float(value.max()))
        first.add(part, number, -value, number)
        last.add(part, number, value, -number)  # the other way round, so that no object is first and last
        sample.add(part, number, _scattered(number), number)
    if first.objects is None or sample.objects is None:
        return [], 0
    best, worst = ("surest", "least sure") if order == "score" else ("largest", "smallest")
    rows: list[tuple[str, _Pool, NDArray[np.int64]]]
    if total <= most:
        rows = [(f"All, {best} first", first, np.arange(total))]
    elif lowest == highest:  # nothing to sort by
        rows = [(f"{most} of {total:,}, at random", sample, np.argsort(sample.number[:most]))]
    else:
        value = _sort_values(sample.objects, order)
        near = np.lexsort((sample.number, np.abs(value - np.median(value))))
        near = near[~np.isin(sample.number[near], np.concatenate([first.number[:ends], last.number]))]
        near = near[: most - 2 * ends]
        rows = [
            (f"The {ends} {best}", first, np.arange(ends)),
            (f"{len(near)} around the median", sample, near[np.lexsort((sample.number[near], -value[near]))]),
            (f"The {ends} {worst}", last, np.arange(ends)[::-1]),
        ]
    return [_band(words, pool, which, order) for words, pool, which in rows if len(which)], total


def _band(words: str, pool: _Pool, rows: NDArray[np.int64], order: Literal["score", "size"]) -> _Band:
    assert pool.objects is not None
    objects = pool.objects[rows]
    value = _sort_values(objects, order)
    low, high = (f"{v:.2f}" if order == "score" else f"{v:.0f} px" for v in (value.min(), value.max()))
    return _Band(f"{words}: {order} {low if low == high else f'{low} to {high}'}", objects, pool.number[rows])


def _sort_values(part: Detections, order: Literal["score", "size"]) -> Floats:
    return np.asarray(part.score if order == "score" else _sizes(part), np.float64)


def _sizes(part: Detections) -> Floats:
    """Longer sides of the bounding boxes in pixels; 0 for points without a diameter."""
    b = part.bounds()
    return np.asarray(np.maximum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]), np.float64)


def _scattered(number: NDArray[np.int64]) -> Floats:
    """A number in [0, 1) for each place in the stream that looks random (splitmix64)."""
    z = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).astype(np.float64) / 2.0**64


def _common_scale(sizes: Sequence[Floats]) -> float:
    """Raster pixels per picture pixel at which most objects fill about half of their cut-out."""
    every = np.concatenate(sizes) if sizes else np.empty(0)
    every = np.where(every > 0, every, 24.0)  # points: some surroundings
    needed = max(2.0 * float(np.median(every)), 1.3 * float(np.percentile(every, 90))) if len(every) else 1.0
    wholes = (1 / 12, 1 / 9, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)
    fitting = [scale for scale in wholes if CUTOUT_PX * scale >= needed]
    return fitting[0] if fitting else math.ceil(2 * needed / CUTOUT_PX) / 2


def _width_of_cutouts(base: Grid, scale: float) -> str:
    width = CUTOUT_PX * scale
    gsd = base.gsd
    return f"cut-outs {width:.0f} px wide" + (
        "" if gsd is None else f" ({_distance(float(f'{width * gsd[0]:.3g}'))})"
    )


def _cutouts(
    raster: Raster, look: _Look, base: Grid, bands: Sequence[_Band], scale: float
) -> dict[int, tuple[Pixels, float]]:
    """Place in the stream -> its cut-out, and by how much more than the others it is reduced."""
    todo = [(band, index) for band in bands for index in range(len(band.number))]
    # From top to bottom: pictures that can't be entered in the middle (PNG) are then decoded once.
    todo.sort(key=lambda each: float(each[0].objects[each[1] : each[1] + 1].centres()[0, 1]))
    cutouts = {}
    for band, index in todo:
        one = band.objects[index : index + 1].moved_to(base)
        own = scale
        while float(_sizes(one)[0]) * 1.1 > CUTOUT_PX * own:
            own *= 2
        grid = base.reduced(max(own, 1.0))
        enlarged = round(max(1 / own, 1))
        side = CUTOUT_PX // enlarged
        x, y = np.rint(one.moved_to(grid).centres()[0] - side / 2).astype(int)
        window = Window(int(x), int(y), side, side)
        image = np.zeros((side, side, 4), np.uint8)
        look.paint(raster.read(window, look.bands, grid), image)
        marks = _Marks(CUTOUT_PX, CUTOUT_PX, line_px=1)
        marks.draw(one.moved_to(grid.crop(window).reduced(1 / enlarged)))
        cutouts[int(band.number[index])] = (marks.over(_on_paper(_enlarge(image, enlarged))), own / scale)
    return cutouts


# -- text and files ----------------------------------------------------------------------------------------


def _text_px(side_px: int) -> int:
    return max(13, min(24, round(side_px / 85)))


@lru_cache(maxsize=16)
def _font(px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels are built with FreeType
    return font


_ASCII = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss", "’": "'"}
)


def _fitted(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, cut short where it is wider than `room`, in letters that the font has."""
    # The font that comes with Pillow is plain ASCII: letters lose their accents.
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
    plain = "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c))
    if font.getlength(plain) <= room:
        return plain
    while plain and font.getlength(plain + "...") > room:
        plain = plain[:-1]
    return plain + "..."


def _save(sheet: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write the picture beside its place and move it there."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.part")
    buffer = io.BytesIO()
    # The mark by which a scan of a folder knows its own pictures.
    if target.suffix.lower() == ".png":
        mark = PngInfo()
        mark.add_text("Software", MARK)
        sheet.save(buffer, "PNG", pnginfo=mark)
    else:
        sheet.save(buffer, "JPEG", quality=92, subsampling=0, comment=MARK.encode())
    try:
        beside.write_bytes(buffer.getvalue())
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{target} can't be written: {error.strerror or error}.") from error
