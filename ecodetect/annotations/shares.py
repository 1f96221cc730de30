"""The choice of units of ground that hold about a share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats

_TRIES = 64  # random choices; the one nearest to the wanted share is taken

Counts = NDArray[np.int64]
Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False, slots=True)
class Strip:
    """Counts the individuals that would be lost in the strip around blocks.

    plane, xy : of the individuals, in sides of a block.  blocks : (plane, x, y).  width : in sides.
    """

    plane: Counts
    xy: Floats
    blocks: Counts
    width: float

    def lost(self, chosen: Sequence[int]) -> float:
        """Share of the individuals (of at most 1000) that lie in the strip around the chosen blocks."""
        every = slice(None, None, -(-len(self.xy) // 1000))
        plane, xy = self.plane[every], self.xy[every]
        nearest = np.full(len(xy), np.inf)
        for own, x, y in self.blocks[list(chosen)].tolist():
            away = np.maximum(np.array([x, y]) - xy, xy - np.array([x + 1, y + 1])).max(axis=1)
            nearest = np.minimum(nearest, np.where(plane == own, away, np.inf))
        return float(np.mean((nearest > 0) & (nearest < self.width)))


def class_table(labels: Sequence[Names]) -> Counts:
    """The number of each class in each unit, (units, classes)."""
    names = np.unique(np.concatenate([*labels, np.empty(0, dtype=str)]))
    counts = [np.bincount(np.searchsorted(names, each), minlength=len(names)) for each in labels]
    return np.array(counts, np.int64).reshape(len(labels), len(names))


def nearest_share(
    counts: Counts, share: float, rng: np.random.Generator, strip: Strip | None = None
) -> list[int]:
    """Units that hold about this share of each class and lose few others; never all that hold any."""
    total = counts.sum(axis=0)
    weight = np.sqrt(total / max(1, total.sum()))  # rare classes count, but less
    best: tuple[float, list[int]] = (np.inf, [])
    holding = np.count_nonzero(counts.sum(axis=1))
    for _ in range(_TRIES):
        held = np.zeros(counts.shape[1])
        chosen: list[int] = []
        order = rng.permutation(len(counts))
        for row in order.tolist():
            if held.sum() >= share * total.sum():
                break
            if held.sum() + counts[row].sum() <= 1.5 * share * total.sum() or not held.sum():
                chosen.append(row)
                held += counts[row]
        if not held.sum() or np.count_nonzero(counts[chosen].sum(axis=1)) == holding:
            continue
        off = float((weight * np.abs(held / np.maximum(total, 1) - share)).sum())
        if strip is not None:
            off += strip.lost(chosen)
        if off < best[0]:
            best = (off, sorted(chosen))
    return best[1]
