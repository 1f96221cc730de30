"""The area of interest: which ground is searched, as polygons in the pixels of one grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import GridError, UserError
from ecodetect.formats import files as formats
from ecodetect.formats.parts import united
from ecodetect.grid import Floats, Grid, Window
from ecodetect.layer import Layer


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """Ground to search.

    shape : shapely Polygon or MultiPolygon in pixels of `grid`; it is prepared.
    """

    shape: shapely.Geometry
    grid: Grid

    def __post_init__(self) -> None:
        shapely.prepare(self.shape)

    @property
    def bounds(self) -> Window:
        """Whole pixels around the area, clipped to the grid."""
        x0, y0, x1, y1 = (float(v) for v in self.shape.bounds)
        left, top = int(np.floor(x0)), int(np.floor(y0))
        box = Window(left, top, int(np.ceil(x1)) - left, int(np.ceil(y1)) - top)
        return box.clipped(self.grid.window)

    @property
    def fingerprint(self) -> str:
        """Hash of the shape, part of a scan's key."""
        return hashlib.sha256(shapely.to_wkb(shapely.normalize(self.shape))).hexdigest()[:16]

    def meets(self, window: Window) -> bool:
        """Whether any of the area may lie in `window` (pixels of the grid)."""
        return bool(self.shape.intersects(_box(window)))

    def contains(self, xy: Floats) -> NDArray[np.bool_]:
        """Which points (N, 2) lie inside or on the edge."""
        inside: NDArray[np.bool_] = shapely.intersects_xy(self.shape, xy[:, 0], xy[:, 1])
        return inside

    def mask(self, window: Window) -> NDArray[np.bool_] | None:
        """Which pixels of `window` have their centre inside, (H, W); None when all have."""
        if self.shape.contains(_box(window)):
            return None
        from rasterio.features import geometry_mask
        from rasterio.transform import Affine

        place = Affine.translation(window.x, window.y)
        inside: NDArray[np.bool_] = geometry_mask(
            [self.shape], (window.height, window.width), place, invert=True
        )
        return inside

    def pixels(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of `window`, which may lie anywhere, have their centre inside, (H, W)."""
        shape = (window.height, window.width)
        if not self.meets(window):
            return np.zeros(shape, np.bool_)
        inside = self.mask(window)
        return np.ones(shape, np.bool_) if inside is None else inside

    def moved_to(self, grid: Grid) -> Region:
        """The same ground in pixels of another grid of the same raster."""
        a, b, c, d, e, f = grid.pixels_from(self.grid)
        matrix, step = np.array([[a, b], [d, e]]).T, np.array([c, f])
        return Region(shapely.transform(self.shape, lambda xy: xy @ matrix + step), grid)


def read_area(path: str, grid: Grid, *, layer: str | None = None, image: str | None = None) -> Region:
    """The polygons of a vector file, in any CRS, as an area of the raster's grid.

    Raises UserError when the file has no polygon, or none that meets the raster (saying where both lie).
    """
    found = formats.read(path, layer=layer, grid=grid, image=image)
    whole = _polygons(found, grid)
    if whole.is_empty:
        raise UserError(f"{path} has no polygon, so it can't be an area of interest; draw its outline.")
    raster = _box(grid.window)
    if not np.isfinite(whole.bounds).all() or not whole.intersects(raster):
        raise UserError(
            f"The area of interest {path} lies at {_where(whole, grid)}, "
            f"off the raster at {_where(raster, grid)}."
        )
    inside = _inside(whole, grid)
    if inside.is_empty:
        raise UserError(f"The area of interest {path} only touches the raster's edge; does it belong to it?")
    return Region(inside, grid)


def area_on(found: Layer, grid: Grid) -> Region | None:
    """The polygons of a layer as an area of one of several rasters; None where none meets it."""
    inside = _inside(_polygons(found, grid), grid)
    return None if inside.is_empty else Region(inside, grid)


def _polygons(found: Layer, grid: Grid) -> shapely.Geometry:
    """The polygons of a layer together, in pixels of a raster."""
    shapes = united(found.in_pixels(grid))
    polygons = shapes[np.isin(shapely.get_type_id(shapes), (3, 6))]
    return shapely.union_all(shapely.make_valid(polygons))


def _inside(whole: shapely.Geometry, grid: Grid) -> shapely.Geometry:
    """The part of an area on a raster."""
    inside = whole.intersection(_box(grid.window))
    return shapely.MultiPolygon(
        [p for p in shapely.get_parts(inside) if p.geom_type == "Polygon" and p.area > 0]
    )


def _where(shape: shapely.Geometry, grid: Grid) -> str:
    """Extent in degrees where there are such, else in the raster's own coordinates."""
    corners = shapely.get_coordinates(shape)
    try:
        where, unit = grid.to_lonlat(corners), "lon/lat"
    except GridError:
        where, unit = grid.to_world(corners), "x/y"
    (x0, y0), (x1, y1) = np.nanmin(where, axis=0), np.nanmax(where, axis=0)
    return f"{unit} {x0:.5g}…{x1:.5g}, {y0:.5g}…{y1:.5g}"


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.x, window.y, window.right, window.bottom)
