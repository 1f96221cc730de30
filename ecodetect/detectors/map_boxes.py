"""From a map of scores, one for each window, to boxes: one an individual.

Two ways. `regions`: each summit of the map with the ground around it that is half as high or higher; summits
between which the map hardly falls are one. `peaks`: each cell that is the highest around, with a box of one
size. Neither depends on a threshold, which is a cut of the scores afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecodetect.detectors import peaks as summits
from ecodetect.grid import Floats

Map = NDArray[np.float32]

LEAST_SCORE = 0.05  # ground below it belongs to nothing
_NECK = 0.85  # two summits are one where the pass between them is no lower than this share of the lower one
_HALF = 0.5  # of the summit's height: down to it cells belong to its individual
_SMOOTH = 0.7  # cells; ripples between neighbouring windows mean nothing


def load() -> None:
    """Import what `regions` needs, some 100 MB, before memory is planned."""
    from scipy import ndimage  # noqa: F401
    from skimage import morphology, segmentation  # noqa: F401


def regions(score: Map) -> tuple[Floats, Floats]:
    """Boxes of what stands out in a map.

    score : (h, w) in [0, 1].
    Returns boxes float64 (n, 4) in cells (continuous, the first cell's outer corner 0, 0) and their scores
    (n,), the mean of the map over their cells. Edges lie between cells, where the map passes the half.
    """
    from scipy import ndimage
    from skimage import morphology, segmentation

    none = np.empty((0, 4)), np.empty(0)
    if min(score.shape) < 2 or float(score.max(initial=0.0)) < LEAST_SCORE:
        return none
    heat = summits.smooth(score, _SMOOTH)
    flat: Map = morphology.reconstruction(heat * np.float32(_NECK), heat)  # type: ignore[no-untyped-call]
    is_top: NDArray[np.bool_] = morphology.local_maxima(flat, allow_borders=True)  # type: ignore[no-untyped-call]
    tops, count = ndimage.label(is_top & (heat >= LEAST_SCORE))
    if not count:
        return none
    ground = heat >= LEAST_SCORE * _HALF
    basin = segmentation.watershed(-heat, tops, mask=ground)  # type: ignore[no-untyped-call]
    number = np.arange(1, count + 1)
    summit = np.asarray(ndimage.maximum(heat, basin, number), np.float32)
    half = np.concatenate([[np.inf], _HALF * summit])
    inside = np.where((heat >= half[basin]) & (basin > 0), basin, 0)
    boxes, scores = [], []
    for label, place in enumerate(ndimage.find_objects(inside, count), 1):
        if place is None:
            continue
        is_mine = inside[place] == label
        boxes.append(_box(heat, basin == 0, place, float(half[label])))
        scores.append(float(score[place][is_mine].mean(dtype=np.float64)))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64)


def _box(heat: Map, blank: NDArray[np.bool_], place: tuple[slice, slice], half: float) -> Floats:
    """The box of a region, its edges where the map passes `half` on the way to the cells beside."""
    rows, columns = place
    left = columns.start + _missing(heat[rows], columns.start, -1, half)
    right = columns.stop - _missing(heat[rows], columns.stop - 1, 1, half)
    across = heat[:, columns].T
    top = rows.start + _missing(across, rows.start, -1, half)
    bottom = rows.stop - _missing(across, rows.stop - 1, 1, half)
    return np.array([left, top, right, bottom])


def _missing(lines: Map, last: int, step: int, half: float) -> float:
    """How much of the outermost cell lies beyond the half, from -0.5 to 0.5.

    lines : (n, w), the rows of the region.  last : its outermost column.  step : which way is out.
    """
    here = float(lines[:, last].max())
    beside = last + step
    if not 0 <= beside < lines.shape[1]:
        return 0.0
    there = float(lines[lines[:, last].argmax(), beside])
    if there >= half or here <= there:  # another individual's ground begins
        return 0.0
    return 0.5 - (here - half) / (here - there)


def peaks(score: Map, radius: int) -> tuple[Floats, Floats]:
    """Cells that are the highest within `radius` cells: places (n, 2) in cells, and their scores (n,)."""
    heat = summits.smooth(score, _SMOOTH)
    rows, columns = summits.find(heat, radius)
    xy = summits.refine(heat, rows, columns)
    return xy, np.asarray(np.clip(heat[rows, columns], 0.0, 1.0), np.float64)
