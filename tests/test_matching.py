"""Matching one to one: the best there is, by three criteria; COCO's order for curves; what is absorbed."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ecodetect import assignment, matching
from ecodetect.errors import UserError
from ecodetect.grid import Affine6, Grid
from ecodetect.matching import Candidates, Matching

# On a coarse lattice, so that ties and equal places are frequent.
places = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=5).map(
    lambda xy: np.array(xy, np.float64).reshape(-1, 2)
)


def shapes(*boxes: tuple[float, float, float, float]) -> NDArray[np.object_]:
    found = np.empty(len(boxes), dtype=object)
    found[:] = [shapely.box(*box) for box in boxes]
    return found


def points(*xy: tuple[float, float]) -> NDArray[np.object_]:
    found = np.empty(len(xy), dtype=object)
    found[:] = [shapely.Point(each) for each in xy]
    return found


def distance(found: NDArray[np.float64], there: NDArray[np.float64], limit: float) -> Candidates:
    return matching.by_distance(found, there, limit, unit="px")


def by_trying_all(candidates: Candidates) -> tuple[int, float]:
    """Most pairs there can be, and the least sum of values for so many."""
    cost = {
        (d, t): v for d, t, v in zip(candidates.detection, candidates.truth, candidates.value, strict=True)
    }
    for size in range(min(candidates.n_detections, candidates.n_truths), 0, -1):
        sums = [
            sum(cost[pair] for pair in zip(some, others, strict=True))
            for some in combinations(range(candidates.n_detections), size)
            for others in permutations(range(candidates.n_truths), size)
            if all(pair in cost for pair in zip(some, others, strict=True))
        ]
        if sums:
            return size, min(sums)
    return 0, 0.0


def assert_one_to_one(found: Matching, candidates: Candidates) -> None:
    assert len(set(found.detection.tolist())) == len(set(found.truth.tolist())) == len(found)
    pairs = set(zip(candidates.detection.tolist(), candidates.truth.tolist(), strict=True))
    assert set(zip(found.detection.tolist(), found.truth.tolist(), strict=True)) <= pairs


@given(places, places, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_as_many_pairs_as_can_be_then_the_nearest(
    found: NDArray[np.float64], there: NDArray[np.float64], limit: float
) -> None:
    candidates = distance(found, there, limit)
    best = matching.assign(candidates)
    assert_one_to_one(best, candidates)
    size, least = by_trying_all(candidates)
    assert len(best) == size
    assert best.value.sum() == pytest.approx(least)
    assert np.count_nonzero(best.is_true) == np.count_nonzero(best.is_found) == size


@pytest.mark.parametrize("cells", [0, 10**12])
@pytest.mark.parametrize("seed", range(3))
def test_groups_with_and_without_a_table_equal_one_large_table(
    monkeypatch: pytest.MonkeyPatch, cells: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    there = rng.uniform(0, 60, (200, 2))
    found = there[:170] + rng.normal(0, 3, (170, 2))
    candidates = distance(found, there, 6.0)
    monkeypatch.setattr(assignment, "DENSE_CELLS", cells)
    best = matching.assign(candidates)
    assert_one_to_one(best, candidates)
    table = np.full((170, 200), 1e4)
    table[candidates.detection, candidates.truth] = candidates.value
    rows, columns = linear_sum_assignment(table)
    near = table[rows, columns] < 1e4
    assert len(best) == np.count_nonzero(near)
    assert best.value.sum() == pytest.approx(table[rows, columns][near].sum())


def test_the_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    there, found = rng.uniform(0, 30, (80, 2)), rng.uniform(0, 30, (90, 2))
    shuffle = rng.permutation(90)
    one, other = (matching.assign(distance(f, there, 4.0)) for f in (found, found[shuffle]))
    assert set(zip(one.detection.tolist(), one.truth.tolist(), strict=True)) == set(
        zip(shuffle[other.detection].tolist(), other.truth.tolist(), strict=True)
    )


def test_greedy_would_lose_a_pair_here() -> None:
    # The detection in the middle is nearest to both truths.
    candidates = distance(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.2, 0.0], [3.9, 0.0]]), 2.0)
    assert len(matching.assign(candidates)) == 2
    assert len(matching.ranked(candidates, np.array([0.1, 0.9]))) == 1


def test_a_limit_is_inclusive() -> None:
    found, there = np.array([[0.0, 0.0]]), np.array([[6.0, 8.0]])
    assert len(distance(found, there, 10.0)) == 1
    assert len(distance(found, there, 9.999)) == 0
    assert distance(found, there, 10.0).criterion == "distance ≤ 10 px"


def test_each_truth_may_have_its_own_limit() -> None:
    found, there = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[3.0, 0.0], [13.0, 0.0]])
    candidates = matching.by_distance(found, there, [2.0, 4.0], unit="px")
    assert candidates.truth.tolist() == [1]
    assert candidates.criterion == "distance ≤ 2 to 4 px"


@pytest.mark.parametrize(
    ("crs", "transform", "metres_x", "metres_y"),
    [
        ("EPSG:32630", (0.5, 0, 500_000, 0, -0.5, 4_000_000), 0.5, 0.5),
        # 60° north: a degree of longitude is half as wide as one of latitude.
        ("EPSG:4326", (1e-5, 0, 10, 0, -1e-5, 60), 0.55799, 1.1141),
        ("EPSG:2263", (1.0, 0, 990_000, 0, -1.0, 200_000), 0.3048, 0.3048),  # US survey feet
    ],
)
def test_metres_are_measured_on_the_ground(
    crs: str, transform: Affine6, metres_x: float, metres_y: float
) -> None:
    grid = Grid(100, 100, transform, crs=CRS(crs))
    there = np.array([[50.0, 50.0]])
    ground = grid.metres_per_pixel(there)
    for step, metres in (((10.0, 0.0), 10 * metres_x), ((0.0, 10.0), 10 * metres_y)):
        for limit, n in ((metres * 1.001, 1), (metres * 0.999, 0)):
            found = matching.by_distance(there + step, there, limit, unit="m", metres_per_pixel=ground)
            assert len(found) == n
    assert (
        matching.by_distance(there, there, 3, unit="m", metres_per_pixel=ground).criterion == "distance ≤ 3 m"
    )


def test_iou_of_boxes_is_the_formula() -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 50, (60, 2))
    boxes = np.hstack([corners, corners + rng.uniform(2, 20, (60, 2))])
    found, there = shapes(*boxes[:30].tolist()), shapes(*boxes[30:].tolist())
    candidates = matching.by_iou(found, there, 0.1)
    a, b = boxes[:30][candidates.detection], boxes[30:][candidates.truth]
    common = np.prod(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - common
    assert len(candidates)
    np.testing.assert_allclose(candidates.value, common / union)
    assert matching.by_iou(shapes((0, 0, 2, 1)), shapes((0, 0, 1, 1)), 0.5).value.tolist() == [0.5]


def test_inside_goes_both_ways() -> None:
    crown, far = shapes((0, 0, 10, 10)), shapes((50, 50, 60, 60))
    assert len(matching.by_inside(points((3, 3)), crown)) == 1
    assert len(matching.by_inside(crown, points((3, 3)))) == 1
    assert len(matching.by_inside(shapes((4, 4, 20, 5)), crown)) == 0  # its centre is not in the crown
    assert len(matching.by_inside(points((3, 3)), far)) == 0
    both = np.concatenate([crown, points((30, 30))])
    assert matching.by_inside(shapes((2, 2, 6, 6), (28, 28, 33, 33)), both).truth.tolist() == [0, 1]


def test_nothing_on_one_side_or_both_is_no_pair() -> None:
    none, one = np.empty((0, 2)), np.array([[1.0, 1.0]])
    nothing, box = shapes(), shapes((0, 0, 2, 2))
    for a, b in ((none, one), (one, none), (none, none)):
        assert len(matching.assign(distance(a, b, 3.0))) == 0
    for c, d in ((nothing, box), (box, nothing), (nothing, nothing)):
        assert len(matching.assign(matching.by_iou(c, d, 0.5))) == 0
        assert len(matching.assign(matching.by_inside(c, d))) == 0
    assert matching.ranked(distance(one, none, 3.0), np.array([0.5])).is_true.tolist() == [False]


def test_doubtful_ones_absorb_any_number() -> None:
    there = np.array([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0], [100.0, 0.0]])
    group = np.concatenate([shapes((-1, -1, 6, 1)), points((99, 0))])
    assert matching.near(there, group, 2.0).tolist() == [True, True, False, True]
    assert matching.near(there, group, 3.0).tolist() == [True, True, True, True]
    assert matching.near(there, points(), 3.0).tolist() == [False] * 4
    found = shapes((0, 0, 2, 1), (5, 0, 7, 1), (5.6, 0, 7.6, 1))
    assert matching.covered(found, group[:1], 0.5).tolist() == [True, True, False]
    assert matching.within(points((0, 0), (7, 0)), group).tolist() == [True, False]


def test_near_measures_on_the_ground() -> None:
    ground = np.array([[[0.5, 0.0], [0.0, -2.0]]])
    there = np.array([[10.0, 0.0], [0.0, 10.0]])
    assert matching.near(there, points((0, 0)), 6.0, metres_per_pixel=ground).tolist() == [True, False]


def test_ten_thousand_that_all_hang_together_far_from_each_other() -> None:
    # Nearly each has ten candidates, so all are one group, and a tenth of them has nobody in the end.
    rng = np.random.default_rng(0)
    there, found = rng.uniform(0, 100, (2, 10_000, 2))
    candidates = distance(found, there, 1.8)
    best = matching.assign(candidates)
    assert_one_to_one(best, candidates)
    graph = csr_array((np.ones(len(candidates)), (candidates.detection, candidates.truth)))
    assert len(best) == (maximum_bipartite_matching(graph) >= 0).sum() < 9_990


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0, 10**12]))
def test_a_large_group_is_matched_as_a_table_of_it(seed: int, has_ties: bool, cells: int) -> None:
    rng = np.random.default_rng(seed)
    there = rng.random(rng.integers(1, 14, 2)) < rng.uniform(0.1, 0.9)
    there[0, 0] = True
    row, column = (np.unique(side, return_inverse=True)[1] for side in np.nonzero(there))
    cost = rng.integers(0, 4, len(row)) / 4 if has_ties else rng.random(len(row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "DENSE_CELLS", cells)
        picked = assignment.least(row, column, cost)
    table = np.full((row.max() + 1, column.max() + 1), 100.0)
    table[row, column] = cost
    rows, columns = linear_sum_assignment(table)
    real = table[rows, columns] < 100
    assert len(set(row[picked])) == len(set(column[picked])) == len(picked) == np.count_nonzero(real)
    assert cost[picked].sum() == pytest.approx(table[rows, columns][real].sum())


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0, 40, 10**12]))
def test_the_order_of_pairs_changes_nothing_where_many_are_equally_near(
    seed: int, has_ties: bool, cells: int
) -> None:
    rng = np.random.default_rng(seed)
    found, there = rng.uniform(0, 6, (30, 2)), rng.uniform(0, 6, (25, 2))
    if has_ties:
        found, there = found.round(), there.round()
    pairs = distance(found, there, rng.uniform(0.5, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "DENSE_CELLS", cells)
        picked = []
        for order in (np.lexsort((pairs.truth, pairs.detection)), rng.permutation(len(pairs))):
            best = matching.assign(pairs[order])
            picked.append([*best.detection.tolist(), *best.truth.tolist()])
    assert picked[0] == picked[1]


def test_too_many_pairs_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MOST_PAIRS", 99)
    monkeypatch.setattr(matching, "MOST_MEETING", 99)
    dense = np.random.default_rng(0).uniform(0, 1, (10, 2))
    boxes = shapes(*((x, y, x + 9, y + 9) for x, y in dense.tolist()))
    assert len(distance(dense, dense[:9], 2.0)) == 90
    for pairs in (
        lambda: distance(dense, dense, 2.0),
        lambda: matching.by_iou(boxes, boxes, 0.5),
        lambda: matching.by_inside(boxes, boxes),
    ):
        with pytest.raises(UserError, match="More than 99 pairs"):
            pairs()


@settings(max_examples=15)
@given(places, places)
def test_pairs_are_the_same_however_many_are_looked_for_at_once(
    found: NDArray[np.float64], there: NDArray[np.float64]
) -> None:
    some, others = (shapely.buffer(shapely.points(xy), 1.5) for xy in (found, there))

    def every() -> list[list[Any]]:
        pairs = [
            distance(found, there, 2.0), matching.by_iou(some, others, 0.1), matching.by_inside(some, others)
        ]  # fmt: skip
        return [sorted(zip(each.detection, each.truth, each.value, strict=True)) for each in pairs] + [
            [matching.near(found, others, 1.0).tolist(), matching.covered(some, others, 0.5).tolist()]
        ]

    at_once = every()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PAIRS_AT_ONCE", "SHAPES_AT_ONCE", "COUNTED_AT_ONCE"):
            patch.setattr(matching, name, 1)
        assert every() == at_once
