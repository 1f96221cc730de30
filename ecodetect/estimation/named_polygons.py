"""Polygons with names, by which a survey is divided."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.estimation.plane import Plane
from ecodetect.formats import files as formats
from ecodetect.formats.column_roles import plain
from ecodetect.grid import Floats, transformed
from ecodetect.layer import Geometries, Layer

Ints = NDArray[np.int64]
_NAMES = ("name", "polygon", "site", "plot", "id", "label")


@dataclass(frozen=True, eq=False, slots=True)
class NamedPolygons:
    """Polygons in a plane, (P,), each with a name."""

    shapes: Geometries
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def holding(self, xy: Floats) -> Ints:
        """The number of the first polygon that holds each place, (N, 2); -1 where none does."""
        number = np.full(len(xy), -1, np.int64)
        for each in range(len(self) - 1, -1, -1):
            number[shapely.intersects_xy(self.shapes[each], xy[:, 0], xy[:, 1])] = each
        return number


def read_polygons(path: str | os.PathLike[str], plane: Plane, *, layer: str | None = None) -> NamedPolygons:
    """The polygons of a file in a plane, with names from a column that has one for each.

    Features of one name are one polygon. Raises UserError where there is no polygon.
    """
    found = formats.read(path, layer=layer, grid=plane.grid)
    shapes = in_plane(found, plane, about=os.fspath(path))
    are_areas = shapely.area(shapes) > 0
    if not are_areas.any():
        raise UserError(f"{path} has no polygon; draw outlines.")
    shapes, found = shapely.make_valid(shapes[are_areas]), found[are_areas]
    known = {plain(name): name for name in reversed(list(found.columns))}
    column = next((found.columns[known[name]] for name in _NAMES if name in known), None)
    named = [str(number + 1) for number in range(len(shapes))]
    if column is not None and all(str(value) not in ("", "nan") for value in column):
        named = [f"{value:g}" if isinstance(value, float) else str(value) for value in column.tolist()]
    names = tuple(dict.fromkeys(named))
    together = [shapely.union_all(shapes[np.array(named) == name]) for name in names]
    for shape in together:
        shapely.prepare(shape)
    return NamedPolygons(np.array(together, object), names)


def in_plane(layer: Layer, plane: Plane, *, about: str) -> Geometries:
    """The shapes of a layer in a plane; raises UserError where they can't be laid on it."""
    crs, own = plane.crs, layer.frame_crs
    if crs is None:
        return layer.geometry if plane.grid is None else layer.in_pixels(plane.grid)
    if own is None:
        raise UserError(f"{about} has no CRS; give it one.")
    moved: Geometries = layer.in_world()
    if own != crs:
        moved = shapely.transform(moved, lambda xy: transformed(xy, own, crs))
    return moved
