"""Settlement: the answer of greedy suppression, whatever the order and however the stream is cut."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecodetect import settling
from ecodetect.settling import Settler, settle


def greedy(bounds, score, criterion, limit):
    """The definition: best first, a kept candidate removes its neighbours."""
    order = np.lexsort((bounds[:, 2], bounds[:, 3], bounds[:, 0], bounds[:, 1], -score))
    kept, gone = np.zeros(len(score), bool), np.zeros(len(score), bool)
    for i in order:
        if gone[i]:
            continue
        kept[i] = True
        if criterion == "iou":
            low, high = np.maximum(bounds[i, :2], bounds[:, :2]), np.minimum(bounds[i, 2:], bounds[:, 2:])
            common = np.maximum(high - low, 0).prod(axis=1)
            area = (bounds[:, 2:] - bounds[:, :2]).prod(axis=1)
            union = area[i] + area - common
            near = np.divide(common, union, out=np.zeros_like(common), where=union > 0) > limit
        else:
            centres = (bounds[:, :2] + bounds[:, 2:]) / 2
            near = ((centres - centres[i]) ** 2).sum(axis=1) < limit**2
        gone |= near & ~kept
    return kept


@st.composite
def crowds(draw):
    """Boxes in a crowd, some far larger than the others, with scores that tie often."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(0, 120))
    centre = rng.uniform(0, draw(st.sampled_from([10, 60, 300])), (n, 2))
    half = rng.uniform(1, 15, (n, 2)) * (1 + 10 * (rng.random((n, 1)) < 0.03))
    criterion, limit = draw(st.sampled_from([("iou", 0.0), ("iou", 0.3), ("iou", 0.7), ("distance", 8.0)]))
    return np.hstack([centre - half, centre + half]), np.round(rng.random(n), 1), criterion, limit, rng


@given(crowds())
def test_settle_is_greedy_suppression(crowd):
    bounds, score, criterion, limit, _ = crowd
    expected = greedy(bounds, score, criterion, limit)
    assert (settle(bounds, score, criterion=criterion, limit=limit) == expected).all()


@given(crowds(), st.integers(1, 40), st.integers(1, 300), st.floats(0.2, 4))
def test_telling_sizes_apart_changes_nothing(crowd, step, held, spread):
    bounds, score, criterion, limit, rng = crowd
    centre = (bounds[:, :2] + bounds[:, 2:]) / 2
    half = (bounds[:, 2:] - centre) * np.exp(rng.normal(0, spread, (len(bounds), 1)))
    bounds = np.hstack([centre - half, centre + half])
    expected = greedy(bounds, score, criterion, limit)
    with patch.object(settling, "PAIRS_EACH", 0), patch.object(settling, "PAIRS_HELD", held):
        assert (settle(bounds, score, criterion=criterion, limit=limit) == expected).all()


def test_boxes_of_all_sizes_in_one_place_are_compared_with_their_like():
    rng = np.random.default_rng(0)
    side, centre = np.exp(rng.uniform(0, np.log(1000), (20_000, 1))), rng.uniform(0, 1000, (20_000, 2))
    bounds, score = np.hstack([centre - side / 2, centre + side / 2]), rng.random(20_000)
    looked = 0
    overlap = settling.overlap

    def counted(one, other):
        nonlocal looked
        looked += len(one)
        return overlap(one, other)

    with patch.object(settling, "overlap", counted):
        kept = settle(bounds, score, criterion="iou", limit=0.5)
    assert looked < 60 * len(bounds)
    assert kept.sum() > len(bounds) / 2


@given(crowds())
def test_the_order_of_candidates_does_not_matter(crowd):
    bounds, score, criterion, limit, rng = crowd
    order = rng.permutation(len(score))
    kept = settle(bounds, score, criterion=criterion, limit=limit)
    assert (settle(bounds[order], score[order], criterion=criterion, limit=limit) == kept[order]).all()


@given(crowds(), st.integers(1, 40))
def test_a_stream_settles_like_the_whole(crowd, step):
    bounds, score, criterion, limit, _ = crowd
    order = np.argsort((bounds[:, 1] + bounds[:, 3]) / 2, kind="stable")
    bounds, score = bounds[order], score[order]
    tallest = float((bounds[:, 3] - bounds[:, 1]).max()) if len(bounds) else 0.0
    settler = Settler(
        criterion=criterion, limit=limit, reach_px=limit if criterion == "distance" else tallest
    )
    kept = [
        number
        for i in range(0, len(score), step)
        for number in settler.push(bounds[i : i + step], score[i : i + step])
    ]
    kept += settler.finish().tolist()
    assert kept == np.flatnonzero(settle(bounds, score, criterion=criterion, limit=limit)).tolist()


@settings(max_examples=30)
@given(crowds(), st.integers(1, 40), st.integers(1, 300))
def test_how_many_pairs_can_be_held_does_not_matter(crowd, step, held):
    with patch.object(settling, "PAIRS_HELD", held), patch.object(settling, "PAIRS_AT_ONCE", 50):
        test_settle_is_greedy_suppression.hypothesis.inner_test(crowd)
        test_a_stream_settles_like_the_whole.hypothesis.inner_test(crowd, step)


@pytest.mark.parametrize(("criterion", "limit"), [("iou", 0.5), ("distance", 20.0)])
def test_a_crowd_in_one_place_is_settled_in_bounded_memory(criterion, limit):
    """Of 20,000 in one place all pairs are neighbours, 1.6 GB of them."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(0, 1, (20_000, 2))
    bounds = np.hstack([centre - 10, centre + 10])
    score = rng.random(len(bounds))
    with patch.object(settling, "PAIRS_HELD", 100_000):
        tracemalloc.start()
        kept = settle(bounds, score, criterion=criterion, limit=limit)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.flatnonzero(kept).tolist() == [score.argmax()]
    assert peak < 200e6


def test_a_chain_is_not_settled_transitively():
    """Of three objects in a row, each near the next only, the best and the third survive."""
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [12.0, 0.0]])
    kept = settle(np.hstack([centres, centres]), np.array([0.9, 0.8, 0.7]), criterion="distance", limit=8)
    assert kept.tolist() == [True, False, True]


def test_a_stream_holds_only_what_can_still_change():
    settler = Settler(criterion="iou", limit=0.5, reach_px=10)
    for number in range(1000):
        y = 100.0 * number
        settler.push(np.array([[0.0, y, 10.0, y + 10.0]]), np.array([0.5]))
        assert settler.waiting >= number
