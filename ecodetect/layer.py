"""A vector layer in memory or on its way: geometries with columns, in one frame.

`Detections` become a Layer on the way out; files read by `formats` are one on the way in. `Stream` is a layer
too large to hold: what is known beforehand, and batches that follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ecodetect.errors import GridError
from ecodetect.grid import Floats, Grid, describe_crs, lonlat_of, transformed
from ecodetect.notes import Note

Geometries = NDArray[np.object_]
Columns = Mapping[str, NDArray[Any]]
# Columns of our own layers that hold numbers, also where all are empty, which formats without types can't
# say.
NUMBERS = frozenset({"score", "area_m2", "diameter_m", "area_px", "diameter_px", "value"})
_SHAPES_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """Features: shapely geometries and aligned columns.

    geometry : object array (N,) of shapely geometries; None where a feature has none. In pixels of `grid`
        when there is one (continuous, y down), else in coordinates of `crs`, else in coordinates of an
        unknown frame.
    columns : name -> array (N,), of str (object or numpy str), float64, int64 or bool.
    grid : the raster grid that the pixels belong to.
    crs : CRS of the geometry when `grid` is None.
    notes : for the user: rows skipped and why, guesses made.
    metadata : what the file carried beside the features.
    are_parts : bool (N,), features whose polygons are as many individuals, if they are individuals and no
        areas, as a GIS stores what was dissolved or drawn as one; None: each feature is one.
    states_classes : the file's format has a place for names of classes: its `label` holds nothing else.
    """

    geometry: Geometries
    columns: Columns = field(default_factory=dict)
    grid: Grid | None = None
    crs: CRS | None = None
    notes: tuple[Note, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    are_parts: NDArray[np.bool_] | None = None
    states_classes: bool = False

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.geometry):
                raise ValueError(f"column {name} has {len(values)} rows, geometry {len(self.geometry)}")

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Layer:
        """The features of a boolean mask, an index array or a slice."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        are_parts = None if self.are_parts is None else self.are_parts[rows]
        return replace(self, geometry=self.geometry[rows], columns=columns, are_parts=are_parts)

    @property
    def frame_crs(self) -> CRS | None:
        """CRS of `in_world()`; None where world coordinates have none."""
        return self.grid.crs if self.grid is not None else self.crs

    def in_world(self) -> Geometries:
        """Geometries in coordinates of `frame_crs`, or of the raster's transform where it has none."""
        grid = self.grid
        return self.geometry if grid is None else _moved(self.geometry, grid.to_world)

    def in_pixels(self, grid: Grid) -> Geometries:
        """Geometries in pixels of `grid`, reprojected where needed.

        Raises GridError when this layer has no CRS and the grid has one, or the other way round.
        """
        if self.grid == grid:
            return self.geometry
        source = self.frame_crs
        if (source is None) != (grid.crs is None):
            raise GridError(
                f"The layer has {describe_crs(source)}, the raster {describe_crs(grid.crs)}; give both one."
            )
        if source is None or grid.crs is None or source == grid.crs:
            return _moved(self.in_world(), grid.to_pixel)
        target = grid.crs
        return _moved(self.in_world(), lambda xy: grid.to_pixel(transformed(xy, source, target)))

    def in_lonlat(self, *, decimals: int | None = None) -> Geometries:
        """Geometries in WGS 84 longitude and latitude (not cut at the antimeridian), rounded if asked for.

        Raises GridError when the frame has no way to WGS 84.
        """
        grid, crs = self.grid, self.frame_crs

        def step(xy: Floats) -> Floats:
            lonlat = lonlat_of(xy if grid is None else grid.to_world(xy), crs)
            return lonlat if decimals is None else np.round(lonlat, decimals)

        # In one step: geometries made again are what costs.
        return _moved(self.geometry, step)


@dataclass(frozen=True, slots=True)
class Steps:
    """How a map shades polygons by a number: the column with it, and the limits of its shades, rising."""

    column: str
    limits: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Stream:
    """A layer whose features come in batches, in their final order, each a Layer with the same columns.

    geometry_type : "Point", "Polygon" or "Unknown" (mixed): what formats with a typed layer declare. Polygon
        layers may hold MultiPolygons.
    columns : name -> one of "str", "float", "int".
    grid, crs : as in Layer; every batch is in world coordinates of the same CRS. With several rasters in one
        layer `grid` is None here and each batch has its own.
    classes : class names in card order; formats with class numbers use it. Empty: taken from the labels.
    metadata : JSON-able; goes into the format's own place for metadata.
    steps : of a layer whose polygons are shaded by a number.
    """

    batches: Iterable[Layer]
    geometry_type: str
    columns: Mapping[str, str]
    grid: Grid | None = None
    crs: CRS | None = None
    classes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    steps: Steps | None = None

    @property
    def frame_crs(self) -> CRS | None:
        return self.grid.crs if self.grid is not None else self.crs

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.batches)


def pieces(count: int) -> Iterator[slice]:
    """Rows to work on together: all coordinates of a million outlines at once take 0.5 GB."""
    return (slice(start, start + _SHAPES_AT_ONCE) for start in range(0, count, _SHAPES_AT_ONCE))


def geometry_type(geometries: Geometries) -> str:
    """What a Stream of these declares; "Polygon" for none at all."""
    kinds = set(np.unique(shapely.get_type_id(geometries)).tolist())
    if kinds == {int(shapely.GeometryType.POINT)}:
        return "Point"
    is_areal = kinds <= {int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON)}
    return "Polygon" if is_areal else "Unknown"


def _moved(geometries: Geometries, step: Any) -> Geometries:
    """Copies with each coordinate passed through `step`: (N, 2) -> (N, 2). Heights are dropped.

    A shape with a corner that has no place there is empty; a point is NaN.
    """
    out: Geometries = np.empty(len(geometries), dtype=object)
    for rows in pieces(len(geometries)):
        out[rows] = _moved_together(geometries[rows], step)
    return out


def _moved_together(geometries: Geometries, step: Any) -> Geometries:
    xy, owner = shapely.get_coordinates(geometries, return_index=True)
    moved = np.asarray(step(xy), np.float64)
    lost = np.unique(owner[~(np.isfinite(moved[:, 0]) & np.isfinite(moved[:, 1]))])
    lost = lost[shapely.get_type_id(geometries[lost]) != int(shapely.GeometryType.POINT)]
    if len(lost):
        geometries = geometries.copy()
        geometries[lost] = shapely.Polygon()
        moved = moved[~np.isin(owner, lost)]
    out: Geometries = shapely.transform(geometries, lambda _: moved)
    return out
