"""Turns a map of scores, one per window, into boxes, one per individual.

There are two ways. `regions`: each summit of the map with the ground around it down to half its height;
summits with hardly a dip between them are one. `peaks`: each local maximum, with a box of fixed size. Neither
depends on a threshold, which is applied to the scores afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecodetect.detectors import peaks as summits
from ecodetect.grid import Floats

Map = NDArray[np.float32]

LEAST_SCORE = 0.05  # lower cells belong to no individual
_NECK = 0.85  # two summits are one if the saddle between them is at least this share of the lower one
_HALF = 0.5  # of the summit's height: cells down to it belong to the individual
_SMOOTH = 0.7  # cells; ripples between neighbouring windows are noise


def load() -> None:
    """Import what `regions` needs, about 100 MB, before memory is planned."""
    from scipy import ndimage  # noqa: F401
    from skimage import morphology, segmentation  # noqa: F401


def regions(score: Map) -> tuple[Floats, Floats]:
    """Boxes of the regions that stand out in a map.

    score : (h, w) in [0, 1].
    Returns boxes float64 (n, 4) in cells (continuous, the first cell's outer corner 0, 0) and their scores
    (n,), the mean of the map over their cells. Edges lie between cells, where the map crosses half height.
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
    """The box of a region, with edges where the map crosses `half` towards the neighbouring cells."""
    rows, columns = place
    left = columns.start + _missing(heat[rows], columns.start, -1, half)
    right = columns.stop - _missing(heat[rows], columns.stop - 1, 1, half)
    across = heat[:, columns].T
    top = rows.start + _missing(across, rows.start, -1, half)
    bottom = rows.stop - _missing(across, rows.stop - 1, 1, half)
    return np.array([left, top, right, bottom])


def _missing(lines: Map, last: int, step: int, half: float) -> float:
    """How far the crossing of half height lies beyond the outermost cell's middle, from -0.5 to 0.5.

    lines : (n, w), the rows of the region.  last : its outermost column.  step : the direction outwards.
    """
    here = float(lines[:, last].max())
    beside = last + step
    if not 0 <= beside < lines.shape[1]:
        return 0.0
    there = float(lines[lines[:, last].argmax(), beside])
    if there >= half or here <= there:  # the region of another individual begins
        return 0.0
    return 0.5 - (here - half) / (here - there)


def peaks(score: Map, radius: int) -> tuple[Floats, Floats]:
    """Local maxima within `radius` cells: places (n, 2) in cells, and their scores (n,)."""
    heat = summits.smooth(score, _SMOOTH)
    rows, columns = summits.find(heat, radius)
    xy = summits.refine(heat, rows, columns)
    return xy, np.asarray(np.clip(heat[rows, columns], 0.0, 1.0), np.float64)
