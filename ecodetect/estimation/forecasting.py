"""What more plots would bring: the half-width to expect if they show what the first have shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecodetect.estimation import limits
from ecodetect.estimation.abundance import Plots, dispersions
from ecodetect.estimation.design import Design
from ecodetect.grid import Floats


def errors_spread(design: Design, plots: Plots, wrong: Floats) -> Floats:
    """Standard deviation of the error of a plot in each stratum, (H,).

    Never 0: the next error may be round the corner.
    wrong : what is expanded from the plots, (n,).
    """
    seen = design.sums(plots.missed + plots.false)
    return np.sqrt(np.maximum(design.variances(wrong), (seen + 1) / (design.plots + 1)))


def with_more(design: Design, spread: Floats, more: int) -> Floats:
    """Plots of each stratum, (H,), after Neyman's allocation of further ones on top of those checked."""
    number = design.plots.copy()
    for _ in range(more):
        gain = np.where(number < design.cells, design.cells * spread / np.sqrt(number * (number + 1)), -1.0)
        if not gain.max() >= 0:
            break
        number[gain.argmax()] += 1
    return number


def half_width(design: Design, plots: Plots, more: int, *, uses_detections: bool = True) -> float:
    """The half-width to expect with so many plots more."""
    wrong = plots.individuals - plots.detections if uses_detections else plots.individuals
    number = with_more(design, errors_spread(design, plots, wrong), more)
    then = replace(design, stratum=np.repeat(np.arange(len(number)), number.astype(np.int64)))
    grown = number / design.plots
    clumped = dispersions(design, plots)
    empty, rest = limits.parts(then, plots.detected)
    counts, variances = design.sums(plots.individuals) * grown, design.variances(plots.individuals)
    up, down = limits.of_empty(then, counts, variances, clumped.missed, empty)
    if rest.any():
        seen = float((design.sums(plots.detections) * grown)[rest].sum())
        weight = limits.weight_of_one(then, plots.detected, seen, rest)
        clumping = clumped.missed, clumped.false
        above, below = limits.of_rest(then, design.variances(wrong), weight, seen, clumping, rest)
        up, down = float(np.hypot(up, above)), float(np.hypot(down, below))
    return (up + down) / 2
