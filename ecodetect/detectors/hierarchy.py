"""A hierarchy of regions: the most similar neighbours are merged greedily, up to a size.

The grouping of selective search (Uijlings et al. 2013, doi:10.1007/s11263-013-0620-5). The similarity of two
neighbours is the sum of four numbers in [0, 1]: colour and texture (intersection of their histograms), size
(small ones merge first) and fill (they leave no gap in the box around both). In the paper the last two are
shares of the picture; here they are shares of the largest square that a region may fill. So they don't depend
on the tiling, and regions that together would be wider than that square never merge.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.detectors.outlines import Outlines, regions_in, traced

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COLOURS = 25  # bins of each channel, as in the paper
DIRECTIONS = 8
# Bounds of gradient sizes, in 8-bit levels per pixel: below the first it is noise without a direction.
STEEP = (2.0, 6.0, 18.0)
_SMOOTH = 1.0  # standard deviation, in pixels, of the Gaussian derivatives, as in the paper
_CANVAS_PX = 2_000_000  # pixels of regions traced together


@dataclass(frozen=True, eq=False, slots=True)
class Hierarchy:
    """Segments and all regions merged from them, M in all; the segments come first.

    place : int32 (H, W), a number for each segment such that those of a region follow each other; -1 where
        there is none.
    first, last : int64 (M,): a region is where first <= place < last. Each is 4-connected.
    box : int64 (M, 4), xmin, ymin, xmax, ymax, half-open.
    """

    place: NDArray[np.int32]
    first: Ints
    last: Ints
    box: Ints

    def __len__(self) -> int:
        return len(self.first)

    def sums(self, image: NDArray[Any] | None = None) -> Floats:
        """Exact sum of whole numbers (H, W) over the pixels of each region, or the number of pixels; (M,)."""
        inside = self.place.ravel() >= 0
        weights = None if image is None else image.ravel()[inside]
        each = np.bincount(self.place.ravel()[inside], weights, minlength=int(self.last.max(initial=0)))
        total = np.append(0.0, np.cumsum(each, dtype=np.float64))
        return np.asarray(total[self.last] - total[self.first], np.float64)

    def polygons(self, regions: Ints, dx: int = 0, dy: int = 0) -> NDArray[np.object_]:
        """Outlines of some regions, which may overlap, moved by (dx, dy), gaps filled; (N,)."""
        found: list[NDArray[np.object_]] = [np.empty(0, dtype=object)]
        width, height = (self.box[regions, 2:] - self.box[regions, :2]).T
        # One below the other on a canvas, a free row between.
        below = np.cumsum(height + 1)
        batch = below * (int(width.max(initial=0)) + 2) // _CANVAS_PX
        for number in np.unique(batch):
            found.append(self._traced(regions[batch == number]).polygons(dx, dy))
        return np.concatenate(found)

    def _traced(self, regions: Ints) -> Outlines:
        """Outlines of some regions, traced on one canvas where they don't overlap."""
        box, first, last = self.box[regions], self.first[regions], self.last[regions]
        width, height = (box[:, 2:] - box[:, :2]).T
        top = np.cumsum(height + 1) - height
        canvas = np.zeros((int(top[-1] + height[-1]) + 1, int(width.max()) + 2), np.uint8)
        for (x0, y0, x1, y1), low, high, y in zip(
            box.tolist(), first.tolist(), last.tolist(), top.tolist(), strict=True
        ):
            place = self.place[y0:y1, x0:x1]
            canvas[y : y + y1 - y0, 1 : 1 + x1 - x0] = (place >= low) & (place < high)
        found = regions_in(canvas)
        outline = traced(found, np.ones(found.number + 1, np.bool_))
        sides = np.diff(np.append(outline.first, len(outline.y)))
        right, down = np.repeat(box[:, 0] - 1, sides), np.repeat(box[:, 1] - top, sides)
        return Outlines(
            outline.label, outline.first, outline.y + down, outline.begin + right, outline.end + right
        )


def grouped(labels: NDArray[np.int64], channels: Sequence[NDArray[np.float32]], largest: float) -> Hierarchy:
    """The hierarchy of segments.

    labels : (H, W), segments from 1 on, each 4-connected; 0 where there is none.
    channels : float32 (H, W) each, 0 to 255: the colours that are compared.
    largest : merged regions are never wider or higher than this, in pixels.
    """
    n = int(labels.max(initial=0))
    box = _boxes(labels, n)
    features = _features(labels, channels, n)
    size = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    tree = _merged(_neighbours(labels), features, size, box, largest)
    first, last = _places(tree, n)
    place = np.append(-1, first[:n])[labels].astype(np.int32)
    boxes = np.concatenate([box, np.empty((len(tree), 4), np.int64)])
    for k, (one, other) in enumerate(tree, n):
        boxes[k, :2] = np.minimum(boxes[one, :2], boxes[other, :2])
        boxes[k, 2:] = np.maximum(boxes[one, 2:], boxes[other, 2:])
    return Hierarchy(place, first, last, boxes)


def _boxes(labels: NDArray[np.int64], n: int) -> Ints:
    """Boxes of the labels 1 to n, (n, 4)."""
    box = np.empty((n, 4), np.int64)
    flat, width = labels.ravel(), labels.shape[1]
    inside = np.flatnonzero(flat)
    label = flat[inside] - 1
    y, x = np.divmod(inside, width)
    # The last assignment to an index wins; pixels come row by row.
    box[label[::-1], 1] = y[::-1]
    box[label, 3] = y + 1
    order = np.argsort(x, kind="stable")
    label, x = label[order], x[order]
    box[label[::-1], 0] = x[::-1]
    box[label, 2] = x + 1
    return box


def _neighbours(labels: NDArray[np.int64]) -> Ints:
    """Pairs of segments that share a pixel edge, sorted, the lower number first; (P, 2), from 0."""
    n = int(labels.max(initial=0)) + 1
    found = [np.empty(0, np.int64)]
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        meet = (one != other) & (one > 0) & (other > 0)
        a, b = one[meet].astype(np.int64), other[meet].astype(np.int64)
        found.append(np.minimum(a, b) * n + np.maximum(a, b))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // n, pairs % n], axis=1) - 1


def _features(labels: NDArray[np.int64], channels: Sequence[NDArray[np.float32]], n: int) -> Floats:
    """Histograms of colour and of texture of each segment, each of the two summing to 1; (n, D)."""
    flat = labels.ravel()
    parts = []
    for channel in channels:
        level = np.clip(channel * (COLOURS / 256), 0, COLOURS - 1).astype(np.int64)
        parts.append(_histograms(flat, level, n, COLOURS))
    for channel in channels:
        parts.append(_histograms(flat, _textures(channel), n, 1 + DIRECTIONS * len(STEEP)))
    features = np.concatenate(parts, axis=1)
    features /= np.bincount(flat, minlength=n + 1)[1:, None] * len(channels)
    return features


def _histograms(flat: NDArray[np.int64], level: NDArray[np.int64], n: int, bins: int) -> Floats:
    """Number of pixels of each segment at each level, (n, bins)."""
    counts = np.bincount(flat * bins + level.ravel(), minlength=(n + 1) * bins)
    return counts.reshape(n + 1, bins)[1:].astype(np.float64)


def _textures(channel: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each pixel's gradient: 0 where it is flat, else by direction and steepness."""
    smooth = cv2.GaussianBlur(channel, (0, 0), _SMOOTH)
    dx, dy = (
        cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    steep = np.searchsorted(np.asarray(STEEP, np.float32), np.hypot(dx, dy), "right")
    turn = np.floor(cv2.phase(dx, dy, angleInDegrees=True) * (DIRECTIONS / 360)).astype(np.int64) % DIRECTIONS
    return np.where(steep == 0, 0, 1 + (steep - 1) * DIRECTIONS + turn)


def _merged(pairs: Ints, features: Floats, size: Ints, box: Ints, largest: float) -> list[tuple[int, int]]:
    """The two regions that each merge joined, in order: the k-th merge makes region n + k."""
    n = len(size)
    histogram = np.concatenate([features, np.empty_like(features)])
    # Columns: size, box. As floats one row holds all that a similarity needs; whole numbers stay exact.
    shape = np.concatenate([np.column_stack([size, box]), np.empty((n, 5))]).astype(np.float64)
    whole = float(largest) ** 2

    def alike(one: Any, other: Ints) -> tuple[Floats, NDArray[np.bool_]]:
        """Similarity of regions, and whether they may merge; one or as many against many."""
        a, b = shape[one], shape[other]
        wide = np.maximum(a[..., 3], b[:, 3]) - np.minimum(a[..., 1], b[:, 1])
        high = np.maximum(a[..., 4], b[:, 4]) - np.minimum(a[..., 2], b[:, 2])
        shared = np.minimum(histogram[one], histogram[other]).sum(axis=1)
        # With `both` for the pixels of the two, size is 1 - both / whole and fill is
        # 1 - (wide * high - both) / whole: in their sum `both` falls out.
        return shared + (2 - wide * high / whole), np.maximum(wide, high) <= largest

    near: list[set[int]] = [set() for _ in range(n)]
    score, fits = alike(pairs[:, 0], pairs[:, 1])
    heap: list[tuple[float, int, int]] = []
    for value, (one, other) in zip(score[fits].tolist(), pairs[fits].tolist(), strict=True):
        near[one].add(other)
        near[other].add(one)
        heap.append((-value, one, other))
    heapq.heapify(heap)
    tree: list[tuple[int, int]] = []
    gone = [False] * (2 * n)
    while heap:
        _, one, other = heapq.heappop(heap)
        if gone[one] or gone[other]:
            continue
        new = n + len(tree)
        tree.append((one, other))
        gone[one] = gone[other] = True
        a, b = shape[one], shape[other]
        shape[new, 0] = a[0] + b[0]
        shape[new, 1:3] = np.minimum(a[1:3], b[1:3])
        shape[new, 3:] = np.maximum(a[3:], b[3:])
        histogram[new] = (histogram[one] * a[0] + histogram[other] * b[0]) / (a[0] + b[0])
        around = sorted((near[one] | near[other]) - {one, other})
        for each in around:
            near[each] -= {one, other}
        near.append(set())
        near[one] = near[other] = set()
        if around:
            score, fits = alike(new, np.array(around))
            for value, fit, each in zip(score.tolist(), fits.tolist(), around, strict=True):
                if fit:  # regions only grow: what doesn't fit now never will
                    near[each].add(new)
                    near[new].add(each)
                    heapq.heappush(heap, (-value, each, new))
    return tree


def _places(tree: list[tuple[int, int]], n: int) -> tuple[Ints, Ints]:
    """Numbers for the segments such that those of every region follow each other: first and last of each."""
    count = [1] * n
    for one, other in tree:
        count.append(count[one] + count[other])
    first = [-1] * len(count)
    free = 0
    for region in range(len(count) - 1, -1, -1):
        if first[region] < 0:
            first[region] = free
            free += count[region]
        if region >= n:
            one, other = tree[region - n]
            first[one], first[other] = first[region], first[region] + count[one]
    start = np.array(first, np.int64)
    return start, start + np.array(count, np.int64)
