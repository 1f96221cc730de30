"""One raster with what people marked on it, and what is known of its ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.annotations.laying import Annotations
from ecodetect.bundle.values import Choice
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Geometries
from ecodetect.raster.options import RasterOptions
from ecodetect.raster.reading import Raster
from ecodetect.region import Region

CompleteBy = Literal["polygons", "image", "hull", "nothing"]


@dataclass(frozen=True, eq=False, slots=True)
class AnnotatedRaster:
    """One raster with what people marked on it.

    image : path of the raster.
    name : of the image, for messages: with as many folders as tell it from the others.
    grid : native Grid; all shapes here are in its pixels.
    bands : names of the raster's bands.
    dtype : numpy name of its pixels.
    options : how it is opened.
    annotations : of this raster; those with `ignore` are neither individuals nor background.
    complete : where all individuals are annotated; None: nowhere.
    complete_by : what says so.
    ignored : shapes in which nothing is learned.
    edge_px : width of the strip along the raster's edge in which nothing is learned; as far inside again as
        half a large individual only what is annotated is.
    file : name of the file that the annotations are from, for messages.
    unit : of its values; None: not determined yet.
    """

    image: str
    name: str
    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    options: RasterOptions
    annotations: Annotations
    complete: Region | None
    complete_by: CompleteBy
    ignored: Geometries
    edge_px: float = 0.0
    file: str = ""
    unit: Choice | None = None

    def open(self) -> Raster:
        """The raster, opened again."""
        return self.options.opened(self.image)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which annotations are individuals to learn."""
        return ~self.annotations.ignore

    @property
    def boxes(self) -> Floats:
        """Bounding boxes of all annotations, (N, 4) native pixels; of a point its size where known."""
        return self.annotations.boxes

    @property
    def size_px(self) -> Floats:
        """Width of each annotation in native pixels; NaN where unknown."""
        return self.annotations.size_px

    @property
    def xy(self) -> Floats:
        """Positions of all annotations, (N, 2) native pixels: their centroids."""
        return self.annotations.xy


def gsds(sources: Sequence[AnnotatedRaster]) -> list[float]:
    """Metres per pixel of the rasters of which it is known, in order."""
    return [gsd for source in sources if (gsd := source.grid.gsd_mean) is not None]


def object_px(sources: Sequence[AnnotatedRaster]) -> float:
    """Width of one object in native pixels: the median.

    For points without a size what their spacing allows: neighbours that touch are as far apart as they are
    wide. One pixel where a lone point says nothing.
    """
    sizes = np.concatenate([source.size_px[source.kept] for source in sources])
    if np.isfinite(sizes).any():
        return float(np.nanmedian(sizes))
    spaces = np.concatenate([spacing(source.xy[source.kept]) for source in sources])
    spaces = spaces[spaces > 0]
    return float(min(np.percentile(spaces, 5), np.median(spaces) / 2)) if len(spaces) else 1.0


def spacing(xy: Floats) -> Floats:
    """Distance of each position (N, 2) to its nearest neighbour; empty for fewer than two."""
    if len(xy) < 2:
        return np.empty(0)
    from scipy.spatial import cKDTree

    distance: Floats = cKDTree(xy).query(xy, k=2)[0][:, 1]
    return distance
