"""One image, judged: which detections are true, false or neither, and which individuals were missed.

What can't be seen in a number is kept for each object, so that `evaluation` can sum it up in any way and
write it as a layer of errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.annotations import Annotations
from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Grid
from ecodetect.layer import Geometries, Layer
from ecodetect.matching import Candidates, Flags, Rows
from ecodetect.pairing import Pair, Pairs, centres_inside
from ecodetect.sizes import Length

_YES = ("1", "true", "yes", "y", "ja", "t")


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a detection can be a truth: at most `limit` apart, with an IoU of at least `limit`, or inside.

    limit : metres or pixels; None takes each annotation's own radius and accuracy.
    is_of_boxes : IoU of the bounding boxes, because one side has only boxes: a round outline fills no more
        than 79 % of its box.
    """

    kind: Literal["distance", "iou", "inside"]
    limit: Length | float | None = None
    is_of_boxes: bool = False


def check_labels(labels: Sequence[str], pairs: Pairs) -> None:
    """Raise UserError for a label to ignore that no annotation has."""
    there = {str(label) for pair in pairs for label in pair.truths.label}
    for label in labels:
        if label not in there:
            known = ", ".join(sorted(filter(None, there))) or "none"
            raise UserError(
                f"--ignore {label} is neither a file nor a class of the annotations, which are: {known}."
            )


def is_ignored(pair: Pair, labels: Sequence[str]) -> Flags:
    """Truths that are doubtful, or whose centre lies outside where the truth is complete."""
    truths = pair.truths
    flags = truths.ignore | np.isin(truths.label.astype(str), list(labels))
    for name, values in truths.columns.items():
        if name.casefold() in ("ignore", "iscrowd"):
            flags |= np.array([str(value).casefold() in (*_YES, "1.0") for value in values.tolist()], bool)
    if pair.plots is not None:
        flags |= centres_inside(pair.plots[0], matching.centres(truths.geometry)) < 0
    return flags


# -- what is compared with what ----------------------------------------------------------------------------


def completed(criterion: Criterion | None, pairs: Pairs) -> Criterion:
    """The criterion that the geometries ask for, where none is given; and what shapes it compares."""
    found, there = (
        np.concatenate([getattr(pair, side).geometry for pair in pairs]) for side in ("detections", "truths")
    )
    are_shapes = [len(side) > 0 and bool((shapely.area(side) > 0).all()) for side in (found, there)]
    if criterion is None:
        if not any(are_shapes):
            return Criterion("distance")
        criterion = Criterion("iou", 0.5) if all(are_shapes) else Criterion("inside")
    if criterion.kind == "iou" and _are_boxes(found) != _are_boxes(there):
        return replace(criterion, is_of_boxes=True)
    return criterion


def _are_boxes(shapes: Geometries) -> bool:
    full = shapely.area(shapely.envelope(shapes))
    return bool((shapely.area(shapes) >= full * (1 - 1e-6)).all())


def class_names(pairs: Pairs, ignored: Sequence[Flags]) -> tuple[str, ...]:
    """Names of the classes to compare; one, "all", where classes can't or needn't be compared."""
    true: dict[str, str] = {}
    for pair, flags in zip(pairs, ignored, strict=True):
        for label in pair.truths.label[~flags].tolist():
            true.setdefault(_key(label), label)
    found: dict[str, str] = {}
    for pair in pairs:
        for label in pair.detections.label.tolist():
            found.setdefault(_key(label), label)
    if true.keys() & found.keys() - {""}:
        return tuple(
            dict.fromkeys([*sorted(true.values()), *(found[k] for k in sorted(found) if k not in true)])
        )
    if len(true) > 1 and len(found) > 1:
        raise UserError(
            f"Detections and annotations have no class in common: {', '.join(sorted(found.values()))} and"
            f" {', '.join(sorted(true.values()))}; is --class-column right?"
        )
    return ("all",)


def _key(label: object) -> str:
    return str(label).strip().casefold()


def _class_numbers(labels: NDArray[np.object_], names: tuple[str, ...]) -> Rows:
    if names == ("all",):
        return np.zeros(len(labels), np.int64)
    number = {_key(name): index for index, name in enumerate(names)}
    return np.array([number.get(_key(label), -1) for label in labels.tolist()], np.int64)


def _candidates(pair: Pair, criterion: Criterion, counted: Rows) -> tuple[Candidates, Flags]:
    """Pairs of detections and counted truths, and which detections ignored truths would take."""
    own, truths = pair.detections, pair.truths
    doubtful = np.concatenate([np.delete(truths.geometry, counted), pair.ignored])
    shapes, real = own.geometry, truths.geometry[counted]
    if criterion.kind == "iou":
        for what, each in (("detections", shapes), ("annotations", real)):
            if len(each) and not (shapely.area(each) > 0).all():
                raise UserError(
                    f"The {what} of {pair.name} are points, which have no IoU; use --within or --inside."
                )
        share = criterion.limit
        assert isinstance(share, float)
        doubtful = doubtful[shapely.area(doubtful) > 0]
        if criterion.is_of_boxes:
            shapes, real = shapely.envelope(shapes), shapely.envelope(real)
        name = "IoU of bounding boxes" if criterion.is_of_boxes else "IoU"
        return matching.by_iou(shapes, real, share, name=name), matching.covered(shapes, doubtful, share)
    if criterion.kind == "inside":
        if len(shapes) and len(real) and not (shapely.area(shapes).any() or shapely.area(real).any()):
            raise UserError(f"{pair.name} has points only, and nothing lies inside a point; use --within.")
        return matching.by_inside(shapes, real), matching.within(shapes, doubtful)
    unit, limits = _limits(pair, criterion, counted)
    places, here = matching.centres(shapes), matching.centres(real)
    of_doubtful = np.concatenate([np.delete(limits, counted), np.full(len(pair.ignored), _widest(limits))])
    ground = there = None
    if unit == "m":
        ground = pair.grid.metres_per_pixel(here)
        there = pair.grid.metres_per_pixel(matching.centres(doubtful))
    pairs = matching.by_distance(places, here, limits[counted], unit=unit, metres_per_pixel=ground)
    return pairs, matching.near(places, doubtful, of_doubtful, metres_per_pixel=there)


def _widest(limits: Floats) -> float:
    return float(limits.max()) if len(limits) else 0.0


def _limits(pair: Pair, criterion: Criterion, counted: Rows) -> tuple[str, Floats]:
    """The unit, and how far a detection may lie from each truth: the limit and the truth's own accuracy."""
    truths, grid = pair.truths, pair.grid
    limit = criterion.limit
    gsd = grid.gsd
    accuracy = np.nan_to_num(truths.accuracy_m)
    if isinstance(limit, Length):
        if limit.unit == "m" and gsd is None:
            raise UserError(
                f"--within is {limit}, but {pair.name} has no CRS: state --gsd, or give it in px."
            )
        if limit.unit == "px" and not pair.has_pixels:
            raise UserError(f"--within is {limit}, but without a raster there are no pixels; add --image.")
        if limit.unit == "px":
            return "px", limit.value + (accuracy / _metres(grid) if gsd is not None else 0 * accuracy)
        return "m", limit.value + accuracy
    own = np.where(np.isfinite(truths.radius_px), truths.radius_px, 0.0)
    own = own * _metres(grid) + accuracy if gsd is not None else own
    without = int(np.count_nonzero(~(own[counted] > 0)))
    if without:
        raise UserError(
            f"{without} of {len(counted)} annotations of {pair.name} have neither a radius nor an accuracy;"
            " say with --within how far a detection may be off (3m, 10px)."
        )
    return "px" if gsd is None else "m", own


def _metres(grid: Grid) -> float:
    """Metres of a pixel's side."""
    assert grid.gsd is not None
    return math.sqrt(grid.gsd[0] * grid.gsd[1])


# -- one image ---------------------------------------------------------------------------------------------

TRUE, FALSE, ABSORBED, OUTSIDE = 1, 0, 2, 3


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """One image, judged.

    names : of the classes compared.  criterion : with its limit.
    outcome : (N,), TRUE, FALSE, ABSORBED or OUTSIDE for each detection.
    counted : (M,), rows of the truths that count.  missed : bool (M,).
    partner : (N,), position among `counted`; -1 without.  value : (N,), what the criterion compared of them.
    why, why_missed : (N,) and (M,), "duplicate", "merged", "other class", "ignored", "outside" or "".
    found_class, true_class : (N,) and (M,), positions in `names`.
    score : (N,), NaN where there is none.
    on_curve, hit : (N,), which detections are on the curve of precision over recall, and are true there.
    confused : (K, 2), found and true class of pairs that fit but for their class.
    plot, true_plot : (N,) and (M,), number of the plot; -1 without.
    n_doubtful : (plots,), truths that don't count.
    """

    pair: Pair
    names: tuple[str, ...]
    criterion: str
    outcome: NDArray[np.int8]
    counted: Rows
    partner: Rows
    value: Floats
    why: NDArray[np.object_]
    missed: Flags
    why_missed: NDArray[np.object_]
    found_class: Rows
    true_class: Rows
    score: Floats
    on_curve: Flags
    hit: Flags
    confused: Rows
    plot: Rows
    true_plot: Rows
    n_doubtful: Rows

    @property
    def xy(self) -> Floats:
        return matching.centres(self.pair.detections.geometry)

    @property
    def true_xy(self) -> Floats:
        return matching.centres(self.pair.truths.geometry[self.counted])

    @property
    def steps(self) -> Floats:
        """Detection minus truth of each pair, (M, 2): metres east and north, or pixels."""
        rows = np.flatnonzero(self.partner >= 0)
        there = self.true_xy[self.partner[rows]]
        step = self.xy[rows] - there
        if self.pair.grid.gsd is None:
            return step
        ground: Floats = np.einsum("nij,nj->ni", self.pair.grid.metres_per_pixel(there), step)
        return ground

    def sizes(self) -> tuple[Floats, Floats]:
        """Diameters of detections and of counted truths, in metres where they are known, else pixels."""
        return _diameters(self.pair.detections), _diameters(self.pair.truths)[self.counted]

    def errors(self) -> Layer:
        """All detections and the missed truths; columns as in `Evaluation.errors`."""
        own, truths = self.pair.detections, self.pair.truths
        missed = self.counted[self.missed]
        words = np.array(["false", "true", "unjudged", "unjudged"], object)[self.outcome]
        ids = own.columns.get("id", np.full(len(own), "", object))
        n = len(missed)

        def joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([first, second])

        blank = np.full(n, "", object)
        columns = {
            "id": joined(np.array([str(each) for each in ids.tolist()], object), blank),
            "label": joined(words, np.full(n, "missed", object)),
            "score": joined(self.score, np.full(n, np.nan)),
            "class": joined(own.label, truths.label[missed]),
            "why": joined(self.why, self.why_missed[self.missed]),
            "value": joined(self.value, np.full(n, np.nan)),
            "source": np.full(len(own) + n, self.pair.name, object),
        }
        return Layer(joined(own.geometry, truths.geometry[missed]), columns, grid=self.pair.grid)

    def worst(self, most: int) -> Detections:
        """Boxes of the surest false detections and the largest missed truths, half of each."""
        own, truths = self.pair.detections, self.pair.truths
        false = np.flatnonzero(self.outcome == FALSE)
        missed = self.counted[self.missed]
        score = np.nan_to_num(self.score[false])
        size = np.nan_to_num(_diameters(truths)[missed])
        false = false[np.argsort(-score, kind="stable")]
        missed = missed[np.argsort(-size, kind="stable")]
        room = max(most // 2, most - len(missed)), max(most // 2, most - len(false))
        false, missed = false[: room[0]], missed[: room[1]]
        bounds = np.concatenate([_boxes(own, false), _boxes(truths, missed)])
        scores = np.concatenate([np.nan_to_num(self.score[false]), np.zeros(len(missed))])
        label = np.repeat(np.array([0, 1], np.int64), [len(false), len(missed)])
        return Detections(self.pair.grid, "box", bounds, scores, label, ("false", "missed"))


def _boxes(some: Annotations, rows: Rows) -> Floats:
    """Boxes around shapes, and around points as large as their radius says."""
    bounds = np.asarray(shapely.bounds(some.geometry[rows]), np.float64).reshape(-1, 4)
    radius = np.where(np.isfinite(some.radius_px[rows]), some.radius_px[rows], 8.0)  # some surroundings
    radius = np.where(shapely.area(some.geometry[rows]) > 0, 0.0, radius)[:, None]
    return np.asarray(bounds + np.hstack([-radius, -radius, radius, radius]), np.float64)


def _diameters(some: Annotations) -> Floats:
    """Of the circle with the same area, or twice the radius of a point; NaN where nothing says it."""
    area = np.asarray(shapely.area(some.geometry), np.float64)
    diameter = np.where(area > 0, np.sqrt(4 / np.pi * area), 2 * some.radius_px)
    if some.grid.gsd is None or not len(some):
        return diameter
    ground = some.grid.metres_per_pixel(matching.centres(some.geometry))
    return np.asarray(diameter * np.sqrt(np.abs(np.linalg.det(ground))), np.float64)


def _scores(own: Annotations) -> Floats:
    """The column `score`; NaN where there is none."""
    values = own.columns.get("score")
    if values is None or values.dtype.kind not in "fiu":
        return np.full(len(own), np.nan)
    return values.astype(np.float64)


def judge(pair: Pair, ignored: Flags, criterion: Criterion, names: tuple[str, ...]) -> Judged:
    """Match one image.

    ignored : which truths don't count.  names : classes to compare, as `class_names` gives them.
    """
    own, truths = pair.detections, pair.truths
    counted = np.flatnonzero(~ignored)
    candidates, absorbable = _candidates(pair, criterion, counted)
    found_class = _class_numbers(own.label, names)
    true_class = _class_numbers(truths.label[counted], names)
    same = candidates[found_class[candidates.detection] == true_class[candidates.truth]]
    best = matching.assign(same)
    partner, value = np.full(len(own), -1, np.int64), np.full(len(own), np.nan)
    partner[best.detection], value[best.detection] = best.truth, best.value
    plots = np.empty(0, object) if pair.plots is None else pair.plots[0]
    plot = centres_inside(plots, matching.centres(own.geometry))
    true_plot = centres_inside(plots, matching.centres(truths.geometry[counted]))
    outside = plot < 0 if pair.plots is not None else np.zeros(len(own), bool)
    outcome = np.where(partner >= 0, TRUE, np.where(outside, OUTSIDE, np.where(absorbable, ABSORBED, FALSE)))
    # A detection near the area's edge belongs where its truth does.
    plot = np.where(partner >= 0, true_plot[partner] if len(counted) else -1, plot)
    missed = ~best.is_found
    is_false = outcome == FALSE
    why = np.full(len(own), "", object)
    why[outcome == ABSORBED], why[outcome == OUTSIDE] = "ignored", "outside"
    why_missed = np.full(len(counted), "", object)
    why_missed[missed & np.isin(np.arange(len(counted)), same.truth)] = "merged"
    why[is_false & np.isin(np.arange(len(own)), same.detection)] = "duplicate"
    left = candidates[is_false[candidates.detection] & missed[candidates.truth]]
    other = matching.assign(left)
    why[other.detection] = why_missed[other.truth] = "other class"
    score = _scores(own)
    hit = matching.ranked(same, np.nan_to_num(score)).is_true
    doubtful = matching.centres(np.concatenate([truths.geometry[ignored], pair.ignored]))
    in_plot = centres_inside(plots, doubtful) if pair.plots is not None else np.zeros(len(doubtful), np.int64)
    return Judged(
        pair, names, candidates.criterion, outcome.astype(np.int8), counted, partner, value, why, missed,
        why_missed, found_class, true_class, score, hit | ~(outside | absorbable), hit,
        np.stack([found_class[other.detection], true_class[other.truth]], axis=1), plot, true_plot,
        np.bincount(in_plot[in_plot >= 0], minlength=max(1, len(plots))).astype(np.int64),
    )  # fmt: skip
