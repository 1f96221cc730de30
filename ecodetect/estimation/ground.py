"""The ground that was searched: valid pixels of rasters, polygons, or both; how much lies in each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.estimation.plane import Plane
from ecodetect.formats.labels.masks import outlines
from ecodetect.grid import Affine6, Floats, Grid, Window, transformed
from ecodetect.raster.options import RasterOptions
from ecodetect.raster.reading import Raster
from ecodetect.region import Region

Ints = NDArray[np.int64]
_STRIP_PX = 1 << 22  # pixels looked at together
_BLOCK_PX = 512  # side of what is laid on another plane by one affine step
_RIM = 1e-3  # of the ground, from which on rasters overlap
_OUTLINE_PX = 2048  # longest side of the mask that an outline is drawn around


@dataclass(frozen=True, eq=False, slots=True)
class Searched:
    """The searched part of a raster.

    image : its path.  options : how it is opened.
    bands : those that decide which pixels are data.
    grid : its own.
    area : polygons in pixels of `grid` outside which nothing was searched; None: the whole raster.
    """

    image: str
    name: str
    options: RasterOptions
    grid: Grid
    bands: tuple[str, ...]
    area: Region | None = None

    @property
    def window(self) -> Window:
        """The part of the raster that may have been searched."""
        return self.grid.window if self.area is None else self.area.bounds

    def valid(self, raster: Raster, window: Window, grid: Grid | None = None) -> NDArray[np.bool_] | None:
        """Which pixels of a window were searched, (H, W); None: all.  grid : its own, or a reduced one."""
        mask = raster.read(window, self.bands, grid).valid if raster.may_lack_data else None
        if self.area is None:
            return mask
        area = self.area if grid is None else self.area.moved_to(grid)
        inside = area.pixels(window)
        return inside if mask is None else mask & inside

    def square_metres(self, window: Window) -> float:
        """Ground of a pixel of the window; 1 where the size of pixels is unknown."""
        if self.grid.gsd is None:
            return 1.0
        middle = [(window.x + window.width / 2, window.y + window.height / 2)]
        return abs(float(np.linalg.det(self.grid.metres_per_pixel(middle))[0]))


@dataclass(frozen=True, eq=False, slots=True)
class Tally:
    """Searched ground by cell of one raster.

    column, row : of each cell with any, (N,), sorted.
    area : m², or px² where the size of pixels is unknown, (N,).
    """

    column: Ints
    row: Ints
    area: Floats


def tallied(searched: Searched, plane: Plane, side: float) -> Tally:
    """The searched ground of a raster in each cell of a plane.  side : of a cell, in units of the plane."""
    found: list[tuple[Ints, Ints, Floats]] = []
    with searched.options.opened(searched.image) as raster:
        step = _step(searched.grid, plane)
        for window in _windows(searched.window, raster, is_exact=step is not None):
            valid = searched.valid(raster, window)
            if valid is not None and not valid.any():
                continue
            here = step or _step_within(searched.grid, plane, window)
            columns, rows, pixels = _binned(window, valid, here, side)
            found.append((columns, rows, pixels * searched.square_metres(window)))
    return _summed(found)


def _summed(found: Sequence[tuple[Ints, Ints, Floats]]) -> Tally:
    """Parts of cells as cells."""
    if not found:
        nothing = np.empty(0, np.int64)
        return Tally(nothing, nothing, np.empty(0))
    columns, rows, area = (np.concatenate(part) for part in zip(*found, strict=True))
    cells, cell = np.unique(np.column_stack([rows, columns]), axis=0, return_inverse=True)
    return Tally(cells[:, 1], cells[:, 0], np.bincount(cell.reshape(-1), area).astype(np.float64))


def _windows(part: Window, raster: Raster, *, is_exact: bool) -> Iterator[Window]:
    """Pieces of a raster to look at one after another, along its rows of blocks."""
    if is_exact:
        high = raster.block_shape[0]
        rows = max(high, _STRIP_PX // max(part.width, 1) // high * high)
        wide = max(_STRIP_PX // rows, 1) if rows * part.width > 4 * _STRIP_PX else part.width
    else:
        rows = wide = _BLOCK_PX
    for y in range(part.y - part.y % rows, part.bottom, rows):
        for x in range(part.x, part.right, wide):
            piece = Window(x, y, wide, rows).clipped(part)
            if piece.area and not raster.is_empty(piece):
                yield piece


def _step(grid: Grid, plane: Plane) -> Affine6 | None:
    """From pixels to units of the plane, where one affine step does it."""
    if plane.crs is None:
        return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return grid.transform if grid.crs == plane.crs else None


def _step_within(grid: Grid, plane: Plane, window: Window) -> Affine6:
    """The same within a small window: off by far less than a pixel."""
    x, y, wide, high = window.x, window.y, window.width, window.height
    (ox, oy), (ax, ay), (bx, by) = to_plane(
        np.array([(x, y), (x + wide, y), (x, y + high)], float), grid, plane
    )
    a, d, b, e = (ax - ox) / wide, (ay - oy) / wide, (bx - ox) / high, (by - oy) / high
    return (a, b, ox - a * x - b * y, d, e, oy - d * x - e * y)


def to_plane(xy: Floats, grid: Grid, plane: Plane) -> Floats:
    """Pixels of a raster, (N, 2), in units of the plane."""
    if plane.crs is None:
        return xy
    world = grid.to_world(xy)
    assert grid.crs is not None
    return world if grid.crs == plane.crs else transformed(world, grid.crs, plane.crs)


def to_pixels(xy: Floats, grid: Grid, plane: Plane) -> Floats:
    """Places in the plane, (N, 2), in pixels of a raster."""
    if plane.crs is None:
        return xy
    assert grid.crs is not None
    return grid.to_pixel(xy if grid.crs == plane.crs else transformed(xy, plane.crs, grid.crs))


def _binned(
    window: Window, valid: NDArray[np.bool_] | None, step: Affine6, side: float
) -> tuple[Ints, Ints, Floats]:
    """Column and row of the cells under a window, and how many searched pixels have their centre in each."""
    a, b, c, d, e, f = step
    x, y = np.arange(window.x, window.right) + 0.5, np.arange(window.y, window.bottom) + 0.5
    if b == d == 0:
        columns, rows = (np.floor(each / side).astype(np.int64) for each in (a * x + c, e * y + f))
        first, last = (
            np.flatnonzero(np.diff(columns, prepend=columns[0] - 1)),
            np.diff(rows, prepend=rows[0] - 1),
        )
        down = np.flatnonzero(last)
        if valid is None:
            across = np.diff(np.append(first, len(columns)))
            pixels = np.outer(np.diff(np.append(down, len(rows))), across).astype(np.float64)
        else:
            by_column = np.add.reduceat(valid, first, axis=1, dtype=np.int64)
            pixels = np.add.reduceat(by_column, down, axis=0).astype(np.float64)
        there = np.nonzero(pixels)
        return columns[first][there[1]], rows[down][there[0]], pixels[there]
    column = np.floor((a * x + c + (b * y)[:, None]) / side).astype(np.int64)
    row = np.floor((d * x + f + (e * y)[:, None]) / side).astype(np.int64)
    if valid is not None:
        column, row = column[valid], row[valid]
    left, top = column.min(), row.min()
    wide = int(column.max() - left) + 1
    count = np.bincount(((row - top) * wide + (column - left)).ravel())
    cell = np.flatnonzero(count)
    return cell % wide + left, cell // wide + top, count[cell].astype(np.float64)


def clipped(
    boxes: Sequence[shapely.Geometry],
    searched: Sequence[Searched],
    plane: Plane,
    area: shapely.Geometry | None = None,
) -> list[shapely.Geometry]:
    """The searched ground within shapes of the plane, each as one polygon or several.

    searched : rasters that may meet them; none: only `area` says what was searched.
    area : polygons in the plane outside which nothing was searched.
    """
    parts: list[list[shapely.Geometry]] = [[] for _ in boxes]
    for each in searched:
        footprint = _footprint(each, plane)
        there = [number for number, box in enumerate(boxes) if footprint.intersects(box)]
        if there:
            with each.options.opened(each.image) as raster:
                for number in there:
                    parts[number].append(_within(boxes[number], each, raster, plane))
    if not searched:
        parts = [[shapely.intersection(box, area)] for box in boxes]
    return [_polygons(shapely.union_all(found)) for found in parts]


def _polygons(shape: shapely.Geometry) -> shapely.Geometry:
    """The areas of a shape, without the points and lines in which others touch it."""
    found = [part for part in shapely.get_parts(shape).tolist() if part.geom_type == "Polygon" and part.area]
    return found[0] if len(found) == 1 else shapely.MultiPolygon(found)


def _footprint(searched: Searched, plane: Plane) -> shapely.Geometry:
    """The outline of a raster in the plane."""
    grid = searched.grid
    outline = shapely.segmentize(shapely.box(0, 0, grid.width, grid.height), max(grid.width, grid.height) / 8)
    return shapely.make_valid(shapely.transform(outline, lambda xy: to_plane(xy, grid, plane)))


def share_ground(rasters: Sequence[Searched], plane: Plane) -> bool:
    """Whether rasters overlap by more than the rim of a pixel."""
    if plane.crs is None or len(rasters) < 2:
        return False
    shapes = np.array([_footprint(each, plane) for each in rasters], object)
    one, other = shapely.STRtree(shapes).query(shapes, "overlaps")
    same, twin = shapely.STRtree(shapes).query(shapes, "contains")
    pairs = {(a, b) for a, b in zip([*one, *same], [*other, *twin], strict=True) if a != b}
    shared = sum(float(shapely.intersection(shapes[a], shapes[b]).area) for a, b in pairs)
    return shared > _RIM * float(shapely.area(shapes).sum())


def _within(box: shapely.Geometry, searched: Searched, raster: Raster, plane: Plane) -> shapely.Geometry:
    """The searched ground of one raster within a shape of the plane."""
    grid = searched.grid
    step = math.sqrt(box.area) / 8
    pixels = to_pixels(shapely.get_coordinates(shapely.segmentize(shapely.envelope(box), step)), grid, plane)
    if not np.isfinite(pixels).all():
        return shapely.Polygon()
    low, high = np.floor(pixels.min(axis=0)).astype(int) - 1, np.ceil(pixels.max(axis=0)).astype(int) + 1
    window = Window(int(low[0]), int(low[1]), *(int(each) for each in high - low)).clipped(grid.window)
    if not window.area:
        return shapely.Polygon()
    factor = max(1, math.ceil(max(window.width, window.height) / _OUTLINE_PX))
    coarse = grid.reduced(factor)
    reduced = Window(
        window.x // factor, window.y // factor,
        -(-window.right // factor) - window.x // factor, -(-window.bottom // factor) - window.y // factor,
    ).clipped(coarse.window)  # fmt: skip
    valid = searched.valid(raster, reduced, None if factor == 1 else coarse)
    if valid is None or valid.all():
        shape = shapely.box(window.x, window.y, window.right, window.bottom)
    else:
        parts = [shape for _, shape in outlines(valid.astype(np.uint8), reduced.x, reduced.y)]
        shape = shapely.transform(shapely.union_all(parts), lambda xy: xy * factor)
    if plane.crs is not None and grid.crs != plane.crs:
        shape = shapely.segmentize(shape, max(window.width, window.height) / 8)
    laid = shapely.transform(shape, lambda xy: to_plane(xy, grid, plane))
    return shapely.intersection(shapely.make_valid(laid), box)
