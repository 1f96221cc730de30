"""The common plane of an image's detections and annotations where there is no raster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS

from ecodetect.errors import UserError
from ecodetect.formats.collecting import of_size
from ecodetect.formats.placing import upended
from ecodetect.grid import Floats, Grid, describe_crs
from ecodetect.layer import Layer

_FAR_M = 1000.0  # files farther apart aren't about the same small place


def common_plane(
    own: Layer, true: Layer, found: Path, there: Path, raster_crs: CRS | None = None
) -> tuple[Grid, bool, Layer, Layer]:
    """A grid that holds both layers without a raster, whether it counts pixels, and the layers.

    raster_crs : of the detections' raster, if their file states it. Their boxes are upright in it, and
        rotated
    in longitude and latitude.
    """
    own, true = _of_size(own, true, found), _of_size(true, own, there)
    stated = next((layer.grid for layer in (own, true) if layer.grid is not None), None)
    if stated is not None:  # a label image with its place, or a file that states the image's size
        fixed = [
            layer if layer.frame_crs is not None or layer.grid else laid_on(layer, stated)
            for layer in (own, true)
        ]
        return stated, True, fixed[0], fixed[1]
    known = [layer for layer in (own, true) if len(layer)]
    crs = {describe_crs(layer.crs) if layer.crs is None else "a CRS" for layer in known}
    if len(crs) > 1:
        without = there if own.crs is not None else found
        raise UserError(
            f"{without} has pixels or no CRS and the other file has one; name the raster.",
            parameter="image",
        )
    frame_crs = known[0].crs if known else None
    if frame_crs is not None:
        projected = (crs for crs in (raster_crs, *(each.crs for each in known)) if crs and crs.is_projected)
        frame_crs = next(projected, frame_crs)
    if frame_crs is None and any(_is_in_pixels(layer) for layer in known):
        own, true = (_upright(layer) for layer in (own, true))
        known = [layer for layer in (own, true) if len(layer)]
    has_pixels = frame_crs is None and all(_is_in_pixels(layer) for layer in known)
    grid = Grid(1, 1, crs=frame_crs)
    whole = [np.asarray(shapely.bounds(layer.in_pixels(grid)), np.float64).reshape(-1, 4) for layer in known]
    bounds = np.concatenate([np.empty((0, 4)), *whole])
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    low, high = (
        (bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)) if len(bounds) else (np.zeros(2), np.ones(2))
    )
    if frame_crs is not None and frame_crs.is_geographic and high[0] - low[0] > 180:
        raise UserError(
            f"{found} and {there} lie on both sides of 180° longitude; name the raster.", parameter="image"
        )
    if frame_crs is not None and len(whole) == 2:
        _check_near(whole[0], whole[1], grid, found, there)
    corner = np.zeros(2) if has_pixels and (low >= 0).all() else np.floor(low)
    width, height = (max(1, int(side)) for side in np.ceil(high - corner))
    grid = Grid(width, height, (1.0, 0.0, float(corner[0]), 0.0, 1.0, float(corner[1])), frame_crs)
    # An empty file doesn't say where it lies.
    return (
        grid,
        has_pixels,
        own if len(own) else laid_on(own, grid),
        true if len(true) else laid_on(true, grid),
    )


def _is_in_pixels(layer: Layer) -> bool:
    return layer.metadata.get("frame") == "pixel"


def _upright(layer: Layer) -> Layer:
    """A layer to compare with one in pixels: y is flipped if a GIS drew it on the same raster, y upwards."""
    if _is_in_pixels(layer) or not len(layer):
        return layer
    bounds = shapely.bounds(layer.geometry).reshape(-1, 4)
    if not (bounds[:, 3] <= 0).all():
        return layer
    return replace(layer, geometry=upended(layer.geometry), metadata={**layer.metadata, "frame": "pixel"})


def _of_size(layer: Layer, other: Layer, path: Path) -> Layer:
    """A layer in shares of its image's size, converted to pixels with the size that the other file states.

    Raises UserError where it doesn't, unless both have shares or one is empty.
    """
    frames = [each.metadata.get("frame") for each in (layer, other)]
    if frames[0] != "share" or frames[1] == "share" or not len(layer) or not len(other):
        return layer
    grid = other.grid
    if grid is None:
        sizes = other.metadata.get("image_sizes", {})
        known = {sizes.get(name) for name in set(other.columns.get("source", np.empty(0)).tolist())}
        grid = Grid(*next(iter(known))) if len(known) == 1 and None not in known else None
    if grid is None:
        raise UserError(f"{path.name} holds shares of the image's size; name the image.", parameter="image")
    return replace(
        layer, geometry=of_size(layer.geometry, grid), metadata={**layer.metadata, "frame": "pixel"}
    )


def _check_near(own: Floats, true: Floats, grid: Grid, found: Path, there: Path) -> None:
    """Raise UserError, naming both places, where files are too far apart to be about the same place."""
    boxes = []
    for bounds in (own, true):
        known = bounds[np.isfinite(bounds).all(axis=1)]
        if not len(known):
            return
        boxes.append(np.array([known[:, :2].min(axis=0), known[:, 2:].max(axis=0)]))
    gap = max(float((boxes[0][0] - boxes[1][1]).max()), float((boxes[1][0] - boxes[0][1]).max()))
    wide = max(float(np.ptp(box, axis=0).max()) for box in boxes)
    if gap * _metres_of_unit(grid) < _FAR_M or gap < wide:
        return
    places, where = [grid.to_world(box) for box in boxes], describe_crs(grid.crs)
    if grid.has_lonlat:
        places, where = [grid.to_lonlat(box) for box in boxes], "lon, lat"
    one, other = (
        f"{low[0]:.8g} to {high[0]:.8g}, {low[1]:.8g} to {high[1]:.8g}"
        for low, high in ((place.min(axis=0), place.max(axis=0)) for place in places)
    )
    raise UserError(
        f"{found.name} and {there.name} lie far apart: at {one} and at {other} ({where}); are they about the"
        " same place?"
    )


def _metres_of_unit(grid: Grid) -> float:
    """The approximate metres per unit, in a grid whose pixels are units of the CRS."""
    crs = grid.crs
    if crs is None or crs.is_geographic:
        return 111_000.0
    return float(crs.axis_info[0].unit_conversion_factor or 1.0)


def laid_on(layer: Layer, grid: Grid) -> Layer:
    """A layer in pixels of an unknown image, in pixels of this grid."""
    return replace(layer, grid=grid)
