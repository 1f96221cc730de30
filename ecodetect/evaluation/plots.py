"""Plots: polygons where annotations are complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.layer import Geometries, Layer


@dataclass(frozen=True, eq=False, slots=True)
class Plots:
    """Polygons where annotations are complete.

    shapes : (P,), in pixels of the image's grid.
    names : one for each.
    """

    shapes: Geometries
    names: tuple[str, ...]

    @classmethod
    def of(cls, shapes: Geometries, layer: Layer, path: Path) -> Plots:
        """The plots of a file: `shapes` are its features in pixels, `layer` the same as read.

        Raises UserError where there are features, but no polygon.
        """
        is_area = shapely.area(shapes) > 0
        if len(shapes) and not is_area.any():
            raise UserError(
                f"{path} has no polygon, so it can't say where the truth is complete; draw its outline."
            )
        layer = layer[is_area]
        named = next((layer.columns[name] for name in ("plot", "name", "id") if name in layer.columns), None)
        if named is None or len({str(name) for name in named}) < len(layer):
            named = np.arange(1, len(layer) + 1)
        return cls(shapes[is_area], tuple(str(name) for name in named))

    def __len__(self) -> int:
        return len(self.shapes)

    def holding(self, xy: Floats) -> NDArray[np.int64]:
        """Number of the first plot that holds each position (N, 2); -1 where none does."""
        number = np.full(len(xy), -1, np.int64)
        if len(self) and len(xy):
            plot, point = shapely.STRtree(shapely.points(xy)).query(self.shapes, "intersects")
            for each in range(len(self) - 1, -1, -1):
                number[point[plot == each]] = each
        return number
