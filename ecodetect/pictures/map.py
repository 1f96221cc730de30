"""The map: detections drawn over the raster, with legend and scale bar."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import shapely
from PIL import Image, ImageDraw

from ecodetect.detections import Detections
from ecodetect.grid import Grid, Window
from ecodetect.pictures.background import enlarge, enlargement, on_paper, read_background, square
from ecodetect.pictures.colours import PAPER, TEXT, Pixels
from ecodetect.pictures.files import save, writable
from ecodetect.pictures.frame import framed
from ecodetect.pictures.lettering import font_of, text_px
from ecodetect.pictures.look import Stretch
from ecodetect.pictures.marks import SHIFT, Marks, fixed, rings_of, styled

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster
    from ecodetect.region import Region


def draw_map(
    raster: Raster,
    detections: Iterable[Detections],
    path: str | os.PathLike[str],
    *,
    largest_side_px: int = 1600,
    title: str | None = None,
    area: Region | None = None,
    info: str | None = None,
) -> None:
    """Draw detections over the raster, with legend and scale bar, into a PNG or JPEG.

    Parameters
    ----------
    raster : read at reduced GSD, in pieces of bounded size; empty blocks aren't read.
    detections : batches on the raster's ground, all of the same kind; drawn in their order.
        Later ones may have more classes behind the others.
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
    look = Stretch.of(raster, area)
    enlarged = enlargement(max(view.width, view.height), largest_side_px)
    image = on_paper(enlarge(read_background(raster, look, grid, view), enlarged))
    picture = grid.crop(view).reduced(1 / enlarged)
    if area is not None:
        _fade_outside(image, area.moved_to(picture).shape)
    marks = Marks(image.shape[1], image.shape[0])
    classes: tuple[str, ...] = ()
    counts = np.zeros(0, np.int64)
    for part in styled(detections, picture, marks):
        counts = np.pad(counts, (0, len(part.classes) - len(classes)))
        classes = part.classes
        counts += np.bincount(part.label, minlength=len(classes))
        marks.draw(part.moved_to(picture))
    image = marks.over(image)
    _draw_north(image, picture)
    native_per_px = raster.grid.width / grid.width / enlarged
    save(framed(image, picture, classes, counts, native_per_px, title, [info, look.described]), path)


def _view(native: Grid, area: Region | None, largest_side_px: int) -> tuple[Grid, Window]:
    """The grid to read at, and the part of it to show."""
    grid = square(native)
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


def _fade_outside(image: Pixels, shape: shapely.Geometry) -> None:
    """Whiten what lies outside the area of interest and draw its border."""
    rings = rings_of(np.array([shape], dtype=object))
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, fixed(rings), 255, cv2.LINE_AA, SHIFT)
    keep = (0.45 + 0.55 / 255 * inside)[:, :, None].astype(np.float32)
    image[:] = np.rint(image * keep + 255 * (1 - keep)).astype(np.uint8)
    cv2.polylines(image, fixed(rings), True, PAPER, 3, cv2.LINE_AA, SHIFT)
    cv2.polylines(image, fixed(rings), True, TEXT, 1, cv2.LINE_AA, SHIFT)


def _draw_north(image: Pixels, picture: Grid) -> None:
    """A small arrow to the north in the corner, where north isn't up."""
    jacobian = picture.metres_per_pixel([(picture.width / 2, picture.height / 2)])[0]
    if picture.crs is None or not np.isfinite(jacobian).all() or np.linalg.det(jacobian) == 0:
        return
    north = np.linalg.solve(jacobian, (0.0, 1.0))
    north /= np.hypot(*north)
    if north[1] < -math.cos(math.radians(3)) or min(image.shape[:2]) < 160:
        return
    size = 1.3 * text_px(max(image.shape[:2]))
    centre = np.array([image.shape[1] - 2.6 * size, 2.6 * size])
    side = np.array([-north[1], north[0]])
    arrow = np.array([centre + 1.1 * size * north, centre - size * north + 0.55 * size * side,
                      centre - 0.6 * size * north, centre - size * north - 0.55 * size * side])  # fmt: skip
    cv2.fillPoly(image, fixed([arrow]), TEXT, cv2.LINE_AA, SHIFT)
    cv2.polylines(image, fixed([arrow]), True, PAPER, 2, cv2.LINE_AA, SHIFT)
    sheet = Image.fromarray(image)
    place = tuple(centre + 1.9 * size * north)
    ImageDraw.Draw(sheet).text(
        place, "N", font=font_of(round(size)), fill=PAPER, stroke_width=2, stroke_fill=TEXT, anchor="mm"
    )
    image[:] = np.asarray(sheet)
