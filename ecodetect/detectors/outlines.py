"""Outlines of labelled regions along the edges of their pixels, and measures of them in whole numbers.

A region of 3 × 3 pixels has an outline of area 9, with its corners on the corners of pixels. Gaps are filled:
what can't be left by steps to one of the four neighbours belongs to the region. As regions are connected
through the same four neighbours, an outline never touches itself (were it to, the two pixels that meet at the
point would be linked by a path around one of the two gaps there, and that gap would have been filled), so
each is a valid polygon.

All is done for all regions at once: each unit edge between a region and another or none points clockwise,
finds its successor, and a chain through all outer rings is read off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
EAST, SOUTH, WEST, NORTH = range(4)


@dataclass(frozen=True, eq=False, slots=True)
class Regions:
    """Labelled regions as runs of pixels along the rows, sorted by row, then column.

    labels : int32 (H, W), 0 outside; the outermost rows and columns are 0. Each region is 4-connected.
    pattern : (H, W), differs between neighbours exactly where `labels` do: a mask (quick to compare) where
        regions don't touch, else `labels` itself.
    number : highest label.
    row, start, stop, label : int64 (R,), runs of columns start ≤ x < stop.
    box : int64 (number + 1, 4), xmin, ymin, xmax, ymax of each label, half-open.
    """

    labels: NDArray[np.int32]
    pattern: NDArray[Any]
    number: int
    row: Ints
    start: Ints
    stop: Ints
    label: Ints
    box: Ints

    def _summed(self, per_run: NDArray[Any], label: Ints) -> Floats:
        """Sum of a whole number per run over each of the labels; exact below 2^53."""
        return np.asarray(
            np.bincount(self.label, weights=per_run, minlength=self.number + 1)[label], np.float64
        )

    def pixels(self, label: Ints) -> Floats:
        """Number of pixels of each of the labels."""
        return self._summed(self.stop - self.start, label)

    def sums(self, image: NDArray[Any], label: Ints) -> Floats:
        """Sum of the image's whole numbers over the pixels of each of the labels.

        image : uint8 or uint16, without the rows and columns of zeros around `labels`.
        """
        table = integral(image)
        y, x0, x1 = self.row, self.start - 1, self.stop - 1
        return self._summed(between(table, x0, y - 1, x1, y), label)


def integral(image: NDArray[Any]) -> NDArray[Any]:
    """table[y, x] is the sum of image[:y, :x], exactly; for `between`.  image : uint8 or uint16."""
    # Whole numbers either way; 32 bits are enough for 8-bit images of up to 8 Mpx, and take half the time.
    fits = image.dtype == np.uint8 and image.size < 2**31 // 255
    return np.asarray(cv2.integral(image, sdepth=cv2.CV_32S if fits else cv2.CV_64F))


def between(table: NDArray[Any], x0: Ints, y0: Ints, x1: Ints, y1: Ints) -> NDArray[Any]:
    """Sums over rectangles, half-open, from the integral of an image."""
    flat, width = table.ravel(), table.shape[1]
    top, bottom = y0 * width, y1 * width
    return np.asarray(flat[bottom + x1] - flat[top + x1] - flat[bottom + x0] + flat[top + x0])


def regions_of(labels: NDArray[np.int32], number: int, pattern: NDArray[Any]) -> Regions:
    """The runs and boxes of a label image whose outermost rows and columns are 0; see `Regions`."""
    flat = pattern.ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    value = labels.ravel()[change]
    inside = np.flatnonzero(value)
    first, label = change[inside], value[inside].astype(np.int64)
    last = change[inside + 1]  # the zeros at the end of a row follow every run
    row = first // labels.shape[1]
    start, stop = first - row * labels.shape[1], last - row * labels.shape[1]
    box = np.zeros((number + 1, 4), np.int64)
    box[:, :2] = max(labels.shape)
    np.minimum.at(box[:, 0], label, start)
    np.maximum.at(box[:, 2], label, stop)
    box[label[::-1], 1] = row[::-1]  # of equal indices the last assignment stays: the first row
    box[label, 3] = row + 1
    return Regions(labels, pattern, number, row, start, stop, label, box)


@dataclass(frozen=True, eq=False, slots=True)
class Outlines:
    """Outer rings of regions in unit edges on the corner lattice; every ring is clockwise on a screen.

    label : int64 (N,), the regions, ascending.
    first : int64 (N,), where each ring begins in the arrays of edges: in the topmost row, at the leftmost
        pixel.
    x, y : int64 (E,), the corner where an edge begins, in pixels of the label image.
    heading : int8 (E,), EAST, SOUTH, WEST or NORTH; the region is to the right of an edge.
    """

    label: Ints
    first: Ints
    x: Ints
    y: Ints
    heading: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Outlines:
        """The outlines of a boolean mask."""
        edges = np.repeat(chosen, self._lengths())
        first = np.append(0, np.cumsum(self._lengths()[chosen]))[:-1]
        return Outlines(self.label[chosen], first, self.x[edges], self.y[edges], self.heading[edges])

    def _lengths(self) -> Ints:
        return np.diff(np.append(self.first, len(self.x)))

    def _sums(self, values: NDArray[Any]) -> Ints:
        """Sum over the edges of each ring, (N,)."""
        if not len(self):
            return np.empty(0, np.int64)
        return np.asarray(np.add.reduceat(values, self.first, dtype=np.int64))

    def _rings(self) -> Ints:
        """To which ring each edge belongs, (E,)."""
        return np.repeat(np.arange(len(self)), self._lengths())

    def _turns(self) -> NDArray[np.bool_]:
        """Whether the outline turns where an edge begins, (E,)."""
        before = np.empty_like(self.heading)
        before[1:] = self.heading[:-1]
        before[self.first] = NORTH  # a ring begins at the top of a left side
        return np.asarray(self.heading != before)

    def filled(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which pixels lie inside an outline, in a label image of this shape."""
        # Along a row an outline is entered at a left side, whose edge points up from the row below, and left
        # at a right one; nested outlines count up.
        steps = np.zeros(shape, np.int16)
        for heading, change, rows in ((NORTH, 1, 1), (SOUTH, -1, 0)):
            these = np.flatnonzero(self.heading == heading)
            np.add.at(steps, (self.y[these] - rows, self.x[these]), change)
        return np.cumsum(steps, axis=1, out=steps) > 0

    def areas(self) -> Ints:
        """Pixels inside each outline, filled gaps included."""
        eastward = np.where(self.heading == EAST, -self.y, 0)
        return self._sums(np.where(self.heading == WEST, self.y, eastward))

    def perimeters(self) -> Floats:
        """Length of each outline in pixels, cutting the corners of pixels: a large disc's is 5 % too long."""
        turns = self._sums(self._turns())
        edges = self._sums(np.ones(len(self.x), np.int64))
        return np.asarray((edges - turns) + turns * 0.5**0.5, np.float64)

    def hull_areas(self) -> Floats:
        """Area of the convex hull of each outline, in pixels."""
        return np.asarray(shapely.area(shapely.convex_hull(self.polygons())), np.float64)

    def elongations(self) -> Floats:
        """Ratio of the longer to the shorter axis of the ellipse with each outline's second moments, ≥ 1."""
        ring = self._rings()
        # Moments of the pixels' centres, doubled and about the ring's first corner so that they are small
        # whole numbers: a column of pixels above a bottom edge minus one above a top edge.
        sign = np.where(self.heading == WEST, 1, np.where(self.heading == EAST, -1, 0))
        u = 2 * (self.x - self.x[self.first][ring]) + np.where(self.heading == WEST, -1, 1)
        h = self.y - self.y[self.first][ring]
        v1 = h * h  # sum of the doubled centres 1, 3, ..., 2h - 1
        v2 = h * (4 * h * h - 1) // 3  # and of their squares
        n = self._sums(sign * h).astype(np.float64)
        mx, my = self._sums(sign * u * h) / n, self._sums(sign * v1) / n
        xx = self._sums(sign * u * u * h) / n - mx * mx + 1 / 3  # + the extent of a pixel itself
        yy = self._sums(sign * v2) / n - my * my + 1 / 3
        xy = self._sums(sign * u * v1) / n - mx * my
        half, spread = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
        return np.asarray(np.sqrt((half + spread) / (half - spread)), np.float64)

    def polygons(self, dx: int = 0, dy: int = 0) -> NDArray[np.object_]:
        """shapely polygons, (N,), moved by (dx, dy); without corners on straight sides."""
        if not len(self):
            return np.empty(0, dtype=object)
        corner = self._turns()
        xy = np.stack([self.x[corner] + dx, self.y[corner] + dy], axis=1).astype(np.float64)
        rings = shapely.linearrings(xy, indices=self._rings()[corner])
        return np.asarray(shapely.polygons(rings), dtype=object)


def traced(regions: Regions, wanted: NDArray[np.bool_]) -> Outlines:
    """Outer rings of the wanted regions.

    wanted : bool (number + 1,), by label; that of label 0 is ignored.
    """
    width = regions.labels.shape[1]
    found = np.flatnonzero(wanted[1:] & (regions.box[1:, 2] > regions.box[1:, 0])) + 1
    if not len(found):
        none = np.empty(0, np.int64)
        return Outlines(none, none, none, none, np.empty(0, np.int8))
    sides = _edges(regions, found)
    follower, at = _followers(regions.labels, sides)

    # One chain through all outer rings: where a ring would close, go on to the next one.
    head = np.empty(regions.number + 1, np.int64)
    head[regions.label[::-1]] = (regions.row * width + regions.start)[::-1]
    start = at[head[found]]
    successor = np.arange(len(follower), dtype=np.int32)
    successor[start] = np.append(start[1:], start[-1])
    is_start = np.zeros(len(follower), np.bool_)
    is_start[start] = True
    closing = np.flatnonzero(is_start[follower])
    follower[closing] = successor[follower[closing]]
    order = _walk(follower, int(start[0]))
    begin = np.concatenate([begin for begin, _ in sides])[order]
    heading = np.repeat(np.arange(4, dtype=np.int8), [len(begin) for begin, _ in sides])[order]
    y = begin // width
    return Outlines(found, np.flatnonzero(is_start[order]), begin - y * width, y, heading)


def _edges(regions: Regions, found: Ints) -> list[tuple[Ints, NDArray[Any]]]:
    """Unit edges of the regions with these labels, for each heading: where they begin, and their labels.

    A corner is given by the flat index of the pixel below it to the right.
    """
    width = regions.labels.shape[1]
    wanted = np.zeros(regions.number + 1, np.bool_)
    wanted[found] = True
    runs = np.flatnonzero(wanted[regions.label])
    origin, label = regions.row[runs] * width, regions.label[runs]
    left, right = origin + regions.start[runs], origin + regions.stop[runs]
    # Where the pattern changes from a row to the next there is the top of a pixel, or the bottom of one.
    pattern, flat = regions.pattern.ravel(), regions.labels.ravel()
    change = np.flatnonzero(pattern[width:] != pattern[:-width])
    above, below = flat[change], flat[change + width]
    top, bottom = np.flatnonzero(wanted[below]), np.flatnonzero(wanted[above])
    return [
        (change[top] + width, below[top]),
        (right, label),
        (change[bottom] + width + 1, above[bottom]),
        (left + width, label),
    ]


def _followers(
    labels: NDArray[np.int32], sides: list[tuple[Ints, NDArray[Any]]]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each edge (numbered through the headings) the one that follows it in its ring.

    Also for each corner where an eastward edge begins the number of that edge; elsewhere anything.
    """
    width, flat = labels.shape[1], labels.ravel()
    step = (1, width, -1, -width)
    # From an edge's end to the two pixels ahead, to its left and to its right.
    to_left, to_right = (-width, 0, -1, -width - 1), (0, -1, -width - 1, -width)
    ends, turns = [], []
    for heading, (begin, label) in enumerate(sides):
        end = begin + step[heading]
        # Right around its own pixel, on along the next one, or left: so that what can be left over a corner
        # only is cut off, as a gap.
        turn = (flat[end + to_right[heading]] != label).view(np.int8)
        turn[flat[end + to_left[heading]] == label] = -1
        ends.append(end)
        turns.append((turn + heading) & 3)
    end, heading_next = np.concatenate(ends), np.concatenate(turns)
    follower = np.empty(len(end), np.int32)
    at = np.empty(flat.size, np.int32)  # number of the edge that begins at a corner; read only where written
    last = len(end)
    for heading in (NORTH, WEST, SOUTH, EAST):
        begin = sides[heading][0]
        at[begin] = np.arange(last - len(begin), last)
        last -= len(begin)
        these = np.flatnonzero(heading_next == heading)
        follower[these] = at[end[these]]
    return follower, at


def _walk(follower: NDArray[np.int32], start: int) -> NDArray[np.int32]:
    """The indices met by going from each to its follower; the last one follows itself."""
    n = len(follower)
    chain = csr_array((np.ones(n), follower, np.arange(n + 1, dtype=np.int32)), shape=(n, n))
    # The breadth-first order of a chain is the chain, found in compiled code.
    return np.asarray(breadth_first_order(chain, start, return_predecessors=False), np.int32)
