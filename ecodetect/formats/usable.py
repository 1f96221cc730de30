"""Which geometries of a file can be individuals: points and polygons with a place and an extent.

Files come with everything a GIS lets people draw. What can't be used is left out and counted in one sentence
for each reason; self-crossing outlines are repaired; heights are dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import GeometryType

from ecodetect.formats.parts import several
from ecodetect.formats.tangled import MOST_CROSSINGS, is_tangled
from ecodetect.layer import Geometries, pieces
from ecodetect.notes import Note

_POINTS = (GeometryType.POINT, GeometryType.MULTIPOINT)
_POLYGONS = (GeometryType.POLYGON, GeometryType.MULTIPOLYGON)
_OF_PARTS = (GeometryType.MULTIPOINT, GeometryType.MULTIPOLYGON)


@np.errstate(over="ignore", invalid="ignore")  # broken files have coordinates near the end of float64
def usable(
    geometry: Geometries, *, in_degrees: bool
) -> tuple[Geometries, NDArray[np.int64], NDArray[np.bool_], list[Note]]:
    """The points and polygons among geometries, the rows they came from, and what was done to the others.

    geometry : (N,) shapely geometries of any kind, or None.
    in_degrees : whether the coordinates are longitude and latitude; tells rounding from width.
    Returns (M,) Points, Polygons and MultiPolygons without heights; the row of each in the input, ascending;
    which of them the file has as several polygons, as in `parts.several`; and notes, without the file, of
    what was left out or changed. A collection counts with its polygons, or its points where it has none;
    several points in one feature become one feature each. Polygons of one feature may overlap: each is whole.
    """
    notes: list[Note] = []
    rows = np.arange(len(geometry))
    are_parts = np.zeros(len(geometry), np.bool_)
    found = _without_heights(geometry)

    def leave_out(bad: NDArray[np.bool_], one: str, many: str) -> None:
        nonlocal found, rows, are_parts
        count = int(np.count_nonzero(bad))
        if count:
            text = f"{one if count == 1 else many.format(count)} left out."
            notes.append(Note("features-unusable", text, kind="doubt"))
            found, rows, are_parts = found[~bad], rows[~bad], are_parts[~bad]

    gone = shapely.is_missing(found) | shapely.is_empty(found)
    leave_out(
        gone, "1 feature without a readable geometry was", "{} features without a readable geometry were"
    )
    leave_out(
        _not_finite(found),
        "1 feature with a coordinate that isn't a number was",
        "{} features with coordinates that aren't numbers were",
    )
    for position in np.flatnonzero(shapely.get_type_id(found) == GeometryType.GEOMETRYCOLLECTION):
        found[position] = _of_collection(found[position])
    kinds = shapely.get_type_id(found)
    leave_out(~np.isin(kinds, (*_POINTS, *_POLYGONS)), "1 line or curve was", "{} lines or curves were")
    # An outline that crosses itself has several, but is one.
    are_parts = several(found, in_degrees=in_degrees)
    is_polygon = np.isin(shapely.get_type_id(found), _POLYGONS)
    is_crossing = is_polygon & ~_is_valid(found)
    tangled = _are_tangled(found, is_crossing)
    more = f"more than {MOST_CROSSINGS} times"
    leave_out(
        tangled,
        f"1 polygon that crosses itself {more} was",
        f"{{}} polygons that cross themselves {more} were",
    )
    is_polygon = is_polygon[~tangled]
    crossing = np.flatnonzero(is_crossing[~tangled])
    found[crossing] = [_repaired(shape) for shape in found[crossing]]
    flat = is_polygon & _is_flat(found, 1e-7 if in_degrees else 0.01)
    repaired = len(crossing) - int(np.count_nonzero(flat[crossing]))
    if repaired:
        text = f"{repaired} self-crossing polygon{'s were' if repaired > 1 else ' was'} repaired."
        notes.append(Note("polygons-repaired", text))
    leave_out(flat, "1 polygon without an area was", "{} polygons without an area were")
    are_parts &= shapely.get_num_geometries(found) > 1
    found, rows, are_parts = _single_points(found, rows, are_parts, notes)
    return found, rows, are_parts, notes


def _without_heights(geometry: Geometries) -> Geometries:
    """Geometries without heights. Those without any aren't copied: a million outlines take 0.6 GB."""
    found = geometry.copy()
    high = shapely.get_coordinate_dimension(geometry) > 2
    found[high] = shapely.force_2d(geometry[high])
    return found


def _are_tangled(found: Geometries, is_crossing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the polygons that cross themselves do so too often to be repaired, (N,)."""
    tangled = np.zeros(len(found), np.bool_)
    tangled[[row for row in np.flatnonzero(is_crossing) if is_tangled(found[row])]] = True
    return tangled


def _not_finite(geometry: Geometries) -> NDArray[np.bool_]:
    bad = np.zeros(len(geometry), bool)
    for rows in pieces(len(geometry)):
        xy, owner = shapely.get_coordinates(geometry[rows], return_index=True)
        bad[rows][owner[~np.isfinite(xy).all(axis=1)]] = True
    return bad


def _is_flat(geometry: Geometries, rounding: float) -> NDArray[np.bool_]:
    """Which polygons are lines, apart from rounding of coordinates: no area, or thin in both senses.

    A corridor is thin for its length, a cell is small for its unit; neither is both.
    """
    area, outline = shapely.area(geometry), shapely.length(geometry)
    is_thin = (4 * np.pi * area < 5e-3 * outline**2) & (2 * area < rounding * outline)
    return np.asarray(~(area > 0) | is_thin)


def _of_collection(collection: Any) -> Any:
    """The polygons of a collection, else its points, else what it is."""
    polygons = _polygons_of(collection)
    if not polygons.is_empty:
        return polygons
    points = [part for part in _leaves(collection) if part.geom_type == "Point" and not part.is_empty]
    return shapely.MultiPoint(points) if points else collection


def _is_valid(geometry: Geometries) -> NDArray[np.bool_]:
    """Which shapes have valid polygons only, whether these overlap or not."""
    valid = np.asarray(shapely.is_valid(geometry))
    left = np.flatnonzero(~valid & np.isin(shapely.get_type_id(geometry), _OF_PARTS))
    parts, owner = shapely.get_parts(geometry[left], return_index=True)
    valid[left] = True
    valid[left[owner[~shapely.is_valid(parts)]]] = False
    return valid


def _repaired(shape: Any) -> Any:
    """The areas that a self-crossing outline encloses; empty where nothing can be made of it."""
    try:
        if shape.geom_type == "MultiPolygon":  # polygon by polygon: they may be individuals that overlap
            return _polygons_of(shapely.GeometryCollection([_repaired(part) for part in shape.geoms]))
        return shape if shape.is_valid else _polygons_of(shapely.make_valid(shape))
    except shapely.errors.GEOSException:
        return shapely.Polygon()


def _polygons_of(shape: Any) -> Any:
    polygons = [part for part in _leaves(shape) if part.geom_type == "Polygon" and not part.is_empty]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _leaves(shape: Any) -> list[Any]:
    """All simple geometries in a geometry, however deeply collections are nested."""
    leaves, waiting = [], [shape]
    while waiting:
        part = waiting.pop()
        if hasattr(part, "geoms"):
            waiting.extend(reversed(part.geoms))
        else:
            leaves.append(part)
    return leaves


def _single_points(
    found: Geometries, rows: NDArray[np.int64], are_parts: NDArray[np.bool_], notes: list[Note]
) -> tuple[Geometries, NDArray[np.int64], NDArray[np.bool_]]:
    are_points = shapely.get_type_id(found) == GeometryType.MULTIPOINT
    if not are_points.any():
        return found, rows, are_parts
    parts = np.where(are_points, shapely.get_num_geometries(found), 1)
    singles = np.repeat(found, parts)
    singles[np.repeat(are_points, parts)] = shapely.get_parts(found[are_points])
    split = int(np.count_nonzero(parts > 1))
    if split:
        text = f"{split} feature{'s' if split > 1 else ''} of several points became one for each point."
        notes.append(Note("parts-counted", text, kind="choice"))
    return singles, np.repeat(rows, parts), np.repeat(are_parts, parts)
