"""Field truth on a raster: annotations of any file, in any CRS, in pixels of the raster's grid.

Files are read by `formats`; here their features are laid on a raster, and what lies outside is counted.
Training and evaluation start from `Annotations`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.errors import LayerError
from ecodetect.formats import files as formats
from ecodetect.formats import parts
from ecodetect.formats.column_roles import class_column, classes_in, plain, score_column, scores
from ecodetect.grid import Floats, Grid, describe_crs
from ecodetect.layer import Geometries, Layer
from ecodetect.notes import Note
from ecodetect.sizes import Length

# Names that people give these columns, in order of preference; compared without case, blanks and underscores.
_ACCURACY = (
    "accuracym",
    "accuracy",
    "horizontalaccuracy",
    "hacc",
    "hdop",
    "gpsaccuracy",
    "precisionm",
    "genauigkeit",
)
_YES = ("1", "1.0", "true", "yes", "y", "ja", "t")
_RADIUS = {"radiuspx": ("px", 1.0), "radiusm": ("m", 1.0), "diameterpx": ("px", 0.5), "diameterm": ("m", 0.5)}


@dataclass(frozen=True, eq=False, slots=True)
class Annotations:
    """Individuals that people marked on a raster.

    grid : the raster's Grid.
    geometry : (N,) shapely points and polygons in pixels of `grid`; each touches the raster.
    label : str (N,), class names; "" where none is given.
    radius_px : float64 (N,), size of individuals marked by a point, in pixels; NaN where unknown.
    accuracy_m : float64 (N,), how far off the position may be, in metres; NaN where unknown.
    ignore : bool (N,), neither an individual nor background: a yes in a column `ignore` or `iscrowd`.
    columns : name -> (N,), all columns of the file.
    dropped : reason -> number of features that were left out here.
    notes : for the user, those of the reader first.
    states_classes : as `Layer` has it.
    """

    grid: Grid
    geometry: Geometries
    label: NDArray[np.object_]
    radius_px: Floats
    accuracy_m: Floats
    ignore: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    states_classes: bool = False

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def score(self) -> Floats:
        """How sure each detection is, float64 (N,); NaN where no column says it."""
        name = score_column(self.columns)
        return np.full(len(self), np.nan) if name is None else scores(self.columns[name])

    @property
    def xy(self) -> Floats:
        """Positions, (N, 2) pixels: centroids."""
        return matching.centres(self.geometry)

    @property
    def boxes(self) -> Floats:
        """Bounding boxes, (N, 4) pixels; of a point its size where known."""
        boxes: Floats = shapely.bounds(self.geometry).reshape(-1, 4)
        is_point = shapely.area(self.geometry) == 0
        grow = np.where(is_point & np.isfinite(self.radius_px), self.radius_px, 0.0)[:, None]
        return boxes + grow * (-1.0, -1.0, 1.0, 1.0)

    @property
    def size_px(self) -> Floats:
        """Width of each in pixels: root of width times height; NaN where unknown."""
        boxes = self.boxes
        size = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        return np.where(size > 0, size, np.nan)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Annotations:
        """Those of a boolean mask."""
        return replace(
            self,
            geometry=self.geometry[rows],
            label=self.label[rows],
            radius_px=self.radius_px[rows],
            accuracy_m=self.accuracy_m[rows],
            ignore=self.ignore[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )

    def to_layer(self) -> Layer:
        """The annotations as a layer in pixels of the raster, with the columns of the file."""
        return Layer(
            self.geometry,
            self.columns,
            grid=self.grid,
            notes=self.notes,
            states_classes=self.states_classes,
        )


def read_annotations(
    path: str | os.PathLike[str],
    grid: Grid,
    *,
    image: str | None = None,
    layer: str | None = None,
    class_column: str | None = None,
    radius: Length | None = None,
) -> Annotations:
    """Read a file of annotations and lay it on a raster.

    Parameters
    ----------
    path : str or path-like
        Any file that `formats` reads.
    grid : Grid
        The raster's.
    image : str, optional
        The raster's name (or path), for files about several images.
    layer : str, optional
        Name of the layer, for files with several.
    class_column : str, optional
        Column with the class names; found by its name if not given.
    radius : Length, optional
        Size of individuals marked by a point; a column `radius_m`, `radius_px`, `diameter_m` or
        `diameter_px` goes first, row by row.

    Raises
    ------
    LayerError
        When the file can't be read, lies wholly outside the raster (both places are named), or lacks the
        column.
    """
    found = formats.read(path, layer=layer, grid=grid, image=image)
    return on_raster(found, grid, name=Path(path).name, class_column=class_column, radius=radius)


def on_raster(
    layer: Layer, grid: Grid, *, name: str, class_column: str | None = None, radius: Length | None = None
) -> Annotations:
    """A layer laid on a raster; see `read_annotations`.

    name : what messages call the layer.
    """
    layer, separated = parts.separated(layer, name)
    geometry, inside, has_place = placed(layer, grid, name=name)
    reasons = {"outside the raster": has_place & ~inside, "without a place in the raster's CRS": ~has_place}
    dropped = {reason: int(np.count_nonzero(rows)) for reason, rows in reasons.items() if rows.any()}
    notes = [
        *layer.notes,
        *separated,
        *(
            Note("features-outside", f"{count} of {len(layer)} left out: {reason}.", about=name, kind="doubt")
            for reason, count in dropped.items()
        ),
    ]
    kept = layer[inside]
    labels = labels_of(kept, name, class_column)
    return Annotations(
        grid,
        geometry[inside],
        labels,
        _radii(kept, geometry[inside], grid, radius, name),
        _numbers(_first(kept, _ACCURACY), len(kept)),
        _are_ignored(kept),
        kept.columns,
        dropped,
        tuple(notes),
        layer.states_classes,
    )


def placed(layer: Layer, grid: Grid, *, name: str) -> tuple[Geometries, NDArray[np.bool_], NDArray[np.bool_]]:
    """Geometries in pixels of a raster, which of them touch it, and which have a place in its CRS at all.

    Raises LayerError, naming both places, where none of a layer touches the raster.
    """
    geometry = layer.in_pixels(grid)
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    has_place = np.isfinite(bounds).all(axis=1)
    # What lies on the raster's edge is 1e-10 px beyond it after a way through map coordinates.
    inside = has_place & (bounds[:, 2:] >= -1e-6).all(axis=1)
    inside &= (bounds[:, :2] <= (grid.width + 1e-6, grid.height + 1e-6)).all(axis=1)
    if len(layer) and not inside.any():
        raise LayerError(_all_outside(name, bounds[has_place], len(layer), grid))
    return geometry, inside, has_place


def _all_outside(name: str, bounds: Floats, count: int, grid: Grid) -> str:
    if not len(bounds):
        crs = describe_crs(grid.crs)
        return f"{name}: none of its features ({count}) has a place in the raster's CRS, {crs}."
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    there, here = np.array([low, high]), np.array([(0.0, 0.0), (grid.width, grid.height)])
    where = "pixels"
    if grid.has_lonlat and np.isfinite(grid.to_lonlat(np.vstack([there, here]))).all():
        there, here, where = grid.to_lonlat(there), grid.to_lonlat(here), "lon, lat"
    elif grid.frame != "pixel":
        there, here, where = grid.to_world(there), grid.to_world(here), describe_crs(grid.crs)
    return (
        f"{name} lies outside the raster with all it has ({count}): it is at {_extent(there)}, the raster"
        f" at {_extent(here)} ({where}); is it the right raster?"
    )


def _extent(corners: Floats) -> str:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return f"{low[0]:.8g} to {high[0]:.8g}, {low[1]:.8g} to {high[1]:.8g}"


def _first(layer: Layer, names: tuple[str, ...]) -> NDArray[Any] | None:
    """The column with the first of these names."""
    known = {plain(name): name for name in reversed(list(layer.columns))}
    return next((layer.columns[known[name]] for name in names if name in known), None)


def labels_of(layer: Layer, name: str, asked: str | None = None) -> NDArray[np.object_]:
    """The class of each feature, (N,) str; "" where none is given.

    name : of the file.  asked : the column that the user names; found by its name if not given.
    Raises LayerError, naming the columns, where there is no such one.
    """
    if asked is not None and asked not in layer.columns:
        known = ", ".join(layer.columns) or "none"
        raise LayerError(f"{name} has no column '{asked}'; its columns are: {known}.")
    column = class_column(layer.columns) if asked is None else asked
    if column is None:
        return np.full(len(layer), "", dtype=object)
    return classes_in(layer.columns, column, are_stated=layer.states_classes)


def _are_ignored(layer: Layer) -> NDArray[np.bool_]:
    """Which features a column `ignore`, or COCO's `iscrowd`, marks as doubtful or as a crowd."""
    flags = np.zeros(len(layer), np.bool_)
    for name, values in layer.columns.items():
        if name.casefold() in ("ignore", "iscrowd"):
            flags |= np.array([str(value).casefold() in _YES for value in values.tolist()], np.bool_)
    return flags


def _numbers(values: NDArray[Any] | None, count: int) -> Floats:
    """A column as float64; NaN where there is none or it holds no number."""
    result = np.full(count, np.nan)
    if values is not None:
        for row, value in enumerate(values.tolist()):
            try:
                result[row] = float(value)
            except (TypeError, ValueError):
                continue
    return result


def _radii(layer: Layer, shapes: Geometries, grid: Grid, fixed: Length | None, name: str) -> Floats:
    first = np.nan if fixed is None else float(fixed.pixels(grid.gsd, name="The radius"))
    result = np.full(len(layer), first)
    for column, (unit, factor) in _RADIUS.items():
        values = _numbers(_first(layer, (column,)), len(layer)) * factor
        known = np.isfinite(values) & (values > 0)
        if unit == "m" and known.any() and grid.gsd is None:
            if (shapely.area(shapes[known]) > 0).all():  # shapes show their size themselves
                continue
            raise LayerError(
                f"{name} gives sizes of points in metres, but the raster has no CRS; state its pixel size.",
                parameter="gsd",
            )
        if unit == "m" and known.any():
            values = values * Length(1.0, "m").pixels(grid.gsd)
        result[known] = values[known]
    return result
