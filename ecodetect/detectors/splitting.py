"""Splits touching objects where their common region has a neck.

The distance to the background is a landscape whose summits are the middles of the parts. Every pixel belongs
to the summit that steepest ascent leads to (a watershed of the inverted landscape), and summits whose saddle
is nearly as high as the lower summit are one part. Unlike a smoothed distance or a minimum distance between
summits, this has no length scale: it treats large and small objects the same way.

Nothing here depends on where a region lies: distances are whole numbers inside OpenCV, and the first of equal
neighbours in reading order counts as the higher one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.detectors.outlines import Regions, traced


def split(regions: Regions, largest: float, neck: float) -> NDArray[np.int32]:
    """Labels of the parts, (H, W), numbered from 1; each part is 4-connected.

    Gaps are filled first and become part of the region: a bright leaf isn't a neck.

    largest : regions wider than this, in pixels, are left as they are (a tile may show only a piece of them).
    neck : two parts are split where the saddle between them is lower than this share of the lower summit.
    """
    width = regions.shape[1]
    wide, high = (regions.box[:, 2:] - regions.box[:, :2]).T
    inside = traced(regions, np.maximum(wide, high) <= largest).filled(regions.shape)
    distance = np.asarray(cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, 5), np.float32).ravel()
    pixel = np.flatnonzero(inside)
    compact = np.zeros(inside.size, np.int32)  # number among `pixel` of each pixel of the array
    compact[pixel] = np.arange(len(pixel))

    # In reading order, so that the first of equals is taken; the frame of zeros keeps all indices in the
    # array.
    around = np.array([-width, -1, 0, 1, width])
    steepest = np.argmax(np.stack([distance[pixel + step] for step in around]), axis=0)
    summit = compact[pixel + around[steepest]]
    while not np.array_equal(further := summit[summit], summit):
        summit = further
    summits, basin = np.unique(summit, return_inverse=True)

    part = _merged(basin, distance[pixel], compact, pixel, inside, distance[pixel[summits]], neck)
    labels = np.where(inside, 0, regions.painted())
    labels.ravel()[pixel] = regions.number + 1 + part[basin]
    return labels


def _merged(
    basin: NDArray[np.intp],
    height: NDArray[np.float32],
    compact: NDArray[np.int32],
    pixel: NDArray[np.intp],
    inside: NDArray[np.bool_],
    top: NDArray[np.float32],
    neck: float,
) -> NDArray[np.int64]:
    """For each basin the number of the basin it is merged into.

    basin, height : of each pixel inside.  top : height of each basin's summit.
    """
    first, second, passes = [], [], []
    for step in (1, inside.shape[1]):
        here = np.flatnonzero(inside.ravel()[pixel + step])
        there = compact[pixel[here] + step]
        meet = basin[here] != basin[there]
        here, there = here[meet], there[meet]
        first.append(np.minimum(basin[here], basin[there]))
        second.append(np.maximum(basin[here], basin[there]))
        passes.append(np.minimum(height[here], height[there]))
    a, b, level = (np.concatenate(parts) for parts in (first, second, passes))
    # The highest passes first; ties by the basins' numbers, which are in reading order of the summits.
    order = np.lexsort((b, a, -level))
    a, b, level = a[order], b[order], level[order]
    _, highest = np.unique(a * np.int64(len(top)) + b, return_index=True)
    highest.sort()

    root, peak = list(range(len(top))), top.tolist()

    def root_of(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for one, other, at in zip(a[highest].tolist(), b[highest].tolist(), level[highest].tolist(), strict=True):
        low, high = sorted((root_of(one), root_of(other)))
        if low != high and at >= neck * min(peak[low], peak[high]):
            root[high] = low
            peak[low] = max(peak[low], peak[high])
    return np.array([root_of(one) for one in range(len(top))], np.int64)
