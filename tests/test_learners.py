"""Learners without a network: numpy says what scikit-learn says, and a damaged bundle is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecodetect.detectors import learners
from ecodetect.detectors.learners import ALGORITHMS, ClassicalClassifier
from ecodetect.errors import BundleError, UserError


def examples(classes: int = 3, each: int = 40, seed: int = 0) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows of six numbers of very different size, overlapping classes."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), each)
    x = rng.normal(0, 1, (len(label), 6)) + 1.2 * rng.normal(0, 1, (classes, 6))[label]
    return x * np.array([1, 10, 100, 1e-3, 1, 1]) + 50, label


def scikit_learn(part: str) -> Any:
    return pytest.importorskip(f"sklearn.{part}")


def grown(seed: int, classes: int = 3, trees: int = 7, depth: int = 6) -> ClassicalClassifier:
    """A forest of random trees over four features, without scikit-learn."""
    rng = np.random.default_rng(seed)
    nodes: list[list[float]] = []

    def grow(level: int) -> int:
        me = len(nodes)
        nodes.append([-1, -1, -1, 0.0])
        if level and rng.random() < 0.8:
            nodes[me][0], nodes[me][3] = int(rng.integers(4)), float(rng.normal())
            nodes[me][1] = grow(level - 1)
            nodes[me][2] = grow(level - 1)
        return me

    root = np.array([grow(depth) for _ in range(trees)])
    feature, left, right, threshold = np.array(nodes).T
    share = rng.random((len(nodes), classes))
    arrays = {
        "mean": np.zeros(4),
        "scale": np.ones(4),
        "seen": np.arange(classes),
        "root": root,
        "feature": feature.astype(np.int32),
        "left": left.astype(np.int32),
        "right": right.astype(np.int32),
        "threshold": threshold,
        "share": share / share.sum(axis=1, keepdims=True),
    }
    return ClassicalClassifier.of({"kind": "forest", "classes": classes}, arrays)


@pytest.mark.parametrize("seed", range(4))
def test_trees_are_walked_as_one_would_by_hand(seed: int) -> None:
    forest = grown(seed)
    a = forest.arrays
    x = np.random.default_rng(seed).normal(size=(50, 4)).astype(np.float32)
    wanted = np.zeros((50, 3))
    for row, values in enumerate(x):
        for node in a["root"]:
            while a["feature"][node] >= 0:
                side = "left" if values[a["feature"][node]] <= a["threshold"][node] else "right"
                node = a[side][node]
            wanted[row] += a["share"][node] / len(a["root"])
    assert np.allclose(forest.probability(x), wanted, atol=1e-12)


def test_votes_count_by_how_rare_their_class_is() -> None:
    x = np.arange(12.0)[:, None]
    label = np.array([0] * 9 + [1] * 3)
    near = learners.fit("knn", x, label, 2, 0)
    near = ClassicalClassifier.of({**near.settings, "neighbours": 5}, near.arrays)
    # About 9.1 lie 7, 8 (of nine) and 9, 10, 11 (of three).
    assert np.allclose(near.probability(np.array([[9.1]])), [[(2 / 9) / (2 / 9 + 1), 1 / (2 / 9 + 1)]])


def test_neighbours_are_those_of_scikit_learn() -> None:
    neighbors = scikit_learn("neighbors")
    x, label = examples()
    there, _ = examples(seed=1)
    mine = learners.fit("knn", x, label, 3, 0)
    theirs = neighbors.KNeighborsClassifier(learners.NEIGHBOURS).fit(mine.standardised(x), label)
    wanted = theirs.predict_proba(mine.standardised(there))
    assert np.allclose(mine.probability(there), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_forest_is_that_of_scikit_learn(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "TREES", 20)
    ensemble = scikit_learn("ensemble")
    x, label = examples(classes)
    x, label = x[:-15], label[:-15]  # one class is rarer
    there, _ = examples(classes, seed=1)
    mine = learners.fit("forest", x, label, classes, 5)
    theirs = ensemble.RandomForestClassifier(
        learners.TREES, min_samples_leaf=learners.LEAST_LEAF, max_depth=learners.DEPTH,
        class_weight="balanced", random_state=5,
    ).fit(mine.standardised(x), label)  # fmt: skip
    wanted = theirs.predict_proba(mine.standardised(there))
    assert np.allclose(mine.probability(there), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_machines_are_those_of_scikit_learn(classes: int) -> None:
    svm = scikit_learn("svm")
    x, label = examples(classes)
    there, _ = examples(classes, seed=1)
    mine = learners.fit("svm", x, label, classes, 0)
    found = mine.margins(there)
    for number in range(found.shape[1]):
        is_it = label == (1 if classes == 2 else number)
        theirs = svm.SVC(
            C=learners.PENALTY, gamma=float(mine.arrays["gamma"][0]), class_weight="balanced"
        ).fit(mine.standardised(x).astype(np.float64), is_it)
        wanted = theirs.decision_function(mine.standardised(there).astype(np.float64))
        assert np.allclose(found[:, number], wanted, rtol=0, atol=1e-5)


def test_the_machines_are_no_surer_of_parts_of_what_they_have_seen() -> None:
    """Labels by chance, ten examples of each individual: of another one nothing can be known."""
    scikit_learn("svm")
    rng = np.random.default_rng(0)
    individual = np.repeat(np.arange(60), 10)
    x = rng.normal(size=(60, 6))[individual] + rng.normal(0, 0.01, (600, 6))
    label = rng.integers(0, 2, 60)[individual]
    others = rng.normal(size=(200, 6))
    alone = learners.fit("svm", x, label, 2, 0).probability(others)[:, 1]
    together = learners.fit("svm", x, label, 2, 0, individual % 5).probability(others)[:, 1]
    assert np.abs(alone - 0.5).mean() > 0.3
    assert np.abs(together - 0.5).mean() < 0.15


def test_the_logistic_curve_says_how_often_a_margin_is_right() -> None:
    """Margins drawn so that the truth is known: two normal distributions, 2 apart, of deviation 1."""
    rng = np.random.default_rng(0)
    mine = rng.random(20_000) < 0.1  # both sides count alike, however rare one is
    margin = rng.normal(np.where(mine, 1.0, -1.0), 1.0)
    slope, shift = learners.logistic_curve(margin, mine)
    assert slope == pytest.approx(2.0, abs=0.1)
    assert shift == pytest.approx(0.0, abs=0.1)


def test_margins_that_part_the_classes_give_a_finite_curve() -> None:
    mine = np.arange(20) < 10
    slope, shift = learners.logistic_curve(np.where(mine, 1.0, -1.0), mine)
    assert 0 < slope < 10
    assert abs(shift) < 1e-6


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize("classes", [2, 4])
def test_what_is_learned_comes_back_from_a_bundle(
    kind: learners.Algorithm, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "TREES", 20)
    if kind != "knn":
        scikit_learn("svm")
    x, label = examples(classes)
    there, truth = examples(classes)
    made = learners.fit(kind, x, label, classes, 1)
    settings = json.loads(json.dumps(made.settings))
    read = ClassicalClassifier.of(settings, {name: values.copy() for name, values in made.arrays.items()})
    found = read.probability(there)
    assert np.array_equal(found, made.probability(there))
    assert np.allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == truth).mean() > 0.75
    again = learners.fit(kind, x, label, classes, 1)
    assert all(np.array_equal(again.arrays[name], values) for name, values in made.arrays.items())


def test_a_class_without_an_example_is_never_the_answer() -> None:
    x, label = examples(2)
    found = learners.fit("knn", x, np.where(label == 1, 3, 0), 5, 0).probability(x)
    assert found.shape == (len(x), 5)
    assert not found[:, [1, 2, 4]].any()


def test_what_is_no_number_counts_as_the_mean_and_one_value_as_nothing() -> None:
    x, label = examples()
    x[:, 4] = 7.0
    x[3, 0], x[9, 1] = np.nan, np.inf
    made = learners.fit("knn", x, label, 3, 0)
    there = x[:2].copy()
    there[1] = made.arrays["mean"]
    there[0] = [np.nan, np.inf, -np.inf, np.nan, 7.0, np.nan]
    first, second = made.probability(there)
    assert np.array_equal(first, second)
    assert np.isfinite(made.probability(np.full((1, 6), 1e300))).all()


def test_many_rows_are_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = grown(1)
    x = np.random.default_rng(0).normal(size=(101, 4))
    whole = forest.probability(x)
    monkeypatch.setattr(learners, "VALUES_AT_ONCE", 40)
    assert np.array_equal(forest.probability(x), whole)
    assert forest.probability(x[:0]).shape == (0, 3)


def test_one_class_can_not_be_told_from_nothing() -> None:
    with pytest.raises(UserError, match="examples of 1 class only"):
        learners.fit("knn", np.ones((5, 2)), np.zeros(5, np.int64), 2, 0)


def damaged(forest: ClassicalClassifier, **changes: Any) -> None:
    arrays = dict(forest.arrays)
    for name, change in changes.items():
        values = np.array(arrays[name])
        arrays[name] = change(values)
    ClassicalClassifier.of(forest.settings, arrays)


def put(place: int, value: float) -> Any:
    def change(values: NDArray[Any]) -> NDArray[Any]:
        values[place] = value
        return values

    return change


def first_inner(forest: ClassicalClassifier) -> int:
    return int(np.flatnonzero(forest.arrays["feature"] >= 0)[0])


def test_trees_that_go_round_or_point_outside_are_refused() -> None:
    forest = grown(0)
    damaged(forest)  # as it is, it is none
    inner, n = first_inner(forest), len(forest.arrays["feature"])
    with pytest.raises(BundleError, match="has a circle"):
        damaged(forest, left=put(inner, inner))
    with pytest.raises(BundleError, match="left points outside"):
        damaged(forest, left=put(inner, n))
    with pytest.raises(BundleError, match="right points outside"):
        damaged(forest, right=put(inner, -1))
    with pytest.raises(BundleError, match="root points outside"):
        damaged(forest, root=put(0, n))
    with pytest.raises(BundleError, match="feature points outside"):
        damaged(forest, feature=put(inner, 4))
    with pytest.raises(BundleError, match="isn't a number"):
        damaged(forest, threshold=put(inner, np.nan))
    with pytest.raises(BundleError, match="left has the shape"):
        damaged(forest, left=lambda values: values[:-1])
    with pytest.raises(BundleError, match="share has the shape"):
        damaged(forest, share=lambda values: values[:, :-1])
    with pytest.raises(BundleError, match="left is of float64"):
        damaged(forest, left=lambda values: values.astype(np.float64))


def test_a_chain_as_long_as_a_file_is_refused_at_once() -> None:
    n = 200_001
    chain = np.arange(1, n + 1)
    leaf = np.arange(n) >= n - 1
    arrays = {
        "mean": np.zeros(1),
        "scale": np.ones(1),
        "seen": np.arange(2),
        "root": np.array([0]),
        "feature": np.where(leaf, -1, 0),
        "left": np.where(leaf, -1, chain),
        "right": np.where(leaf, -1, chain),
        "threshold": np.zeros(n),
        "share": np.full((n, 2), 0.5),
    }
    with pytest.raises(BundleError, match="deeper than 64 levels"):
        ClassicalClassifier.of({"kind": "forest", "classes": 2}, arrays)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kind": "pickle", "classes": 3},
        {"kind": "forest"},
        {"kind": "forest", "classes": 10**12},
        {"kind": "forest", "classes": True},
        {"kind": "forest", "classes": 2},
        {"kind": "knn", "classes": 3, "neighbours": 5},
        {"kind": "svm", "classes": 3},
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="learner of this model is damaged"):
        ClassicalClassifier.of(settings, grown(0).arrays)


def test_neighbours_without_number_are_refused() -> None:
    x, label = examples()
    made = learners.fit("knn", x, label, 3, 0)
    for bad in (0, -1, 10**9, 2.5, None):
        with pytest.raises(BundleError, match="neighbours can't be"):
            ClassicalClassifier.of({**made.settings, "neighbours": bad}, made.arrays)
    with pytest.raises(BundleError, match="label points outside"):
        damaged(made, label=put(0, 3))
    with pytest.raises(BundleError, match="scale isn't above 0"):
        damaged(made, scale=put(0, 0.0))
