"""Precision and recall of a scan on its ground, and the share of the cells that individuals occupy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecodetect.estimation import limits
from ecodetect.estimation.abundance import Plots, abundance
from ecodetect.estimation.design import Design, Interval, dispersion
from ecodetect.grid import Floats

_NONE = 1e-9  # no individual at all


@dataclass(frozen=True)
class Ratio:
    """A share with its interval.

    worth : the number of single, unrelated trials that it is worth.
    se : standard error of its value.
    """

    interval: Interval
    worth: float
    se: float


def ratio(design: Design, part: Floats, whole: Floats) -> Ratio | None:
    """The weighted sum of one number over that of another, (n,) each; None where the other is 0.

    Wilson's interval for as many trials as the linearised variance says the ratio is worth (after Korn and
    Graubard, Survey Methodology 24, 1998).
    """
    weight = (design.cells / design.plots)[design.stratum]
    under = float((weight * whole).sum())
    if not under > 0:
        return None
    share = float((weight * part).sum()) / under
    variance = design.variance(part - share * whole) / under**2
    total = float(variance.sum())
    t = float(design.t(design.degrees(variance, np.ones(len(variance), np.bool_))))
    z, number = design.z, float(whole.sum())
    is_known = total > 0 and 0 < share < 1
    worth = min(share * (1 - share) / total * (z / t) ** 2, number) if is_known else number * (z / t) ** 2
    scale = 1 + z**2 / worth
    middle = (share + z**2 / (2 * worth)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / worth + z**2 / (4 * worth**2)))
    limits = Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))
    return Ratio(limits, worth, float(np.sqrt(total)))


def missed_total(design: Design, plots: Plots) -> Interval:
    """Individuals on all the ground that the detections miss."""
    everywhere = design.expanded(plots.missed)
    clumping = dispersion(design, plots.missed)
    variances = design.variances(plots.missed)
    empty, rest = limits.parts(design, plots.detected)
    up, down = limits.of_empty(design, design.sums(plots.missed), variances, clumping, empty)
    if rest.any():
        seen = float(design.sums(plots.detections)[rest].sum())
        shift = clumping * limits.weight_of_one(design, plots.detected, seen, rest) * design.z**2 / 2
        root = np.hypot(shift, limits.half_t(design, variances, rest))
        up = float(np.hypot(up, root + shift))
        down = float(np.hypot(down, min(root - shift, everywhere[rest].sum())))
    value = float(everywhere.sum())
    return Interval(value, max(value - down, 0.0), value + up)


def precision(design: Design, plots: Plots) -> Ratio | None:
    """The share of the detections that are individuals; None where none was checked."""
    return ratio(design, plots.detections - plots.false, plots.detections)


def recall(design: Design, plots: Plots) -> Interval | None:
    """The share of the individuals that are detected; None where no detection was checked."""
    right = precision(design, plots)
    if right is None:
        return None
    found = right.interval.times(float(plots.detected.sum()))
    missed = missed_total(design, plots)

    def share(of_found: float, of_missed: float) -> float:
        return of_found / max(of_found + of_missed, _NONE)

    value = share(found.value, missed.value)
    down = np.hypot(value - share(found.value, missed.high), value - share(found.low, missed.value))
    up = np.hypot(share(found.value, missed.low) - value, share(found.high, missed.value) - value)
    return Interval(value, max(value - float(down), 0.0), min(value + float(up), 1.0))


def occupied(design: Design, plots: Plots, detected_cells: Floats) -> Interval:
    """The number of cells that hold an individual.  detected_cells : with a detection, by stratum, (H,)."""
    cells = Plots.counted(
        detected_cells, (plots.individuals > 0).astype(np.float64), (plots.detections > 0).astype(np.float64)
    )
    found = abundance(design, cells).interval
    most = float(design.cells.sum())
    return Interval(min(found.value, most), min(found.low, most), min(found.high, most))
