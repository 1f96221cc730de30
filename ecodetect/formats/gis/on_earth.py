"""Features in longitude and latitude, as formats that know nothing else want them."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import GridError, LayerError
from ecodetect.formats.gis.antimeridian import cut
from ecodetect.grid import Grid, describe_crs
from ecodetect.layer import Geometries, Layer

_METRES_PER_DEGREE = 111_320.0


def on_earth(batch: Layer, *, name: str, title: str) -> tuple[Layer, Geometries, int]:
    """The features of a batch that have a place on the Earth, their geometries there, and how many have none.

    name, title : of the file and its format, for the message. Polygons are cut at the antimeridian.
    Raises LayerError where the CRS has no way to longitude and latitude.
    """
    try:
        geometry = batch.in_lonlat(decimals=_decimals(batch.grid))
    except GridError as error:
        crs = describe_crs(batch.frame_crs)
        raise LayerError(
            f"{name} can't be {title}: {crs} has no longitude and latitude; write a .gpkg."
        ) from error
    has_place = place_of(geometry)
    dropped = int(np.count_nonzero(~has_place))
    if dropped:
        batch, geometry = batch[has_place], geometry[has_place]
    return batch, cut(geometry), dropped


def place_of(geometry: Geometries) -> NDArray[np.bool_]:
    """Which geometries are somewhere: not empty, and each corner with two finite coordinates."""
    if np.isfinite(shapely.get_coordinates(geometry)).all():
        return np.asarray(~(shapely.is_empty(geometry) | shapely.is_missing(geometry)))
    xy, owner = shapely.get_coordinates(geometry, return_index=True)
    lost = np.bincount(owner, weights=~np.isfinite(xy).all(axis=1), minlength=len(geometry)) > 0
    return np.asarray(~lost & (np.bincount(owner, minlength=len(geometry)) > 0))


def _decimals(grid: Grid | None) -> int | None:
    """As many decimals of a degree as 1e-6 pixel needs, at least 8; None: all that there are."""
    gsd = None if grid is None else grid.gsd
    if gsd is None:
        return None
    # Rounding moves a coordinate by half a unit: by 2e-7 pixel at most, a fifth of the precision promised.
    decimals = max(8, math.ceil(-math.log10(4e-7 * min(gsd) / _METRES_PER_DEGREE)))
    return None if decimals > 13 else decimals  # 180 in steps of 1e-14 is finer than float64
