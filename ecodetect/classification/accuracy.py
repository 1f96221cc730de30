"""How good a classifier is: accuracy with its interval, and a confusion matrix.

The matrix and the two accuracies per class are those of remote sensing (Congalton 1991,
doi:10.1016/0034-4257(91)90048-B). The calibration of scores is measured by the expected calibration error
(Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, as in Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.grid import Floats
from ecodetect.metrics import Interval, bootstrap, ratio

_BINS = 15  # of scores, as Guo et al. have it

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """The accuracy of one class.

    n : objects of this class.  answered : objects classified as it.  right : both.
    """

    name: str
    n: int
    answered: int
    right: int

    @property
    def producers(self) -> float:
        """Producer's accuracy (recall): share of its objects that are found, 1 - omission error."""
        return ratio(self.right, self.n)

    @property
    def users(self) -> float:
        """User's accuracy (precision): 1 - commission error, the share of these answers that are right."""
        return ratio(self.right, self.answered)


@dataclass(frozen=True, eq=False, slots=True)
class ClassificationReport:
    """Answers compared with the truth.

    n : objects.
    accuracy : share whose first answer is right.
    interval : of that, by bootstrap over the objects.
    top : number of answers per object.  accuracy_top : share with the truth among them.
    macro_recall : mean producer's accuracy over the classes that occur, with equal weight.
    calibration_error : mean distance of the score of first answers from the share that is right, 0 to 1.
    names : K answers.  matrix : (K, K), rows are the truth, columns the answers.
    """

    n: int
    accuracy: float
    interval: Interval
    top: int
    accuracy_top: float
    macro_recall: float
    calibration_error: float
    names: tuple[str, ...]
    matrix: Numbers

    @property
    def classes(self) -> list[ClassAccuracy]:
        """All answers, in their order."""
        rows, columns, right = self.matrix.sum(axis=1), self.matrix.sum(axis=0), np.diagonal(self.matrix)
        return [
            ClassAccuracy(name, int(rows[k]), int(columns[k]), int(right[k]))
            for k, name in enumerate(self.names)
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; figures that aren't defined are None."""
        classes = [
            {
                "name": each.name,
                "n": each.n,
                "answered": each.answered,
                "right": each.right,
                "producers_accuracy": _figure(each.producers),
                "users_accuracy": _figure(each.users),
            }
            for each in self.classes
        ]
        return {
            "n": self.n,
            "accuracy": _figure(self.accuracy),
            "interval": {
                "low": _figure(self.interval.low),
                "high": _figure(self.interval.high),
                "level": self.interval.level,
                "n": self.interval.n,
            },
            "top": self.top,
            "accuracy_top": _figure(self.accuracy_top),
            "macro_recall": _figure(self.macro_recall),
            "calibration_error": _figure(self.calibration_error),
            "classes": classes,
            "confusion": {"rows": "truth", "columns": "answers", "matrix": self.matrix.tolist()},
        }


def judge(
    names: Sequence[str], truth: Numbers, ranked: Numbers, score: Floats, *, top: int, seed: int = 0
) -> ClassificationReport:
    """Compare answers with the truth.

    names : the K possible answers.
    truth : (N,), number of the right one.
    ranked : (N, K), numbers of the answers of each, the first one first.
    score : (N,), of the first answers, in [0, 1].
    top : number of answers that may include the right one to count for `accuracy_top`.
    N = 0 gives NaN.
    """
    n, k = len(truth), len(names)
    first = ranked[:, 0]
    is_right = first == truth
    matrix = np.bincount(truth * k + first, minlength=k * k).reshape(k, k).astype(np.int64)
    rows = matrix.sum(axis=1)
    there = rows > 0
    recall = np.diagonal(matrix)[there] / rows[there]
    near = (ranked[:, :top] == truth[:, None]).any(axis=1)
    table = np.stack([is_right, np.ones(n)], axis=1)
    return ClassificationReport(
        n=n,
        accuracy=ratio(int(is_right.sum()), n),
        interval=bootstrap(table, lambda sums: sums[:, 0] / sums[:, 1], seed=seed),
        top=top,
        accuracy_top=ratio(int(near.sum()), n),
        macro_recall=float(recall.mean()) if there.any() else float("nan"),
        calibration_error=calibration_error(score, is_right),
        names=tuple(names),
        matrix=matrix,
    )


def calibration_error(score: Floats, is_right: NDArray[np.bool_]) -> float:
    """Expected calibration error of scores (N,) over 15 bins of equal width; NaN for N = 0."""
    n = len(score)
    if not n:
        return float("nan")
    place = np.clip(np.ceil(score * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    promised = np.bincount(place, score, _BINS)
    kept = np.bincount(place, is_right.astype(np.float64), _BINS)
    return float(np.abs(promised - kept).sum() / n)


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
