"""How far the limits of a total lie from it: on ground without detections, and on the rest.

Numbers of strata are (H,) each: `among` says which are meant, `variances` are those of a plot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecodetect.estimation.design import Design
from ecodetect.grid import Floats

Flags = NDArray[np.bool_]


def parts(design: Design, detected: Floats) -> tuple[Flags, Flags]:
    """The strata without and those with detections; strata that were checked whole are in neither.

    detected : detections of each stratum.
    """
    is_open = design.unchecked > 0
    return is_open & (detected == 0), is_open & (detected > 0)


def of_empty(
    design: Design, counts: Floats, variances: Floats, clumping: float, among: Flags
) -> tuple[float, float]:
    """Up and down on ground without detections: the score interval of a count, nothing seen included.

    counts : what was counted in the plots of each stratum.
    """
    if not among.any():
        return 0.0, 0.0
    plots, cells, count = design.plots[among], design.cells[among], counts[among]
    weight = cells / plots * np.sqrt(design.unchecked[among])
    spread = plots * variances[among]
    is_clumped = spread > 1.0001 * clumping * count
    quantile = np.where(is_clumped, design.t(np.maximum(plots - 1, 1)), design.z)
    shift = clumping * quantile**2 / 2
    root = np.sqrt(shift**2 + quantile**2 * np.maximum(spread, clumping * count))
    up, down = weight * (root + shift), np.minimum(weight * (root - shift), cells / plots * count)
    return float(np.sqrt((up**2).sum())), float(np.sqrt((down**2).sum()))


def half_t(design: Design, variances: Floats, among: Flags) -> float:
    """Half a t interval of the total over some strata, with Satterthwaite's degrees of freedom."""
    variance = design.cells**2 * design.unchecked * variances / design.plots
    t = design.t(design.degrees(variance, among))
    return float(t * np.sqrt(variance[among].sum()))


def weight_of_one(design: Design, detected: Floats, seen: float, among: Flags) -> float:
    """The detections that one checked detection stands for.

    detected : detections of each stratum.  seen : those in checked plots of `among`.
    """
    unchecked = 1 - design.plots[among].sum() / design.cells[among].sum()
    return float(detected[among].sum() / max(seen, 1.0) * np.sqrt(unchecked))


def of_rest(
    design: Design, variances: Floats, weight: float, seen: float, clumping: tuple[float, float], among: Flags
) -> tuple[float, float]:
    """Up and down on ground with detections: a t interval, widened by the next error, which nobody has seen.

    Without it, precise detectors of rare objects had a coverage of 70 %: none of six detections false, so no
    variance. The divisor is Wilson's: there are no more false ones than detections.

    weight : `weight_of_one`.  clumping : of missed and of false ones.
    """
    half, z = half_t(design, variances, among), design.z
    more, less = (each * weight * z**2 / 2 for each in clumping)
    down = (less + np.hypot(less, half)) / (1 + clumping[1] * z**2 / max(seen, 1.0))
    return float(more + np.hypot(more, half)), float(max(down, half))
