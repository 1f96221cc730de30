"""Whether an outline crosses itself too often to be repaired: thousands of crossings take GEOS minutes."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

# Outlines that are meant cross themselves a few times; 600 crossings take 0.2 s, 10,000 half a minute.
MOST_CROSSINGS = 500
_PAIRS_PER_SEGMENT = 64  # segments whose boxes meet; also the least that is looked at is bounded
_STEP = 64  # segments looked at before the next count


def is_tangled(shape: Any) -> bool:
    """Whether the rings of a polygon cross themselves, or each other, more than `MOST_CROSSINGS` times.

    Where they touch in a corner of both they don't cross.
    """
    start, stop = _segments(shape)
    if len(start) ** 2 <= MOST_CROSSINGS:
        return False
    lines = shapely.linestrings(np.stack([start, stop], axis=1))
    tree = shapely.STRtree(lines)
    most_pairs = _PAIRS_PER_SEGMENT * len(lines) + 100 * MOST_CROSSINGS
    crossings = pairs = 0
    for first in range(0, len(lines), _STEP):
        one, other = tree.query(lines[first : first + _STEP])
        one = one + first
        one, other = one[one < other], other[one < other]
        pairs += len(one)
        shared = [(a[one] == b[other]).all(axis=1) for a in (start, stop) for b in (start, stop)]
        is_apart = ~np.any(shared, axis=0)
        crossings += int(np.count_nonzero(shapely.intersects(lines[one[is_apart]], lines[other[is_apart]])))
        if crossings > MOST_CROSSINGS or pairs > most_pairs:
            return True
    return False


def _segments(shape: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Beginnings and ends (N, 2) of the segments of all rings."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    inside = ring[1:] == ring[:-1]
    return xy[:-1][inside], xy[1:][inside]
