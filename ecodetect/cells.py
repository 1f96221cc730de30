"""Square cells of the ground, half-open and anchored to the origin: where counts and plots are kept apart.

Cells are squares in a plane: the CRS of the rasters where its units are metres on the ground, else a zone of
UTM; or the pixels of one raster without CRS. So the same ground has the same cells in every survey.
Source of the rules: `ESTIMATION.md`, sections 2 and 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect.errors import GridError, UserError
from ecodetect.grid import Floats, Grid, describe_crs, lonlat_of
from ecodetect.sizes import Length

_AS_METRES = 0.02  # how far a unit of a CRS may be from a metre on the ground
_POLAR_DEG = (-80.0, 84.0)  # beyond these latitudes the zones of UTM end, and UPS begins


@dataclass(frozen=True, slots=True)
class Cells:
    """A lattice of squares.

    side : in units of the plane.
    crs : of the plane, in metres; None: pixels of one raster, y down, from its outer corner.
    """

    side: float
    crs: CRS | None = None

    def of(self, xy: Floats) -> NDArray[np.int64]:
        """The cell of each position, as column and row, (N, 2) -> (N, 2).

        xy : finite, in the plane. Half-open: a position on the edge of two belongs to the one with the higher
        number.
        """
        return np.floor(xy / self.side).astype(np.int64)

    def outlines(self, cells: NDArray[np.int64]) -> NDArray[np.object_]:
        """The squares of cells (N, 2) in the plane, (N,)."""
        low, high = cells * self.side, (cells + 1) * self.side
        return np.asarray(shapely.box(*low.T, *high.T), dtype=object).reshape(-1)


def cells_for(side: Length, crs: CRS | None, middle: Floats, gsd: tuple[float, float] | None = None) -> Cells:
    """The cells of this side for rasters or a layer.

    crs : of the rasters or the layer; None: positions are pixels of one raster.
    middle : (2,), the centre of all in coordinates of `crs`.
    gsd : metres per pixel of a raster without CRS, if known.
    Raises UserError for a side of 0, one in pixels on a map, and one in metres where the size of a pixel is
    unknown.
    """
    if not side.value > 0:
        raise UserError(f"The side of a cell must be above 0; got {side}.")
    if crs is None:
        return Cells(side.pixels(gsd, name="The side of a cell"))
    if side.unit != "m":
        raise UserError(f"Cells on a map have a side in metres, such as 50m; got {side}.")
    return Cells(side.value, plane(crs, middle))


def plane(crs: CRS, middle: Floats) -> CRS:
    """The CRS in which squares are squares on the ground: `crs` itself, or the zone of UTM around a place.

    middle : (2,), the place in coordinates of `crs`.
    Raises UserError where a CRS that isn't in metres has no way to longitude and latitude.
    """
    x, y = middle.tolist()
    (step,) = Grid(1, 1, (1.0, 0.0, x, 0.0, 1.0, y), crs).metres_per_pixel([(0.0, 0.0)])
    lengths = np.linalg.svd(step, compute_uv=False) if np.isfinite(step).all() else np.zeros(2)
    if np.abs(lengths - 1).max() <= _AS_METRES:
        return crs
    try:
        ((lon, lat),) = lonlat_of(middle[None], crs).tolist()
    except GridError as error:
        raise UserError(f"{describe_crs(crs)} isn't in metres and has no place on the Earth.") from error
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise UserError(f"{x:.6g}, {y:.6g} has no place on the Earth in {describe_crs(crs)}.")
    return utm(lon, lat)


def utm(lon: float, lat: float) -> CRS:
    """The zone of UTM (WGS 84) around a place in degrees; UPS near the poles."""
    if not _POLAR_DEG[0] <= lat <= _POLAR_DEG[1]:
        return CRS.from_epsg(5041 if lat > 0 else 5042)  # easting before northing
    zone = min(60, math.floor((lon + 180) / 6) + 1)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
