"""The raster under the marks: read at a size to look at, enlarged where it is small, laid on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ecodetect.grid import Grid, Window
from ecodetect.pictures.colours import Pixels
from ecodetect.pictures.look import Stretch

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster

READ_PX = 1 << 23  # native pixels read at once for the background: some 25 MB of 8-bit RGB


def square(grid: Grid) -> Grid:
    """The grid itself, or with pixels square on the ground where they clearly aren't (lat/lon)."""
    gsd = grid.gsd
    if gsd is None or max(gsd) / min(gsd) < 1.02:
        return grid
    return grid.resampled(max(gsd))


def enlargement(side_px: int, largest_side_px: int) -> int:
    """By which whole factor a small picture is shown."""
    return max(1, min(16, min(largest_side_px, 1400) // side_px))


def enlarge(image: Pixels, factor: int) -> Pixels:
    """The image with each pixel as `factor` x `factor` of them."""
    if factor == 1:
        return image
    size = (image.shape[1] * factor, image.shape[0] * factor)
    # Pixels stay pixels: smoothing would show what was not recorded.
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def read_background(raster: Raster, look: Stretch, grid: Grid, view: Window) -> Pixels:
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
    """The native pixels that a window covers."""
    x, y = math.floor(window.x * per_x), math.floor(window.y * per_y)
    return Window(x, y, math.ceil(window.right * per_x) - x, math.ceil(window.bottom * per_y) - y)


def on_paper(image: Pixels) -> Pixels:
    """RGB of an RGBA image; a light checker, which no raster looks like, shows where there is no data."""
    height, width = image.shape[:2]
    odd = (np.arange(height)[:, None] // 8 + np.arange(width)[None, :] // 8) % 2
    paper = np.where(odd == 1, 241, 250).astype(np.uint8)[:, :, None]
    return np.where(image[:, :, 3:] > 0, image[:, :, :3], paper)
