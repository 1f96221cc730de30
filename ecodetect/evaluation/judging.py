"""Judges one image: true and false positives, detections that count as neither, and false negatives.

The outcome of each object is kept, so that `pooling` can sum it in any way and `report` can write a layer of
errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.annotations.laying import Annotations
from ecodetect.evaluation.criterion import Criterion, candidates
from ecodetect.evaluation.labels import class_numbers
from ecodetect.evaluation.pairing import Pair
from ecodetect.grid import Floats
from ecodetect.layer import Geometries, Layer
from ecodetect.matching import Flags, Rows

TRUE, FALSE, ABSORBED, OUTSIDE = 1, 0, 2, 3


@dataclass(frozen=True, eq=False, slots=True)
class JudgedImage:
    """One image, judged.

    names : of the compared classes; empty where classes aren't compared.  criterion : with its limit.
    outcome : (N,), TRUE, FALSE, ABSORBED or OUTSIDE for each detection.
    counted : (M,), rows of the truths that count.  missed : bool (M,).
    partner : (N,), position among `counted`; -1 without.  value : (N,), what the criterion compared.
    why, why_missed : (N,) and (M,), "duplicate", "merged", "other class", "ignored", "outside" or "".
    found_class, true_class : (N,) and (M,), positions in `names`; a truth of unknown class has the class of
        its detection, -1 where it was missed.
    score : (N,), NaN where there is none.
    on_curve, hit : (N,), which detections are on the precision-recall curve, and are true positives there.
    confused : (K, 2), found and true class of pairs that match except for their class.
    plot, true_plot : (N,) and (M,), number of the plot; -1 outside of all.
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
        """Centres of the detections in pixels, (N, 2)."""
        return matching.centres(self.pair.detections.geometry)

    @property
    def true_xy(self) -> Floats:
        """Centres of the counted truths in pixels, (M, 2)."""
        return matching.centres(self.pair.truths.geometry[self.counted])

    @property
    def steps(self) -> Floats:
        """Detection minus truth of each pair, (K, 2): metres east and north, or pixels."""
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


def judge(pair: Pair, ignored: Flags, criterion: Criterion, names: tuple[str, ...]) -> JudgedImage:
    """Match one image.

    ignored : which truths don't count.  names : classes to compare, as `class_names` gives them.
    """
    own, truths = pair.detections, pair.truths
    counted = np.flatnonzero(~ignored)
    possible, absorbable = candidates(pair, criterion, counted)
    found_class = class_numbers(own.label, names)
    true_class = class_numbers(truths.label[counted], names)
    # Objects of unknown class are compared by place only.
    is_unnamed, is_unknown = (
        np.asarray(labels == "") & bool(names) for labels in (own.label, truths.label[counted])
    )
    found_class[is_unnamed], true_class[is_unknown] = -1, -1
    is_same = found_class[possible.detection] == true_class[possible.truth]
    same = possible[is_same | is_unnamed[possible.detection] | is_unknown[possible.truth]]
    best = matching.assign(same)
    partner, value = np.full(len(own), -1, np.int64), np.full(len(own), np.nan)
    partner[best.detection], value[best.detection] = best.truth, best.value
    is_named = ~is_unnamed[best.detection]
    true_class[best.truth[is_named]] = found_class[best.detection[is_named]]
    found_class[best.detection] = true_class[best.truth]
    plot = _plot_of(pair, own.geometry)
    true_plot = _plot_of(pair, truths.geometry[counted])
    outside = plot < 0
    outcome = np.where(partner >= 0, TRUE, np.where(outside, OUTSIDE, np.where(absorbable, ABSORBED, FALSE)))
    # A detection near the area's edge belongs where its truth does.
    plot = np.where(partner >= 0, true_plot[partner] if len(counted) else 0, plot)
    missed = ~best.is_found
    is_false = outcome == FALSE
    why = np.full(len(own), "", object)
    why[outcome == ABSORBED], why[outcome == OUTSIDE] = "ignored", "outside"
    why_missed = np.full(len(counted), "", object)
    why_missed[missed & np.isin(np.arange(len(counted)), same.truth)] = "merged"
    why[is_false & np.isin(np.arange(len(own)), same.detection)] = "duplicate"
    left = possible[is_false[possible.detection] & missed[possible.truth]]
    other = matching.assign(left)
    why[other.detection] = why_missed[other.truth] = "other class"
    score = own.score
    hit = matching.ranked(same, np.nan_to_num(score)).is_true
    in_plot = _plot_of(pair, np.concatenate([truths.geometry[ignored], pair.doubtful]))
    n_plots = 1 if pair.plots is None else len(pair.plots)
    return JudgedImage(
        pair, names, possible.criterion, outcome.astype(np.int8), counted, partner, value, why, missed,
        why_missed, found_class, true_class, score, matching.counting(hit, outside, absorbable), hit,
        np.stack([found_class[other.detection], true_class[other.truth]], axis=1), plot, true_plot,
        np.bincount(in_plot[in_plot >= 0], minlength=n_plots).astype(np.int64),
    )  # fmt: skip


def _plot_of(pair: Pair, shapes: Geometries) -> Rows:
    """Number of the plot in which each shape has its centre, (N,); 0 where everything is one plot."""
    if pair.plots is None:
        return np.zeros(len(shapes), np.int64)
    return pair.plots.holding(matching.centres(shapes))


def _diameters(some: Annotations) -> Floats:
    """Diameters: of the circle with the same area, or twice the radius of a point; NaN where unknown."""
    area = np.asarray(shapely.area(some.geometry), np.float64)
    diameter = np.where(area > 0, np.sqrt(4 / np.pi * area), 2 * some.radius_px)
    if some.grid.gsd is None or not len(some):
        return diameter
    ground = some.grid.metres_per_pixel(matching.centres(some.geometry))
    return np.asarray(diameter * np.sqrt(np.abs(np.linalg.det(ground))), np.float64)
