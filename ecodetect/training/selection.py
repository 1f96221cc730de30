"""What validation decides: which epoch's network is kept, its threshold for fewest errors and for counts.

Detections of validation ground are matched as `evaluation` does it, but once for all scores: the surest
first, so that the pairs at any threshold are the first of the list.

A hundred individuals tell little apart, so what is measured is drawn again and again: the bootstrap draws
whole places, not individuals, for neighbours are alike (Efron & Tibshirani 1993, ch. 8).

- Of epochs, those that differ from the best by less than half a standard error are as good, and the last of
  them is kept (after the rule of one standard error, Breiman et al. 1984, ch. 3.4). A whole one kept epochs
  that had overfitted, in simulations; none at all takes the best by chance.
- Thresholds are means over draws ("Bagging predictors", Breiman 1996).
- The one for counts is shrunk towards the one for F1 by the share of their squared distance that chance
  explains, as empirical Bayes does it, so by half a standard error at most. With few individuals that is
  steadier; where both clearly differ counts stay unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching, metrics
from ecodetect.annotations.sample import Objects, Sample
from ecodetect.detectors.learned import Answer
from ecodetect.grid import Floats
from ecodetect.metrics import AveragePrecision, Interval, Rates, average_precision

FEW = 50  # truths: F1 is then known to about 0.07 at best (one standard error)
LEAST_IOU = 0.5  # of a box with its truth
PLACES = 20  # to draw from: with fewer, what a bootstrap says is too sure
DRAWS = 200  # enough for a standard error
_ALIKE = 0.5  # standard errors by which an epoch may be behind the best and is as good


@dataclass(frozen=True, eq=False, slots=True)
class RankedMatches:
    """Detections against truths, of one sample or pooled, for all scores at once.

    score, label : (N,), of the detections that count.
    is_true : bool (N,), whether each has a truth when all surer ones have taken theirs.
    place : int64 (N,), the number of the place in which each lies: a sample, or a part of one.
    truths : int64 (places, classes), how many are in each place.
    """

    score: Floats
    label: NDArray[np.int64]
    is_true: NDArray[np.bool_]
    place: NDArray[np.int64]
    truths: NDArray[np.int64]

    @property
    def n_truths(self) -> NDArray[np.int64]:
        """(classes,)."""
        total: NDArray[np.int64] = self.truths.sum(axis=0)
        return total

    def rates(self, thresholds: Sequence[float]) -> Rates:
        """Pooled over classes, with one threshold for each."""
        kept = self.score >= np.asarray(thresholds, np.float64)[self.label]
        true = int(np.count_nonzero(self.is_true & kept))
        return Rates(true, int(np.count_nonzero(kept)) - true, int(self.n_truths.sum()) - true)

    def ap(self) -> AveragePrecision:
        """All classes together."""
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


@dataclass(frozen=True, slots=True)
class Counted:
    """How good counts are.

    off : how far the number of detections is off that of truths, as a share of it.
    interval : of that, on other ground like it; NaN where there are too few places to say.
    """

    off: float
    interval: Interval

    def __str__(self) -> str:
        """As a sentence."""
        low, high, places = self.interval.low, self.interval.high, self.interval.n
        within = "" if math.isnan(low) else f" (95 %: {low:+.0%} to {high:+.0%}, n = {places} places)"
        return f"Counts there with the option threshold=count are off by {self.off:+.0%}{within}."


def parts_of(samples: int) -> int:
    """Into how many rows and columns each of so many samples is cut, so that there are `PLACES` places."""
    return max(1, math.ceil(math.sqrt(PLACES / max(samples, 1))))


def judge(found: Answer, sample: Sample, within_px: float, n_classes: int, parts: int = 1) -> RankedMatches:
    """Compare what was found with what is there.

    found : points or boxes, in pixels of the sample.
    within_px : how far a point may lie from its truth; the truth's own inaccuracy is added. A box must have
        an IoU of `LEAST_IOU` with it.
    parts : rows and columns of places into which the sample is cut; see `parts_of`.

    What counts of detections says `matching.counting`, of truths `which_count`.
    """
    objects = sample.objects
    if found.is_boxes:
        objects = objects[objects.is_sized]
    counted = which_count(objects, sample)
    truths = objects[counted]
    is_true = np.zeros(len(found.score), np.bool_)
    for number in range(n_classes):
        mine, there = np.flatnonzero(found.label == number), truths.label == number
        pairs = _pairs(found.geometry[mine], truths[there], within_px)
        is_true[mine[matching.ranked(pairs, found.score[mine]).detection]] = True
    outside = ~_at(sample.known & sample.valid, found.xy, outside=False)
    absorbed = _at(sample.ignored, found.xy, outside=False)
    absorbed[_pairs(found.geometry, objects[~counted], within_px).detection] = True
    kept = matching.counting(is_true, outside, absorbed)
    place = parts_at(found.xy[kept], sample.valid.shape, parts)
    counts = np.zeros((parts * parts, n_classes), np.int64)
    np.add.at(counts, (parts_at(truths.xy, sample.valid.shape, parts), truths.label), 1)
    return RankedMatches(found.score[kept], found.label[kept], is_true[kept], place, counts)


def which_count(objects: Objects, sample: Sample) -> NDArray[np.bool_]:
    """Which truths count, bool (N,): those whose centre lies on valid ground that isn't ignored."""
    return ~_at(sample.ignored | ~sample.valid, objects.xy, outside=True)


def parts_at(xy: Floats, shape: tuple[int, ...], parts: int) -> NDArray[np.int64]:
    """The numbers of the parts of a sample in which positions lie."""
    height, width = shape
    column, row = np.clip(np.floor(xy * parts / (width, height)), 0, parts - 1).astype(np.int64).T
    place: NDArray[np.int64] = row * parts + column
    return place


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


def pooled(judged: Iterable[RankedMatches], n_classes: int) -> RankedMatches:
    """Samples together."""
    each = list(judged)
    none = np.empty(0, np.int64)
    first = np.cumsum([0, *(len(part.truths) for part in each)])
    return RankedMatches(
        np.concatenate([np.empty(0), *(part.score for part in each)]),
        np.concatenate([none, *(part.label for part in each)]),
        np.concatenate([np.empty(0, np.bool_), *(part.is_true for part in each)]),
        np.concatenate([none, *(part.place + start for part, start in zip(each, first[:-1], strict=True))]),
        np.concatenate([np.empty((0, n_classes), np.int64), *(part.truths for part in each)]),
    )


# -- which epoch ---------------------------------------------------------------------------------------------


def drawn_precision(judged: RankedMatches) -> tuple[float, ...]:
    """Average precision as measured, then in each draw of places; empty without a truth.

    The exact area under each class's curve, weighed by the class's truths. It looks at all thresholds, so it
    tells networks apart that F1 at one of them, by chance the best, doesn't. The draws are the same for all
    networks on the same ground.
    """
    if not judged.truths.any():
        return ()
    found = np.zeros(DRAWS + 1)
    weights = _weights(judged)
    for number in range(judged.truths.shape[1]):
        score, is_true, place = _of_class(judged, number)
        order = np.argsort(-score, kind="stable")
        is_true, place = is_true[order], place[order]
        for row, weight in enumerate(weights):
            each = weight[place]
            right = each * is_true
            precision = np.cumsum(right) / np.maximum(np.cumsum(each), 1)
            found[row] += right @ np.maximum.accumulate(precision[::-1])[::-1]
    totals = weights @ judged.truths.sum(axis=1)
    return tuple((found / np.maximum(totals, 1)).tolist())


def last_as_good(drawn: Sequence[Sequence[float]]) -> int:
    """Among epochs in order, the last whose precision isn't measurably lower than that of the best.

    drawn : for each what `drawn_precision` gives.

    Measurably: by more than half a standard error of their difference on the same places. Later weights are
    calmer, and the best of many epochs is best partly by chance. Without any truth it is the last.
    """
    if not all(drawn):
        return len(drawn) - 1
    table = np.array(drawn)
    off = table[table[:, 0].argmax()] - table
    return int(np.flatnonzero(off[:, 0] <= _ALIKE * off[:, 1:].std(axis=1))[-1])


# -- thresholds ----------------------------------------------------------------------------------------------


def choose(judged: RankedMatches, *, otherwise: float) -> dict[str, tuple[float, ...]]:
    """Purpose -> one threshold per class: "f1", best F1; "count", as many detections as truths, nearly.

    "f1" is the mean of the best thresholds of all draws of places. "count" is the mean of those with as many
    detections as truths, moved towards "f1" the more the less the truths can tell both apart, by at most half
    its standard error.

    otherwise : where there is nothing to choose from. A class without a truth or a true detection takes the
        middle of the others'.
    """
    chosen: dict[str, list[float | None]] = {"f1": [], "count": []}
    weights = _weights(judged)
    for number, n_truths in enumerate(judged.n_truths.tolist()):
        score, is_true, place = _of_class(judged, number)
        if not n_truths or not is_true.any():
            chosen["f1"].append(None)
            chosen["count"].append(None)
            continue
        best, even = _cuts(score, is_true, place, weights, weights @ judged.truths[:, number])
        f1, unbiased, variance = best.mean(), even.mean(), even.var()
        apart = f1 - unbiased
        by_chance = variance / (variance + apart**2) if variance else 0.0
        chosen["f1"].append(_rounded(f1))
        chosen["count"].append(_rounded(unbiased + by_chance * apart))
    found = {}
    for purpose, values in chosen.items():
        known = [each for each in values if each is not None]
        usual = float(np.median(known)) if known else otherwise
        found[purpose] = tuple(usual if each is None else each for each in values)
    return found


def counted(judged: RankedMatches, thresholds: Sequence[float]) -> Counted | None:
    """How good counts are with these thresholds; None without a truth."""
    if not judged.truths.any():
        return None
    kept = judged.score >= np.asarray(thresholds, np.float64)[judged.label]
    there = judged.truths.sum(axis=1)
    sums = np.stack([np.bincount(judged.place[kept], minlength=len(there)), there], axis=1)

    def off(sums: Floats) -> Floats:
        share: Floats = sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan) - 1
        return share

    return Counted(float(off(sums.sum(axis=0))), metrics.bootstrap(sums, off))


def _weights(judged: RankedMatches) -> NDArray[np.int64]:
    """How often each place is there: (1 + DRAWS, places), first once, then as often as it is drawn."""
    places = len(judged.truths)
    once = np.ones((1, places), np.int64)
    if not places:
        return once
    drawn = np.random.default_rng(0).multinomial(places, np.full(places, 1 / places), size=DRAWS)
    return np.concatenate([once, drawn])


def _of_class(judged: RankedMatches, number: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Score, is_true and place of the detections of one class."""
    mine = judged.label == number
    return judged.score[mine], judged.is_true[mine], judged.place[mine]


def _cuts(
    score: Floats,
    is_true: NDArray[np.bool_],
    place: NDArray[np.int64],
    weights: NDArray[np.int64],
    n_truths: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """In each draw the threshold with the best F1, and the one with as many detections as truths.

    weights : (draws, places), how often each is there.  n_truths : (draws,).
    Draws without a truth or a true detection are left out.
    """
    order = np.argsort(-score, kind="stable")
    score, is_true, place = score[order], is_true[order], place[order]
    # Only between different scores can a threshold lie.
    last = np.flatnonzero(np.append(score[:-1] != score[1:], True))
    under = np.append(score[last[1:]], 0.9 * score[-1])
    between = (score[last] + under) / 2
    best, even = [], []
    for weight, n in zip(weights, n_truths, strict=True):
        each = weight[place]
        found, hits = np.cumsum(each)[last], np.cumsum(each * is_true)[last]
        if not n or not hits[-1]:
            continue
        best.append(between[int((2 * hits / (found + n)).argmax())])
        even.append(between[min(int(np.searchsorted(found, n)), len(last) - 1)])
    return np.array(best), np.array(even)


def _rounded(score: float) -> float:
    return float(f"{score:.6g}")
