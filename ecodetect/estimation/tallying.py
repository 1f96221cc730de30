"""From what people marked to numbers of each plot: which plots count, and what is right, false and missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.errors import UserError
from ecodetect.estimation.plots_file import STATES
from ecodetect.estimation.plots_reading import Individuals
from ecodetect.estimation.record import Record
from ecodetect.formats.image_matching import base_name
from ecodetect.grid import Floats
from ecodetect.layer import Geometries

Ints = NDArray[np.int64]
_TO_DO, _DONE, _UNUSABLE = STATES


@dataclass(frozen=True, eq=False, slots=True)
class Use:
    """Which plots an estimate uses, by index, from 0.

    used : done, without a gap before them in their stratum.
    set_aside : done behind one that isn't: used, they would make the sample one of choice.
    unusable : passed over.
    next : the next to check, in order; at most ten.
    """

    used: Ints
    set_aside: Ints
    unusable: Ints
    next: Ints


def usable(record: Record, states: Sequence[str]) -> Use:
    """Which plots count.  states : of each plot, in the order of the draw."""
    parts: dict[str, list[int]] = {"used": [], "set_aside": [], "unusable": []}
    for stratum in range(len(record.strata)):
        has_gap = False
        for plot in np.flatnonzero(record.stratum_of == stratum).tolist():
            if states[plot] == _DONE:
                parts["set_aside" if has_gap else "used"].append(plot)
            elif states[plot] == _UNUSABLE:
                parts["unusable"].append(plot)
            else:
                has_gap = True
    to_do = [plot for plot, state in enumerate(states) if state not in (_DONE, _UNUSABLE)]
    found = {name: np.array(sorted(plots), np.int64) for name, plots in parts.items()}
    return Use(**found, next=np.array(to_do[:10], np.int64))


def plot_of(record: Record, outlines: Geometries, individuals: Individuals) -> tuple[Ints, Ints]:
    """The plot whose cell holds each individual, and the same for those on its searched ground; -1: none.

    Cells are half open, so that everything lies in one; by place, or by the image where each is a cell.
    """
    number = np.full(len(individuals), -1, np.int64)
    if not len(individuals):
        return number, number
    if record.side is None:
        by_name = {base_name(plot.cell): index for index, plot in enumerate(record.plots)}
        named = [by_name.get(base_name(name), -1) for name in individuals.sources.tolist()]
        number = np.array(named, np.int64)
        unnamed = individuals.sources == ""
        if unnamed.any():
            number[unnamed] = _by_outline(outlines, individuals.xy[unnamed])
        return number, number
    cells = np.floor(individuals.xy / record.side)
    index = {plot.cell: plot.number - 1 for plot in record.plots}
    known = np.isfinite(cells).all(axis=1)
    number[known] = [index.get(f"{int(x)}_{int(y)}", -1) for x, y in cells[known].tolist()]
    here = np.flatnonzero(number >= 0)
    inside = number.copy()
    reach = 1e-6 * record.side  # what a program rounds when it saves
    near = shapely.dwithin(outlines[number[here]], shapely.points(individuals.xy[here]), reach)
    inside[here[~near]] = -1
    return number, inside


def _by_outline(outlines: Geometries, xy: Floats) -> Ints:
    """The outline that holds each place; raises UserError where two do."""
    point, plot = shapely.STRtree(outlines).query(shapely.points(xy), "intersects")
    if len(np.unique(point)) < len(point):
        raise UserError(
            "Images without a place lie upon each other, so nobody knows on which an individual was marked:"
            " give a column 'source' with the image's name, or counts."
        )
    number = np.full(len(xy), -1, np.int64)
    number[point] = plot
    return number


@dataclass(frozen=True, eq=False, slots=True)
class Tallied:
    """Numbers of some classes in the plots that are used, (k,) each.

    individuals, detections, missed, false : of each plot.
    unsure : of the individuals, those of which the checker isn't sure.
    is_matched : whether missed and false ones are known, or only the least that there can be.
    """

    individuals: Floats
    detections: Floats
    missed: Floats
    false: Floats
    unsure: Floats
    is_matched: bool

    def of(self, index: int) -> tuple[float, float, float, float]:
        """Individuals, detections, missed and false ones of a plot, by its place among those used."""
        columns = (self.individuals, self.detections, self.missed, self.false)
        y, x, missed, false = (float(values[index]) for values in columns)
        return y, x, missed, false


@dataclass(frozen=True, eq=False, slots=True)
class Marked:
    """What was marked in the plots of a draw.

    plot : index of the plot of each individual; -1: none.
    counts : by class, instead of individuals, as in `PlotsFile`.
    has_ids : whether individuals that were detections say of which.
    """

    record: Record
    individuals: Individuals
    plot: Ints
    used: Ints
    counts: Mapping[str, Floats]
    has_ids: bool = True

    def tallied(self, classes: tuple[str, ...]) -> Tallied:
        """The numbers of some classes together; of all, where a detection has another class it is right."""
        found = self.record.found(classes)[self.used]
        if self.counts:
            nothing = np.zeros(len(self.used))
            y = sum((self.counts[name][self.used] for name in classes if name in self.counts), nothing)
            more = y - found
            return Tallied(y, found, np.maximum(more, 0), np.maximum(-more, 0), nothing, False)
        marked = self.individuals
        counts = (marked.verdicts != "false") & np.isin(marked.labels, list(classes))
        y = self._sums(counts)
        unsure = self._sums(counts & (marked.verdicts == "unsure"))
        right, taken, is_matched = self._matched(classes, counts)
        missed = self._sums(counts & ~taken)
        return Tallied(y, found, missed, found - right, unsure, is_matched)

    def _sums(self, flags: NDArray[np.bool_]) -> Floats:
        """The number of flagged individuals in each plot that is used."""
        there = self.plot[flags & (self.plot >= 0)]
        return np.bincount(there, minlength=len(self.record.plots)).astype(np.float64)[self.used]

    def _matched(
        self, classes: tuple[str, ...], counts: NDArray[np.bool_]
    ) -> tuple[Floats, NDArray[np.bool_], bool]:
        """Right detections of each plot, which individuals are detections, and whether that is known."""
        record, marked = self.record, self.individuals
        taken = np.zeros(len(marked), np.bool_)
        right = np.zeros(len(self.used))
        own = {each[0]: each[1] for plot in record.plots for each in plot.detections}
        kept: set[str] = set()
        if self.has_ids:
            for row in np.flatnonzero(counts & (marked.ids != "")).tolist():
                name = str(marked.ids[row])
                if name not in kept and own.get(name, classes[0]) in classes:
                    kept.add(name)
                    taken[row] = True
        by_place: list[tuple[int, float, float]] = []
        is_known = True
        for index, number in enumerate(self.used.tolist()):
            plot = record.plots[number]
            there = [each for each in plot.detections if each[1] in classes]
            if self.has_ids and not plot.is_blind:
                right[index] = sum(each[0] in kept for each in there)
            elif record.within is None:
                is_known = False
            else:
                by_place += [(index, x, y) for _, _, x, y in there]
        if not is_known:
            return self._least(classes, counts, right, taken)
        if by_place:
            assert record.within is not None
            free = np.flatnonzero(counts & ~taken)
            places = np.array([(x, y) for _, x, y in by_place])
            pairs = matching.assign(matching.by_distance(places, marked.xy[free], record.within, unit="m"))
            for detection, individual in zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True):
                right[by_place[detection][0]] += 1
                taken[free[individual]] = True
        return right, taken, True

    def _least(
        self, classes: tuple[str, ...], counts: NDArray[np.bool_], right: Floats, taken: NDArray[np.bool_]
    ) -> tuple[Floats, NDArray[np.bool_], bool]:
        """As many right ones in blind plots as there can be, where nothing is matched."""
        record = self.record
        for index, number in enumerate(self.used.tolist()):
            if self.has_ids and not record.plots[number].is_blind:
                continue
            rows = np.flatnonzero(counts & (self.plot == number))
            there = sum(map(record.plots[number].count, classes))
            right[index] = min(len(rows), there)
            taken[rows[: int(right[index])]] = True
        return right, taken, False
