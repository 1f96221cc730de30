"""Settling: of candidates that mean the same object one survives, by score, never transitively.

The answer is that of greedy non-maximum suppression (best first; a kept candidate removes its neighbours),
but found as a fixed point on the pairs of neighbours, so it doesn't depend on the order of the input and
takes seconds for a million candidates. `Settler` does the same over a stream that is sorted from top to
bottom.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
_MANY = 1_000  # fewer candidates have few pairs
_CROWD = 4  # candidates in a cell, in the mean
_WORTHWHILE = 0.02  # share of candidates that a round must drop
_PAIRS_AT_ONCE = 500_000  # bounds the memory of the pair search at some 100 MB


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
    """Settle what can be, in place: crowds first without their pairs, then the rest by its pairs."""
    rank = _ranks(bounds, score)
    _thin(state, bounds, rank, complete, criterion, limit)
    alive = np.flatnonzero(state != _GONE)
    better, worse = _neighbours(bounds[alive], rank[alive], criterion, limit)
    few = state[alive]
    _fixed_point(few, better, worse, complete[alive])
    state[alive] = few


def _thin(
    state: NDArray[np.int8], bounds: Floats, rank: Indices, complete: Flags, criterion: str, limit: float
) -> None:
    """Keep what is the best of its cell and those around, and drop its neighbours, while that drops many.

    Many candidates of one place (of each of many classes, say) have too many pairs: so the losers among them
    are never paired with each other.
    """
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    while True:
        open_ones = np.flatnonzero(state == _OPEN)
        if len(open_ones) < _MANY:
            return
        boxes, xy, place = bounds[open_ones], centres[open_ones], rank[open_ones]
        # Neighbours lie in the same cell or the next one.
        side = limit if criterion == "distance" else float((boxes[:, 2:] - boxes[:, :2]).max())
        cell = np.floor((xy - xy.min(axis=0)) / (max(side, 1e-3) * (1 + 1e-9))).astype(np.int64) + 1
        wide = int(cell[:, 0].max()) + 2
        key = cell[:, 1] * wide + cell[:, 0]
        order = np.lexsort((place, key))
        start = np.flatnonzero(np.r_[True, np.diff(key[order]) != 0])
        keys, first = key[order][start], order[start]  # the cells, and the best one of each
        if len(open_ones) < _CROWD * len(keys):
            return
        around = [key + dy * wide + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        best = np.full(len(keys), True)
        for near in around:
            at, is_there = _looked_up(keys, near[first])
            best &= ~is_there | (place[first[at]] >= place[first])
        best &= complete[open_ones[first]]
        gone = np.zeros(len(open_ones), bool)
        for near in around:
            at, is_there = _looked_up(keys, near)
            rows = np.flatnonzero(is_there & best[at] & (first[at] != np.arange(len(at))))
            winner = first[at[rows]]
            gone[rows[_are_near(boxes[rows], boxes[winner], criterion, limit)]] = True
        state[open_ones[first[best]]] = _KEPT
        state[open_ones[gone]] = _GONE
        if np.count_nonzero(gone) <= _WORTHWHILE * len(open_ones):
            return


def _looked_up(keys: Indices, wanted: Indices) -> tuple[Indices, Flags]:
    """Where each wanted key stands among sorted keys, and whether it does."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _are_near(one: Floats, other: Floats, criterion: str, limit: float) -> Flags:
    """Which of the pairs of bounds are neighbours."""
    if criterion == "distance":
        gap = ((one[:, :2] + one[:, 2:]) - (other[:, :2] + other[:, 2:])) / 2
        return np.asarray(gap[:, 0] ** 2 + gap[:, 1] ** 2 < limit**2)
    return np.asarray(overlap(one, other) > limit)


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


def _neighbours(bounds: Floats, rank: Indices, criterion: str, limit: float) -> tuple[Indices, Indices]:
    """All pairs of neighbours as (better, worse)."""
    if criterion == "distance":
        centres = np.stack([(bounds[:, 0] + bounds[:, 2]) / 2, _centre_y(bounds)], axis=1)
        half = limit / 2
        # Squares of side `limit` around the centres meet wherever two centres are nearer than `limit`.
        search = np.hstack([centres - half, centres + half])
    elif criterion == "iou":
        centres, search = np.empty((0, 2)), bounds
    else:
        raise ValueError(f"criterion must be iou or distance, got {criterion}")
    firsts, seconds = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for one, other in _meeting(search):
        if criterion == "distance":
            gap = centres[one] - centres[other]
            near = gap[:, 0] ** 2 + gap[:, 1] ** 2 < limit**2
        else:
            near = overlap(bounds[one], bounds[other]) > limit
        one, other = one[near], other[near]
        swap = rank[one] > rank[other]
        firsts.append(np.where(swap, other, one).astype(np.int32))
        seconds.append(np.where(swap, one, other).astype(np.int32))
    return np.concatenate(firsts), np.concatenate(seconds)


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


def _meeting(bounds: Floats) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of boxes that meet, each once, in batches of bounded size: a hash of square cells.

    Every box is entered into the cells it touches; a pair is reported only in the cell that holds the upper
    left corner of its intersection.
    """
    if len(bounds) < 2:
        return
    sides = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    # Typical boxes touch four cells; the largest at most (16 + 1)² of them.
    cell = max(float(np.median(sides)) * 1.5, float(sides.max()) / 16, 1e-9)
    origin = bounds[:, :2].min(axis=0)
    first = np.floor((bounds[:, :2] - origin) / cell).astype(np.int32)
    last = np.floor((bounds[:, 2:] - origin) / cell).astype(np.int32)
    columns = int(last[:, 0].max()) + 1
    wide, high = last[:, 0] - first[:, 0] + 1, last[:, 1] - first[:, 1] + 1
    entries = wide * high
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
    remaining = np.repeat(start + size, size) - np.arange(len(key)) - 1  # later entries in the same cell
    live = np.flatnonzero(remaining)
    # Pair each entry with the ones that follow it in its cell, some millions of pairs at a time.
    counts = remaining[live]
    cut = np.searchsorted(
        np.cumsum(counts), np.arange(_PAIRS_AT_ONCE, int(counts.sum()) + _PAIRS_AT_ONCE, _PAIRS_AT_ONCE)
    )
    begin = 0
    for end in np.unique(np.minimum(cut + 1, len(live))):
        part, n = live[begin:end], counts[begin:end]
        begin = end
        i = np.repeat(part, n)
        j = i + 1 + np.arange(len(i)) - np.repeat(np.cumsum(n) - n, n)
        one, other = owner[i], owner[j]
        corner = np.maximum(first[one], first[other])
        mine = corner[:, 1].astype(np.int64) * columns + corner[:, 0] == key[i]
        one, other = one[mine], other[mine]
        a, b = bounds[one], bounds[other]
        meet = ((a[:, :2] <= b[:, 2:]) & (b[:, :2] <= a[:, 2:])).all(axis=1)
        yield one[meet], other[meet]
