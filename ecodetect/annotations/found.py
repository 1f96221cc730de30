"""What a file says about one image: its features, and what a scan says about its raster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.grid import Grid
from ecodetect.layer import Geometries, Layer

WITHOUT_RASTER = ("pixel-coordinates", "share-coordinates")  # codes of notes that hold without a raster


class Found(NamedTuple):
    """The features of an image, and the name of the file they come from."""

    layer: Layer
    file: str


def touching(shapes: Geometries, grid: Grid) -> NDArray[np.bool_]:
    """Which shapes, in pixels of `grid`, may touch its raster, judged by their bounds."""
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        meets = (bounds[:, 2:] >= 0).all(axis=1) & (bounds[:, :2] <= (grid.width, grid.height)).all(axis=1)
    return np.asarray(meets & np.isfinite(bounds).all(axis=1))


def rasters_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a scan says about each raster in the metadata of its output."""
    return [each for each in metadata.get("rasters") or () if isinstance(each, dict)]


def nothing_on(grid: Grid | None) -> Layer:
    """A layer without features."""
    return Layer(np.empty(0, dtype=object), grid=grid)
