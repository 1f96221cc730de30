"""Which objects a sheet shows: the surest, the middling and the least sure of a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecodetect.detections import Detections
from ecodetect.grid import Floats

_MIDDLE_POOL = 4_000  # a sample of this size gives the rank of its median to 0.8 % (one standard error)


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Objects under one heading.

    objects : in the order in which they are shown.
    number : 1-based place of each in the stream, (N,).
    """

    heading: str
    objects: Detections
    number: NDArray[np.int64]


def chosen(detections: Iterable[Detections], most: int) -> tuple[list[Group], int]:
    """The objects to show and the number of all, in one pass."""
    ends = 2 * most // 5
    first, last, sample = _Pool(most), _Pool(ends), _Pool(max(_MIDDLE_POOL, most))
    total, lowest, highest = 0, math.inf, -math.inf
    for part in detections:
        if not len(part):
            continue
        number = total + 1 + np.arange(len(part))
        total += len(part)
        score = part.score
        lowest, highest = min(lowest, float(score.min())), max(highest, float(score.max()))
        first.add(part, number, -score, number)
        last.add(part, number, score, -number)  # the other way round, so that no object is first and last
        sample.add(part, number, _scattered(number), number)
    if first.objects is None or sample.objects is None:
        return [], 0
    rows: list[tuple[str, _Pool, NDArray[np.int64]]]
    if total <= most:
        rows = [("All, surest first", first, np.arange(total))]
    elif lowest == highest:  # nothing to sort by
        rows = [(f"{most} of {total:,}, at random", sample, np.argsort(sample.number[:most]))]
    else:
        score = sample.objects.score
        near = np.lexsort((sample.number, np.abs(score - np.median(score))))
        near = near[~np.isin(sample.number[near], np.concatenate([first.number[:ends], last.number]))]
        near = near[: most - 2 * ends]
        rows = [
            (f"The {ends} surest", first, np.arange(ends)),
            (f"{len(near)} around the median", sample, near[np.lexsort((sample.number[near], -score[near]))]),
            (f"The {ends} least sure", last, np.arange(ends)[::-1]),
        ]
    return [_group(words, pool, which) for words, pool, which in rows if len(which)], total


def _group(words: str, pool: _Pool, rows: NDArray[np.int64]) -> Group:
    assert pool.objects is not None
    objects = pool.objects[rows]
    score = objects.score
    low, high = f"{score.min():.2f}", f"{score.max():.2f}"
    return Group(f"{words}: score {low if low == high else f'{low} to {high}'}", objects, pool.number[rows])


class _Pool:
    """The `size` objects of a stream with the lowest keys, lowest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.objects: Detections | None = None
        self.number = np.empty(0, np.int64)
        self._key = np.empty(0)
        self._tie = np.empty(0, np.int64)

    def add(self, part: Detections, number: NDArray[np.int64], key: Floats, tie: NDArray[np.int64]) -> None:
        """Take what is lower than the highest held; equal keys go by the lower `tie`."""
        if self.size and len(self._key) == self.size:
            hopeful = key <= self._key[-1]
            part, number, key, tie = part[hopeful], number[hopeful], key[hopeful], tie[hopeful]
        if not len(part):
            return
        if self.objects is not None:
            held = replace(self.objects, classes=part.classes)  # which may have become more, behind
            part = Detections.concatenate([held, part])
            number, tie = np.concatenate([self.number, number]), np.concatenate([self._tie, tie])
            key = np.concatenate([self._key, key])
        rows = np.lexsort((tie, key))[: self.size]
        self.objects, self.number, self._key, self._tie = part[rows], number[rows], key[rows], tie[rows]


def _scattered(number: NDArray[np.int64]) -> Floats:
    """A number in [0, 1) for each place in the stream that looks random (splitmix64)."""
    z = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).astype(np.float64) / 2.0**64
