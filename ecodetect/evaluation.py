"""How good are they? Detections against field annotations: rates, positions, counts, errors to look at.

`evaluate` reads both, matches them image by image (`pairing`, `matching`), and gives an `Evaluation`: numbers
with their n (`metrics`), a dictionary for programs, a layer of the errors for the GIS.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import __version__, metrics
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.judging import (
    ABSORBED,
    FALSE,
    OUTSIDE,
    TRUE,
    Criterion,
    Judged,
    check_labels,
    class_names,
    completed,
    is_ignored,
    judge,
)
from ecodetect.layer import Stream
from ecodetect.matching import Flags
from ecodetect.metrics import (
    AveragePrecision,
    CountError,
    Interval,
    MeanAveragePrecision,
    PositionError,
    Presence,
    Rates,
)
from ecodetect.pairing import Asked, Pairs, paired
from ecodetect.pictures import draw_sheet
from ecodetect.raster import open_raster

FEWEST_UNITS = 10  # files or plots below which ground is cut into blocks to draw from
BLOCKS = 36  # about so many in all
_SIZED = 15  # truths with a size below which sizes aren't told apart


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class.  ap : None where the detections have no scores."""

    name: str
    rates: Rates
    ap: AveragePrecision | None
    count: CountError
    position: PositionError


@dataclass(frozen=True, slots=True)
class UnitResult:
    """One file or plot."""

    name: str
    rates: Rates


@dataclass(frozen=True, slots=True)
class SizeResult:
    """Individuals of a range of diameters, low ≤ diameter < high, in `unit`.

    Pairs and missed truths go by the truth's size, false detections by their own.
    """

    low: float
    high: float
    unit: str
    rates: Rates


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """What came of an evaluation.

    criterion : by which detections and truths were matched, with its limit.
    rates : pooled over everything judged.
    classes, units, sizes : the same by class, by file or plot, by size.
    unit : what `units` are: "file" or "plot".
    ap : mean over classes; None where the detections have no scores.
    count : over units.  position : of matched pairs.
    presence : over units; None where there is one only.
    intervals : name of a figure -> bootstrap interval.  drawn : what was drawn: "file", "plot" or "block".
    confusions : (class found, true class) -> pairs that fit but for their class.
    duplicates : false detections of individuals that another detection has.
    merged : missed truths in whose place a detection belongs to another truth.
    ignored : truths that don't count.  absorbed : detections that match only those, neither right nor wrong.
    outside : detections outside the area where the truth is complete, not judged.
    notes : sentences for the user.  judged : image by image.
    """

    criterion: str
    rates: Rates
    classes: tuple[ClassResult, ...]
    units: tuple[UnitResult, ...]
    unit: str
    sizes: tuple[SizeResult, ...]
    ap: MeanAveragePrecision | None
    count: CountError
    position: PositionError
    presence: Presence | None
    intervals: Mapping[str, Interval]
    drawn: str
    confusions: Mapping[tuple[str, str], int]
    duplicates: int
    merged: int
    ignored: int
    absorbed: int
    outside: int
    notes: tuple[str, ...]
    judged: tuple[Judged, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them: what isn't defined is None."""
        table: dict[str, Any] = {
            "ecodetect": __version__,
            "criterion": self.criterion,
            **_rates(self.rates),
            "ap": _plain(self.ap),
            "count": _plain(self.count),
            "position": _plain(self.position),
            "presence": _presence(self.presence),
            "intervals": {name: _plain(each) for name, each in self.intervals.items()},
            "drawn": self.drawn,
            "classes": [
                {"name": c.name, **_rates(c.rates), "ap": _plain(c.ap), "count": _plain(c.count),
                 "position": _plain(c.position)}
                for c in self.classes
            ],
            "unit": self.unit,
            "units": [{"name": each.name, **_rates(each.rates)} for each in self.units],
            "sizes": [
                {"low": s.low, "high": s.high, "unit": s.unit, **_rates(s.rates)} for s in self.sizes
            ],
            "confusions": [
                {"found": found, "true": true, "n": n} for (found, true), n in self.confusions.items()
            ],
        }  # fmt: skip
        for name in ("duplicates", "merged", "ignored", "absorbed", "outside"):
            table[name] = getattr(self, name)
        return {**table, "notes": list(self.notes)}

    def errors(self) -> Stream:
        """Each detection and each missed truth as a feature, for `formats.write`.

        Columns: `label` (true, false, missed or unjudged), `class`, `score`, `why` (duplicate, merged, other
        class; ignored or outside), `value` (what the criterion compared, of pairs), `id` and `source`.
        """
        first = self.judged[0].pair.grid
        one = len(self.judged) == 1
        kinds = {
            int(kind)
            for each in self.judged
            for shapes in (each.pair.detections.geometry, each.pair.truths.geometry)
            for kind in np.unique(shapely.get_type_id(shapes))
        }
        geometry = "Point" if kinds == {0} else "Polygon" if kinds and kinds <= {3, 6} else "Unknown"
        columns = {"id": "str", "label": "str", "score": "float", "class": "str", "why": "str",
                   "value": "float", "source": "str"}  # fmt: skip
        metadata = {"ecodetect": __version__, "criterion": self.criterion}
        return Stream(
            (each.errors() for each in self.judged),
            geometry,
            columns,
            grid=first if one else None,
            crs=first.crs,
            classes=("true", "false", "missed", "unjudged"),
            metadata=metadata,
        )

    def draw_errors(self, path: str | os.PathLike[str], *, most: int = 60) -> None:
        """Draw cut-outs of the worst errors: the surest false detections, then the largest missed truths.

        Raises UserError where there is no raster or more than one to cut them from.
        """
        if len(self.judged) != 1 or self.judged[0].pair.image is None:
            raise UserError("A sheet of errors is cut from one raster; name it with --image.")
        each = self.judged[0]
        assert each.pair.image is not None
        with open_raster(each.pair.image) as raster:
            draw_sheet(raster, [each.worst(most)], path, most=most)


def evaluate(
    detections: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    criterion: Criterion | None = None,
    ignore: Sequence[str] = (),
    class_column: str | None = None,
    layer: str | None = None,
    area: str | os.PathLike[str] | None = None,
    gsd_m: float | None = None,
    empty_images: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Compare detections with annotations.

    Parameters
    ----------
    detections, annotations : str or path-like
        Files that `formats` reads, about one image or many, or folders with a file for each image.
    image : str, path-like or several, optional
        Raster, folder or pattern: where one side is in pixels and the other on the map.
    criterion : Criterion, optional
        By the geometries if not given: points by the radius or accuracy of each annotation, shapes by an
        IoU of 0.5, points and shapes by lying inside.
    ignore : sequence of str
        Class labels, or files of shapes, that are neither right nor wrong. So are annotations with a yes in
        a column `ignore` or `iscrowd`.
    class_column, layer : str, optional
        Column of the class, and layer, of the annotations.
    area : str or path-like, optional
        Polygons inside of which the truth is complete; several are plots. Outside nothing is judged.
    gsd_m : float, optional
        Metres per pixel, where the raster doesn't say.
    empty_images : bool
        Images that the annotations don't name are empty; otherwise they aren't judged.
    seed : int
        Of the bootstrap.

    Raises
    ------
    UserError
        In one sentence, when something can't be read or brought together.
    """
    files = [each for each in ignore if _is_file(each)]
    images = [image] if isinstance(image, (str, os.PathLike)) else list(image)
    asked = Asked(
        class_column, layer, tuple(files), None if area is None else os.fspath(area), gsd_m, empty_images
    )
    pairs = paired(detections, annotations, images, asked)
    labels = [each for each in ignore if each not in files]
    check_labels(labels, pairs)
    ignored = [is_ignored(pair, labels) for pair in pairs]
    chosen = completed(criterion, pairs)
    names = class_names(pairs, ignored)
    judged = [judge(pair, flags, chosen, names) for pair, flags in zip(pairs, ignored, strict=True)]
    return _summed(judged, names, pairs, seed)


def _is_file(text: str) -> bool:
    from ecodetect import formats

    known = formats.suffixes(writing=False)
    return os.path.exists(text) or os.path.splitext(text)[1].lower() in known  # noqa: PTH110, PTH122 - a label may be no path


# -- all together ------------------------------------------------------------------------------------------


def _summed(judged: Sequence[Judged], names: tuple[str, ...], pairs: Pairs, seed: int) -> Evaluation:
    is_plots = sum(len(each.pair.plots[0]) for each in judged if each.pair.plots is not None) > 1
    units, unknown = _units(judged, is_plots)
    table = np.array([[r.true_positives, r.false_positives, r.false_negatives] for _, r in units], np.int64)
    table = table.reshape(-1, 3)
    unit = "plot" if is_plots else "file"
    drawn, counts = unit, table
    if len(table) < FEWEST_UNITS:
        drawn, counts = "block", _blocks(judged)
    has_score = all(np.isfinite(each.score).all() for each in judged) and any(len(e.score) for e in judged)
    has_truth = any(len(each.counted) for each in judged)
    scored = has_score or (has_truth and not any(len(each.score) for each in judged))
    classes = tuple(_of_class(judged, number, names, scored) for number in range(len(names)))
    true, false, missed = table.sum(axis=0).tolist() if len(table) else (0, 0, 0)
    metric = all(each.pair.grid.gsd is not None for each in judged)
    steps = np.concatenate([each.steps for each in judged])
    confusions = Counter(
        (names[found], names[real]) for each in judged for found, real in each.confused.tolist()
    )
    rates = Rates(true, false, missed)
    return Evaluation(
        criterion=_span([each.criterion for each in judged]),
        rates=rates,
        classes=classes,
        units=tuple(UnitResult(name, each) for name, each in units),
        unit=unit,
        sizes=_by_size(judged),
        ap=metrics.mean_average_precision([c.ap for c in classes if c.ap is not None]) if scored else None,
        count=metrics.count_error(table[:, 0] + table[:, 1], table[:, 0] + table[:, 2]),
        position=metrics.position_error(steps, unit="m" if metric else "px"),
        presence=metrics.presence(table[:, 0] + table[:, 1], table[:, 0] + table[:, 2], unknown)
        if len(table) > 1
        else None,
        intervals=_intervals(counts, table, drawn, seed),
        drawn=drawn,
        confusions=dict(sorted(confusions.items())),
        duplicates=sum(int(np.count_nonzero(each.why == "duplicate")) for each in judged),
        merged=sum(int(np.count_nonzero(each.why_missed == "merged")) for each in judged),
        ignored=sum(int(each.n_doubtful.sum()) for each in judged),
        absorbed=sum(int(np.count_nonzero(each.outcome == ABSORBED)) for each in judged),
        outside=sum(int(np.count_nonzero(each.outcome == OUTSIDE)) for each in judged),
        notes=(*pairs.notes, *_remarks(judged, names, pairs, scored)),
        judged=tuple(judged),
    )


def _span(criteria: Sequence[str]) -> str:
    """One criterion; images may have limits of their own."""
    return " or ".join(dict.fromkeys(each for each in criteria if each != "distance")) or criteria[0]


def _units(judged: Sequence[Judged], is_plots: bool) -> tuple[list[tuple[str, Rates]], Flags]:
    """Rates of each file or plot, and which of them hold doubtful truths only."""
    units: list[tuple[str, Rates]] = []
    unknown = []
    for each in judged:
        plots = ("",) if not is_plots or each.pair.plots is None else each.pair.plots[1]
        for number, plot in enumerate(plots):
            mine = np.ones(len(each.plot), bool) if not is_plots else each.plot == number
            there = np.ones(len(each.true_plot), bool) if not is_plots else each.true_plot == number
            rates = _count(each, mine, there)
            name = each.pair.name if not plot else plot if len(judged) == 1 else f"{each.pair.name} {plot}"
            units.append((name, rates))
            doubtful = each.n_doubtful[number] if is_plots else each.n_doubtful.sum()
            unknown.append(rates.n_truths == 0 and doubtful > 0)
    return units, np.array(unknown, bool)


def _count(each: Judged, mine: Flags, there: Flags) -> Rates:
    return Rates(
        int(np.count_nonzero((each.outcome == TRUE) & mine)),
        int(np.count_nonzero((each.outcome == FALSE) & mine)),
        int(np.count_nonzero(each.missed & there)),
    )


def _of_class(judged: Sequence[Judged], number: int, names: tuple[str, ...], scored: bool) -> ClassResult:
    units = [_count(each, each.found_class == number, each.true_class == number) for each in judged]
    rates = Rates(
        sum(r.true_positives for r in units),
        sum(r.false_positives for r in units),
        sum(r.false_negatives for r in units),
    )
    ap = None
    if scored:
        rows = [each.on_curve & (each.found_class == number) for each in judged]
        ap = metrics.average_precision(
            np.concatenate([each.score[r] for each, r in zip(judged, rows, strict=True)]),
            np.concatenate([each.hit[r] for each, r in zip(judged, rows, strict=True)]),
            rates.n_truths,
        )
    metric = all(each.pair.grid.gsd is not None for each in judged)
    steps = np.concatenate([each.steps[each.found_class[each.partner >= 0] == number] for each in judged])
    count = metrics.count_error([r.n_detections for r in units], [r.n_truths for r in units])
    position = metrics.position_error(steps, unit="m" if metric else "px")
    return ClassResult(names[number], rates, ap, count, position)


def _by_size(judged: Sequence[Judged]) -> tuple[SizeResult, ...]:
    """Thirds of the truths by their size, with round limits; none where too few have a size."""
    pairs = [each.sizes() for each in judged]
    true = np.concatenate([sizes for _, sizes in pairs])
    known = true[np.isfinite(true)]
    if len(known) < _SIZED or len(known) < 0.5 * len(true):
        return ()
    limits = sorted({float(f"{limit:.2g}") for limit in np.quantile(known, [1 / 3, 2 / 3])})
    edges = [0.0, *limits, math.inf]
    unit = "m" if all(each.pair.grid.gsd is not None for each in judged) else "px"
    results = []
    for low, high in pairwise(edges):
        counts = np.zeros(3, np.int64)
        for each, (own, there) in zip(judged, pairs, strict=True):
            of_truth = (there >= low) & (there < high)
            of_own = (own >= low) & (own < high)
            partner = each.partner[each.partner >= 0]
            counts += [
                np.count_nonzero(of_truth[partner]),
                np.count_nonzero(of_own & (each.outcome == FALSE)),
                np.count_nonzero(of_truth & each.missed),
            ]
        results.append(SizeResult(low, high, unit, Rates(*counts.tolist())))
    return tuple(results)


def _blocks(judged: Sequence[Judged]) -> NDArray[np.int64]:
    """True, false, missed in square-ish blocks of ground that hold any of them, (B, 3)."""
    sides = max(2, math.ceil(math.sqrt(BLOCKS / max(1, len(judged)))))
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


def _intervals(
    counts: NDArray[np.int64], table: NDArray[np.int64], drawn: str, seed: int
) -> dict[str, Interval]:
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
    if drawn != "block":
        off = np.stack([np.abs(table[:, 1] - table[:, 2]), np.ones(len(table))], axis=1)
        found["mae"] = metrics.bootstrap(off, share((1, 0), (0, 1)), seed=seed)
    return found


def _remarks(judged: Sequence[Judged], names: tuple[str, ...], pairs: Pairs, scored: bool) -> Iterator[str]:
    """What a reader of the numbers must know."""
    found = {str(label) for each in judged for label in each.pair.detections.label} - {""}
    true = {str(label) for each in judged for label in each.pair.truths.label[each.counted]} - {""}
    if names == ("all",) and found and true:
        yield (
            f"Classes aren't compared: the detections are {_listed(found)}, the annotations {_listed(true)}."
        )
    if pairs.unjudged:
        yield (
            f"Not judged, because the annotations don't name them: {_images(pairs.unjudged)} with detections;"
            " if they are empty, say --empty-images."
        )
    if pairs.unsearched:
        yield f"Not judged, because nothing was searched there: {_images(pairs.unsearched)} with annotations."
    if scored and pairs.lowest_score not in (None, 0, {}):
        yield f"The detections were cut at a score of {pairs.lowest_score}, so AP is a lower bound."
    if not scored and any(len(each.score) for each in judged):
        yield "Detections without a score have no AP."
    yield from _beyond(judged)
    widened = sum(int(np.count_nonzero(each.pair.truths.accuracy_m[each.counted] > 0)) for each in judged)
    if widened and judged[0].criterion.startswith("distance"):
        yield f"For {widened:,} annotations with an accuracy the distance allowed is larger by it."


def _beyond(judged: Sequence[Judged]) -> Iterator[str]:
    """False detections where nobody may have looked for individuals."""
    false = beyond = 0
    for each in judged:
        xy = each.xy[each.outcome == FALSE]
        if each.pair.plots is None and len(each.counted) > 2 and len(xy):
            hull = shapely.convex_hull(shapely.union_all(shapely.points(each.true_xy)))
            false += len(xy)
            beyond += int(np.count_nonzero(~shapely.intersects_xy(hull, xy[:, 0], xy[:, 1])))
    if beyond > 0.5 * false:
        yield (
            f"{beyond:,} of {false:,} false detections lie outside the hull of the annotations; if the truth"
            " is complete only somewhere, give its outline with --area."
        )


def _images(names: Sequence[str]) -> str:
    return f"{len(names):,} image{'s' if len(names) > 1 else ''} ({_listed(names)})"


def _listed(names: Any, most: int = 5) -> str:
    names = sorted(str(name) for name in names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# -- for programs ------------------------------------------------------------------------------------------


def _plain(result: Any) -> Any:
    """A dataclass as JSON can hold it."""
    if result is None:
        return None
    return {name: _number(value) for name, value in dataclasses.asdict(result).items()}


def _named(result: Any, *names: str) -> dict[str, Any]:
    return {name: _number(getattr(result, name)) for name in names}


def _presence(table: Presence | None) -> dict[str, Any] | None:
    if table is None:
        return None
    return {**_plain(table), **_named(table, "n", "sensitivity", "specificity", "accuracy")}


def _rates(rates: Rates) -> dict[str, Any]:
    return {**_plain(rates), **_named(rates, "n_detections", "n_truths", "precision", "recall", "f1")}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
