"""Which cells become plots: strata, the number of plots in each, and the order of cells in each, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecodetect.estimation.ordering import ordered
from ecodetect.estimation.strata import shared, spread, stratified, turns

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Draw:
    """Cells drawn from a frame.

    names : of the strata, "0", "1", …; with polygons "NAME/0", …
    stratum : number of the stratum of each cell of the frame, (N,).
    plots : the cells drawn, (n,), in the order of the plots' numbers.
    """

    names: tuple[str, ...]
    stratum: Ints
    plots: Ints


def drawn(
    detections: ArrayLike,
    columns: ArrayLike,
    rows: ArrayLike,
    n: int,
    *,
    seed: int = 0,
    more: int = 0,
    sites: ArrayLike = (),
    polygons: ArrayLike | None = None,
    names: Sequence[str] = (),
) -> Draw:
    """Draw plots.

    detections, columns, rows : of each cell of the frame, (N,); columns and rows from any origin.
    n : plots; there are more where three in each stratum are more.
    more : plots on top of those; the first ones are the same as without them.
    sites : number of the raster of each cell, where there are several.
    polygons : number of the polygon of each cell, where each has strata of its own; names : of the polygons.
    """
    x = np.asarray(detections, np.float64)
    column, row = (np.asarray(each, np.int64) - np.min(each) for each in (columns, rows))
    # By place: the order in which cells come says nothing.
    place = np.lexsort((column, row, *([np.asarray(sites)] if len(np.asarray(sites)) else [])))
    polygon = np.zeros(len(x), np.int64) if polygons is None else np.asarray(polygons, np.int64)
    number = int(polygon.max()) + 1
    weight = np.zeros(len(x))
    for each in range(number):
        weight[polygon == each] = spread(x[polygon == each])
    own = shared(np.bincount(polygon, weight), np.bincount(polygon), n) if number > 1 else [n]
    stratum = np.zeros(len(x), np.int64)
    titles: list[str] = []
    groups: list[int] = []
    for each in range(number):
        cells = place[polygon[place] == each]
        found = stratified(x[cells], int(own[each]))
        stratum[cells] = found + len(titles)
        last = int(found.max()) + 1
        titles += [f"{names[each]}/{part}" if polygons is not None else str(part) for part in range(last)]
        groups += [each] * last
    sizes, sums = np.bincount(stratum), np.bincount(stratum, weight)
    by_polygon = None if polygons is None else groups
    first = len(turns(sizes, sums, n, by_polygon))
    turn = turns(sizes, sums, first + more, by_polygon)
    plots = np.zeros(len(turn), np.int64)
    site = np.asarray(sites, np.int64)
    for each, title in enumerate(titles):
        cells = place[stratum[place] == each]
        there = site[cells] if len(site) else ()
        order = ordered(column[cells], row[cells], seed=seed, name=title, sites=there)
        wanted = turn == each
        plots[wanted] = cells[order[: int(wanted.sum())]]
    return Draw(tuple(titles), stratum, plots)
