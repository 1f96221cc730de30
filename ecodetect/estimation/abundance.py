"""The number of individuals with its interval: all detections, plus what the plots say is wrong with them.

N = X + Σ N_h · mean(y − x), unbiased for any detector (the difference estimator of stratified sampling). The
interval puts a score interval for ground without detections and a t interval, widened by one error that
nobody has seen yet, in quadrature (MOVER: Zou and Donner, Statistics in Medicine 27, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecodetect.estimation import limits
from ecodetect.estimation.design import Design, Interval, dispersion
from ecodetect.grid import Floats

FEWEST_TO_CHOOSE = 20  # plots, below which detections are always used: choosing by so few costs coverage
_WORSE = 0.7  # ratio of variances from which detections do more harm than good


@dataclass(frozen=True)
class Dispersion:
    """How much missed and false ones clump; 1: not at all."""

    missed: float
    false: float


@dataclass(frozen=True, eq=False)
class Distances:
    """How far the limits lie from the estimate, of ground without detections and of the rest."""

    up_empty: float = 0.0
    down_empty: float = 0.0
    up: float = 0.0
    down: float = 0.0

    @property
    def total_up(self) -> float:
        return float(np.hypot(self.up_empty, self.up))

    @property
    def total_down(self) -> float:
        return float(np.hypot(self.down_empty, self.down))


@dataclass(frozen=True, eq=False)
class Abundance:
    """Individuals on all the ground.

    interval : their number, with its limits; never below `counted`.
    total : the number before it is compared with `counted`; numbers of polygons and classes add up.
    se : standard error of `total`.
    counted : individuals in the checked plots.
    uses_detections : False where the detections would make the estimate less exact.
    dispersion : of missed and false ones.
    distances : of the limits from `total`.
    variance : of each stratum, (H,).
    """

    interval: Interval
    total: float
    se: float
    counted: float
    uses_detections: bool
    dispersion: Dispersion
    distances: Distances
    variance: Floats


@dataclass(frozen=True, eq=False)
class Plots:
    """What was counted in the checked plots, (n,) each, and what was found on all the ground.

    detected : detections of each stratum, (H,).
    individuals, detections : of each plot.
    missed, false : of each plot, by matching; without it the smallest that the two numbers allow.
    """

    detected: Floats
    individuals: Floats
    detections: Floats
    missed: Floats
    false: Floats

    @classmethod
    def counted(cls, detected: Floats, individuals: Floats, detections: Floats) -> Plots:
        """Plots of which nothing was matched."""
        more = individuals - detections
        return cls(detected, individuals, detections, np.maximum(more, 0), np.maximum(-more, 0))


def worth_using(design: Design, plots: Plots) -> bool:
    """Whether the detections make the estimate more exact, as far as the plots can tell."""
    if len(design) < FEWEST_TO_CHOOSE:
        return True
    alone = float(design.variance(plots.individuals).sum())
    together = float(design.variance(plots.individuals - plots.detections).sum())
    return not alone < _WORSE * together


def dispersions(design: Design, plots: Plots) -> Dispersion:
    """Of missed and of false ones."""
    return Dispersion(dispersion(design, plots.missed), dispersion(design, plots.false))


def abundance(
    design: Design,
    plots: Plots,
    *,
    uses_detections: bool | None = None,
    clumping: Dispersion | None = None,
) -> Abundance:
    """Estimate the number of individuals.

    uses_detections, clumping : of all the ground, for a part of it; None: by these plots.
    """
    uses = worth_using(design, plots) if uses_detections is None else uses_detections
    clumped = dispersions(design, plots) if clumping is None else clumping
    wrong = plots.individuals - plots.detections if uses else plots.individuals
    total = float(design.expanded(wrong).sum()) + (float(plots.detected.sum()) if uses else 0.0)
    counted = float(plots.individuals.sum())
    apart = distances(design, plots, wrong, clumped)
    variance = design.variance(wrong)
    low, high = total - apart.total_down, total + apart.total_up
    interval = Interval(max(total, counted), max(low, counted), max(high, counted))
    se = float(np.sqrt(variance.sum()))
    return Abundance(interval, total, se, counted, uses, clumped, apart, variance)


def distances(design: Design, plots: Plots, wrong: Floats, clumped: Dispersion) -> Distances:
    """The distances of the limits.  wrong : what is expanded from the plots, (n,)."""
    empty, rest = limits.parts(design, plots.detected)
    counts, variances = design.sums(plots.individuals), design.variances(plots.individuals)
    up_empty, down_empty = limits.of_empty(design, counts, variances, clumped.missed, empty)
    if not rest.any():
        return Distances(up_empty, down_empty)
    seen = float(design.sums(plots.detections)[rest].sum())
    weight = limits.weight_of_one(design, plots.detected, seen, rest)
    clumping = clumped.missed, clumped.false
    return Distances(
        up_empty, down_empty, *limits.of_rest(design, design.variances(wrong), weight, seen, clumping, rest)
    )
