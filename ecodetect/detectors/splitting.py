"""Part touching objects where the region they make has a neck.

The distance to the background is a landscape whose summits are the middles of the parts; flooding from every
summit (watershed, Meyer 1992) gives basins, and basins that meet at a pass nearly as high as the lower summit are
one part. Unlike a smoothed distance or a minimal distance of summits this has no length in it: it treats
large and small objects alike.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from ecodetect.detectors.outlines import Regions


def split(regions: Regions, largest: float, neck: float) -> NDArray[np.int32]:
    """Labels of the parts, (H, W), numbered from 1 without gaps; each part is 4-connected.

    largest : regions wider than this, in pixels, are left whole (a tile may show only a piece of them).
    neck : two parts are apart where the pass between them is lower than this share of the lower summit.
    """
    width = regions.box[:, 2:] - regions.box[:, :2]
    is_whole = (width <= largest).all(axis=1)
    is_whole[0] = False
    inside = is_whole[regions.labels]
    # The chamfer distance is computed in whole numbers, so that it is the same wherever a region lies.
    height = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, 5)
    # Neighbours over a corner may belong to another region.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    is_summit = inside & (height >= cv2.dilate(height, cross))
    count, summits = cv2.connectedComponents(is_summit.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    basins = watershed(-height, summits, mask=inside, connectivity=1)
    peak = np.zeros(count, np.float32)
    peak[summits[is_summit]] = height[is_summit]
    part = _merged(basins, height, peak, neck)
    labels = np.where(is_whole[regions.labels], part[basins], regions.labels + count)
    labels[regions.labels == 0] = 0
    present = np.zeros(count + regions.number + 1, np.int32)
    present[labels.ravel()] = 1
    present[0] = 0
    numbers = np.cumsum(present, dtype=np.int32)
    return np.asarray(numbers[labels], np.int32)


def _merged(
    basins: NDArray[np.int32], height: NDArray[np.float32], peak: NDArray[np.float32], neck: float
) -> NDArray[np.int64]:
    """For each basin the number of the one it is merged into, (count,).

    peak : height of each basin's summit.
    """
    pairs, passes = [], []
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        a, b = basins[here], basins[there]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs.append(np.stack([np.minimum(a[meet], b[meet]), np.maximum(a[meet], b[meet])], axis=1))
        passes.append(np.minimum(height[here][meet], height[there][meet]))
    pair, level = np.concatenate(pairs), np.concatenate(passes)
    # The highest passes first; ties by the basins' numbers, whose order within a region doesn't depend on the tile.
    order = np.lexsort((pair[:, 1], pair[:, 0], -level))
    root = list(range(len(peak)))
    top = peak.tolist()

    def root_of(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = root[root[basin]]
            basin = root[basin]
        return basin

    for (a, b), at in zip(pair[order].tolist(), level[order].tolist(), strict=True):
        one, other = root_of(a), root_of(b)
        if one != other and at >= neck * min(top[one], top[other]):
            root[max(one, other)] = min(one, other)
            top[min(one, other)] = max(top[one], top[other])
    return np.array([root_of(basin) for basin in range(len(peak))], np.int64)
