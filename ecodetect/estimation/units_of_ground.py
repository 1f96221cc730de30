"""Polygons or cells in which individuals are counted: which of them holds a place, and how much was searched.

Both are half open: a place on the border of two belongs to one. Polygons that overlap have each their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation.ground import Searched, clipped, tallied
from ecodetect.estimation.named_polygons import NamedPolygons
from ecodetect.estimation.plane import Plane
from ecodetect.grid import Floats
from ecodetect.layer import Geometries

Ints = NDArray[np.int64]
_AT_ONCE = 50_000  # places looked up together
_MOST_CELLS = 5_000_000
# A step off a border, in units of the plane: to the right and up, along no border that people draw.
_NUDGE = np.array([1e-6, 0.6180339887e-6])
_FULL = 0.999


@dataclass(frozen=True, eq=False, slots=True)
class GroundUnits:
    """Polygons or cells.

    names, shapes : (U,).
    cells : column and row of each cell, (U, 2), sorted; None for polygons.
    searched : share of each that was searched, (U,); NaN where unknown.
    """

    names: tuple[str, ...]
    shapes: Geometries
    cells: Ints | None
    searched: Floats

    def __len__(self) -> int:
        return len(self.names)


def polygons(
    found: NamedPolygons, rasters: Sequence[Searched], plane: Plane, area: shapely.Geometry | None
) -> GroundUnits:
    """Polygons with the share of each that was searched.

    rasters : that were searched.  area : outside which nothing was.  Neither: unknown.
    """
    shapes = found.shapes
    searched = np.full(len(shapes), np.nan)
    if rasters or area is not None:
        there = clipped(shapes.tolist(), rasters, plane, area)
        searched = np.minimum(shapely.area(np.array(there, object)) / shapely.area(shapes), 1.0)
    return GroundUnits(found.names, shapes, None, searched)


def holders(shapes: Geometries, xy: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of places (N, 2) and the polygons that hold them, as their numbers, in batches."""
    tree = shapely.STRtree(shapes)
    shapely.prepare(shapes)
    for start in range(0, len(xy), _AT_ONCE):
        part = xy[start : start + _AT_ONCE]
        place, polygon = tree.query(shapely.points(part), predicate="intersects")
        inside = shapely.contains_xy(shapes[polygon], *part[place].T)
        on_border = np.flatnonzero(~inside)
        nudged = part[place[on_border]] + _NUDGE
        inside[on_border] = shapely.contains_xy(shapes[polygon[on_border]], *nudged.T)
        yield place[inside] + start, polygon[inside]


def cells(
    xy: Floats, side: float, rasters: Sequence[Searched], plane: Plane, area: shapely.Geometry | None
) -> tuple[GroundUnits, Ints]:
    """Square cells from the origin of the plane, and the number of that which holds each place, (N,).

    side : in units of the plane.  The others as for `polygons`.
    There are all that were searched in part, and those that hold something; where nobody knows what was
    searched, only these. Raises UserError where there are too many.
    """
    own = np.floor(xy / side).astype(np.int64)
    ground = _searched_cells(side, rasters, plane, area)
    there = np.unique(np.concatenate([own[:, ::-1], ground[0]]), axis=0)
    if len(there) > _MOST_CELLS:
        raise UserError(
            f"The ground has {len(there):,} cells of {plane.said(side)}, more than {_MOST_CELLS:,}; take"
            " larger ones.",
            parameter="grid",
        )
    number = _row_of(there, own[:, ::-1])
    searched = np.full(len(there), 0.0 if rasters or area is not None else np.nan)
    searched[_row_of(there, ground[0])] = ground[1]
    columns = there[:, ::-1]
    shapes = outlines(columns, side)
    names = tuple(f"{x}_{y}" for x, y in columns.tolist())
    return GroundUnits(names, shapes, columns, searched), number


def outlines(columns: Ints, side: float) -> Geometries:
    """Cells (U, 2), as column and row, as squares of the plane, (U,)."""
    low, high = columns * side, (columns + 1) * side
    return np.asarray(shapely.box(*low.T, *high.T), dtype=object).reshape(-1)


def _row_of(there: Ints, wanted: Ints) -> Ints:
    """The place of rows (M, 2) among sorted ones that hold them all."""
    low = there.min(axis=0, initial=0)
    wide = int(there[:, 1].max(initial=0) - low[1]) + 1
    key, asked = ((each - low) @ np.array([wide, 1]) for each in (there, wanted))
    return np.asarray(np.searchsorted(key, asked), np.int64)


def _searched_cells(
    side: float, rasters: Sequence[Searched], plane: Plane, area: shapely.Geometry | None
) -> tuple[Ints, Floats]:
    """Row and column of the cells with searched ground, (C, 2), and the share of each that was searched."""
    if not rasters:
        return (np.empty((0, 2), np.int64), np.empty(0)) if area is None else _outlined_cells(area, side)
    whole = (side * (plane.metres or 1.0)) ** 2
    parts = [tallied(each, plane, side) for each in rasters]
    rows = np.concatenate([np.stack([part.row, part.column], axis=1) for part in parts])
    share = np.concatenate([part.area for part in parts]) / whole
    found, cell = np.unique(rows, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    together = np.bincount(cell, share, minlength=len(found)).astype(np.float64)
    largest = np.zeros(len(found))
    np.maximum.at(largest, cell, share)
    # Where two rasters show parts of a cell, perhaps the same, their union is measured.
    doubtful = np.flatnonzero((together > largest) & (largest < _FULL))
    if len(doubtful):
        shapes = outlines(found[doubtful, ::-1], side)
        together[doubtful] = [each.area / side**2 for each in clipped(shapes.tolist(), rasters, plane, area)]
    return found, np.minimum(together, 1.0)


def _outlined_cells(area: shapely.Geometry, side: float) -> tuple[Ints, Floats]:
    x0, y0, x1, y1 = (int(np.floor(value / side)) for value in area.bounds)
    if (x1 - x0 + 1) * (y1 - y0 + 1) > _MOST_CELLS:
        raise UserError("Cells are too small for this outline; take larger ones.", parameter="grid")
    columns, rows = (each.ravel() for each in np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)))
    both = np.stack([columns, rows], axis=1)
    share = shapely.area(shapely.intersection(area, outlines(both, side))) / side**2
    return both[share > 0][:, ::-1], share[share > 0]
