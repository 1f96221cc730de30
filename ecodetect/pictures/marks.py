"""Detections as marks on a picture: outlines, rings, and dots where an outline would be a blot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.detections import Detections
from ecodetect.grid import Floats, Grid
from ecodetect.pictures.colours import CASING, PALETTE, Colour, Pixels

_DOT_BELOW_PX = 5.0  # an outline narrower than this in the picture is a blot: it becomes a dot
HEAD = 20_000  # number of objects that width and opacity are chosen by
SHIFT = 4  # OpenCV draws with coordinates in 1/16 px
_CIRCLE = np.stack([np.cos(np.arange(24) * math.pi / 12), np.sin(np.arange(24) * math.pi / 12)], axis=1)


@dataclass(slots=True)
class Marks:
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
        sizes = sizes_of(part) if sized else np.full(len(part), 2 * self.ring_px)
        sizes = np.where(np.isnan(sizes), 2 * self.ring_px, sizes)  # of unknown size
        small = sizes < _DOT_BELOW_PX
        colours = part.label % len(PALETTE)
        for colour in np.unique(colours):
            mine = colours == colour
            self._add_dots(int(colour), part.centres()[mine & small])
            self._add_outlines(PALETTE[colour], part[mine & ~small], sizes[mine & ~small])

    def _add_outlines(self, colour: Colour, part: Detections, sizes: Floats) -> None:
        if part.kind == "point":
            rings = list(part.geometry[:, None, :] + _CIRCLE * (sizes / 2)[:, None, None])
        else:
            rings = rings_of(part.shapes())
        lines = fixed(rings)
        if self.cased:
            cv2.polylines(self._shade, lines, True, 255, self.line_px + 2, cv2.LINE_AA, SHIFT)
        passes = 2 if self.line_px == 1 else 1  # one pass of a thin line covers its pixels only partly
        for _ in range(passes):
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


def styled(detections: Iterable[Detections], picture: Grid, marks: Marks) -> Iterator[Detections]:
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
    sizes = np.concatenate([sizes_of(part.moved_to(picture)) for part in head]) if number else np.zeros(1)
    typical = float(np.median(np.nan_to_num(sizes))) or 2 * marks.ring_px
    marks.line_px = 2 if room >= 24 and typical >= 24 else 1
    marks.cased = room >= 12
    marks.opacity = 1.0 if not many else 0.85
    yield from chain(head, stream)


def _blend(image: NDArray[np.float32], colour: Colour, opacity: NDArray[Any]) -> NDArray[np.float32]:
    alpha = opacity[:, :, None].astype(np.float32)
    return np.asarray(image * (1 - alpha) + np.array(colour, np.float32) * alpha, np.float32)


def _spread(plane: NDArray[np.float32], radius_px: float) -> NDArray[np.float32]:
    """Each dot as a disc with a soft edge, of 1 at its centre."""
    reach = math.ceil(radius_px)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return np.asarray(cv2.filter2D(plane, -1, disc, borderType=cv2.BORDER_CONSTANT), np.float32)


def sizes_of(part: Detections) -> Floats:
    """Longer sides of the bounding boxes in pixels; of points 0 without diameters, NaN for an unknown one."""
    b = part.bounds()
    return np.asarray(np.maximum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]), np.float64)


def rings_of(shapes: NDArray[np.object_]) -> list[Floats]:
    """Outer and inner rings of polygons, each (N, 2)."""
    rings = shapely.get_rings(shapely.get_parts(shapes))
    xy, which = shapely.get_coordinates(rings, return_index=True)
    return np.split(xy, np.flatnonzero(np.diff(which)) + 1) if len(xy) else []


def fixed(rings: Sequence[Floats]) -> list[NDArray[np.int32]]:
    """Continuous pixel positions as OpenCV takes them: pixel centres whole, in 1/16 px, near the picture."""
    return [np.rint(np.clip((ring - 0.5) * (1 << SHIFT), -(2**26), 2**26)).astype(np.int32) for ring in rings]
