"""The plane in which cells are square: the raster's CRS, a UTM zone, or the pixels of one raster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyproj import CRS

from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid, describe_crs, lonlat_of, transformed
from ecodetect.layer import Layer
from ecodetect.matching import centres
from ecodetect.sizes import Length

_DISTORTION = 0.02  # that a CRS in metres may have: beyond it, cells are laid in a UTM zone


@dataclass(frozen=True, eq=False, slots=True)
class Plane:
    """Where cells lie.

    crs : None: pixels of `grid`, x right, y down.
    metres : on the ground, of a unit; None where it is unknown.
    pixel : units of a pixel of the raster.
    grid : of the raster, where `crs` is None and there is one raster.
    """

    crs: CRS | None
    metres: float | None
    pixel: float = 1.0
    grid: Grid | None = None

    def units(self, length: Length, *, name: str) -> float:
        """A length in units of the plane; raises UserError for metres where they are unknown."""
        if length.unit == "px":
            return length.value * self.pixel
        if self.metres is None:
            raise UserError(
                f"{name} is {length}, but the raster has no CRS: state its pixel size, or give it in px.",
                parameter="gsd",
            )
        return length.value / self.metres

    def said(self, side: float) -> str:
        """A length in units of the plane for people: `50 m`, `200 px`."""
        metres = None if self.metres is None else side * self.metres
        return f"{side:.4g} px" if metres is None else f"{metres:.4g} m"

    def hectares(self, area: float) -> float | None:
        """An area in square units of the plane, in hectares; None where that is unknown."""
        return None if self.metres is None else area * self.metres**2 / 10_000

    def places(self, layer: Layer, *, about: str) -> Floats:
        """The centres of a layer's features in this plane, (N, 2).

        Raises UserError where the layer can't be laid on it.
        """
        if self.crs is None:
            if layer.frame_crs is not None and self.grid is None:
                raise UserError(f"{about} has a CRS, and the plots have none.")
            if self.grid is not None:
                return centres(layer.in_pixels(self.grid))
            return centres(layer.geometry)
        if layer.frame_crs is None:
            raise UserError(f"{about} has no CRS, and the plots have {describe_crs(self.crs)}; give it one.")
        xy = centres(layer.in_world())
        return xy if layer.frame_crs == self.crs else transformed(xy, layer.frame_crs, self.crs)


def plane_of(grids: Sequence[Grid]) -> Plane:
    """The plane of rasters: their CRS where a metre of it is one on the ground, else the UTM zone.

    Rasters without a CRS have no plane in common: each is one by itself.
    """
    first = grids[0]
    if any(grid.crs is None for grid in grids):
        metres = first.gsd_mean if len(grids) == 1 else None
        return Plane(None, metres, grid=first if len(grids) == 1 else None)
    crs = first.crs
    assert crs is not None
    pixel = math.sqrt(abs(_det(first)))
    if all(grid.crs == crs for grid in grids) and all(map(_is_metric, grids)):
        return Plane(crs, 1.0, pixel)
    lonlat = np.concatenate([grid.to_lonlat([(grid.width / 2, grid.height / 2)]) for grid in grids])
    return Plane(utm(lonlat), 1.0, first.gsd_mean or 1.0)


def plane_at(xy: Floats, crs: CRS | None) -> Plane:
    """The plane of places, (N, 2), of which no raster is known."""
    if crs is None:
        return Plane(None, None)
    x, y = np.nanmean(xy, axis=0)
    here = Grid(1, 1, (1.0, 0.0, float(x), 0.0, -1.0, float(y)), crs)
    return Plane(crs, 1.0) if _is_metric(here) else Plane(utm(lonlat_of(xy, crs)), 1.0)


def utm(lonlat: Floats) -> CRS:
    """The UTM zone of the middle of some places, (N, 2); the polar plane beyond 84° and -80°."""
    known = lonlat[np.isfinite(lonlat).all(axis=1)]
    if not len(known):
        raise UserError("The ground has no place on the Earth, so cells in metres can't be laid on it.")
    angle = np.radians(known[:, 0])
    lon = math.degrees(math.atan2(float(np.sin(angle).mean()), float(np.cos(angle).mean())))
    lat = float(known[:, 1].mean())
    if not -80 <= lat <= 84:
        return CRS.from_epsg(32661 if lat > 0 else 32761)
    zone = min(int((lon + 180) // 6) + 1, 60)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _det(grid: Grid) -> float:
    a, b, _, d, e, _ = grid.transform
    return a * e - b * d


def _is_metric(grid: Grid) -> bool:
    """Whether a unit of the CRS is a metre on the ground in the raster's middle, in every direction."""
    a, b, _, d, e, _ = grid.transform
    step = grid.metres_per_pixel([(grid.width / 2, grid.height / 2)])[0] @ np.linalg.inv([[a, b], [d, e]])
    if not np.isfinite(step).all():
        return False
    scales = np.linalg.svd(step, compute_uv=False)
    return bool(np.abs(scales - 1).max() <= _DISTORTION)
