"""Individuals that a file holds twice: layers pasted into each other, one plant drawn by two people.

Two annotations are the same individual if they have the same class and their centres are no farther apart
than a fifth of the smaller one's own size; without a size only where they are equal. Sorted by size, each
counts unless it is the same as one that counts already: so a chain of neighbours doesn't become one, and the
order of the rows doesn't matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats

SHARE = 0.2  # of the smaller one's size
_SAME_PX = 1e-6  # positions that differ by rounding only
_AROUND = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]


def repeated(xy: Floats, size_px: Floats, label: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which rows are an individual that another row is already, (N,).

    xy : float64 (N, 2), centres in pixels.
    size_px : float64 (N,), width of each; NaN where unknown.
    label : (N,), classes; only equal ones are compared.
    Takes time in proportion to N: only what lies in neighbouring cells, as wide as the distance, is compared.
    """
    found = np.zeros(len(xy), np.bool_)
    numbers: dict[str, int] = {}
    code = np.array([numbers.setdefault(str(name), len(numbers)) for name in label.tolist()], np.int64)
    limit = np.nan_to_num(size_px) * SHARE
    # Equal ones one after another, the largest first.
    exact = np.round(xy / _SAME_PX)
    order = np.lexsort((-limit, exact[:, 1], exact[:, 0], code))
    order = order[np.isfinite(xy[order]).all(axis=1)]
    place, last = exact[order], code[order]
    found[order[1:]] = (place[1:] == place[:-1]).all(axis=1) & (last[1:] == last[:-1])
    rows = np.flatnonzero(~found & (limit > 0) & np.isfinite(xy).all(axis=1))
    rows = rows[np.lexsort((xy[rows, 1], xy[rows, 0], -limit[rows]))]
    found[rows] = _near_a_larger(xy[rows], limit[rows], code[rows])
    return found


def _near_a_larger(xy: Floats, limit: Floats, code: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows, sorted from large to small, lie within their limit of one of their class that counts."""
    octave = np.ceil(np.log2(limit)).astype(np.int64)  # cells of 2**octave are at least the limit wide
    dropped = np.zeros(len(xy), np.bool_)
    for level in np.unique(octave)[::-1].tolist():
        rows = np.flatnonzero((octave >= level) & ~dropped)
        cell = np.floor(xy[rows] / 2.0**level).astype(np.int64)
        at = _key(cell, code[rows])
        by_place = np.argsort(at, kind="stable")  # neighbours in memory too: that is what takes time
        rows, cell, at = rows[by_place], cell[by_place], at[by_place]
        around = np.stack([_key(cell + step, code[rows]) for step in _AROUND], axis=1)
        company = sum(
            np.searchsorted(at, keys, side="right") - np.searchsorted(at, keys) for keys in around.T
        )
        is_asking = (octave[rows] == level) & (company > 1)  # itself, and another
        is_near = np.isin(at, around[is_asking])
        first = np.argsort(rows[is_near])  # from large to small again
        _settle(
            rows[is_near][first], at[is_near][first], around[is_near][first], is_asking[is_near][first],
            dropped, xy, limit, code,
        )  # fmt: skip
    return dropped


def _settle(
    rows: NDArray[np.int64],
    at: NDArray[np.int64],
    around: NDArray[np.int64],
    is_asking: NDArray[np.bool_],
    dropped: NDArray[np.bool_],
    xy: Floats,
    limit: Floats,
    code: NDArray[np.int64],
) -> None:
    """Set `dropped` for the rows of one level that are the same as one before them that counts.

    at, around : (R,) and (R, 9), keys of the rows' cells and of the cells around.
    is_asking : (R,), of this level; larger ones are settled.
    """
    kept: dict[int, list[tuple[int, float, float]]] = {}
    for row, own, keys, asks, (x, y), most, number in zip(
        rows.tolist(), at.tolist(), around.tolist(), is_asking.tolist(), xy[rows].tolist(),
        (limit[rows] ** 2).tolist(), code[rows].tolist(), strict=True,
    ):  # fmt: skip
        if asks and any(
            other == number and (there - x) ** 2 + (down - y) ** 2 <= most
            for key in keys
            for other, there, down in kept.get(key, ())
        ):
            dropped[row] = True
        else:
            kept.setdefault(own, []).append((number, x, y))


def _key(cell: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each cell and class, row by row; far cells may share one, so distances are compared."""
    low = np.int64(2**25 - 1)
    return np.asarray(((code & 0x1FFF) << 50) | ((cell[:, 1] & low) << 25) | (cell[:, 0] & low))
