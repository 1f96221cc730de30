"""Cutting longitude/latitude polygons at the antimeridian, as RFC 7946 (section 3.1.9) asks.

A ring is taken to go the short way between neighbouring vertices: a step of more than 180° of longitude is a
crossing of the antimeridian. A ring once around the Earth encloses a pole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shapely

from ecodetect.grid import Floats
from ecodetect.layer import Geometries


def cut(geometry: Geometries) -> Geometries:
    """The same features with polygons that cross ±180° as MultiPolygons of their parts on both sides.

    geometry : (N,) points and polygons in degrees, longitudes in [-180, 180].
    """
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180)
    if not len(wide):
        return geometry
    out = geometry.copy()
    for row in wide:
        polygons = [part for part in shapely.get_parts(geometry[row]) if part.geom_type == "Polygon"]
        parts = [piece for polygon in polygons for piece in _pieces(polygon)]
        if parts:
            out[row] = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
    return out


def _pieces(polygon: Any) -> list[Any]:
    """The parts of one polygon on each side of the antimeridian, longitudes in [-180, 180]."""
    shell = _unrolled(shapely.get_coordinates(polygon.exterior))
    middle = shell[:, 0].mean()
    holes = []
    for ring in polygon.interiors:
        hole = _unrolled(shapely.get_coordinates(ring))
        hole[:, 0] += 360 * np.round((middle - hole[:, 0].mean()) / 360)
        holes.append(hole)
    whole = shapely.make_valid(shapely.Polygon(shell, holes))
    west, _, east, _ = whole.bounds
    pieces: list[Any] = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.floor((east + 180) / 360)) + 1):
        world = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        inside = shapely.transform(shapely.intersection(whole, world), _turned(turn))
        # A ring along the antimeridian leaves lines there, which aren't part of the object.
        pieces.extend(part for part in shapely.get_parts(inside) if part.geom_type == "Polygon")
    # A ring around a pole is one area again where its ends meet.
    return list(shapely.get_parts(shapely.union_all(pieces)))


def _turned(turn: int) -> Callable[[Floats], Floats]:
    return lambda xy: xy - np.array([360.0 * turn, 0.0])


def _unrolled(ring: Floats) -> Floats:
    """A closed ring with longitudes that don't jump; around a pole it is closed along ±90° of latitude."""
    lon = np.unwrap(ring[:, 0], period=360)
    out = np.stack([lon, ring[:, 1]], axis=1)
    if abs(lon[-1] - lon[0]) < 180:
        return out
    pole = np.copysign(90.0, ring[:, 1].mean())
    return np.vstack([out, [(lon[-1], pole), (lon[0], pole), (lon[0], ring[0, 1])]])
