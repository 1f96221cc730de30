"""The detections of a layer as places, classes, sources and sizes: what is counted, without the shapes.

A layer that we wrote is read in pieces, so that memory grows by 32 bytes a detection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.laying import labels_of
from ecodetect.errors import GridError, LayerError
from ecodetect.estimation.plane import Plane, plane_at, plane_of
from ecodetect.formats import files as formats
from ecodetect.grid import Floats, Grid, transformed
from ecodetect.layer import Layer
from ecodetect.matching import centres
from ecodetect.notes import Note, merged

Ints = NDArray[np.int64]
NAMELESS = "object"  # the class of what has none


@dataclass(frozen=True, eq=False, slots=True)
class PlacedDetections:
    """Detections in a plane.

    xy : centroids, (N, 2).
    label, source : numbers in `classes` and `sources`, (N,).
    size : diameter, in metres where the plane knows them, else in pixels; NaN where unknown.
    """

    plane: Plane
    xy: Floats
    label: Ints
    classes: tuple[str, ...]
    source: Ints
    sources: tuple[str, ...]
    size: Floats
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.xy)


def read_detections(
    path: Path,
    stated: Mapping[str, Any],
    grids: Mapping[str, Grid],
    *,
    layer: str | None = None,
    class_column: str | None = None,
) -> PlacedDetections:
    """Read a layer.

    stated : its metadata.  grids : of its rasters, by name; none: nobody knows them.
    Raises UserError where it can't be read, or can't be laid on its rasters.
    """
    name, grid = next(iter(grids.items())) if len(grids) == 1 else ("", None)
    plane = plane_of(list(grids.values())) if grids else None
    classes, sources = _Names(), _Names()
    xy, label, source, size = [np.empty((0, 2))], [_NONE], [_NONE], [np.empty(0)]
    crs = None
    notes: list[Note] = []
    for piece in _pieces(path, stated, grid, name, layer):
        notes += [note.of(path.name) for note in piece.notes]
        if "shape" in piece.columns:  # candidates, each with a square around it
            piece = piece[piece.columns["shape"] != "patch"]
        crs = piece.frame_crs
        xy.append(centres(_flat(piece, grid, path)))
        label.append(classes.numbers(_labels(piece, path, class_column)))
        source.append(sources.numbers(_texts(piece, "source")))
        size.append(_sizes(piece))
    places = np.concatenate(xy)
    if plane is None:
        plane = plane_at(places[np.isfinite(places).all(axis=1)], crs) if len(places) else Plane(crs, None)
    if plane.crs is not None and crs != plane.crs and len(places):
        if crs is None:
            raise LayerError(f"{path.name} has no CRS, but its rasters have one; give it theirs.")
        places = transformed(places, crs, plane.crs)
    is_placed = np.isfinite(places).all(axis=1)
    if not is_placed.all():
        text = f"{np.count_nonzero(~is_placed):,} of {len(places):,} have no place and aren't counted."
        notes.append(Note("features-outside", text, about=path.name, kind="doubt"))
    order, names = classes.sorted()
    return PlacedDetections(
        plane,
        places[is_placed],
        order[np.concatenate(label)[is_placed]],
        names,
        np.concatenate(source)[is_placed],
        sources.names,
        np.concatenate(size)[is_placed],
        merged(notes),
    )


_NONE = np.empty(0, np.int64)


class _Names:
    """Texts as numbers, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._numbers)

    def numbers(self, texts: NDArray[np.object_]) -> Ints:
        found = self._numbers
        return np.array([found.setdefault(text, len(found)) for text in texts.tolist()], np.int64)

    def sorted(self) -> tuple[Ints, tuple[str, ...]]:
        """The place of each in alphabetical order, and that order."""
        names = tuple(sorted(self._numbers))
        place = {name: number for number, name in enumerate(names)}
        return np.array([place[name] for name in self._numbers], np.int64), names


def _pieces(
    path: Path, stated: Mapping[str, Any], grid: Grid | None, name: str, layer: str | None
) -> Iterator[Layer]:
    """The features of a file, in pieces where we wrote it."""
    if "key" in stated and layer is None:
        yield from formats.read_pieces(path, grid=grid, image=name or None)
    else:
        yield formats.read(path, layer=layer, grid=grid, image=name or None)


def _flat(piece: Layer, grid: Grid | None, path: Path) -> NDArray[np.object_]:
    """Shapes in the layer's CRS, or in pixels of the only raster where there is none."""
    if piece.frame_crs is not None:
        return piece.in_world()
    if grid is None:
        return piece.geometry
    try:
        return piece.in_pixels(grid)
    except GridError as error:
        raise LayerError(f"{path.name} can't be laid on its raster: {error}") from error


def _labels(piece: Layer, path: Path, class_column: str | None) -> NDArray[np.object_]:
    if class_column is None and "label" in piece.columns:
        labels = _texts(piece, "label")
    else:
        labels = labels_of(piece, path.name, class_column)
    return np.array([text or NAMELESS for text in labels.tolist()], object)


def _texts(piece: Layer, name: str) -> NDArray[np.object_]:
    values = piece.columns.get(name)
    if values is None:
        return np.full(len(piece), "", object)
    return np.array([value if isinstance(value, str) else "" for value in values.tolist()], object)


def _sizes(piece: Layer) -> Floats:
    """Diameters as the layer states them, else of circles as large as its shapes; NaN of points."""
    for name in ("diameter_m", "diameter_px"):
        if name in piece.columns:
            return np.asarray(piece.columns[name], np.float64)
    if piece.frame_crs is not None and piece.frame_crs.is_geographic:
        return np.full(len(piece), np.nan)
    area = shapely.area(piece.geometry if piece.frame_crs is None else piece.in_world())
    return np.where(area > 0, 2 * np.sqrt(area / np.pi), np.nan)
