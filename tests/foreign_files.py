"""What commands do with a file that somebody else made, without the rest: for what tests and fuzzes readers.

Each function takes a file, reads all that a command would read of it, and raises UserError where it is
refused. Any other exception is a fault.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecodetect.formats import files as formats
from ecodetect.grid import Grid, Window
from ecodetect.layer import Layer
from ecodetect.raster.reading import open_raster

SIDE_PX = 64  # of the windows read of a large raster


def read_raster(path: Path | str) -> None:
    """Open a raster, and read its notes, its fingerprint, and pixels at its corners and on a coarser grid."""
    with open_raster(path) as raster:
        grid, bands = raster.grid, raster.bands[:4]
        str(raster.notes)
        str(raster.fingerprint)
        str(raster.reading(bands))
        ends = (min(0, grid.width), max(0, grid.width - SIDE_PX)), (0, max(0, grid.height - SIDE_PX))
        for x, y in {(0, 0), (ends[0][1], ends[1][1])}:
            chip = raster.read(Window(x, y, min(SIDE_PX, grid.width), min(SIDE_PX, grid.height)), bands)
            assert chip.pixels.shape[0] == len(bands)
        if min(grid.width, grid.height) >= 8:
            coarser = grid.reduced(2.0)
            raster.read(Window(0, 0, min(32, coarser.width), min(32, coarser.height)), bands[:1], coarser)


def read_layer(path: Path, grid: Grid | None, image: str | None) -> Layer:
    """Read features, with what is asked of them everywhere."""
    layer = formats.read(path, grid=grid, image=image)
    assert isinstance(layer, Layer)
    assert len(layer.geometry) == len(layer)
    for values in layer.columns.values():
        assert len(np.asarray(values)) == len(layer)
    return layer
