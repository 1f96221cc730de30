"""The files beside the annotations: where these are complete, and shapes in which nothing counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from ecodetect.annotations.annotation_file import AnnotationFile
from ecodetect.annotations.found import touching
from ecodetect.annotations.ignoring import is_file, opened_shapes
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.errors import UserError
from ecodetect.formats.parts import united
from ecodetect.grid import Grid
from ecodetect.layer import Geometries
from ecodetect.region import Region


class GroundFiles:
    """The files beside the annotations: where these are complete, and what is ignored."""

    def __init__(self, complete: AnnotationFile | None, ignore: list[AnnotationFile]) -> None:
        self._complete, self._ignore = complete, ignore
        self._met: set[Path] = set()

    @classmethod
    def named_by(cls, asked: AnnotationOptions) -> GroundFiles:
        """Those that a user names."""
        complete = None
        if asked.complete is not None and asked.complete != "image":
            complete = opened_shapes(asked.complete, asked.complete_layer, parameter="complete")
        return cls(
            complete, [opened_shapes(text, parameter="ignore") for text in asked.ignore if is_file(text)]
        )

    def complete(self, image: str, grid: Grid, *, is_set: bool) -> Region | None:
        """The part of a raster inside the polygons; None where there is none."""
        if self._complete is None:
            return None
        shapes = self._shapes(self._complete, image, grid, is_set=is_set)
        polygons = shapes[shapely.area(shapes) > 0]
        if len(shapes) and not len(polygons):
            raise UserError(
                f"{self._complete.path} has no polygon, so it can't say where annotation is complete."
            )
        inside = shapely.union_all(shapely.make_valid(polygons)).intersection(
            shapely.box(0, 0, grid.width, grid.height)
        )
        return Region(inside, grid) if inside.area > 0 else None

    def ignored(self, image: str, grid: Grid, *, is_set: bool) -> Geometries:
        found = [self._shapes(file, image, grid, is_set=is_set) for file in self._ignore]
        return np.concatenate([np.empty(0, dtype=object), *found])

    def _shapes(self, file: AnnotationFile, image: str, grid: Grid, *, is_set: bool) -> Geometries:
        found = file.of(image, grid, is_one=not is_set)
        shapes: Geometries = np.empty(0, dtype=object)
        if found is not None:
            shapes = united(found.layer.in_pixels(grid))
        meets = touching(shapes, grid)
        if meets.any() or (found is not None and not len(found.layer)):  # an empty file is meant so
            self._met.add(file.path)
        inside: Geometries = shapes[meets]
        return inside

    def check(self) -> None:
        """Raise UserError for a file that lies on none of the rasters."""
        for file in ([] if self._complete is None else [self._complete]) + self._ignore:
            if file.path not in self._met:
                raise UserError(f"{file.path} lies on none of the rasters; does it belong to them?")
