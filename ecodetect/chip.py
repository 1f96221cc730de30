"""The pixels that a detector sees: an array with its mask, bands and place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Grid, Window


@dataclass(frozen=True, eq=False, slots=True)
class Chip:
    """Pixels read from a raster.

    pixels : (B, H, W), the raster's own dtype. Where `valid` is False the values mean nothing.
    valid : bool (H, W), or None when every pixel is valid (the common case costs nothing).
    bands : B names, as requested.
    window : the chip's place, in pixels of the scanned grid; it may reach beyond the raster, where it isn't
        valid.
    grid : the chip's own grid; its pixel (0, 0) is (window.x, window.y) of the scanned grid.
    asked : the window of requested objects, by their centres, in pixels of the scanned grid; others may be
        left out. None: all.
    wants_map : whether to return the map of scores too, for a detector that has one.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None
    bands: tuple[str, ...]
    window: Window
    grid: Grid
    asked: Window | None = None
    wants_map: bool = False

    def __post_init__(self) -> None:
        bands, height, width = self.pixels.shape
        if bands != len(self.bands) or (height, width) != (self.grid.height, self.grid.width):
            raise ValueError(
                f"chip of shape {self.pixels.shape} for bands {self.bands} and {self.grid.describe()}"
            )
        if self.valid is not None and self.valid.shape != (height, width):
            raise ValueError(f"mask of shape {self.valid.shape} for a chip of {height} x {width}")

    def mask(self) -> NDArray[np.bool_]:
        """Which pixels are valid, (H, W); read-only."""
        return np.ones(self.pixels.shape[1:], np.bool_) if self.valid is None else self.valid

    @property
    def extent(self) -> Window:
        """The smallest window around the valid pixels, in pixels of the scanned grid; 0 px wide if none."""
        if self.valid is None:
            return self.window
        rows, columns = np.flatnonzero(self.valid.any(axis=1)), np.flatnonzero(self.valid.any(axis=0))
        if not len(rows):
            return Window(self.window.x, self.window.y, 0, 0)
        x, y = self.window.x + int(columns[0]), self.window.y + int(rows[0])
        return Window(x, y, int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)

    def picked(self, bands: tuple[str, ...]) -> Chip:
        """The same ground with a band for each name; a name may appear twice."""
        if self.bands == bands:
            return self
        pixels = self.pixels[[self.bands.index(name) for name in bands]]
        return replace(self, pixels=pixels, bands=bands)

    def crop(self, window: Window) -> Chip:
        """The part inside `window` (pixels of the scanned grid), as a view; it must lie in this chip."""
        x, y = window.x - self.window.x, window.y - self.window.y
        rows, columns = slice(y, y + window.height), slice(x, x + window.width)
        valid = None if self.valid is None else self.valid[rows, columns]
        grid = self.grid.crop(Window(x, y, window.width, window.height))
        return Chip(self.pixels[:, rows, columns], valid, self.bands, window, grid)
