"""Settlement: the answer of greedy suppression, whatever the order and however the stream is cut."""

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecodetect import merging
from ecodetect.merging import Settler, settle


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


@given(crowds(), st.integers(1, 40))
def test_crowds_are_thinned_to_the_same_answer(crowd, step):
    bounds, score, criterion, limit, _ = crowd
    expected = greedy(bounds, score, criterion, limit)
    with patch.multiple(merging, _MANY=2, _CROWD=0, _WORTHWHILE=0):
        assert (settle(bounds, score, criterion=criterion, limit=limit) == expected).all()
        assert (streamed(bounds, score, criterion, limit, step) == expected).all()


def test_thousands_in_one_place_are_settled_without_all_their_pairs():
    """As the classes of a network that knows thousands, all at each of its peaks."""
    rng = np.random.default_rng(0)
    xy = rng.integers(0, 20, (40, 2)).repeat(3_000, axis=0) + rng.uniform(-0.05, 0.05, (120_000, 2))
    score = rng.random(len(xy))
    with patch.object(merging, "_neighbours", wraps=merging._neighbours) as paired:
        kept = settle(np.hstack([xy, xy]), score, criterion="distance", limit=0.25)
    assert kept.sum() == len(np.unique(np.rint(xy), axis=0))
    assert sum(len(call.args[0]) for call in paired.call_args_list) < 1_000


@given(crowds())
def test_the_order_of_candidates_does_not_matter(crowd):
    bounds, score, criterion, limit, rng = crowd
    order = rng.permutation(len(score))
    kept = settle(bounds, score, criterion=criterion, limit=limit)
    assert (settle(bounds[order], score[order], criterion=criterion, limit=limit) == kept[order]).all()


@given(crowds(), st.integers(1, 40))
def test_a_stream_settles_like_the_whole(crowd, step):
    bounds, score, criterion, limit, _ = crowd
    expected = settle(bounds, score, criterion=criterion, limit=limit)
    assert (streamed(bounds, score, criterion, limit, step) == expected).all()


def streamed(bounds, score, criterion, limit, step):
    """What a settler keeps of candidates that come from top to bottom, `step` at once."""
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
    assert kept == sorted(kept)
    found = np.zeros(len(score), bool)
    found[order[kept]] = True
    return found


def test_a_chain_is_not_settled_transitively():
    """Of three objects in a row, each near the next only, the best and the third survive."""
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [12.0, 0.0]])
    kept = settle(np.hstack([centres, centres]), np.array([0.9, 0.8, 0.7]), criterion="distance", limit=8)
    assert kept.tolist() == [True, False, True]


def test_a_stream_holds_only_what_can_still_change():
    settler = Settler(criterion="iou", limit=0.5, reach_px=10)
    for y in range(0, 100_000, 100):
        settler.push(np.array([[0.0, y, 10.0, y + 10.0]]), np.array([0.5]))
        assert len(settler._score) <= 2
