"""What was checked, as the formulas see it: plots of strata of known size, and sums over all their ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from ecodetect.grid import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure with the limits of its interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def times(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, eq=False)
class Design:
    """Checked plots in their strata.

    cells : number of cells of each stratum, (H,).
    stratum : number of the stratum of each checked plot, (n,), from 0; each stratum has at least one.
    level : of the intervals.
    """

    cells: Floats
    stratum: Ints
    level: float = 0.95

    @classmethod
    def of(cls, cells: ArrayLike, stratum: ArrayLike, level: float = 0.95) -> Design:
        """A design of any arrays of numbers."""
        return cls(np.asarray(cells, np.float64), np.asarray(stratum, np.int64), level)

    def __len__(self) -> int:
        return len(self.stratum)

    @cached_property
    def plots(self) -> Floats:
        """Checked plots of each stratum, (H,)."""
        return np.bincount(self.stratum, minlength=len(self.cells)).astype(np.float64)

    @cached_property
    def unchecked(self) -> Floats:
        """The share of each stratum that isn't checked, (H,)."""
        return 1 - self.plots / self.cells

    @cached_property
    def z(self) -> float:
        """The normal quantile of the level."""
        return float(ndtri((1 + self.level) / 2))

    def t(self, degrees: ArrayLike) -> Floats:
        """Student's quantile of the level, for each number of degrees of freedom."""
        return np.asarray(stdtrit(degrees, (1 + self.level) / 2), np.float64)

    def sums(self, values: Floats) -> Floats:
        """The sum over the plots of each stratum, (H,)."""
        return np.bincount(self.stratum, values, minlength=len(self.cells)).astype(np.float64)

    def means(self, values: Floats) -> Floats:
        """The mean over the plots of each stratum, (H,)."""
        return self.sums(values) / self.plots

    def squares(self, values: Floats) -> Floats:
        """The sum of squared deviations from the mean of each stratum, (H,)."""
        return self.sums((values - self.means(values)[self.stratum]) ** 2)

    def variances(self, values: Floats) -> Floats:
        """The variance in each stratum, (H,); 0 of a single plot."""
        return self.squares(values) / np.maximum(self.plots - 1, 1)

    def expanded(self, values: Floats) -> Floats:
        """The sum over all cells of each stratum that its plots stand for, (H,)."""
        return self.cells * self.means(values)

    def variance(self, values: Floats) -> Floats:
        """The variance of `expanded`, (H,); 0 of a stratum that was checked whole."""
        return self.cells**2 * self.unchecked * self.variances(values) / self.plots

    def degrees(self, variance: Floats, among: NDArray[np.bool_]) -> float:
        """Satterthwaite's degrees of freedom of a sum of variances over some strata; all where it is 0."""
        free = np.maximum(self.plots - 1, 1)[among]
        most, total = float(free.sum()), float(variance[among].sum())
        if not total > 0:
            return most
        return min(max(total**2 / float((variance[among] ** 2 / free).sum()), 1.0), most)


def dispersion(design: Design, values: Floats) -> float:
    """Variance over mean of counts, pooled within strata: 1 if they are scattered, more if they clump.

    Drawn towards 1 as if by ten plots more.
    """
    is_pooled = design.plots > 1
    mean = float((design.means(values) * (design.plots - 1))[is_pooled].sum())
    if not mean > 0:
        return 1.0
    degrees = float((design.plots - 1)[is_pooled].sum())
    found = float(design.squares(values)[is_pooled].sum()) / mean
    return (degrees * max(1.0, found) + 10) / (degrees + 10)
