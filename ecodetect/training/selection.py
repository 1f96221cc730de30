"""Thresholds from validation: the score with the best F1, and the one with which counts are unbiased.

Detections of validation ground are matched as `evaluation` does it, but once for all scores: the surest
first, so that the pairs at any threshold are the first of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.grid import Floats
from ecodetect.metrics import AveragePrecision, Rates, average_precision
from ecodetect.training.sample import Objects, Sample

FEW = 50  # truths: F1 is then known to about 0.07 at best (one standard error)
LEAST_IOU = 0.5  # of a box with its truth
LEVEL = 0.004  # F1s nearer than this to the best are as good: a threshold from their middle is more stable


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What a network finds on one sample.

    geometry : float64 (N, 2), points, or (N, 4), boxes as xmin, ymin, xmax, ymax; pixels of the sample.
    score : (N,).  label : int64 (N,).
    """

    geometry: Floats
    score: Floats
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def is_boxes(self) -> bool:
        return bool(self.geometry.shape[1] == 4)

    @property
    def xy(self) -> Floats:
        """Centres, (N, 2)."""
        middle: Floats = (self.geometry[:, :2] + self.geometry[:, -2:]) / 2
        return middle


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """Detections against truths, of one sample or pooled, for all scores at once.

    score, label : (N,), of the detections that count.
    is_true : bool (N,), whether each has a truth when all surer ones have taken theirs.
    n_truths : int64 (classes,).
    """

    score: Floats
    label: NDArray[np.int64]
    is_true: NDArray[np.bool_]
    n_truths: NDArray[np.int64]

    def rates(self, thresholds: Sequence[float]) -> Rates:
        """Pooled over classes, with one threshold for each."""
        kept = self.score >= np.asarray(thresholds, np.float64)[self.label]
        true = int(np.count_nonzero(self.is_true & kept))
        return Rates(true, int(np.count_nonzero(kept)) - true, int(self.n_truths.sum()) - true)

    def ap(self) -> AveragePrecision:
        """Of all classes together."""
        return average_precision(self.score, self.is_true, int(self.n_truths.sum()))

    def mean_ap(self) -> float:
        """The mean over classes that have truths; 0 where none has."""
        each = []
        for number in np.flatnonzero(self.n_truths):
            mine = self.label == number
            each.append(
                average_precision(self.score[mine], self.is_true[mine], int(self.n_truths[number])).coco
            )
        return float(np.mean(each)) if each else 0.0


def judge(found: Found, sample: Sample, within_px: float, n_classes: int) -> Judged:
    """Compare what was found with what is there.

    within_px : how far a point may lie from its truth; the truth's own inaccuracy is added. A box must have
        an IoU of `LEAST_IOU` with it.

    Truths count if their centre lies on valid ground that isn't ignored. A detection without a truth is false
    where the annotation is complete, and doesn't count elsewhere, nor near a truth that doesn't count.
    """
    objects = sample.objects
    if found.is_boxes:
        objects = objects[objects.is_sized]
    counted = ~_at(sample.ignored | ~sample.valid, objects.xy, outside=True)
    truths = objects[counted]
    is_true = np.zeros(len(found), np.bool_)
    for number in range(n_classes):
        mine, there = np.flatnonzero(found.label == number), truths.label == number
        pairs = _pairs(found.geometry[mine], truths[there], within_px)
        is_true[mine[matching.ranked(pairs, found.score[mine]).detection]] = True
    is_judged = _at(sample.known & sample.valid & ~sample.ignored, found.xy, outside=False)
    is_judged[_pairs(found.geometry, objects[~counted], within_px).detection] = False
    kept = is_true | is_judged
    n_truths = np.bincount(truths.label, minlength=n_classes).astype(np.int64)
    return Judged(found.score[kept], found.label[kept], is_true[kept], n_truths)


def _pairs(geometry: Floats, truths: Objects, within_px: float) -> matching.Candidates:
    """Which detections may be which truths."""
    if geometry.shape[1] == 4:
        return matching.by_iou(_shapes(geometry), _shapes(truths.box), LEAST_IOU)
    return matching.by_distance(geometry, truths.xy, within_px + truths.accuracy_px, unit="px")


def _shapes(boxes: Floats) -> NDArray[np.object_]:
    return np.asarray(shapely.box(*boxes.T), dtype=object).reshape(-1)


def _at(mask: NDArray[np.bool_], xy: Floats, *, outside: bool) -> NDArray[np.bool_]:
    """The mask at places; `outside` beyond it."""
    height, width = mask.shape
    column, row = np.floor(xy).astype(np.int64).T if len(xy) else np.empty((2, 0), np.int64)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    result = np.full(len(xy), outside)
    result[inside] = mask[row[inside], column[inside]]
    return result


def pooled(parts: Iterable[Judged], n_classes: int) -> Judged:
    """Samples together."""
    each = [
        *parts,
        Judged(np.empty(0), np.empty(0, np.int64), np.empty(0, np.bool_), np.zeros(n_classes, int)),
    ]
    return Judged(
        np.concatenate([part.score for part in each]),
        np.concatenate([part.label for part in each]),
        np.concatenate([part.is_true for part in each]),
        np.sum([part.n_truths for part in each], axis=0),
    )


def choose(judged: Judged, *, otherwise: float) -> dict[str, tuple[float, ...]]:
    """Purpose -> one threshold per class: "f1", best F1; "count", as many detections as truths.

    otherwise : where there is nothing to choose from. A class without a truth or a true detection takes the
        middle of the others'.
    """
    n_classes = len(judged.n_truths)
    chosen: dict[str, list[float | None]] = {"f1": [], "count": []}
    for number in range(n_classes):
        mine = judged.label == number
        score, is_true = judged.score[mine], judged.is_true[mine]
        n_truths = int(judged.n_truths[number])
        if not n_truths or not is_true.any():
            chosen["f1"].append(None)
            chosen["count"].append(None)
            continue
        order = np.argsort(-score, kind="stable")
        score, hits = score[order], np.cumsum(is_true[order])
        f1 = 2 * hits / (np.arange(1, len(score) + 1) + n_truths)
        # Only between different scores can a threshold lie.
        f1[:-1][score[:-1] == score[1:]] = -1.0
        best = int(f1.argmax())
        good = np.flatnonzero(f1 >= f1[best] - LEVEL)
        chosen["f1"].append(_between(score, int(good[len(good) // 2])))
        chosen["count"].append(_between(score, min(n_truths, len(score)) - 1))
    found = {}
    for purpose, values in chosen.items():
        known = [each for each in values if each is not None]
        middle = float(np.median(known)) if known else otherwise
        found[purpose] = tuple(middle if each is None else each for each in values)
    return found


def _between(score: Floats, last: int) -> float:
    """A threshold that keeps the detections up to row `last` and no more, rounded where there is room."""
    low = float(score[last + 1]) if last + 1 < len(score) else float(score[last]) * 0.9
    middle = (float(score[last]) + low) / 2
    rounded = round(middle, 4)
    return rounded if low < rounded <= float(score[last]) else middle
