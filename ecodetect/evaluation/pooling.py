"""Pools judged images: rates per file or plot, per class and per size, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect import metrics
from ecodetect.evaluation.judging import FALSE, TRUE, JudgedImage
from ecodetect.grid import Floats
from ecodetect.matching import Flags, Rows
from ecodetect.metrics import AveragePrecision, CountError, Interval, PositionError, Rates

_BLOCKS = 36  # approximate number in all
_SIZED = 15  # with fewer sized truths, there are no classes of size


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class.  ap : None where the detections have no scores."""

    name: str
    rates: Rates
    ap: AveragePrecision | None
    count: CountError
    position: PositionError


@dataclass(frozen=True, slots=True)
class UnitRates:
    """One file or plot."""

    name: str
    rates: Rates


@dataclass(frozen=True, slots=True)
class SizeResult:
    """Individuals of a range of diameters, low ≤ diameter < high, in `unit`.

    Pairs and false negatives are sorted by the truth's size, false positives by their own.
    count : over files or plots.
    """

    low: float
    high: float
    unit: str
    rates: Rates
    count: CountError


def unit_of_length(judged: Sequence[JudgedImage]) -> Literal["m", "px"]:
    """Metres if all images have them, else pixels."""
    return "m" if all(each.pair.grid.gsd is not None for each in judged) else "px"


def pooled(parts: Sequence[Rates]) -> Rates:
    """Rates of the sums."""
    return Rates(
        sum(each.true_positives for each in parts),
        sum(each.false_positives for each in parts),
        sum(each.false_negatives for each in parts),
    )


def by_unit(judged: Sequence[JudgedImage], *, are_plots: bool) -> tuple[tuple[UnitRates, ...], Flags]:
    """Each file, or each plot, and which of them hold only doubtful truths."""
    units: list[UnitRates] = []
    unknown = []
    for each in judged:
        plots = ("",) if not are_plots or each.pair.plots is None else each.pair.plots.names
        for number, (plot, (mine, there)) in enumerate(
            zip(plots, _units(each, are_plots=are_plots), strict=True)
        ):
            rates = _count(each, mine, there)
            name = each.pair.name if not plot else plot if len(judged) == 1 else f"{each.pair.name} {plot}"
            units.append(UnitRates(name, rates))
            doubtful = each.n_doubtful[number] if are_plots else each.n_doubtful.sum()
            unknown.append(rates.n_truths == 0 and doubtful > 0)
    return tuple(units), np.array(unknown, bool)


def _count(each: JudgedImage, mine: Flags, there: Flags) -> Rates:
    return Rates(
        int(np.count_nonzero((each.outcome == TRUE) & mine)),
        int(np.count_nonzero((each.outcome == FALSE) & mine)),
        int(np.count_nonzero(each.missed & there)),
    )


def by_class(
    judged: Sequence[JudgedImage], names: Sequence[str], *, has_ap: bool, are_plots: bool
) -> tuple[ClassResult, ...]:
    """The figures per class. Objects are sorted by class once, so that thousands of classes are fast."""
    k = len(names)
    true, false, missed = _by_unit_and_class(judged, k, are_plots=are_plots)
    score, hit, of_curve = (
        np.concatenate([getattr(each, side)[each.on_curve] for each in judged])
        for side in ("score", "hit", "found_class")
    )
    steps = np.concatenate([each.steps for each in judged])
    of_steps = np.concatenate([each.found_class[each.partner >= 0] for each in judged])
    curves, pairs = _rows_of(of_curve, k), _rows_of(of_steps, k)
    unit = unit_of_length(judged)
    results = []
    for number, name in enumerate(names):
        tp, fp, fn = (int(each[:, number].sum()) for each in (true, false, missed))
        rates = Rates(tp, fp, fn)
        rows = curves[number]
        ap = metrics.average_precision(score[rows], hit[rows], rates.n_truths) if has_ap else None
        own, there = (true[:, number] + other[:, number] for other in (false, missed))
        position = metrics.position_error(steps[pairs[number]], unit=unit)
        results.append(ClassResult(name, rates, ap, metrics.count_error(own, there), position))
    return tuple(results)


def _by_unit_and_class(
    judged: Sequence[JudgedImage], k: int, *, are_plots: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """True positives, false positives and false negatives per file or plot and class, (units, k)."""

    def numbers(of: Rows, rows: Flags) -> NDArray[np.int32]:
        return np.bincount(of[rows & (of >= 0)], minlength=k).astype(np.int32)

    sides: tuple[list[NDArray[np.int32]], ...] = ([], [], [])
    for each in judged:
        for mine, there in _units(each, are_plots=are_plots):
            sides[0].append(numbers(each.found_class, (each.outcome == TRUE) & mine))
            sides[1].append(numbers(each.found_class, (each.outcome == FALSE) & mine))
            sides[2].append(numbers(each.true_class, each.missed & there))
    true, false, missed = (np.array(side, np.int32).reshape(-1, k) for side in sides)
    return true, false, missed


def _rows_of(number: Rows, k: int) -> list[Rows]:
    """The rows of each of k classes, in their order."""
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(k + 1))
    return [order[first:last] for first, last in pairwise(ends)]


def by_size(judged: Sequence[JudgedImage], *, are_plots: bool) -> tuple[SizeResult, ...]:
    """Thirds of the truths by size, with round limits; empty where too few have a size."""
    pairs = [each.sizes() for each in judged]
    true = np.concatenate([sizes for _, sizes in pairs])
    known = true[np.isfinite(true)]
    if len(known) < _SIZED or len(known) < 0.5 * len(true):
        return ()
    limits = sorted({float(f"{limit:.2g}") for limit in np.quantile(known, [1 / 3, 2 / 3])})
    edges = [0.0, *limits, math.inf]
    unit = unit_of_length(judged)
    results = []
    for low, high in pairwise(edges):
        units: list[Rates] = []
        for each, (own, there) in zip(judged, pairs, strict=True):
            of_truth = (there >= low) & (there < high)
            is_false = (own >= low) & (own < high) & (each.outcome == FALSE)
            hit = each.partner >= 0
            is_true = np.zeros(len(hit), bool)
            is_true[hit] = of_truth[each.partner[hit]]
            for mine, here in _units(each, are_plots=are_plots):
                units.append(
                    Rates(
                        int(np.count_nonzero(is_true & mine)),
                        int(np.count_nonzero(is_false & mine)),
                        int(np.count_nonzero(of_truth & each.missed & here)),
                    )
                )
        results.append(SizeResult(low, high, unit, pooled(units), counted(units)))
    return tuple(results)


def counted(units: Sequence[Rates]) -> CountError:
    """Detected numbers compared with true numbers, over files or plots."""
    return metrics.count_error([each.n_detections for each in units], [each.n_truths for each in units])


def _units(each: JudgedImage, *, are_plots: bool) -> Iterator[tuple[Flags, Flags]]:
    """Which detections and which counted truths belong to each file, or to each of its plots."""
    if not are_plots or each.pair.plots is None:
        yield np.ones(len(each.plot), bool), np.ones(len(each.true_plot), bool)
        return
    for number in range(len(each.pair.plots)):
        yield each.plot == number, each.true_plot == number


def by_block(judged: Sequence[JudgedImage]) -> NDArray[np.int64]:
    """True positives, false positives and false negatives in blocks of ground with any of them, (B, 3)."""
    sides = max(2, math.ceil(math.sqrt(_BLOCKS / max(1, len(judged)))))
    rows = [np.zeros((0, 3), np.int64)]
    for each in judged:
        found = each.xy[each.outcome == FALSE]
        there = each.true_xy
        hit = there[~each.missed]
        lost = there[each.missed]
        every = np.concatenate([hit, found, lost])
        if not len(every):
            continue
        low, high = every.min(axis=0), every.max(axis=0)
        step = np.maximum(high - low, 1e-9) / sides
        counts = np.zeros((sides * sides, 3), np.int64)
        for kind, xy in enumerate((hit, found, lost)):
            place = np.minimum((xy - low) // step, sides - 1).astype(np.int64)
            counts[:, kind] = np.bincount(place[:, 1] * sides + place[:, 0], minlength=sides * sides)
        rows.append(counts[counts.any(axis=1)])
    return np.concatenate(rows)


def intervals(counts: NDArray[np.int64], *, are_units: bool, seed: int) -> dict[str, Interval]:
    """Name of a figure -> its interval.

    counts : (D, 3), true positives, false positives, false negatives of each drawn unit.
    are_units : whether the units are files or plots, so that there is a mean count error.
    """

    def share(part: Sequence[float], whole: Sequence[float]) -> Any:
        up, down = np.array(part, np.float64), np.array(whole, np.float64)

        def figure(sums: Floats) -> Floats:
            n = sums @ down
            values: Floats = np.divide(sums @ up, n, out=np.full(len(sums), np.nan), where=n > 0)
            return values

        return figure

    figures = {
        "precision": share((1, 0, 0), (1, 1, 0)),
        "recall": share((1, 0, 0), (1, 0, 1)),
        "f1": share((2, 0, 0), (2, 1, 1)),
        "relative_count_error": share((0, 1, -1), (1, 0, 1)),
    }
    found = {name: metrics.bootstrap(counts, figure, seed=seed) for name, figure in figures.items()}
    if are_units:
        off = np.stack([np.abs(counts[:, 1] - counts[:, 2]), np.ones(len(counts))], axis=1)
        found["mae"] = metrics.bootstrap(off, share((1, 0), (0, 1)), seed=seed)
    return found
