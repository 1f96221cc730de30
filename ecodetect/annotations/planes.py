"""Planes on which rasters can be compared: the Earth in metres, or a raster's own plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.grid import WGS84, Floats, transformed

_EARTH_M = 6_371_008.8  # mean radius


class Planes:
    """Planes on which rasters can be compared: the Earth in metres, or their own plane without a place.

    key : of each source's plane.  pixel : width of its pixels there.  footprints : of the whole rasters.
    clusters : number of the group of overlapping rasters that each belongs to.
    """

    def __init__(self, sources: Sequence[AnnotatedRaster]) -> None:
        self.grids = [source.grid for source in sources]
        self.key = [_plane(source) for source in sources]
        on_earth = [grid for grid, key in zip(self.grids, self.key, strict=True) if key == "earth"]
        centres = [grid.to_lonlat([(grid.width / 2, grid.height / 2)])[0] for grid in on_earth]
        self._origin = _middle(np.array(centres)) if centres else np.zeros(2)
        self.footprints = [
            self.of(number, shapely.box(0, 0, grid.width, grid.height))
            for number, grid in enumerate(self.grids)
        ]
        self.pixel = [
            float(np.sqrt(shape.area / grid.window.area))
            for shape, grid in zip(self.footprints, self.grids, strict=True)
        ]
        self.clusters = self._clusters()

    def of(self, number: int, shape: shapely.Geometry) -> shapely.Geometry:
        """A shape in native pixels of a source, on its plane."""
        grid = self.grids[number]
        # Straight lines of one map are curved in another: sixteen pieces per side keep them within a pixel.
        fine = shapely.segmentize(shape, max(grid.width, grid.height) / 16)
        return shapely.transform(fine, lambda xy: self._onto(number, xy))

    def _onto(self, number: int, xy: Floats) -> Floats:
        grid, key = self.grids[number], self.key[number]
        if key != "earth":
            return xy if grid.frame == "pixel" else grid.to_world(xy)
        step = np.radians(grid.to_lonlat(xy) - self._origin)
        step[:, 0] = (step[:, 0] + np.pi) % (2 * np.pi) - np.pi
        result: Floats = step * (_EARTH_M * np.cos(np.radians(self._origin[1])), _EARTH_M)
        return result

    def back(self, number: int, shape: shapely.Geometry) -> shapely.Geometry:
        """A shape on the plane of a source, in its native pixels."""
        return shapely.transform(shape, lambda xy: self._pixels(number, xy))

    def _pixels(self, number: int, xy: Floats) -> Floats:
        grid, key = self.grids[number], self.key[number]
        if key != "earth":
            return xy if grid.frame == "pixel" else grid.to_pixel(xy)
        assert grid.crs is not None
        scale = (_EARTH_M * np.cos(np.radians(self._origin[1])), _EARTH_M)
        lonlat = np.degrees(xy / scale) + self._origin
        return grid.to_pixel(transformed(lonlat, WGS84, grid.crs))

    def _clusters(self) -> list[int]:
        """The group number of each raster; rasters that overlap by over a pixel, or via others, share it."""
        cluster = list(range(len(self.grids)))

        def root(number: int) -> int:
            while cluster[number] != number:
                number = cluster[number]
            return number

        for key in dict.fromkeys(self.key):
            members = [number for number, own in enumerate(self.key) if own == key]
            shapes = [self.footprints[number] for number in members]
            for one, other in shapely.STRtree(shapes).query(shapes, "intersects").T:
                if one < other:
                    width = 0.5 * min(self.pixel[members[one]], self.pixel[members[other]])
                    if not shapes[one].intersection(shapes[other]).buffer(-width).is_empty:
                        first, second = root(members[one]), root(members[other])
                        cluster[max(first, second)] = min(first, second)
        return [root(number) for number in range(len(cluster))]


def _plane(source: AnnotatedRaster) -> str:
    grid = source.grid
    if grid.has_lonlat:
        return "earth"
    if grid.crs is not None:
        return grid.crs.to_wkt()
    return "affine" if grid.frame == "affine" else f"pixels of {Path(source.image).absolute()}"


def _middle(lonlat: Floats) -> Floats:
    """The mean of positions in degrees, also across the antimeridian."""
    known = lonlat[np.isfinite(lonlat).all(axis=1)]
    angle = np.radians(known[:, 0])
    longitude = np.degrees(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean()))
    return np.array([longitude, known[:, 1].mean()])
