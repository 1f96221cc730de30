"""Strata of cells by their detections, and how many plots each gets: by what is expected to be wrong there.

Errors of a count grow like its square root; a constant keeps a share for ground where nothing was found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecodetect.grid import Floats

Ints = NDArray[np.int64]

FEWEST_A_STRATUM = 3  # plots; a variance of two is no variance
FEWEST_A_GROUP = 6  # plots of a polygon with an interval of its own
_PLOTS_A_STRATUM = 5
_FEWEST_STRATA, _MOST_STRATA = 2, 6
_FEWEST_EMPTY, _EMPTY_SHARE = 10, 0.05  # cells without a detection that make a stratum


def spread(counts: ArrayLike) -> Floats:
    """Expected size of the error of cells with these detections, (N,)."""
    x = np.asarray(counts, np.float64)
    return np.sqrt(x + max(0.25 * float(x.mean()), 0.25))


def stratified(counts: ArrayLike, n: int) -> Ints:
    """The stratum of each cell, (N,), from 0: cells without a detection, then by rising number.

    Strata of cells with detections have equal sums of `spread`; equal numbers are in one stratum. With few
    cells without a detection, these are no stratum of their own.
    counts : detections of each cell, at least one cell.
    n : plots to draw, which decide how many strata there are.
    """
    x = np.asarray(counts, np.float64)
    number = int(np.clip(n // _PLOTS_A_STRATUM, _FEWEST_STRATA, _MOST_STRATA))
    is_empty = x == 0
    is_apart = is_empty.sum() >= max(_FEWEST_EMPTY, _EMPTY_SHARE * len(x)) and (~is_empty).sum() >= 3
    rest = np.flatnonzero(~is_empty) if is_apart else np.arange(len(x))
    groups = number - 1 if is_apart else number
    order = rest[np.lexsort((rest, x[rest]))]
    weight = spread(x)[order]
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    group = np.minimum((middle * groups).astype(np.int64), groups - 1)
    _, run = np.unique(x[order], return_inverse=True)
    votes = np.zeros((int(run.max()) + 1, groups), np.int64)
    np.add.at(votes, (run, group), 1)
    label = np.zeros(len(x), np.int64)
    label[order] = votes.argmax(axis=1)[run] + is_apart
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


def turns(sizes: ArrayLike, weights: ArrayLike, n: int, groups: Sequence[int] | None = None) -> Ints:
    """The stratum of plot 1, 2, …: three in each, then always where the most is to be gained.

    The first n of a longer sequence are the sequence of n. It is longer than n where three in each stratum
    are more, and shorter where there are no more cells.

    sizes : cells of each stratum, (H,).  weights : sum of `spread` in each.
    groups : the polygon of each stratum, where polygons have strata of their own; each polygon gets its share
        by the same rule, and at least six.
    """
    left, weight = np.array(sizes, np.int64), np.asarray(weights, np.float64)
    group = np.zeros(len(left), np.int64) if groups is None else np.asarray(groups, np.int64)
    found: list[int] = []
    taken = np.zeros(len(left), np.int64)
    for turn in range(FEWEST_A_STRATUM):
        found += np.flatnonzero(left > turn).tolist()
    taken += np.bincount(np.array(found, np.int64), minlength=len(left))
    of_group = np.bincount(group, weight)
    while len(found) < n and (taken < left).any():
        number = np.bincount(group, taken)
        is_free = np.bincount(group, taken < left) > 0
        gain = np.where(number < FEWEST_A_GROUP, np.inf, of_group / np.sqrt(number * (number + 1.0)))
        here = group == np.where(is_free, gain, -1.0).argmax() if groups is not None else True
        gain = np.where((taken < left) & here, weight / np.sqrt(taken * (taken + 1.0)), -1.0)
        chosen = int(gain.argmax())
        taken[chosen] += 1
        found.append(chosen)
    return np.array(found, np.int64)


def shared(weights: ArrayLike, sizes: ArrayLike, n: int) -> Ints:
    """Plots of each polygon, (P,): in proportion to the sum of `spread` in it, at least six, at most all."""
    weight, size = np.asarray(weights, np.float64), np.asarray(sizes, np.int64)
    number = np.minimum(size, FEWEST_A_GROUP)
    while number.sum() < n and (number < size).any():
        number[np.where(number < size, weight / np.sqrt(number * (number + 1.0)), -1.0).argmax()] += 1
    return number
