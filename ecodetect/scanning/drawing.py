"""The pictures of a scan: a map and a contact sheet of the detections in its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from ecodetect.detections import Detections
from ecodetect.formats import files as formats
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Layer
from ecodetect.models import choosing as models
from ecodetect.pictures.map import draw_map
from ecodetect.pictures.sheet import draw_sheet
from ecodetect.raster.reading import Raster
from ecodetect.scanning.settings import Output, Settings


def draw(
    raster: Raster, asked: Settings, output: Output, path: Path, classes: Sequence[str], cache_bytes: int
) -> None:
    """Draw the requested pictures.

    path : the output. Its contents are drawn, so the pictures of a new and of an existing output are the
        same.
    """
    area = asked.region(raster)
    with raster.env(cache_bytes=cache_bytes):
        if output.picture:
            info = f"model: {models.title(asked.model)}"
            found = _as_written(path, raster, classes)
            draw_map(raster, found, output.picture, title=raster.name, area=area, info=info)
        if output.sheet:
            draw_sheet(raster, _as_written(path, raster, classes), output.sheet)


def _as_written(path: Path, raster: Raster, classes: Sequence[str]) -> Iterator[Detections]:
    """The detections in a file that a scan of `raster` wrote, in pieces.

    classes : of the detector, in its order. Other labels follow, in order of appearance.
    """
    # Our outputs refer to stored pixels, even if viewers rotate the photograph.
    grid = replace(raster.grid, orientation=1)
    alone = classes[0] if len(classes) == 1 else "object"  # a label image has no classes
    number = {name: at for at, name in enumerate(classes)}
    are_areas: bool | None = None
    for layer in formats.read_pieces(path, grid=grid, image=raster.name):
        if not len(layer):
            continue
        geometry = layer.in_pixels(grid)
        labels = layer.columns.get("label", np.full(len(layer), alone, dtype=object)).astype(str).tolist()
        for name in sorted(set(labels) - set(number)):
            number[name] = len(number)
        names = tuple(number)
        label = np.array([number[name] for name in labels], np.int64)
        score = np.asarray(layer.columns.get("score", np.ones(len(layer))), np.float64)
        if are_areas is None:  # candidates have points and squares, side by side: they are points
            are_areas = bool((shapely.get_type_id(geometry) != 0).all())
        if are_areas:
            yield Detections(raster.grid, "polygon", geometry, score, label, names)
        else:
            xy = shapely.get_coordinates(shapely.centroid(geometry))
            sizes = _diameters_px(layer, raster.grid)
            yield Detections(raster.grid, "point", xy, score, label, names, sizes)


def _diameters_px(layer: Layer, grid: Grid) -> Floats | None:
    """Sizes of points in an output of ecodetect, NaN where unknown; None where it has no such column."""
    sizes, gsd = layer.columns.get("diameter_px"), grid.gsd_mean
    if gsd is not None and "diameter_m" in layer.columns:
        sizes = np.asarray(layer.columns["diameter_m"], np.float64) / gsd
    return None if sizes is None else np.asarray(sizes, np.float64)
