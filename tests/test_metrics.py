"""Metrics by hand, by pycocotools, and by what a confidence interval promises."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecodetect import matching, metrics
from ecodetect.metrics import Rates

Boxes = NDArray[np.float64]


def test_rates_are_the_usual_ones() -> None:
    rates = Rates(30, 10, 20)
    assert (rates.n_detections, rates.n_truths) == (40, 50)
    assert (rates.precision, rates.recall) == (0.75, 0.6)
    assert rates.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_what_is_not_defined_is_nan() -> None:
    assert math.isnan(Rates(0, 0, 5).precision)
    assert Rates(0, 0, 5).recall == Rates(0, 0, 5).f1 == 0
    assert math.isnan(Rates(0, 3, 0).recall)
    assert all(math.isnan(each) for each in (Rates(0, 0, 0).precision, Rates(0, 0, 0).f1))
    assert math.isnan(metrics.average_precision([0.5], [False], 0).coco)
    assert metrics.average_precision([], [], 4).all_point == 0
    assert math.isnan(metrics.position_error(np.empty((0, 2)), unit="m").rmse)
    assert math.isnan(metrics.count_error([], []).mae)


def test_average_precision_by_hand() -> None:
    # Precision 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: 1 up to a recall of 0.5, then 2/3.
    ap = metrics.average_precision([0.9, 0.8, 0.7], [True, False, True], 2)
    assert ap.all_point == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert ap.coco == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert (ap.n_detections, ap.n_truths) == (3, 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30), st.integers(0, 10))
def test_average_precision_lies_between_0_and_1(rows: list[tuple[float, bool]], more: int) -> None:
    n = sum(hit for _, hit in rows) + more
    ap = metrics.average_precision([score for score, _ in rows], [hit for _, hit in rows], n)
    if n:
        assert 0 <= ap.coco <= 1
        assert 0 <= ap.all_point <= 1 + 1e-12
        assert ap.coco == pytest.approx(ap.all_point, abs=0.5 / max(1, n) + 0.02)


def test_mean_average_precision_leaves_out_classes_without_truth() -> None:
    some = [metrics.average_precision([0.9], [True], 1), metrics.average_precision([0.9], [False], 1)]
    mean = metrics.mean_average_precision([*some, metrics.average_precision([0.9], [False], 0)])
    assert (mean.coco, mean.all_point, mean.n_classes) == (0.5, 0.5, 2)
    assert math.isnan(metrics.mean_average_precision([]).coco)


# -- against pycocotools -----------------------------------------------------------------------------------


def coco_ap(images: list[tuple[Boxes, NDArray[np.float64], Boxes, NDArray[np.bool_]]], limit: float) -> float:
    """AP of pycocotools; an image is detections, their scores, truths, and which of these are crowds."""
    pycocotools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (found, scores, there, crowd) in enumerate(images, start=1):
        for box, is_crowd in zip(there.tolist(), crowd.tolist(), strict=True):
            x0, y0, x1, y1 = box
            truths.append(
                {"id": len(truths) + 1, "image_id": number, "category_id": 1, "iscrowd": int(is_crowd),
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            )  # fmt: skip
        for (x0, y0, x1, y1), score in zip(found.tolist(), scores.tolist(), strict=True):
            results.append(
                {"image_id": number, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycocotools.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": n + 1} for n in range(len(images))],
            "categories": [{"id": 1, "name": "tree"}],
            "annotations": truths,
        }
        truth.createIndex()
        if results:
            found_there = truth.loadRes(results)
        else:  # loadRes can't read none
            found_there = pycocotools.COCO()
            found_there.dataset = {**truth.dataset, "annotations": []}
            found_there.createIndex()
        evaluation = COCOeval(truth, found_there, "bbox")
        evaluation.params.iouThrs = np.array([limit])
        evaluation.params.maxDets = [10_000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else math.nan


def our_ap(images: list[tuple[Boxes, NDArray[np.float64], Boxes, NDArray[np.bool_]]], limit: float) -> float:
    scores, hits, n = [], [], 0
    for found, score, there, crowd in images:
        own, real, doubtful = (_shapes(boxes) for boxes in (found, there[~crowd], there[crowd]))
        hit = matching.ranked(matching.by_iou(own, real, limit), score).is_true
        counts = hit | ~matching.covered(own, doubtful, limit)
        scores.append(score[counts])
        hits.append(hit[counts])
        n += len(real)
    return metrics.average_precision(np.concatenate(scores), np.concatenate(hits), n).coco


def _shapes(boxes: Boxes) -> NDArray[np.object_]:
    found = np.empty(len(boxes), dtype=object)
    found[:] = [shapely.box(*box) for box in boxes.tolist()]
    return found


def scene(
    rng: np.random.Generator, truths: int, crowds: int, found: int, *, digits: int = 9
) -> tuple[Boxes, NDArray[np.float64], Boxes, NDArray[np.bool_]]:
    """Truths, detections scattered around them, and false ones; few digits make ties among scores."""
    corners = rng.uniform(0, 120, (truths + crowds, 2))
    there = np.hstack([corners, corners + rng.uniform(5, 40, (truths + crowds, 2))])
    if len(there):
        own = there[rng.integers(0, len(there), found)] + rng.normal(0, 2.5, (found, 4))
        stray = rng.random(found) < 0.25
        own[stray] += rng.uniform(-60, 60, (int(stray.sum()), 1))
        own = own[(own[:, 2] > own[:, 0] + 1) & (own[:, 3] > own[:, 1] + 1)]
    else:
        corners = rng.uniform(0, 100, (found, 2))
        own = np.hstack([corners, corners + 10])
    crowd = np.arange(truths + crowds) >= truths
    return own, rng.random(len(own)).round(digits), there, crowd


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(8))
def test_ap_equals_pycocotools(seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    images = [scene(rng, rng.integers(0, 15), rng.integers(0, 4), rng.integers(0, 30)) for _ in range(6)]
    assert our_ap(images, limit) == pytest.approx(coco_ap(images, limit), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(8))
def test_ap_equals_pycocotools_with_tied_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [scene(rng, 10, 2, 25, digits=1) for _ in range(5)]
    assert our_ap(images, 0.5) == pytest.approx(coco_ap(images, 0.5), abs=1e-9)


@pytest.mark.parametrize(
    "sizes",
    [
        [(0, 0, 12), (0, 0, 3)],  # no truth
        [(12, 0, 0), (3, 0, 0)],  # no detection
        [(0, 8, 20)],  # all doubtful
        [(0, 8, 20), (5, 0, 9)],
        [(10, 0, 20), *[(0, 0, 0)] * 20],  # one image of many has something
        [(10, 0, 20), *[(0, 0, 2)] * 20],  # and false ones on the empty
        [(1, 0, 1)],
        [(3, 0, 60)],  # found many times over
    ],
)
def test_ap_equals_pycocotools_in_awkward_cases(sizes: list[tuple[int, int, int]]) -> None:
    rng = np.random.default_rng(5)
    images = [scene(rng, *each) for each in sizes]
    assert our_ap(images, 0.5) == pytest.approx(coco_ap(images, 0.5), abs=1e-9, nan_ok=True)


# -- positions, counts, presence ---------------------------------------------------------------------------


def test_position_error_tells_shift_from_scatter() -> None:
    error = metrics.position_error(np.array([[3.0, 4.0], [3.0, -4.0]]), unit="m")
    assert (error.rmse, error.shift_x, error.shift_y, error.unit, error.n) == (5.0, 3.0, 0.0, "m", 2)


def test_count_error_by_hand() -> None:
    error = metrics.count_error([10, 0, 7], [8, 4, 7])
    assert (error.detected, error.true, error.error, error.n) == (17, 19, -2, 3)
    assert error.relative_error == pytest.approx(-2 / 19)
    assert (error.bias, error.mae) == (pytest.approx(-2 / 3), 2.0)
    assert error.rmse == pytest.approx(math.sqrt(20 / 3))
    assert math.isnan(metrics.count_error([3], [0]).relative_error)


def test_presence_is_a_table_of_four_and_the_unknown() -> None:
    table = metrics.presence([2, 0, 0, 1, 5, 0], [1, 3, 0, 0, 0, 0], [False] * 4 + [True, True])
    assert (table.true_positives, table.false_negatives) == (1, 1)
    assert (table.true_negatives, table.false_positives) == (1, 1)
    assert (table.n, table.n_unknown) == (4, 2)
    assert table.sensitivity == table.specificity == table.accuracy == 0.5


# -- intervals ---------------------------------------------------------------------------------------------


def precision(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    n = sums.sum(axis=1)
    return np.divide(sums[:, 0], n, out=np.full(len(n), np.nan), where=n > 0)


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = np.random.default_rng(0).poisson(5, (20, 2))
    one, same, other = (metrics.bootstrap(counts, precision, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one.low < counts[:, 0].sum() / counts.sum() < one.high
    assert one.n == 20


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Units differ among themselves (beta-binomial), as pictures do; 95 % of the intervals should hold 0.7.
    rng = np.random.default_rng(4)
    held = 0
    for trial in range(300):
        n = rng.poisson(12, 40) + 1
        right = rng.binomial(n, rng.beta(7, 3, 40))
        interval = metrics.bootstrap(
            np.stack([right, n - right], axis=1), precision, seed=trial, replicates=400
        )
        held += interval.low <= 0.7 <= interval.high
    assert 0.90 <= held / 300 <= 0.98


def test_units_are_drawn_whole() -> None:
    # A hundred detections in two equal pictures tell less than a hundred pictures of one.
    lumped = metrics.bootstrap([[45, 5], [25, 25]], precision)
    single = metrics.bootstrap([[1, 0]] * 70 + [[0, 1]] * 30, precision)
    assert lumped.high - lumped.low > single.high - single.low


@pytest.mark.parametrize("counts", [np.empty((0, 2)), [[3, 1]], [[0, 0]] * 5])
def test_an_interval_that_can_not_be_said_is_nan(counts: Any) -> None:
    interval = metrics.bootstrap(counts, precision)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
