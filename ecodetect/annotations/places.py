"""Where annotations lie on Earth, for a model's card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecodetect.annotations.annotated_raster import AnnotatedRaster
from ecodetect.bundle.footprint import cells


def places(sources: Sequence[AnnotatedRaster], *, exact: bool = False) -> list[list[float]]:
    """Where the annotations lie, JSON-able, for a model's card.

    Cells of about 1 km as [longitude, latitude] of their south-western corner; with `exact` the extent of
    each raster's annotations as [west, south, east, north]. Rasters without a place on Earth are left out.
    """
    found: list[list[float]] = []
    lonlats = []
    for source in sources:
        if not source.grid.has_lonlat or not len(source.annotations):
            continue
        lonlat = source.grid.to_lonlat(source.xy)
        lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
        if len(lonlat):
            lonlats.append(lonlat)
            extent = [*lonlat.min(axis=0), *lonlat.max(axis=0)]
            found.append([round(float(value), 6) for value in extent])
    if exact:
        return sorted(found)
    return [list(cell) for cell in cells(np.concatenate([np.empty((0, 2)), *lonlats]))]
