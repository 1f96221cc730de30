"""How good detections are, as numbers with their n: pure functions of counts, scores and distances.

Nothing here knows geometries or files: `matching` says which detection is which truth, `evaluation` brings
both together. A figure that isn't defined (precision without a detection) is NaN, never 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecodetect.grid import Floats

_RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the curve
_AT_ONCE = 2_000_000  # drawn weights held at once


def ratio(part: float, whole: float) -> float:
    """part / whole, NaN where the whole is 0."""
    return part / whole if whole else math.nan


@dataclass(frozen=True, slots=True)
class Rates:
    """Detections against truths, pooled.

    true_positives : detections with a truth.  false_positives : detections without.
    false_negatives : truths without a detection.
    """

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def n_detections(self) -> int:
        return self.true_positives + self.false_positives

    @property
    def n_truths(self) -> int:
        return self.true_positives + self.false_negatives

    @property
    def precision(self) -> float:
        """TP / (TP + FP): the share of the detections that are right."""
        return ratio(self.true_positives, self.n_detections)

    @property
    def recall(self) -> float:
        """TP / (TP + FN): the share of the truths that were found."""
        return ratio(self.true_positives, self.n_truths)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.true_positives, self.n_detections + self.n_truths)


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Area under the curve of precision over recall that a falling score draws.

    coco : mean of the precision at 101 recalls (0, 0.01, … 1), as COCO's evaluation has it.
    all_point : the exact area, as PASCAL VOC has it since 2010.
    n_detections, n_truths : what it was measured on.

    Both take at each recall the best precision reached there or beyond. NaN without a truth, 0 without a
    detection.
    """

    coco: float
    all_point: float
    n_detections: int
    n_truths: int


def average_precision(score: ArrayLike, is_true: ArrayLike, n_truths: int) -> AveragePrecision:
    """AP of the detections of one class.

    score : (N,), higher is surer; equal scores keep their order, as in COCO.
    is_true : bool (N,), whether each has a truth (`matching.ranked`).
    n_truths : truths there are.
    """
    scores, hits = np.asarray(score, np.float64), np.asarray(is_true, np.bool_)
    if not n_truths:
        return AveragePrecision(math.nan, math.nan, len(scores), 0)
    right = np.cumsum(hits[np.argsort(-scores, kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / n_truths
    at = np.searchsorted(recall, _RECALLS, side="left")
    coco = float(np.append(precision, 0.0)[at].mean())
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return AveragePrecision(coco, area, len(scores), n_truths)


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """Mean of the APs of several classes.

    coco, all_point : as in AveragePrecision.
    n_classes : classes with a truth; the others have no AP and aren't in the mean.
    """

    coco: float
    all_point: float
    n_classes: int


def mean_average_precision(classes: Sequence[AveragePrecision]) -> MeanAveragePrecision:
    """The mean over classes that have a truth; NaN if none has."""
    known = [each for each in classes if each.n_truths]
    n = len(known)
    return MeanAveragePrecision(
        ratio(sum(each.coco for each in known), n), ratio(sum(each.all_point for each in known), n), n
    )


@dataclass(frozen=True, slots=True)
class PositionError:
    """How far matched detections lie from their truths.

    rmse : root of the mean squared distance.
    shift_x, shift_y : mean of detection minus truth along both axes: what all have in common.
    unit : "m" (x is east, y north) or "px" (x right, y down).
    n : pairs.
    """

    rmse: float
    shift_x: float
    shift_y: float
    unit: str
    n: int


def position_error(steps: Floats, *, unit: str) -> PositionError:
    """steps : float64 (M, 2), detection minus truth.  M = 0 gives NaN."""
    n = len(steps)
    if not n:
        return PositionError(math.nan, math.nan, math.nan, unit, 0)
    x, y = steps.mean(axis=0).tolist()
    return PositionError(float(np.sqrt(np.sum(steps**2) / n)), x, y, unit, n)


@dataclass(frozen=True, slots=True)
class CountError:
    """Numbers counted against true numbers, over files or plots.

    detected, true : sums.
    error : detected - true.  relative_error : the same divided by true.
    bias : mean over files of detected - true.  mae : mean of its absolute value.  rmse : root of its mean
        square.
    n : files or plots.
    """

    detected: int
    true: int
    error: int
    relative_error: float
    bias: float
    mae: float
    rmse: float
    n: int


def count_error(detected: ArrayLike, true: ArrayLike) -> CountError:
    """detected, true : (F,), numbers per file or plot.  F = 0 gives NaN."""
    found, there = np.asarray(detected, np.int64), np.asarray(true, np.int64)
    off = (found - there).astype(np.float64)
    n = len(off)
    total = int(found.sum() - there.sum())
    return CountError(
        int(found.sum()), int(there.sum()), total, ratio(total, int(there.sum())),
        ratio(float(off.sum()), n), ratio(float(np.abs(off).sum()), n),
        math.sqrt(ratio(float((off**2).sum()), n)), n,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether images or plots hold at least one individual.

    true_positives : some there and some found (whether the same ones or not).  false_negatives : some
    there, none found.  true_negatives : none there, none found.  false_positives : none there, some found.
    n_unknown : left out, because all that is there is doubtful.
    """

    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int
    n_unknown: int

    @property
    def n(self) -> int:
        return self.true_positives + self.false_negatives + self.true_negatives + self.false_positives

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN): of those with some, the share reported."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP): of those without, the share reported so."""
        return ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> float:
        return ratio(self.true_positives + self.true_negatives, self.n)


def presence(detected: ArrayLike, true: ArrayLike, unknown: ArrayLike) -> Presence:
    """detected, true : (F,), numbers per image or plot.  unknown : bool (F,), truth can't be said."""
    known = ~np.asarray(unknown, np.bool_)
    found, there = np.asarray(detected)[known] > 0, np.asarray(true)[known] > 0

    def count(rows: NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(rows))

    return Presence(
        count(there & found), count(there & ~found), count(~there & ~found), count(~there & found),
        count(~known),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval of a figure.

    low, high : percentiles of the figure over the replicates; NaN where it can't be said.
    level : share of the replicates between them.
    n : units that were drawn from (files, plots or blocks).
    """

    low: float
    high: float
    level: float
    n: int


def bootstrap(
    counts: ArrayLike,
    statistic: Callable[[Floats], Floats],
    *,
    seed: int = 0,
    replicates: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a figure that is a function of sums over units.

    Parameters
    ----------
    counts : array of shape (U, K)
        What each unit (file, plot, block of ground) adds to each sum.
    statistic : function
        From sums (R, K) to figures (R,); NaN where the figure isn't defined.
    seed, replicates, level
        Same seed, same interval.

    Notes
    -----
    Whole units are drawn with replacement, because individuals of one image or place resemble one another
    more than those of different ones (Efron & Tibshirani 1993, ch. 8). With fewer than about 20 units the
    interval is too narrow. Fewer than 2 units, or a figure that isn't defined in more than a tenth of the
    replicates, give NaN.
    """
    table = np.asarray(counts, np.float64)
    n = len(table)
    if n < 2:
        return Interval(math.nan, math.nan, level, n)
    rng = np.random.default_rng(seed)
    share = np.full(n, 1 / n)
    step = max(1, _AT_ONCE // n)
    figures = np.concatenate(
        [
            statistic(rng.multinomial(n, share, size=min(step, replicates - start)) @ table)
            for start in range(0, replicates, step)
        ]
    )
    known = figures[np.isfinite(figures)]
    if len(known) < 0.9 * replicates:
        return Interval(math.nan, math.nan, level, n)
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)]).tolist()
    return Interval(low, high, level, n)
