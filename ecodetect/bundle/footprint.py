"""Where on the Earth a model was trained, as coarsely as a field site must stay private."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.errors import GridError
from ecodetect.grid import WGS84, Floats, Grid, transformed

CELL_DEG = 0.01  # about 1.1 km north to south
_LATTICE = 33  # positions across a raster that are looked up

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

    trained_on : `Card.trained_on`; its entries may have `places`: cells, or extents (west, south, east,
        north) where a card has exact ones. What is neither is passed over.
    """
    named = _named(trained_on)
    found = np.zeros(len(lonlat), np.bool_)
    known = np.isfinite(lonlat).all(axis=1)
    if not len(named) or not known.any():
        return found
    around = (named[:, None, :] + np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(1, 9, 2)).reshape(
        -1, 2
    )
    here = np.floor(lonlat[known] / CELL_DEG + 1e-9).astype(np.int64)
    found[known] = np.isin(_number(here), _number(around))
    return found


def cells_on(trained_on: Sequence[Any], grid: Grid) -> tuple[Cell, ...]:
    """The cells a card names that this raster meets: what its layer may say, for it says no other place."""
    named = _named(trained_on)
    if not len(named) or not grid.has_lonlat:
        return ()
    across = np.linspace(0.0, grid.width, _LATTICE), np.linspace(0.0, grid.height, _LATTICE)
    lonlat = grid.to_lonlat(np.stack(np.meshgrid(*across), -1).reshape(-1, 2))
    lonlat = lonlat[np.isfinite(lonlat).all(axis=1)]
    here = _number(np.floor(lonlat / CELL_DEG + 1e-9).astype(np.int64))
    try:
        xy = grid.to_pixel(transformed((named + 0.5).astype(np.float64) * CELL_DEG, WGS84, grid.crs or WGS84))
    except GridError:
        xy = np.full((len(named), 2), np.nan)
    inside = ((xy >= 0) & (xy <= (grid.width, grid.height))).all(axis=1)
    return tuple((x / 100, y / 100) for x, y in named[inside | np.isin(_number(named), here)].tolist())


def _named(trained_on: Sequence[Any]) -> NDArray[np.int64]:
    """Column and row of each cell that the entries name, (N, 2), sorted."""
    found = [np.empty((0, 2), np.int64)]
    for entry in trained_on:
        places = entry.get("places", ()) if isinstance(entry, Mapping) else ()
        for place in places if isinstance(places, Sequence) and not isinstance(places, str) else ():
            if not isinstance(place, Sequence) or not all(isinstance(value, int | float) for value in place):
                continue
            if len(place) == 2:
                found.append(np.floor(np.array([place]) / CELL_DEG + 0.5).astype(np.int64))
            elif len(place) == 4 and place[0] <= place[2] <= place[0] + 10 and place[1] <= place[3]:
                low, high = (np.floor(np.array(end) / CELL_DEG + 1e-9).astype(int) for end in
                             (place[:2], place[2:]))  # fmt: skip
                sides = np.arange(low[0], high[0] + 1), np.arange(low[1], min(high[1], low[1] + 1000) + 1)
                found.append(np.stack(np.meshgrid(*sides), -1).reshape(-1, 2))
    return np.unique(np.concatenate(found), axis=0)


def _number(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each cell; the same beyond 180° of longitude."""
    return (cells[:, 0] % 36_000) * 100_000 + cells[:, 1]
