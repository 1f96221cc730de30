"""Sparse assignment problems: a maximum matching with the least sum of costs.

Groups of connected pairs are solved one by one. The decomposition of Dulmage and Mendelsohn (1958,
doi:10.4153/CJM-1958-052-0) finds the pairs that can be in a maximum matching. Even where individuals are so
dense that all pairs are connected, the rest falls into small groups in which all of one side are matched, so
no search covers the whole ground for a missing partner. Those are solved by shortest augmenting paths (Jonker
and Volgenant 1987, doi:10.1007/BF02278710).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecodetect.grid import Floats

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

DENSE_CELLS = 40_000  # in larger tables of costs nearly all is empty: they are solved without one
_NOBODY = -1


def least(row: Rows, column: Rows, cost: Floats) -> Rows:
    """Which pairs to pick.

    row, column : int64 (P,), both members of each pair, numbered from 0; no pair twice.
    cost : float64 (P,), not negative.
    Returns numbers of pairs, in no order. The answer doesn't depend on the order of pairs, but the time does:
    where pairs that lie together in space follow each other, each step finds its memory in the cache.
    """
    return _picked(row, column, cost, _of_large_group)


def _picked(row: Rows, column: Rows, cost: Floats, large: Callable[[Rows, Rows, Floats], Rows]) -> Rows:
    """Which pairs to pick, group by group.

    large : picks from a group that is too large for a table, whose members are numbered in the same order.
    """
    if not len(row):
        return np.empty(0, np.int64)
    (one, names), (other, other_names) = _by_appearance(row), _by_appearance(column)
    nodes = len(names) + len(other_names)
    links = coo_array((np.ones(len(row), np.int8), (one, len(names) + other)), (nodes, nodes))
    group = np.asarray(connected_components(links, directed=False)[1], np.int64)
    of_row, of_column, of_pair = group[: len(names)], group[len(names) :], group[one]
    order = np.argsort(of_pair, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(of_pair))])
    n, m = np.bincount(of_row), np.bincount(of_column)
    # Where one object is in all pairs, the nearest is picked.
    is_star = (n == 1) | (m == 1)
    stars = order[is_star[of_pair[order]]]
    stars = stars[np.lexsort((column[stars], row[stars], cost[stars], of_pair[stars]))]
    picked = [stars[np.diff(of_pair[stars], prepend=-1) != 0]]
    one, other = _numbers_within(names, of_row)[one], _numbers_within(other_names, of_column)[other]
    for each in np.flatnonzero(~is_star).tolist():
        pairs = order[starts[each] : starts[each + 1]]
        solve = _by_table if n[each] * m[each] <= DENSE_CELLS else large
        picked.append(pairs[solve(one[pairs], other[pairs], cost[pairs])])
    return np.concatenate(picked)


def _by_appearance(names: Rows) -> tuple[Rows, Rows]:
    """Numbers (P,) of objects in the order in which they first come, and the name of each, (N,)."""
    found = names[_are_first(names)]
    number = np.zeros(int(names.max()) + 1, np.int64)
    number[found] = np.arange(len(found))
    return number[names], found


def _are_first(names: Rows) -> Flags:
    """Which of these come for the first time, (P,)."""
    first = np.zeros(int(names.max()) + 1, np.int64)
    first[names[::-1]] = np.arange(len(names))[::-1]
    return np.asarray(first[names] == np.arange(len(names)))


def _numbers_within(names: Rows, group: Rows) -> Rows:
    """Numbers of objects within their groups, in the order of their names, (N,)."""
    order = np.argsort(group * (names.max() + 1) + names)
    starts = np.cumsum(np.bincount(group)) - np.bincount(group)
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names)) - starts[group[order]]
    return number


def _by_table(row: Rows, column: Rows, cost: Floats) -> Rows:
    """Which pairs of one group to pick, with a table of all costs."""
    n, m = int(row.max()) + 1, int(column.max()) + 1
    far = min(n, m) + 1.0  # one pair more is worth more than all nearness
    table, number = np.full((n, m), far), np.full((n, m), _NOBODY)
    table[row, column], number[row, column] = cost, np.arange(len(row))
    picked: Rows = number[linear_sum_assignment(table)]
    real: Rows = picked[picked != _NOBODY]
    return real


def _of_large_group(row: Rows, column: Rows, cost: Floats) -> Rows:
    """Which pairs of one large group to pick."""
    one, other = _by_appearance(row)[0], _by_appearance(column)[0]
    allowed = np.flatnonzero(_are_in_a_largest(one, other, cost))
    return allowed[_picked(row[allowed], column[allowed], cost[allowed], _by_paths)]


# -- which pairs can be in a largest set -------------------------------------------------------------------


def _are_in_a_largest(row: Rows, column: Rows, cost: Floats) -> Flags:
    """Which pairs are in at least one of the largest sets, (P,)."""
    by_row, by_column = _Neighbours(row, column), _Neighbours(column, row)
    mate, mate_of_column = _largest(row, column, cost, by_row)
    n = len(mate)
    # A node that may stay unmatched is connected, by alternating paths, with an unmatched one.
    side = np.zeros(n, np.int8)
    side_of_column = np.zeros(len(mate_of_column), np.int8)
    rows, columns = _reached(np.flatnonzero(mate == _NOBODY), by_row, mate_of_column)
    side[rows], side_of_column[columns] = 1, 1
    columns, rows = _reached(np.flatnonzero(mate_of_column == _NOBODY), by_column, mate)
    side[rows], side_of_column[columns] = 2, 2
    allowed: Flags = side[row] == side_of_column[column]
    # Where all are matched, a pair can replace another only in an alternating cycle.
    whole = np.flatnonzero(allowed & (side[row] == 0))
    there, partner = row[whole], mate_of_column[column[whole]]
    links = coo_array((np.ones(len(whole), np.int8), (there, partner)), (n, n))
    circle = connected_components(links, directed=True, connection="strong")[1]
    allowed[whole] = circle[there] == circle[partner]
    return allowed


class _Neighbours:
    """The neighbours of each node of one side."""

    def __init__(self, own: Rows, other: Rows) -> None:
        order = np.argsort(own, kind="stable")
        self.others = other[order]
        self.starts = np.searchsorted(own[order], np.arange(int(own.max()) + 2))

    def of(self, nodes: Rows) -> tuple[Rows, Rows]:
        """Pairs of each node with each of its neighbours: the node, the neighbour."""
        counts = self.starts[nodes + 1] - self.starts[nodes]
        first = self.starts[nodes] - np.cumsum(counts) + counts
        return np.repeat(nodes, counts), self.others[np.repeat(first, counts) + np.arange(int(counts.sum()))]


def _largest(row: Rows, column: Rows, cost: Floats, by_row: _Neighbours) -> tuple[Rows, Rows]:
    """A largest set of pairs: the partner of each row and of each column, or -1."""
    mate, mate_of_column = (np.full(int(side.max()) + 1, _NOBODY) for side in (row, column))
    _take_nearest(row, column, cost, mate, mate_of_column)
    alone = np.flatnonzero(mate == _NOBODY)
    while len(alone):
        # An alternating tree grows from each unmatched node; trees are disjoint.
        tree = np.full(len(mate), _NOBODY)
        tree[alone] = alone
        parent = np.full(len(mate_of_column), _NOBODY)
        end = np.full(len(mate), _NOBODY)
        front = alone
        while len(front):
            source, there = by_row.of(front)
            fresh = parent[there] == _NOBODY
            source, there = source[fresh], there[fresh]
            parent[there] = source
            won = parent[there] == source
            source, there = source[won], there[won]
            partner = mate_of_column[there]
            is_free = partner == _NOBODY
            end[tree[source[is_free]]] = there[is_free]
            source, partner = source[~is_free], partner[~is_free]
            tree[partner] = tree[source]
            front = partner[end[tree[partner]] == _NOBODY]
        at = end[end != _NOBODY]
        if not len(at):
            break
        while len(at):
            own = parent[at]
            before = mate[own]
            mate[own], mate_of_column[at] = at, own
            at = before[before != _NOBODY]
        alone = np.flatnonzero(mate == _NOBODY)
    return mate, mate_of_column


def _take_nearest(row: Rows, column: Rows, cost: Floats, mate: Rows, mate_of_column: Rows) -> None:
    """Pair mutual nearest neighbours, and repeat among the rest."""
    while len(row):
        nearest, nearest_of_column = (np.full(len(side), np.inf) for side in (mate, mate_of_column))
        np.minimum.at(nearest, row, cost)
        np.minimum.at(nearest_of_column, column, cost)
        both = np.flatnonzero((nearest[row] == cost) & (nearest_of_column[column] == cost))
        one, other = row[both], column[both]
        both = both[_are_first(one) & _are_first(other)]  # of equally near ones
        mate[row[both]], mate_of_column[column[both]] = column[both], row[both]
        left = (mate[row] == _NOBODY) & (mate_of_column[column] == _NOBODY)
        row, column, cost = row[left], column[left], cost[left]


def _reached(alone: Rows, neighbours: _Neighbours, mate_of_other: Rows) -> tuple[Flags, Flags]:
    """The nodes that can be unmatched in a maximum matching, on the given side, and all their neighbours."""
    own = np.zeros(len(neighbours.starts) - 1, np.bool_)
    other = np.zeros(len(mate_of_other), np.bool_)
    own[alone] = True
    front = alone
    while len(front):
        there = neighbours.of(front)[1]
        there = np.unique(there[~other[there]])
        other[there] = True
        partner = mate_of_other[there]
        front = partner[~own[partner]]
        own[front] = True
    return own, other


# -- one group, all of whose rows are matched --------------------------------------------------------------


def _by_paths(row: Rows, column: Rows, cost: Floats) -> Rows:
    """Which pairs to pick, by augmenting paths, which are short where columns are left."""
    if row.max() > column.max():  # rows are the side that is matched completely
        row, column = column, row
    order = np.lexsort((column, cost, row))
    row, column = row[order], column[order]
    n, m = int(row.max()) + 1, int(column.max()) + 1
    starts = np.searchsorted(row, np.arange(n + 1)).tolist()
    price = [0.0] * m
    mate = np.full(m, _NOBODY)  # number of the pair, as ordered here, that each column is in
    mate[column[starts[:-1]]] = starts[:-1]  # the nearest of each row; the last row has it
    owner, columns, costs = row.tolist(), column.tolist(), cost[order].tolist()
    held = [_NOBODY] * n  # the column that each row has
    for j in np.flatnonzero(mate != _NOBODY).tolist():
        held[owner[mate[j]]] = j
    pair = mate.tolist()
    for start in [at for at in range(n) if held[at] == _NOBODY]:
        reached: dict[int, tuple[float, int]] = {}  # how far each column is, and by which pair
        passed: dict[int, float] = {}
        heap: list[tuple[float, int]] = []
        at, base = start, 0.0
        while True:
            for k in range(starts[at], starts[at + 1]):
                j = columns[k]
                length = base + costs[k] - price[j]
                if j not in passed and (j not in reached or length < reached[j][0]):
                    reached[j] = length, k
                    heappush(heap, (length, j))
            nearest, j = heappop(heap)
            while j in passed:
                nearest, j = heappop(heap)
            if pair[j] == _NOBODY:
                break
            passed[j] = nearest
            at, base = owner[pair[j]], nearest - (costs[pair[j]] - price[j])
        for there, length in passed.items():
            price[there] += length - nearest
        at = _NOBODY
        while at != start:
            pair[j] = reached[j][1]
            at = owner[pair[j]]
            held[at], j = j, held[at]
    return order[np.array([k for k in pair if k != _NOBODY], np.int64)]
