"""Where on the Earth a model was trained, as coarsely as a field site must stay private."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats

CELL_DEG = 0.01  # about 1.1 km north to south

Cell = tuple[float, float]  # longitude and latitude of the south-western corner, degrees


def cells(lonlat: Floats) -> tuple[Cell, ...]:
    """The cells of 0.01 degrees that hold positions (N, 2) in degrees, sorted; NaN is left out."""
    known = lonlat[np.isfinite(lonlat).all(axis=1)]
    if not len(known):
        return ()
    # Whole hundredths, so that a cell is written the same way wherever it comes from.
    hundredths = np.unique(np.floor(known / CELL_DEG + 1e-9).astype(np.int64), axis=0)
    return tuple((x / 100, y / 100) for x, y in hundredths.tolist())


def known_there(trained_on: Sequence[Any], lonlat: Floats) -> NDArray[np.bool_]:
    """Which positions (N, 2) lie in cells that a card names, or next to one.

    trained_on : `Card.trained_on`; its entries may have `places`, a sequence of cells.
    """
    named = {
        (math.floor(cell[0] / CELL_DEG + 0.5), math.floor(cell[1] / CELL_DEG + 0.5))
        for entry in trained_on
        for cell in entry.get("places", ())
    }
    found = np.zeros(len(lonlat), np.bool_)
    for row, (x, y) in enumerate(lonlat):
        if math.isfinite(x) and math.isfinite(y):
            column, line = math.floor(x / CELL_DEG + 1e-9), math.floor(y / CELL_DEG + 1e-9)
            found[row] = any((column + dx, line + dy) in named for dx in (-1, 0, 1) for dy in (-1, 0, 1))
    return found
