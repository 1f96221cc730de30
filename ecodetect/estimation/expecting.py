"""The half-width to expect before anything is checked, from the precision and recall on a model's card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecodetect.estimation import limits
from ecodetect.estimation.design import Design
from ecodetect.estimation.frame import Frame
from ecodetect.estimation.strata import spread, stratified, turns
from ecodetect.grid import Floats
from ecodetect.models import choosing

_STEP = 5  # plots


@dataclass(frozen=True)
class Expected:
    """What a model's card leads to expect.

    precision, recall : of the card.
    counts : detections of each cell, (N,).
    """

    precision: float
    recall: float
    counts: Floats

    def half_width(self, n: int) -> float:
        """Half the width of the interval with n plots, as a share of the individuals.

        As if errors were scattered (a dispersion of 1), where the detector expects individuals.
        """
        stratum = stratified(self.counts, n)
        cells = np.bincount(stratum).astype(np.float64)
        weights = np.bincount(stratum, spread(self.counts))
        design = Design.of(cells, turns(cells, weights, n))
        detected = np.bincount(stratum, self.counts).astype(np.float64)
        right = self.counts.sum() * self.precision
        expected = np.bincount(stratum, spread(self.counts) ** 2)
        missed = right * (1 - self.recall) / self.recall * expected / expected.sum() / cells
        false = detected * (1 - self.precision) / cells
        empty, rest = limits.parts(design, detected)
        up, down = limits.of_empty(design, missed * design.plots, missed, 1.0, empty)
        if rest.any():
            seen = float((detected / cells * design.plots)[rest].sum())
            weight = limits.weight_of_one(design, detected, seen, rest)
            above, below = limits.of_rest(design, missed + false, weight, seen, (1.0, 1.0), rest)
            up, down = float(np.hypot(up, above)), float(np.hypot(down, below))
        return (up + down) / 2 / max(float(right) / self.recall, 1.0)

    def plots_for(self, half_width: float, fewest: int) -> int | None:
        """The fewest plots that are expected to reach a half-width; None where a third of the cells can't."""
        for n in range(fewest, len(self.counts) // 3 + 1, _STEP):
            if self.half_width(n) <= half_width:
                return n
        return None


def expected(model: str, frame: Frame, counts: Floats) -> Expected | None:
    """By the card of a shipped model; None where it states no precision and recall, or nothing was found."""
    card = choosing.known().get(model)
    for each in () if card is None or not counts.sum() else card.metrics:
        precision, recall = each.get("precision"), each.get("recall")
        if isinstance(precision, float) and isinstance(recall, float) and 0 < recall <= 1 and precision > 0:
            return Expected(precision, recall, counts)
    return None
