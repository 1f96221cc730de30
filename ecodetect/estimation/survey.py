"""A survey: checked plots as numbers, and the estimates of classes, polygons and strata made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from ecodetect.estimation import forecasting, observers, shares
from ecodetect.estimation.abundance import Abundance, Plots, abundance
from ecodetect.estimation.design import Design, Interval
from ecodetect.estimation.dividing import Divided
from ecodetect.estimation.plots_reading import PlotsFile
from ecodetect.estimation.record import Record
from ecodetect.estimation.results import ClassEstimate, Group, PlotRow, PolygonEstimate, StratumResult
from ecodetect.estimation.tallying import Marked, Tallied, Use

FEWEST = 10  # plots with an interval
FEWEST_IN_STRATUM = 2
FEWEST_IN_POLYGON = 5
_MORE = (10, 20, 40, 80)


@dataclass(frozen=True, eq=False)
class Survey:
    """All that estimates are made from.

    divided : detections by polygon; None: polygons get no estimates.
    seen : the shares of the individuals that checkers see, and that pictures show.
    """

    file: PlotsFile
    marked: Marked
    use: Use
    level: float
    divided: Divided | None = None
    seen: tuple[Interval, ...] = ()

    @property
    def record(self) -> Record:
        return self.file.record

    @cached_property
    def stratum(self) -> np.ndarray:
        """The stratum of each plot that is used, (k,)."""
        return self.record.stratum_of[self.use.used]

    @cached_property
    def has_interval(self) -> bool:
        """Whether there are plots enough for an interval; with all cells checked there always are."""
        number = np.bincount(self.stratum, minlength=len(self.record.strata))
        is_whole = number == self.record.cells
        is_enough = (number >= FEWEST_IN_STRATUM) | is_whole
        return bool(is_whole.all()) or (len(self.stratum) >= FEWEST and bool(is_enough.all()))

    @cached_property
    def design(self) -> Design:
        return Design.of(self.record.cells, self.stratum, self.level)

    @cached_property
    def together(self) -> Tallied:
        """The numbers of all classes."""
        return self.marked.tallied(self.record.classes)

    def of_class(self, name: str, classes: tuple[str, ...]) -> ClassEstimate:
        """The estimate of some classes together."""
        record, design = self.record, self.design
        tally = self.marked.tallied(classes)
        detected = record.detected(classes)
        counted, found, unsure = (
            int(values.sum()) for values in (tally.individuals, tally.detections, tally.unsure)
        )
        if not self.has_interval:
            return ClassEstimate(name, int(detected.sum()), counted, found, unsure)
        plots = Plots(detected, tally.individuals, tally.detections, tally.missed, tally.false)
        made = abundance(design, plots)
        number, doubted = self._widened(made.interval), None
        if unsure:
            sure = Plots.counted(detected, tally.individuals - tally.unsure, tally.detections)
            doubted = self._widened(abundance(design, sure, uses_detections=made.uses_detections).interval)
        known = tally.is_matched
        return ClassEstimate(
            name,
            int(detected.sum()),
            counted,
            found,
            unsure,
            individuals=number,
            abundance=made,
            per_hectare=number.times(1 / record.hectares) if record.hectares else None,
            missed=shares.missed_total(design, plots) if known else None,
            precision=shares.precision(design, plots) if known else None,
            recall=shares.recall(design, plots) if known else None,
            occupied=shares.occupied(design, plots, record.occupied(classes)).times(1 / record.cells.sum()),
            if_false=doubted,
            polygons=tuple(self._polygons(classes, made)),
            forecast=self._forecast(plots, made),
        )

    def _widened(self, number: Interval) -> Interval:
        """A number of individuals of which only shares were seen."""
        for share in self.seen:
            number = observers.divided(number, share)
        return number

    def _polygons(self, classes: tuple[str, ...], whole: Abundance) -> list[PolygonEstimate]:
        """Estimates of polygons: what lies in one and in a plot, with zeros for plots elsewhere."""
        if self.divided is None:
            return []
        polygons, marked, used = self.divided.polygons, self.marked, self.use.used
        inside = polygons.holding(marked.individuals.xy)
        counts = np.isin(marked.individuals.labels, list(classes)) & (marked.individuals.verdicts != "false")
        found = []
        for number, (name, shape) in enumerate(zip(polygons.names, polygons.shapes, strict=True)):
            there = marked.plot[counts & (inside == number) & (marked.plot >= 0)]
            y = np.bincount(there, minlength=len(self.record.plots)).astype(np.float64)[used]
            x = np.array([self._detections(plot, classes, number) for plot in used.tolist()])
            part = Plots.counted(self.divided.detected(classes, number, len(self.record.strata)), y, x)
            touched = int(shapely.intersects(self.file.outlines[used], shape).sum())
            interval = None
            if touched >= FEWEST_IN_POLYGON:
                made = abundance(
                    self.design, part, uses_detections=whole.uses_detections, clumping=whole.dispersion
                )
                interval = self._widened(made.interval)
            found.append(PolygonEstimate(name, interval, int(part.detected.sum()), int(y.sum()), touched))
        return found

    def _detections(self, plot: int, classes: tuple[str, ...], polygon: int) -> float:
        """Detections of some classes in a plot and a polygon."""
        assert self.divided is not None
        there = [(x, y) for _, label, x, y in self.record.plots[plot].detections if label in classes]
        if not there:
            return 0.0
        return float((self.divided.polygons.holding(np.array(there)) == polygon).sum())

    def _forecast(self, plots: Plots, made: Abundance) -> dict[int, float]:
        """Half-widths to expect with more plots, as shares of the individuals."""
        number, left = made.interval.value, int(self.record.cells.sum()) - len(self.design)
        if not number > 0:
            return {}
        return {
            more: forecasting.half_width(self.design, plots, more, uses_detections=made.uses_detections)
            / number
            for more in _MORE
            if more <= left
        }

    def strata(self) -> tuple[StratumResult, ...]:
        """What was found in each stratum."""
        record, tally = self.record, self.together
        wrong = tally.individuals - tally.detections
        variance = self.design.variance(wrong) if self.has_interval else np.zeros(len(record.strata))
        total = float(variance.sum()) or 1.0
        found = []
        for index, each in enumerate(record.strata):
            x, y, d = (v[self.stratum == index] for v in (tally.detections, tally.individuals, wrong))
            found.append(
                StratumResult(
                    each.name,
                    each.cells,
                    len(x),
                    sum(each.detections.values()),
                    float(x.mean()) if len(x) else float("nan"),
                    float(y.mean()) if len(y) else float("nan"),
                    float(d.std(ddof=1)) if len(d) > 1 else float("nan"),
                    float(variance[index]) / total,
                )
            )
        return tuple(found)

    def rows(self, states: Sequence[str]) -> tuple[PlotRow, ...]:
        """The table of plots.  states : of each."""
        index = {int(plot): at for at, plot in enumerate(self.use.used)}
        tallies = {name: self.marked.tallied((name,)) for name in self.record.classes}
        return tuple(
            PlotRow(
                each.number,
                each.stratum,
                each.cell,
                states[plot],
                str(self.file.checkers[plot]),
                plot in index,
                each.is_blind,
                {name: tally.of(index[plot]) for name, tally in tallies.items()} if plot in index else {},
            )
            for plot, each in enumerate(self.record.plots)
        )

    def groups(self) -> tuple[Group, ...]:
        """What blind plots and reviewed ones say is missing, where there are both."""
        is_blind = np.array([self.record.plots[plot].is_blind for plot in self.use.used.tolist()])
        if is_blind.all() or not is_blind.any():
            return ()
        wrong = self.together.individuals - self.together.detections
        found = []
        for name, rows in (("blind", is_blind), ("review", ~is_blind)):
            values, mean, half = wrong[rows], float(wrong[rows].mean()), float("inf")
            if len(values) > 1:
                t = float(self.design.t(len(values) - 1))
                half = t * float(values.std(ddof=1)) / len(values) ** 0.5
            found.append(Group(name, len(values), Interval(mean, mean - half, mean + half)))
        return tuple(found)
