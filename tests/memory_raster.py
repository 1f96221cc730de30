"""A raster that is an array, for tests of what happens above files."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecodetect.chip import Chip
from ecodetect.grid import Grid, Window


@dataclass
class MemoryRaster:
    """Has what `searching` asks of a Raster; reads its own grid only."""

    pixels: Any
    grid: Grid
    bands: tuple[str, ...]
    valid: Any = None
    name: str = "memory.tif"
    path: str = "memory.tif"
    notes: tuple[str, ...] = ()
    scale: tuple[float, float] = (1.0, 0.0)
    block_shape: tuple[int, int] = (64, 64)
    fingerprint: str = "0123456789abcdef"
    state: str = "as it was"
    reads: list[Window] = field(default_factory=list)

    @property
    def dtype(self) -> str:
        return str(self.pixels.dtype)

    @property
    def value_range(self) -> tuple[float, float] | None:
        return (0.0, 255.0) if self.pixels.dtype == np.uint8 else None

    @property
    def bytes_per_pixel(self) -> int:
        return int(self.pixels.shape[0] * self.pixels.itemsize)

    def reading(self, bands: Any) -> dict[str, Any]:
        return {"bands": {name: self.bands.index(name) + 1 for name in bands}}

    def env(self, *, cache_bytes: int, threads: int = 1) -> Any:
        return contextlib.nullcontext()

    def give_up(self) -> None:
        """Nothing to wait for."""

    def is_empty(self, window: Window) -> bool:
        return False

    def extent(self, window: Window) -> Window:
        return window.clipped(self.grid.window)

    def samples(self, grid: Grid, bands: Any, area: Window | None = None, most: int = 256) -> list[Chip]:
        return [self.read(grid.window if area is None else area, bands)]

    def read(self, window: Window, bands: Any, grid: Grid | None = None) -> Chip:
        assert grid is None or grid == self.grid
        self.reads.append(window)
        rows = [self.bands.index(band) for band in bands]
        out = np.zeros((len(rows), window.height, window.width), self.pixels.dtype)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.clipped(self.grid.window)
        y, x = inside.y - window.y, inside.x - window.x
        there = (slice(y, y + inside.height), slice(x, x + inside.width))
        here = (slice(inside.y, inside.bottom), slice(inside.x, inside.right))
        out[(slice(None), *there)] = self.pixels[(rows, *here)]
        valid[there] = True if self.valid is None else self.valid[here]
        return Chip(out, None if valid.all() else valid, tuple(bands), window, self.grid.crop(window))
