"""Polygons of several parts: as many individuals as parts in a GIS, one area where ground is meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.layer import Geometries, Layer
from ecodetect.notes import Note


def several(geometry: Geometries, *, in_degrees: bool) -> NDArray[np.bool_]:
    """Which shapes have several polygons that aren't one cut at the antimeridian, (N,)."""
    found = np.asarray(shapely.get_type_id(geometry) == shapely.GeometryType.MULTIPOLYGON)
    found &= np.asarray(shapely.get_num_geometries(geometry) > 1)
    if in_degrees and found.any():
        bounds = shapely.bounds(geometry).reshape(-1, 4)
        # As RFC 7946 asks, and as we write it: a part that ends at 180° and one that begins at -180°.
        found &= ~((np.abs(bounds[:, 0] + 180) < 1e-9) & (np.abs(bounds[:, 2] - 180) < 1e-9))
    return found


def separated(layer: Layer, name: str) -> tuple[Layer, tuple[Note, ...]]:
    """The layer with one feature for each individual, and what to say of it.

    name : of the file.
    """
    if layer.are_parts is None or not layer.are_parts.any():
        return replace(layer, are_parts=None), ()
    features = int(np.count_nonzero(layer.are_parts))
    counts = np.where(layer.are_parts, shapely.get_num_geometries(layer.geometry), 1)
    rows = np.repeat(np.arange(len(layer)), counts)
    single = replace(layer, are_parts=None)[rows]
    geometry = single.geometry.copy()
    geometry[layer.are_parts[rows]] = shapely.get_parts(layer.geometry[layer.are_parts])
    made = int(counts[layer.are_parts].sum())
    are = "feature of several polygons counts" if features == 1 else "features of several polygons count"
    text = f"{features:,} {are} as {made:,} individuals, one for each polygon."
    return replace(single, geometry=geometry), (Note("parts-separated", text, about=name, kind="choice"),)


def united(geometry: Geometries) -> Geometries:
    """Shapes as areas: of those with several polygons, which may overlap, the ground under any of them."""
    found = np.flatnonzero(~np.asarray(shapely.is_valid(geometry)))
    if not len(found):
        return geometry
    geometry = geometry.copy()
    for row in found.tolist():
        geometry[row] = shapely.union_all(shapely.make_valid(shapely.get_parts(geometry[row])))
    return geometry
