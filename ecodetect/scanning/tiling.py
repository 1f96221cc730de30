"""The tiling of a raster: half-open cores that partition it, each read with a halo, in vertical stripes.

An object belongs to the core that contains its centre, so it is reported once for any tiling. A unit is a
fixed block of tiles that is read, searched and repeated as a whole.
Source of the idea: the responsibility rule of StarDist (Weigert et al., WACV 2020; `big.py`), here by the
centre of the bounding box instead of by the box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ecodetect.errors import UserError
from ecodetect.grid import Grid, Window


@dataclass(frozen=True, slots=True)
class Tile:
    """The ground of one chip: it reports objects in `core` and reads the pixels of `read`."""

    core: Window
    read: Window


@dataclass(frozen=True, slots=True)
class Unit:
    """A block of tiles.  number : its place in the row-major lattice of units."""

    number: int
    core: Window
    read: Window
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of one grid.

    width, height : pixels of the grid.
    tile_px : side of a core, a multiple of the detector's stride.
    halo_px : pixels read beyond a core on each side, a multiple of the stride.
    tiles_per_unit : units are squares of this many tiles a side.
    stripe_px : units are walked in vertical stripes about this wide, so that the blocks under one row of a
        stripe fit the block cache.
    offset_px : shifts the lattice up and left, by less than a tile (verification: the same ground with
        other tiles).
    beyond_px : how far chips may reach beyond the grid, rounded up to the lattice of `stride_px`; None: as
        far as their halo, so that all have the same size.
    """

    width: int
    height: int
    tile_px: int
    halo_px: int
    tiles_per_unit: int = 1
    stripe_px: int = 2**31
    offset_px: int = 0
    stride_px: int = 1
    beyond_px: int | None = None

    @property
    def unit_px(self) -> int:
        """Side of a unit's core."""
        return self.tile_px * self.tiles_per_unit

    @property
    def chip_px(self) -> int:
        """Side of a chip, the largest."""
        return self.tile_px + 2 * self.halo_px

    @property
    def columns(self) -> int:
        return math.ceil((self.width + self.offset_px) / self.unit_px)

    @property
    def rows(self) -> int:
        return math.ceil((self.height + self.offset_px) / self.unit_px)

    def __len__(self) -> int:
        return self.columns * self.rows

    def square(self, number: int) -> Window:
        """The square of a unit in the lattice, which may reach beyond the grid."""
        row, column = divmod(number, self.columns)
        side = self.unit_px
        return Window(column * side - self.offset_px, row * side - self.offset_px, side, side)

    def unit(self, number: int) -> Unit:
        """The unit at a place of the lattice."""
        square, whole = self.square(number), Window(0, 0, self.width, self.height)
        x, y, side = square.x, square.y, square.width
        core = square.clipped(whole)
        tiles = []
        for ty in range(y, y + side, self.tile_px):
            for tx in range(x, x + side, self.tile_px):
                around = Window(tx, ty, self.tile_px, self.tile_px)
                part = around.clipped(whole)
                if part.area:
                    tiles.append(Tile(part, self._seen(around.grown(self.halo_px))))
        reads = [tile.read for tile in tiles]
        left, top = min(r.x for r in reads), min(r.y for r in reads)
        right, bottom = max(r.right for r in reads), max(r.bottom for r in reads)
        return Unit(number, core, Window(left, top, right - left, bottom - top), tuple(tiles))

    def _seen(self, window: Window) -> Window:
        """The window that a tile reads, without ground far beyond the grid."""
        if self.beyond_px is None:
            return window
        x0, x1 = self._ends(window.x, window.right, self.width)
        y0, y1 = self._ends(window.y, window.bottom, self.height)
        return Window(x0, y0, x1 - x0, y1 - y0)

    def _ends(self, first: int, last: int, length: int) -> tuple[int, int]:
        beyond, stride = self.beyond_px or 0, self.stride_px
        first += max(0, -beyond - first) // stride * stride
        return first, last - max(0, last - length - beyond) // stride * stride

    @property
    def seen_px(self) -> int:
        """Pixels of all chips together."""
        sides = []
        for length in (self.width, self.height):
            firsts = range(-self.offset_px, length, self.tile_px)
            ends = ((first - self.halo_px, first + self.tile_px + self.halo_px) for first in firsts)
            if self.beyond_px is not None:
                ends = (self._ends(*each, length) for each in ends)
            sides.append(sum(last - first for first, last in ends))
        return sides[0] * sides[1]

    def batch(self, most: int) -> int:
        """The batch size, at most this number: a unit's tiles in equal batches."""
        tiles = self.tiles_per_unit**2
        return math.ceil(tiles / math.ceil(tiles / most))

    def walk(self) -> Iterator[int]:
        """Numbers of all units in the order of reading: stripe by stripe, each row by row."""
        across = max(1, self.stripe_px // self.unit_px)
        for left in range(0, self.columns, across):
            for row in range(self.rows):
                for column in range(left, min(left + across, self.columns)):
                    yield row * self.columns + column


def in_cells(window: Window, cell_px: int) -> Window:
    """A window that begins on a cell, in cells, including partial ones."""
    width, height = math.ceil(window.width / cell_px), math.ceil(window.height / cell_px)
    return Window(window.x // cell_px, window.y // cell_px, width, height)


def cut_grid(
    grid: Grid,
    *,
    tile_px: int,
    largest_px: float,
    reach_px: int,
    margin_px: float,
    stride_px: int = 1,
    unit_px: int = 2048,
    is_clipped: bool = False,
) -> Cuts:
    """The cuts of `grid` for a detector.

    tile_px : wished side of a core; rounded up to a multiple of `stride_px`.
    largest_px, reach_px, margin_px, stride_px : see `detectors.protocol.Needs`.
    unit_px : wished side of a unit; at least one tile.
    is_clipped : whether chips reach no farther beyond the grid than the receptive field.
    Raises UserError for a tile size below 16 px.
    """
    if tile_px < 16:
        raise UserError(f"A tile must be at least 16 px wide; got {tile_px}.", parameter="tile")
    tile = math.ceil(tile_px / stride_px) * stride_px
    # Half the largest object, the receptive field beyond it, the margin of ownership, and a pixel for
    # rounding.
    halo = math.ceil((largest_px / 2 + reach_px + margin_px + 1) / stride_px) * stride_px
    per_unit = max(1, unit_px // tile)
    beyond = math.ceil(reach_px + margin_px + 1) if is_clipped else None
    return Cuts(
        grid.width,
        grid.height,
        tile,
        halo,
        per_unit,
        stride_px=stride_px,
        beyond_px=beyond,
    )
