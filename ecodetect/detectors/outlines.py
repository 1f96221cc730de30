"""Outlines of labelled regions along pixel edges, and exact measures of them in whole numbers.

A region of 3 × 3 pixels has an outline of area 9, whose corners are corners of pixels. Gaps are filled:
ground enclosed by the region, in the sense of 4-connected steps, belongs to it. As regions are 4-connected
too, an outline never touches itself (otherwise a path around one of the two gaps at that point would link the
two pixels that meet there, and that gap would have been filled), so each outline is a valid polygon.

All regions are processed at once, on runs of pixels along the rows instead of pixels: few pixels of a tile
are ends of runs, and regions, outlines and sums depend only on the ends of runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Regions:
    """Regions of an image as runs of pixels along the rows, sorted by row, then column.

    shape : rows and columns of the image; the outermost ones are empty. Each region is 4-connected.
    number : highest label; labels are 1 and up.
    row, start, stop, label : int64 (R,), runs of columns start ≤ x < stop.
    box : int64 (number + 1, 4), xmin, ymin, xmax, ymax of each label, half-open.
    """

    shape: tuple[int, int]
    number: int
    row: Ints
    start: Ints
    stop: Ints
    label: Ints
    box: Ints

    def painted(self) -> NDArray[np.int32]:
        """The label of each pixel, 0 outside."""
        labels = np.zeros(self.shape, np.int32)
        length = self.stop - self.start
        first = self.row * self.shape[1] + self.start
        labels.ravel()[_ranges(first, length)] = np.repeat(self.label, length)
        return labels

    def pieces(self, box: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """The parts of runs in each of some boxes: numbers of the box and the run, start and stop.

        box : int64 (N, 4), half-open, inside the image.
        """
        width = self.shape[1]
        which = np.repeat(np.arange(len(box)), box[:, 3] - box[:, 1])
        line = _ranges(box[:, 1], box[:, 3] - box[:, 1]) * width
        first = np.searchsorted(self.row * width + self.stop, line + box[which, 0], "right")
        count = np.searchsorted(self.row * width + self.start, line + box[which, 2], "left") - first
        which, run = np.repeat(which, count), _ranges(first, count)
        start = np.maximum(self.start[run], box[which, 0])
        return which, run, start, np.minimum(self.stop[run], box[which, 2])


def _ranges(first: Ints, count: Ints) -> Ints:
    """first[0], first[0] + 1, … (count[0] of them), first[1], …"""
    before = np.cumsum(count) - count
    return np.asarray(np.repeat(first - before, count) + np.arange(int(count.sum())), np.int64)


def integral(image: NDArray[Any]) -> NDArray[Any]:
    """table[y, x] is the sum of image[:y, :x], exactly; for `between`.  image : uint8 or uint16."""
    # Both are exact; 32 bits are enough for 8-bit images of up to 8 Mpx, and take half the time.
    fits = image.dtype == np.uint8 and image.size < 2**31 // 255
    return np.asarray(cv2.integral(image, sdepth=cv2.CV_32S if fits else cv2.CV_64F))


def between(table: NDArray[Any], x0: Ints, y0: Ints, x1: Ints, y1: Ints) -> NDArray[Any]:
    """Sums over rectangles, half-open, from the integral of an image."""
    flat, width = table.ravel(), table.shape[1]
    top, bottom = y0 * width, y1 * width
    return np.asarray(flat[bottom + x1] - flat[top + x1] - flat[bottom + x0] + flat[top + x0])


def regions_in(mask: NDArray[np.uint8]) -> Regions:
    """The 4-connected regions of a mask (0 or 1; 0 in its outermost rows and columns), in reading order."""
    width = mask.shape[1]
    flat = mask.ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    first, last = change[0::2], change[1::2]  # the zeros at the end of a row follow every run
    # Runs of the next row that share a column with each.
    below = np.searchsorted(last, first + width, "right")
    count = np.searchsorted(first, last + width, "left") - below
    n = len(first)
    starts = np.append(0, np.cumsum(count)).astype(np.int32)
    touching = csr_array(
        (np.ones(starts[-1], np.int8), _ranges(below, count).astype(np.int32), starts), (n, n)
    )
    number, label = connected_components(touching, directed=False) if n else (0, np.empty(0))
    return _of_runs(mask.shape, first, last, label.astype(np.int64) + 1, number)


def regions_of(labels: NDArray[np.int32]) -> Regions:
    """The regions of a label image (0 outside, and in the outermost rows and columns), which may touch."""
    flat = labels.ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    value = flat[change]
    inside = np.flatnonzero(value)
    number = int(value.max()) if len(value) else 0
    return _of_runs(labels.shape, change[inside], change[inside + 1], value[inside].astype(np.int64), number)


def _of_runs(shape: tuple[int, ...], first: Ints, last: Ints, label: Ints, number: int) -> Regions:
    """first, last : of each run, half-open, in the flattened image."""
    rows, columns = shape
    row = first // columns
    start, stop = first - row * columns, last - row * columns
    box = np.zeros((number + 1, 4), np.int64)
    box[:, :2] = max(shape)
    np.minimum.at(box[:, 0], label, start)
    np.maximum.at(box[:, 2], label, stop)
    box[label[::-1], 1] = row[::-1]  # the last assignment to an index wins: the first row
    box[label, 3] = row + 1
    return Regions((rows, columns), number, row, start, stop, label, box)


@dataclass(frozen=True, eq=False, slots=True)
class Outlines:
    """Outer rings of regions, clockwise on a screen, by their horizontal sides.

    A vertical side leads from the end of each horizontal side to the start of the next.

    label : int64 (N,), the regions, ascending.
    first : int64 (N,), where each ring begins in the arrays of sides: in the topmost row, at the leftmost
        pixel.
    y, begin, end : int64 (S,), a side's row of corners and the columns between which it runs, in pixels of
        the image; the region is below it if begin < end, else above.
    """

    label: Ints
    first: Ints
    y: Ints
    begin: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Outlines:
        """The outlines of a boolean mask."""
        sides = np.repeat(chosen, self._lengths())
        first = np.append(0, np.cumsum(self._lengths()[chosen]))[:-1]
        return Outlines(self.label[chosen], first, self.y[sides], self.begin[sides], self.end[sides])

    def _lengths(self) -> Ints:
        """Horizontal sides of each ring, (N,)."""
        return np.diff(np.append(self.first, len(self.y)))

    def _sums(self, values: NDArray[Any]) -> Ints:
        """Sum over the sides of each ring, (N,)."""
        if not len(self):
            return np.empty(0, np.int64)
        return np.asarray(np.add.reduceat(values, self.first, dtype=np.int64))

    def _next_y(self) -> Ints:
        """The row that the vertical side after each horizontal one leads to, (S,)."""
        following = np.append(self.y[1:], 0)
        following[np.append(self.first[1:], len(self.y)) - 1] = self.y[self.first]
        return following

    def filled(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels lie inside an outline, in an image of this shape."""
        # Along a row, an outline begins at a left side, which leads up, and ends at a right one; nested
        # outlines add up.
        steps = np.zeros(shape, np.int16)
        if len(self):
            to = self._next_y()
            count = np.abs(self.y - to)
            rows, columns = _ranges(np.minimum(self.y, to), count), np.repeat(self.end, count)
            np.add.at(steps, (rows, columns), np.repeat(np.where(to < self.y, 1, -1), count).astype(np.int16))
        return np.cumsum(steps, axis=1, out=steps) > 0

    def areas(self) -> Ints:
        """Pixels inside each outline, filled gaps included."""
        return self._sums(self.y * (self.begin - self.end))

    def perimeters(self) -> Floats:
        """Length of each outline in pixels, with pixel corners cut: 5 % too long for a large disc."""
        if not len(self):
            return np.empty(0)
        turns = 2 * self._lengths()
        edges = self._sums(np.abs(self.begin - self.end) + np.abs(self.y - self._next_y()))
        return np.asarray((edges - turns) + turns * 0.5**0.5, np.float64)

    def hull_areas(self) -> Floats:
        """Area of the convex hull of each outline, in pixels."""
        return np.asarray(shapely.area(shapely.convex_hull(self.polygons())), np.float64)

    def elongations(self) -> Floats:
        """Ratio of the longer to the shorter axis of the ellipse with each outline's second moments, ≥ 1."""
        # Moments of the pixels' centres, doubled and about the ring's first corner so that they are small
        # whole numbers: of the rectangle from that corner's row down to a bottom side, minus one down to a
        # top side. The doubled centres 1, 3, …, 2n - 1 sum to n², their squares to n (4n² - 1) / 3.
        lengths = self._lengths()
        p = self.begin - np.repeat(self.begin[self.first], lengths)
        q = self.end - np.repeat(self.begin[self.first], lengths)
        h = self.y - np.repeat(self.y[self.first], lengths)
        u1, v1 = p * p - q * q, h * h
        u2, v2 = p * (4 * p * p - 1) // 3 - q * (4 * q * q - 1) // 3, h * (4 * h * h - 1) // 3
        n = self._sums(h * (p - q)).astype(np.float64)
        mx, my = self._sums(h * u1) / n, self._sums(v1 * (p - q)) / n
        xx = self._sums(h * u2) / n - mx * mx + 1 / 3  # + the extent of a pixel itself
        yy = self._sums(v2 * (p - q)) / n - my * my + 1 / 3
        xy = self._sums(v1 * u1) / n - mx * my
        half, spread = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
        return np.asarray(np.sqrt((half + spread) / (half - spread)), np.float64)

    def polygons(self, dx: int = 0, dy: int = 0) -> NDArray[np.object_]:
        """shapely polygons, (N,), moved by (dx, dy); without corners on straight sides."""
        if not len(self):
            return np.empty(0, dtype=object)
        xy = np.empty((len(self.y), 2, 2))
        xy[:, 0, 0], xy[:, 1, 0] = self.begin + dx, self.end + dx
        xy[:, :, 1] = (self.y + dy)[:, None]
        ring = np.repeat(np.arange(len(self)), 2 * self._lengths())
        return np.asarray(
            shapely.polygons(shapely.linearrings(xy.reshape(-1, 2), indices=ring)), dtype=object
        )


def traced(regions: Regions, wanted: NDArray[np.bool_]) -> Outlines:
    """Outer rings of the wanted regions.

    wanted : bool (number + 1,), by label; that of label 0 is ignored.
    """
    found = np.flatnonzero(wanted[1:] & (regions.box[1:, 2] > regions.box[1:, 0])) + 1
    if not len(found):
        none = np.empty(0, np.int64)
        return Outlines(none, none, none, none, none)
    height, width = regions.shape
    region, line, x, is_start, is_top = _corners(regions, found)
    # Sorted by region, line and column: each two make a horizontal side. A side begins at the corner that a
    # vertical one leads to: down from the top of a right side, up from the bottom of a left one.
    begin = np.arange(0, len(x), 2) + (is_start[0::2] != is_top[0::2])
    end = begin ^ 1
    # And sorted by region, column and line, left sides apart from right ones, each two make a vertical side.
    order = np.argsort(((region * width + x) * 2 + is_start) * (height + 1) + line)
    opposite = np.empty(len(x), np.int64)
    opposite[order[0::2]], opposite[order[1::2]] = order[1::2], order[0::2]
    follower = opposite[end] >> 1

    # One chain through all outer rings: where a ring would close, continue with the next one.
    start = np.searchsorted(region, np.arange(len(found))) >> 1  # a region's first corner is its ring's
    successor = np.arange(len(follower))
    successor[start] = np.append(start[1:], start[-1])
    is_first = np.zeros(len(follower), np.bool_)
    is_first[start] = True
    closing = np.flatnonzero(is_first[follower])
    follower[closing] = successor[follower[closing]]
    chain = _walk(follower.astype(np.int32), int(start[0]))
    begin, end = begin[chain], end[chain]
    return Outlines(found, np.flatnonzero(is_first[chain]), line[begin], x[begin], x[end])


def _corners(regions: Regions, found: Ints) -> tuple[Ints, Ints, Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Corners of the outlines of the regions with these labels, gaps included: (V,) each.

    Returns the region's place in `found`, row and column of the corner, whether it ends a left side (else a
    right one), and whether at the top of it; sorted by place, row and column. Where two pixels meet at a
    corner only, that of the left side comes first, and so ends the horizontal side from the left: the outline
    goes on to the other pixel, and what can be left over a corner only is cut off, as a gap.
    """
    height, width = regions.shape
    place = np.full(regions.number + 1, -1)
    place[found] = np.arange(len(found))
    region = place[regions.label]
    runs = np.flatnonzero(region >= 0)
    line = region[runs] * (height + 1) + regions.row[runs]
    left = (line * width + regions.start[runs]) * 4
    right = (line * width + regions.stop[runs]) * 4 + 2
    down = width * 4
    corner = np.concatenate([left + 1, left + down, right + 1, right + down])
    corner.sort()
    # The bottom of a side and the top of another at one place: the side goes on.
    goes_on = np.flatnonzero((corner[1:] ^ corner[:-1]) == 1)
    is_end = np.ones(len(corner), np.bool_)
    is_end[goes_on] = is_end[goes_on + 1] = False
    corner = corner[is_end]
    line = (corner >> 2) // width
    region = line // (height + 1)
    x = (corner >> 2) - line * width
    return region, line - region * (height + 1), x, (corner & 2) == 0, (corner & 1) > 0


def _walk(follower: NDArray[np.int32], start: int) -> NDArray[np.int32]:
    """The indices met by going from each to its follower; the last one follows itself."""
    n = len(follower)
    chain = csr_array((np.ones(n), follower, np.arange(n + 1, dtype=np.int32)), shape=(n, n))
    # The breadth-first order of a chain is the chain, found in compiled code.
    return np.asarray(breadth_first_order(chain, start, return_predecessors=False), np.int32)
