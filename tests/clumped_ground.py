"""Ground with individuals in clumps and a detector whose recall differs from place to place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

CLUMP = 8  # individuals around a parent
SPREAD = 0.3  # cells


@dataclass(frozen=True, eq=False)
class Ground:
    """Cells of a square: individuals, detections and right ones of each, (N,), and its column and row."""

    individuals: NDArray[np.float64]
    detections: NDArray[np.float64]
    right: NDArray[np.float64]
    columns: NDArray[np.int64]
    rows: NDArray[np.int64]


def clumped(*, seed: int, side: int, mean: float, recall: float) -> Ground:
    """A Thomas process with `mean` individuals a cell; a fifth of the detections are false, and clump too.

    recall : on average; it varies by 0.3 over some cells' distance. 1 and 0: the same everywhere.
    """
    random = np.random.default_rng(seed)
    parents = random.random((random.poisson(mean * side * side / CLUMP), 2)) * side
    xy = np.repeat(parents, random.poisson(CLUMP, len(parents)), axis=0)
    xy = (xy + random.normal(0, SPREAD, xy.shape)) % side
    field = gaussian_filter(random.standard_normal((side, side)), 4, mode="wrap")
    field = recall + 0.3 * field / field.std() if 0 < recall < 1 else np.full_like(field, recall)
    column, row = np.minimum(xy.astype(np.int64), side - 1).T
    hit = random.random(len(xy)) < field[row, column]
    noise = np.exp(gaussian_filter(random.standard_normal((side, side)), 2, mode="wrap") * 4)
    false = random.poisson(noise / noise.sum() * max(hit.sum() / 4, 1))
    cell = row * side + column
    y, right = (np.bincount(each, minlength=side * side).astype(np.float64) for each in (cell, cell[hit]))
    there = np.arange(side * side)
    return Ground(y, right + false.ravel(), right, there % side, there // side)
