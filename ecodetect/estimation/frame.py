"""The frame of a survey: the cells of the searched ground, with the detections in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation.ground import Searched, Tally, clipped, share_ground, tallied, to_plane
from ecodetect.estimation.plane import Plane
from ecodetect.estimation.scan_layer import ScanLayer, check_area
from ecodetect.grid import Floats
from ecodetect.sizes import Length

Ints = NDArray[np.int64]
MOST_CELLS = 4_000_000
_SIDE_OBJECTS = 4  # largest objects that fit along a side
_FULL = 3  # detections in the median cell that has any
_CELLS_A_PLOT = 10


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """Cells with searched ground, sorted by place.

    side : of a cell in units of the plane; None: each raster is a cell.
    column, row : of each cell, (N,).
    site : number of the raster that has most of the cell's ground, (N,).
    area : searched ground of each in m², or in px² where the size of pixels is unknown, (N,).
    cell_of : the cell of each detection of the scan, (M,); -1: it lies on ground that wasn't searched.
    """

    plane: Plane
    side: float | None
    column: Ints
    row: Ints
    site: Ints
    area: Floats
    cell_of: Ints
    rasters: tuple[Searched, ...]
    polygons: shapely.Geometry | None

    def __len__(self) -> int:
        return len(self.column)

    @property
    def sites(self) -> Ints:
        """The raster of each cell as the draw takes it: empty where there is one."""
        has_several = len(self.rasters) > 1 and (self.side is not None or self.plane.crs is None)
        return self.site if has_several else np.empty(0, np.int64)

    @property
    def has_metres(self) -> bool:
        """Whether areas are known in m²."""
        if not self.rasters:
            return self.plane.metres is not None
        return all(each.grid.gsd is not None for each in self.rasters)

    def name(self, cell: int) -> str:
        """What identifies a cell: its place, or its raster."""
        if self.side is None:
            return self.rasters[int(self.site[cell])].name
        return f"{self.column[cell]}_{self.row[cell]}"

    def box(self, cell: int) -> shapely.Polygon:
        """A cell in the plane, searched or not."""
        if self.side is None:
            grid = self.rasters[int(self.site[cell])].grid
            corners = np.array([(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)], float)
            return shapely.Polygon(to_plane(corners, grid, self.plane))
        x, y = self.column[cell] * self.side, self.row[cell] * self.side
        return shapely.box(x, y, x + self.side, y + self.side)

    def outlines(self, cells: Ints) -> list[shapely.Geometry]:
        """The searched ground of some cells."""
        boxes = [self.box(cell) for cell in cells.tolist()]
        if self.side is None:
            found = []
            for cell, box in zip(cells.tolist(), boxes, strict=True):
                found += clipped([box], [self.rasters[int(self.site[cell])]], self.plane)
        else:
            found = clipped(boxes, self.rasters, self.plane, self.polygons)
        # A detection may lie on ground that the mask leaves out.
        return [box if shape.is_empty else shape for box, shape in zip(boxes, found, strict=True)]

    def centres(self) -> Floats:
        """The middle of each cell in the plane, (N, 2)."""
        if self.side is not None:
            return np.column_stack([self.column + 0.5, self.row + 0.5]) * self.side
        middles = [to_plane(_middle(each), each.grid, self.plane)[0] for each in self.rasters]
        return np.array(middles)[self.site]

    def counts(self, rows: NDArray[np.bool_]) -> Floats:
        """The number in each cell of some of the scan's detections, (N,).  rows : (M,)."""
        there = self.cell_of[rows & (self.cell_of >= 0)]
        return np.bincount(there, minlength=len(self)).astype(np.float64)


def _middle(raster: Searched) -> Floats:
    return np.array([(raster.grid.width / 2, raster.grid.height / 2)])


def frame_of(scan: ScanLayer, side: float | None) -> Frame:
    """Lay cells on a scan's ground.  side : in units of its plane; None: each raster is a cell."""
    if side is None:
        return _of_images(scan)
    if scan.plane.crs is None and len(scan.rasters) > 1:
        raise UserError(
            f"{len(scan.rasters)} rasters without a CRS have no ground in common: take each as a cell"
            " (image).",
            parameter="size",
        )
    cells = _of_polygons(scan, side) if scan.area is not None else _of_rasters(scan, side)
    column, row, site, area = cells
    own = np.floor(scan.xy / side)
    own = np.where(np.isfinite(own), own, 0).astype(np.int64)
    number = _index(column, row, own)
    if scan.area is None:  # a mask has holes that a detection's middle may lie in
        lost = np.isfinite(scan.xy).all(axis=1) & (number < 0) & _on_rasters(scan)
        if lost.any():
            extra = np.unique(own[lost], axis=0)
            column, row = np.append(column, extra[:, 0]), np.append(row, extra[:, 1])
            site, area = (
                np.append(site, np.zeros(len(extra), np.int64)),
                np.append(area, np.zeros(len(extra))),
            )
            number = _index(column, row, own)
    order = np.lexsort((column, row))
    back = np.empty(len(order) + 1, np.int64)
    back[order], back[-1] = np.arange(len(order)), -1
    number = np.where(np.isfinite(scan.xy).all(axis=1), back[number], -1)
    if scan.area is not None:
        number[~shapely.intersects_xy(scan.area, scan.xy[:, 0], scan.xy[:, 1])] = -1
    return Frame(
        scan.plane, side, column[order], row[order], site[order], area[order], number, scan.rasters, scan.area
    )


def _on_rasters(scan: ScanLayer) -> NDArray[np.bool_]:
    """Which detections lie where a raster was to be searched."""
    if all(each.area is None for each in scan.rasters):
        return np.ones(len(scan), np.bool_)
    return np.zeros(len(scan), np.bool_)


def _index(column: Ints, row: Ints, own: Ints) -> Ints:
    """The number of the cell at each place, (M,) by column and row (M, 2); -1 where there is none."""
    if not len(column) or not len(own):
        return np.full(len(own), -1, np.int64)
    left, top = column.min(), row.min()
    wide, high = int(column.max() - left) + 1, int(row.max() - top) + 1
    key, wanted = (row - top) * wide + (column - left), (own[:, 1] - top) * wide + (own[:, 0] - left)
    order = np.argsort(key)
    at = np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)
    inside = (own >= (left, top)).all(axis=1) & (own < (left + wide, top + high)).all(axis=1)
    return np.where(inside & (key[order][at] == wanted), order[at], -1)


def _of_rasters(scan: ScanLayer, side: float) -> tuple[Ints, Ints, Ints, Floats]:
    """Column, row, raster and searched ground of the cells of rasters."""
    parts: list[Tally] = []
    number = 0
    for raster in scan.rasters:
        tally = tallied(raster, scan.plane, side)
        parts.append(tally)
        number += len(tally.area)
        if number > MOST_CELLS:
            raise _too_many(scan.plane, side)
    check_area(scan.facts, scan.rasters, scan.plane, [float(tally.area.sum()) for tally in parts])
    column, row = (np.concatenate(each) for each in zip(*((t.column, t.row) for t in parts), strict=True))
    area = np.concatenate([tally.area for tally in parts])
    site = np.repeat(np.arange(len(parts)), [len(tally.area) for tally in parts])
    if not len(column):
        raise UserError(f"Nothing of {scan.rasters[0].name} is data, so there is no ground for plots.")
    order = np.lexsort((-area, column, row))
    column, row, site, area = column[order], row[order], site[order], area[order]
    is_first = np.append(True, (np.diff(column) != 0) | (np.diff(row) != 0))
    cell = np.cumsum(is_first) - 1
    whole = np.bincount(cell, area).astype(np.float64)
    if scan.plane.metres is not None or scan.plane.crs is not None:  # ground under two rasters is there once
        whole = np.minimum(whole, max((side * (scan.plane.metres or 1.0)) ** 2, float(area.max())))
    return column[is_first], row[is_first], site[is_first], whole


def _of_polygons(scan: ScanLayer, side: float) -> tuple[Ints, Ints, Ints, Floats]:
    """The same where only polygons say what was searched."""
    assert scan.area is not None
    x0, y0, x1, y1 = (int(np.floor(value / side)) for value in scan.area.bounds)
    if (x1 - x0 + 1) * (y1 - y0 + 1) > MOST_CELLS:
        raise _too_many(scan.plane, side)
    columns, rows = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
    column, row = columns.ravel(), rows.ravel()
    boxes = shapely.box(column * side, row * side, (column + 1) * side, (row + 1) * side)
    area = np.where(shapely.contains_properly(scan.area, boxes), side**2, 0.0)
    edge = (area == 0) & shapely.intersects(scan.area, boxes)
    area[edge] = shapely.area(shapely.intersection(scan.area, boxes[edge]))
    there = area > 0
    return (
        column[there],
        row[there],
        np.zeros(int(there.sum()), np.int64),
        area[there] * _per_unit(scan.plane),
    )


def _per_unit(plane: Plane) -> float:
    return 1.0 if plane.metres is None else plane.metres**2


def _too_many(plane: Plane, side: float) -> UserError:
    return UserError(
        f"Cells of {plane.said(side)} are more than {MOST_CELLS:,}; take larger ones.", parameter="size"
    )


def _of_images(scan: ScanLayer) -> Frame:
    """The frame in which each raster is a cell."""
    rasters = scan.rasters
    if not rasters:
        raise UserError("Cells of whole images need the images; name them.", parameter="image")
    areas = []
    for each in rasters:
        tally = tallied(each, Plane(None, None), float(max(each.grid.width, each.grid.height)))
        areas.append(float(tally.area.sum()))
    if share_ground(rasters, scan.plane):
        raise UserError(
            "The rasters overlap, so an individual may lie in several of them: take cells of a length.",
            parameter="size",
        )
    check_area(scan.facts, scan.rasters, scan.plane, areas)
    number = {each.name: site for site, each in enumerate(rasters)}
    if len(number) < len(rasters):
        raise UserError("Several rasters have one name, so their detections can't be told apart.")
    site = np.arange(len(rasters), dtype=np.int64)
    place = np.zeros((len(rasters), 2), np.int64)
    if scan.plane.crs is not None:
        middles = np.concatenate([to_plane(_middle(each), each.grid, scan.plane) for each in rasters])
        place = np.floor(middles / np.sqrt(np.median(areas))).astype(np.int64)
    only = 0 if len(rasters) == 1 else -1
    own = np.array([number.get(name, only) for name in scan.sources.tolist()], np.int64)
    return Frame(scan.plane, None, place[:, 0], place[:, 1], site, np.array(areas), own, rasters, None)


def sides() -> Iterator[float]:
    """Round numbers, rising: 1, 2, 5, 10, …"""
    for power in range(-6, 9):
        yield from (digit * 10.0**power for digit in (1, 2, 5))


def usual_side(scan: ScanLayer, n: int) -> float:
    """The side of cells in units of the plane: a round number, with three detections in the median cell.

    The smallest such, and at least four of the largest objects long; smaller where that would leave fewer
    than ten cells a plot.
    """
    unit = 1.0 if scan.plane.metres is None else 1 / scan.plane.metres
    area = searched_area(scan)
    least = _SIDE_OBJECTS * (scan.largest or 0.0)
    largest = None
    for side in (unit * each for each in sides()):
        if area / side**2 > MOST_CELLS / 2:
            continue
        if area / side**2 < _CELLS_A_PLOT * n:
            break
        largest = side
        if side >= least and _median(scan.xy, side) >= _FULL:
            return side
    if largest is None:
        raise UserError("The searched ground is too small for plots.")
    return largest


def _median(xy: Floats, side: float) -> float:
    """Detections in the median cell that has any; 0 where there are none."""
    known = xy[np.isfinite(xy).all(axis=1)]
    if not len(known):
        return _FULL  # nothing to go by
    _, number = np.unique(np.floor(known / side), axis=0, return_counts=True)
    return float(np.median(number))


def searched_area(scan: ScanLayer) -> float:
    """The searched ground in square units of the plane, as far as it is known before it is looked at."""
    if scan.area is not None:
        return float(scan.area.area)
    total = 0.0
    for each in scan.rasters:
        hectares = scan.facts.hectares.get(each.name)
        pixels = each.window.area if each.area is None else float(each.area.shape.area)
        if scan.plane.metres is None:
            total += pixels
        elif hectares is not None:
            total += hectares * 10_000 / scan.plane.metres**2
        else:
            total += pixels * each.square_metres(each.window) / scan.plane.metres**2
    return total


def side_of(scan: ScanLayer, size: str | None, n: int) -> float | None:
    """The side that is asked for, in units of the plane; None: each image is a cell."""
    if size == "image":
        return None
    if size is None:
        return usual_side(scan, n)
    side = scan.plane.units(Length.parse(size, name="The size of cells"), name="The size of cells")
    if not side > 0:
        raise UserError(f"The size of cells must be above 0; got {size}.", parameter="size")
    return side
