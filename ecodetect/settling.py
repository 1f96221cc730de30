"""Settling (non-maximum suppression): one candidate per object survives, by score, never transitively.

The answer is that of greedy non-maximum suppression (best first; a kept candidate removes its neighbours),
but found as a fixed point on the pairs of neighbours, so it doesn't depend on the order of the input and
takes seconds for a million candidates. Where too many lie in one place to hold their pairs in memory, the
best are settled first, and the candidates they remove are dropped. `Settler` does the same for a stream that
is sorted from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
PAIRS_AT_ONCE = 65_536  # what is known of so many stays in a core's cache
PAIRS_HELD = 10_000_000  # and that of the pairs found at about 300 MB
_ROUNDED = 1e-6  # a share of a box by which rounding may move its edges
_CELLS_EACH = 16  # largest mean number of cells per box
PAIRS_EACH = 64  # with more in the mean, sizes are told apart


def settle(bounds: Floats, score: Floats, *, criterion: str, limit: float) -> Flags:
    """Which candidates survive greedy settlement.

    bounds : float64 (N, 4), xmin, ymin, xmax, ymax in pixels (a point: both corners equal).
    score : float64 (N,). Ties are settled by place (smaller ymin, xmin, ymax, xmax first), then by input
        order.
    criterion : "iou" of the bounds, neighbours when above `limit`; or "distance" of their centres in pixels,
        neighbours when below `limit`.
    Returns bool (N,); N = 0 gives an empty array.
    Equal to torchvision.ops.nms for "iou" (without ties), in O(N log N + neighbours) instead of O(N²).
    """
    state = np.zeros(len(score), np.int8)
    _decide(state, bounds, score, np.ones(len(score), bool), criterion, limit)
    kept: Flags = state == _KEPT
    return kept


class Settler:
    """Settlement of candidates that arrive sorted by the y of their centre.

    Holds only those whose fate later candidates can still change; `push` returns what is final, as numbers
    of the candidates in their order of arrival, ascending.
    """

    def __init__(self, *, criterion: str, limit: float, reach_px: float) -> None:
        """reach_px : neighbours' centres are never farther apart in y than this."""
        self._criterion, self._limit, self._reach = criterion, limit, reach_px
        self._bounds: Floats = np.empty((0, 4))
        self._score: Floats = np.empty(0)
        self._state: NDArray[np.int8] = np.empty(0, np.int8)
        self._number: Indices = np.empty(0, np.int64)
        self._arrived = 0

    def push(self, bounds: Floats, score: Floats) -> Indices:
        """Add candidates, none above those already given; returns the numbers of new final survivors."""
        self._bounds = np.concatenate([self._bounds, bounds])
        self._score = np.concatenate([self._score, score])
        self._state = np.concatenate([self._state, np.zeros(len(score), np.int8)])
        new = np.arange(self._arrived, self._arrived + len(score), dtype=np.int64)
        self._number = np.concatenate([self._number, new])
        self._arrived += len(score)
        frontier = float(_centre_y(bounds[-1:])[0]) if len(bounds) else -np.inf
        return self._advance(frontier)

    def finish(self) -> Indices:
        """The survivors that were still open when the stream ended."""
        return self._advance(np.inf)

    @property
    def waiting(self) -> int:
        """Number of the first candidate that is held back; all before it are decided and returned."""
        return int(self._number[0]) if len(self._number) else self._arrived

    def _advance(self, frontier: float) -> Indices:
        if not len(self._score):
            return np.empty(0, np.int64)
        y = _centre_y(self._bounds)
        complete = y + self._reach < frontier  # every neighbour has arrived
        _decide(self._state, self._bounds, self._score, complete, self._criterion, self._limit)
        # In order: hold everything from the first undecided candidate on. A kept one stays while neighbours
        # may come.
        settled = complete & (self._state != _OPEN)
        held = int(np.argmin(settled)) if not settled.all() else len(settled)
        out: Indices = self._number[:held][self._state[:held] == _KEPT]
        self._bounds, self._score = self._bounds[held:], self._score[held:]
        self._state, self._number = self._state[held:], self._number[held:]
        return out


_OPEN, _KEPT, _GONE = 0, 1, 2


def _decide(
    state: NDArray[np.int8], bounds: Floats, score: Floats, complete: Flags, criterion: str, limit: float
) -> None:
    """Decide what can be decided, in place.

    complete : which may be kept, as all their neighbours are there.
    """
    search, sizes = _search(bounds, criterion, limit), _sizes(bounds, criterion, limit)
    rank = _ranks(bounds, score)
    complete = complete.copy()
    rest = np.arange(len(state))
    while True:
        rest = rest[state[rest] != _GONE]
        if not (complete[rest] & (state[rest] == _OPEN)).any():
            return
        best, cells = _best(rest, rank, search, sizes)
        pairs = [np.empty((2, 0), np.int32)]
        for one, other in _neighbours(cells, best, best, bounds, criterion, limit):
            swap = rank[best[one]] > rank[best[other]]
            pairs.append(np.where(swap, (other, one), (one, other)).astype(np.int32))
        better, worse = np.concatenate(pairs, axis=1)
        decided = state[best]
        _fixed_point(decided, better, worse, complete[best])
        state[best] = decided
        if len(best) == len(rest):
            return
        # What the best leave of the others: those with a kept neighbour go, an open one holds them up.
        best = best[decided != _GONE]
        rest = rest[rank[rest] > rank[best].max()]
        both = np.concatenate([best, rest])
        cells = _cells(search[both], sizes[both], split=len(best))
        for one, other in _neighbours(cells, best, rest, bounds, criterion, limit):
            is_kept = state[best[one]] == _KEPT
            state[rest[other[is_kept]]] = _GONE
            complete[rest[other[~is_kept]]] = False


def _best(rest: Indices, rank: Indices, search: Floats, sizes: Indices) -> tuple[Indices, _Cells | _Sizes]:
    """The best of the rest, as many as have pairs that can be held; ascending. And their cells."""
    best, cells = rest, _cells(search[rest], sizes[rest])
    if cells.number > PAIRS_HELD:
        order = rest[np.argsort(rank[rest])]
        while cells.number > PAIRS_HELD:
            share = 0.9 * (PAIRS_HELD / cells.number) ** 0.5
            best = np.sort(order[: max(1, int(share * len(best)))])
            cells = _cells(search[best], sizes[best])
    return best, cells


def _fixed_point(state: NDArray[np.int8], better: Indices, worse: Indices, complete: Flags) -> None:
    """Decide what can be: keep each open one without open or kept better neighbour, drop its neighbours."""
    while True:
        alive = (state[better] != _GONE) & (state[worse] == _OPEN)
        better, worse = better[alive], worse[alive]
        beaten = state[better] == _KEPT
        state[worse[beaten]] = _GONE
        blocked = np.zeros(len(state), bool)
        blocked[worse] = True
        fresh = (state == _OPEN) & ~blocked & complete
        if not fresh.any() and not beaten.any():
            return
        state[fresh] = _KEPT


def _ranks(bounds: Floats, score: Floats) -> Indices:
    """0 for the best candidate; ties by place, then by input order."""
    order = np.lexsort((bounds[:, 2], bounds[:, 3], bounds[:, 0], bounds[:, 1], -score))
    rank = np.empty(len(score), np.int64)
    rank[order] = np.arange(len(score))
    return rank


def _search(bounds: Floats, criterion: str, limit: float) -> Floats:
    """Boxes (N, 4) around the centres that meet wherever two candidates are neighbours, and are small."""
    if criterion == "iou":
        # Along each axis the IoU is no less: two sides a and b whose middles are d apart have at most
        # ((a + b) / 2 - d) / ((a + b) / 2 + d). Where that is above the limit, sides shrunk so far meet.
        half = (bounds[:, 2:] - bounds[:, :2]) * ((1 - limit) / (1 + limit) + _ROUNDED) / 2
    elif criterion == "distance":
        half = np.full((len(bounds), 1), limit / 2)
    else:
        raise ValueError(f"criterion must be iou or distance, got {criterion}")
    centres = _centres(bounds)
    return np.hstack([centres - half, centres + half])


def _sizes(bounds: Floats, criterion: str, limit: float) -> Indices:
    """Numbers (N,) of sizes: neighbours are of the same one or of one and the next."""
    if criterion == "distance":
        return np.zeros(len(bounds), np.int64)
    # The IoU is at most the smaller area as a share of the larger.
    area = (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])
    step = max(-np.log2(max(limit, 1e-9)), 1.0) + _ROUNDED
    numbers: Indices = np.floor(np.log2(np.maximum(area, 1e-300)) / step).astype(np.int64)
    return numbers


def _neighbours(
    cells: _Cells | _Sizes, some: Indices, others: Indices, bounds: Floats, criterion: str, limit: float
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of neighbours, as places in `some` and in `others`, in batches."""
    for one, other in cells.meeting():
        a, b = bounds[some[one]], bounds[others[other]]
        if criterion == "distance":
            gap = _centres(a) - _centres(b)
            near = gap[:, 0] ** 2 + gap[:, 1] ** 2 < limit**2
        else:
            near = overlap(a, b) > limit
        yield one[near], other[near]


def _centres(bounds: Floats) -> Floats:
    return np.stack([(bounds[:, 0] + bounds[:, 2]) / 2, _centre_y(bounds)], axis=1)


def _centre_y(bounds: Floats) -> Floats:
    return np.asarray((bounds[:, 1] + bounds[:, 3]) / 2, np.float64)


def overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of aligned boxes (N, 4); 0 where both are empty."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = areas - common
    iou: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


class _Cells:
    """A hash of square cells, to find the pairs of boxes that meet.

    Every box is entered into the cells it touches; a pair is reported only in the cell that holds the upper
    left corner of its intersection.
    """

    number: int  # of pairs to look at

    def __init__(self, bounds: Floats, *, split: int | None = None) -> None:
        """split : find only pairs of one of the first `split` boxes with one of the others."""
        self.offset = 0 if split is None else split
        self.number = 0
        if len(bounds) < 2:
            return
        sides = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
        # Typical boxes touch four cells; the largest at most (16 + 1)² of them.
        cell = max(float(np.median(sides)) * 1.5, float(sides.max()) / 16, 1e-9)
        origin = bounds[:, :2].min(axis=0)
        cell = max(cell, float((bounds[:, 2:] - origin).max()) / 2**30)  # 32 bits count them
        while True:
            first = np.floor((bounds[:, :2] - origin) / cell).astype(np.int32)
            last = np.floor((bounds[:, 2:] - origin) / cell).astype(np.int32)
            wide, high = last[:, 0] - first[:, 0] + 1, last[:, 1] - first[:, 1] + 1
            entries = wide * high
            if int(entries.sum()) <= _CELLS_EACH * len(bounds):
                break
            cell *= 2
        columns = int(last[:, 0].max()) + 1
        owner = np.repeat(np.arange(len(bounds), dtype=np.int32), entries)
        nth = np.arange(len(owner), dtype=np.int64) - np.repeat(np.cumsum(entries) - entries, entries)
        across = wide[owner]
        key = (first[owner, 1] + nth // across).astype(np.int64) * columns + first[owner, 0] + nth % across
        del nth, across
        order = np.argsort(key, kind="stable")
        key, owner = key[order], owner[order]
        del order
        start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        size = np.diff(np.r_[start, len(key)])
        # Each entry is paired with those from here to the end of its cell.
        partner = np.arange(1, len(key) + 1)
        if split is not None:
            partner = np.repeat(start + np.add.reduceat(owner < split, start, dtype=np.int64), size)
        counts = np.repeat(start + size, size) - partner
        if split is not None:
            counts[owner >= split] = 0
        self._entry = np.flatnonzero(counts)
        self._partner, self._counts = partner[self._entry], counts[self._entry]
        self._key, self._owner, self._columns = key, owner, columns
        self._first, self._sides = np.ascontiguousarray(first.T), np.ascontiguousarray(bounds.T)
        self.number = int(self._counts.sum())

    def meeting(self) -> Iterator[tuple[Indices, Indices]]:
        """Pairs that meet, each once, in batches of bounded size; of a split, places in either part."""
        if not self.number:
            return
        cut = np.searchsorted(
            np.cumsum(self._counts), np.arange(PAIRS_AT_ONCE, self.number + PAIRS_AT_ONCE, PAIRS_AT_ONCE)
        )
        begin = 0
        for end in np.unique(np.minimum(cut + 1, len(self._counts))):
            part, n, partner = (each[begin:end] for each in (self._entry, self._counts, self._partner))
            begin = end
            i = np.repeat(part, n)
            j = np.arange(len(i)) + np.repeat(partner - np.cumsum(n) + n, n)
            one, other, key = self._owner[i], self._owner[j], self._key[i]
            for low, high in ((0, 2), (1, 3)):  # one axis after the other: few pairs are left for the second
                starts, ends = self._sides[low], self._sides[high]
                meet = (starts[one] <= ends[other]) & (starts[other] <= ends[one])
                one, other, key = one[meet], other[meet], key[meet]
            column, row = (np.maximum(first[one], first[other]) for first in self._first)
            mine = row.astype(np.int64) * self._columns + column == key
            yield one[mine], other[mine] - self.offset


def _cells(bounds: Floats, sizes: Indices, *, split: int | None = None) -> _Cells | _Sizes:
    """What finds the pairs of boxes that meet and can be neighbours.  sizes : as `_sizes` gives them."""
    cells = _Cells(bounds, split=split)
    if cells.number <= PAIRS_EACH * len(bounds) or sizes.min() == sizes.max():
        return cells
    return _Sizes(bounds, sizes, split=split)


class _Sizes:
    """Cells for each size and the next: a small box among large ones is compared with small ones only."""

    def __init__(self, bounds: Floats, sizes: Indices, *, split: int | None = None) -> None:
        order = np.argsort(sizes, kind="stable")  # so that those of a split stay in front
        cuts = np.flatnonzero(np.diff(sizes[order])) + 1
        groups = np.split(order, cuts)
        self._offset = 0 if split is None else split
        self._parts: list[tuple[Indices, _Cells]] = []
        for rows in groups:
            self._add(bounds, rows, None if split is None else int(np.searchsorted(rows, split)))
        for small, large in pairwise(groups):
            if sizes[large[0]] == sizes[small[0]] + 1:
                for some, others in ((small, large), (large, small)):
                    if split is not None:
                        some, others = some[some < split], others[others >= split]
                    self._add(bounds, np.concatenate([some, others]), len(some))
                    if split is None:
                        break
        self.number = sum(cells.number for _, cells in self._parts)

    def _add(self, bounds: Floats, rows: Indices, split: int | None) -> None:
        self._parts.append((rows, _Cells(bounds[rows], split=split)))

    def meeting(self) -> Iterator[tuple[Indices, Indices]]:
        """As `_Cells.meeting`."""
        for rows, cells in self._parts:
            for one, other in cells.meeting():
                yield rows[one], rows[other + cells.offset] - self._offset
