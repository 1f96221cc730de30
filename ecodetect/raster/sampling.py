"""A fixed lattice of cells that stands for a whole raster, where values are taken from it before a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ecodetect.chip import Chip
from ecodetect.grid import Window

T = TypeVar("T")
CELL_PX = 512


@dataclass(frozen=True, slots=True)
class RasterSamples:
    """The chips of some cells, read again whenever they are gone through: together they may be 500 MB.

    Cells without a valid pixel are left out, so there may be none.
    """

    cells: Sequence[Window]
    read: Callable[[Window], Chip]

    def __iter__(self) -> Iterator[Chip]:
        for cell in self.cells:
            chip = self.read(cell)
            if chip.valid is None or chip.valid.any():
                yield chip


def lattice(area: Window, most: int, is_empty: Callable[[Window], bool] | None = None) -> list[Window]:
    """At most `most` cells of 512 x 512 px, cut to the area, row by row; all of it if that many cover it.

    Cells begin at multiples of 512 px, so that they seldom cut blocks.

    is_empty : says of a window that nothing is there; such cells are left out, and the lattice is laid over
        the list of the others. None: nothing is known to be empty.
    """
    if not area.area:
        return []
    rows = range(area.y // CELL_PX, -(-area.bottom // CELL_PX))
    columns = range(area.x // CELL_PX, -(-area.right // CELL_PX))

    def cells(rows: Sequence[int], columns: Sequence[int]) -> list[Window]:
        return [
            Window(x * CELL_PX, y * CELL_PX, CELL_PX, CELL_PX).clipped(area) for y in rows for x in columns
        ]

    if is_empty is not None:
        whole = [y for y in rows if not is_empty(Window(area.x, y * CELL_PX, area.width, CELL_PX))]
        return _spread([cell for cell in cells(whole, columns) if not is_empty(cell)], most)
    across = min(len(columns), max(1, round((most * len(columns) / len(rows)) ** 0.5)))
    down = min(len(rows), max(1, most // across))
    across = min(len(columns), max(1, most // down))
    return cells(_spread(rows, down), _spread(columns, across))


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, from the middles of as many equal parts."""
    n = min(most, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)]
