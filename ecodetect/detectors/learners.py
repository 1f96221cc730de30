"""Learners without a network, applied in numpy: nearest neighbours, random forest, support vector machine.

`fit` learns from rows of features (scikit-learn grows the trees and finds the support vectors). The result is
plain arrays that go into a bundle, and `ClassicalClassifier.probability` needs only numpy. Features are
standardised internally, and all classes count equally, regardless of their number of examples.

- knn: the share of each class among the nearest examples, each vote divided by how common its class is.
- forest: the mean over trees of the share of each class in the leaf (Breiman 2001,
  doi:10.1023/A:1010933404324).
- svm: one machine with a Gaussian kernel per class, one-versus-rest (for two classes a single machine). A
  logistic curve, fitted to margins of held-out examples (five-fold or grouped cross-validation), turns a
  margin into a probability (Platt 1999); the probabilities of the classes are divided by their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ecodetect import extras
from ecodetect.errors import BundleError, UserError

Algorithm = Literal["knn", "forest", "svm"]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

NEIGHBOURS = 15  # odd; fewer give coarse probabilities, more blur small classes
TREES, LEAST_LEAF, DEPTH = 200, 2, 30
PENALTY = 1.0  # for examples on the wrong side (C)
FOLDS = 5  # of the cross-validation that gives margins for the logistic curve
_FARTHEST = 1e6  # standardised values are clipped here, so that their squares are finite
VALUES_AT_ONCE = 2**23  # numbers of a working array: bounds memory at some 100 MB
# Limits in a bundle: more is damage. A tree of 30 levels is never deeper than this.
_MOST_CLASSES, _MOST_FEATURES, _MOST_NEIGHBOURS, _DEEPEST = 10_000, 100_000, 1000, 64


@dataclass(frozen=True, eq=False, slots=True)
class ClassicalClassifier:
    """A trained learner; made by `fit`, or by `ClassicalClassifier.of` from a bundle.

    settings : JSON-able: kind, number of classes, neighbours.
    arrays : name -> array, for a bundle.
        All: mean, scale (C,), of the features; seen (k,), the classes that had examples.
        knn: examples (M, C), standardised; label (M,), places in `seen`.
        forest: root (T,), nodes of the trees' roots; feature, left, right (n,), -1 in leaves; threshold (n,);
        share (n, k).
        svm: support (M, C), standardised; dual (M, m), bias, slope, shift, (m,), of machines (m = k, or 1 for
        two classes); gamma (1,).
    """

    settings: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ClassicalClassifier:
        """A learner from a bundle.  Raises BundleError, in one sentence, for invalid arrays."""
        try:
            _check(settings, arrays)
        except KeyError as error:
            raise BundleError(f"The learner of this model is damaged: it has no {error.args[0]}.") from error
        except (ValueError, TypeError) as error:
            raise BundleError(f"The learner of this model is damaged: {error}.") from error
        return cls(settings, arrays)

    @property
    def kind(self) -> Algorithm:
        kind: Algorithm = self.settings["kind"]
        return kind

    @property
    def features(self) -> int:
        """Number of features per row."""
        return len(self.arrays["mean"])

    def probability(self, features: NDArray[Any]) -> Floats:
        """The probability of each class.

        features : (N, C); values that aren't finite count as the mean.
        Returns float64 (N, K), rows that sum to 1; 0 for classes without an example.
        """
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(f"features of shape {features.shape} for a learner of {self.features}")
        out = np.zeros((len(features), int(self.settings["classes"])))
        answer = {"knn": self._of_neighbours, "forest": self._of_trees, "svm": self._of_machines}[self.kind]
        for rows in self._parts(len(features)):
            out[rows, self.arrays["seen"]] = answer(self.standardised(features[rows]))
        return out

    def standardised(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C), each with mean 0 and standard deviation 1 over the examples."""
        return _standardised(features, self.arrays["mean"], self.arrays["scale"])

    def margins(self, features: NDArray[Any]) -> Floats:
        """For an svm: distance from each decision boundary, positive on the side of its class, (N, m)."""
        parts = [self._margins(self.standardised(features[rows])) for rows in self._parts(len(features))]
        return np.concatenate([np.empty((0, self.arrays["dual"].shape[1])), *parts])

    def _parts(self, count: int) -> Iterator[slice]:
        """Rows in parts small enough for the working arrays."""
        wide = {"knn": "examples", "forest": "root", "svm": "support"}[self.kind]
        step = max(1, VALUES_AT_ONCE // max(len(self.arrays[wide]), self.features))
        return (slice(first, first + step) for first in range(0, count, step))

    def _of_neighbours(self, x: NDArray[np.float32]) -> Floats:
        label, seen = self.arrays["label"], self.arrays["seen"]
        away = _squared(x, self.arrays["examples"])
        count = min(int(self.settings["neighbours"]), len(label))
        near = np.argpartition(away, count - 1, axis=1)[:, :count]
        votes = (label[near][:, :, None] == np.arange(len(seen))).sum(axis=1)
        return _shared(votes / np.bincount(label, minlength=len(seen)))

    def _of_trees(self, x: NDArray[np.float32]) -> Floats:
        feature, threshold = self.arrays["feature"], self.arrays["threshold"]
        child = np.stack([self.arrays["right"], self.arrays["left"]])
        share, roots = self.arrays["share"], self.arrays["root"]
        n = len(x)
        node = np.repeat(roots.astype(np.int64), n)  # of each tree, then each row
        row = np.tile(np.arange(n), len(roots))
        moving = np.flatnonzero(feature[node] >= 0)
        for _ in range(_DEEPEST):
            if not len(moving):
                break
            at = node[moving]
            goes_left = x[row[moving], feature[at]] <= threshold[at]
            at = child[goes_left.view(np.int8), at]
            node[moving] = at
            moving = moving[feature[at] >= 0]
        total = np.zeros((n, share.shape[1]))
        for tree in node.reshape(len(roots), n):
            total += share[tree]
        return _shared(total)

    def _margins(self, x: NDArray[np.float32]) -> Floats:
        support = self.arrays["support"]
        kernel = np.exp(-float(self.arrays["gamma"][0]) * _squared(x, support))
        found: Floats = kernel @ self.arrays["dual"].astype(np.float64) + self.arrays["bias"]
        return found

    def _of_machines(self, x: NDArray[np.float32]) -> Floats:
        sure = _logistic(self._margins(x) * self.arrays["slope"] + self.arrays["shift"])
        return np.hstack([1 - sure, sure]) if sure.shape[1] == 1 else _shared(sure)


def fit(
    kind: Algorithm,
    features: NDArray[Any],
    label: Labels,
    classes: int,
    seed: int,
    group: Labels | None = None,
) -> ClassicalClassifier:
    """Learn from examples.

    features : (N, C).  label : int64 (N,), below `classes`, the number of classes.
    seed : random seed; the same seed gives the same learner.
    group : int64 (N,), groups for cross-validation, such as the parts of one individual: they are left out
        together. A few groups of many examples each. None: each example alone.
    Raises UserError where fewer than two classes have examples, or scikit-learn isn't installed.
    """
    seen, place = np.unique(label, return_inverse=True)
    if len(seen) < 2:
        raise UserError(
            f"There are examples of {len(seen)} class{'' if len(seen) == 1 else 'es'} only, so there is"
            " nothing to distinguish; annotate more, or check with `ecodetect check`."
        )
    values = np.where(np.isfinite(features), features, np.nan).astype(np.float64)
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale < 1e-9 * np.maximum(np.abs(mean), 1.0)] = 1.0  # constant over all examples
    x = _standardised(features, mean, scale)
    fold = _folds(place, seed) if group is None else group
    learners: dict[Algorithm, Callable[..., dict[str, NDArray[Any]]]] = {
        "knn": _neighbours,
        "forest": _forest,
        "svm": partial(_machines, fold=fold),
    }
    settings = {"kind": kind, "classes": int(classes)}
    if kind == "knn":
        settings["neighbours"] = NEIGHBOURS
    arrays = {"mean": mean, "scale": scale, "seen": seen.astype(np.int64)}
    return ClassicalClassifier.of(settings, arrays | learners[kind](x, place, len(seen), seed))


def _neighbours(x: NDArray[np.float32], place: Labels, classes: int, seed: int) -> dict[str, NDArray[Any]]:
    return {"examples": x, "label": place.astype(np.int64)}


def _forest(x: NDArray[np.float32], place: Labels, classes: int, seed: int) -> dict[str, NDArray[Any]]:
    sklearn_ensemble = _scikit_learn("ensemble")
    grown = sklearn_ensemble.RandomForestClassifier(
        TREES, min_samples_leaf=LEAST_LEAF, max_depth=DEPTH, class_weight="balanced", random_state=seed
    ).fit(x, place)
    parts: dict[str, list[NDArray[Any]]] = {}
    roots, first = [], 0
    for each in grown.estimators_:
        tree = each.tree_
        is_leaf = tree.children_left < 0
        roots.append(first)
        share = tree.value[:, 0, :]
        part = {
            "feature": np.where(is_leaf, -1, tree.feature).astype(np.int32),
            "left": np.where(is_leaf, -1, tree.children_left + first).astype(np.int32),
            "right": np.where(is_leaf, -1, tree.children_right + first).astype(np.int32),
            # In 64 bits, as in the comparison: the midpoint of two 32-bit values may round to the upper one.
            "threshold": np.where(is_leaf, 0.0, tree.threshold).astype(np.float64),
            "share": (share / share.sum(axis=1, keepdims=True)).astype(np.float32),
        }
        for name, values in part.items():
            parts.setdefault(name, []).append(values)
        first += tree.node_count
    found = {name: np.concatenate(values) for name, values in parts.items()}
    return {"root": np.array(roots, np.int32), **found}


def _machines(
    x: NDArray[np.float32], place: Labels, classes: int, seed: int, fold: Labels
) -> dict[str, NDArray[Any]]:
    sklearn_svm = _scikit_learn("svm")
    gamma = 1 / (x.shape[1] * max(float(x.var()), 1e-9))
    x64 = x.astype(np.float64)

    def machine(rows: NDArray[Any], mine: NDArray[np.bool_]) -> Any:
        made = sklearn_svm.SVC(C=PENALTY, kernel="rbf", gamma=gamma, class_weight="balanced", cache_size=500)
        return made.fit(x64[rows], mine[rows])

    everyone = np.arange(len(x))
    duals, facts = [], []
    for number in [1] if classes == 2 else range(classes):
        mine = place == number
        whole = machine(everyone, mine)
        dual = np.zeros(len(x))
        dual[whole.support_] = whole.dual_coef_[0]
        duals.append(dual)
        margin = np.zeros(len(x))
        for one in np.unique(fold):
            rest = np.flatnonzero(fold != one)
            left_out = fold == one
            if len(np.unique(mine[rest])) == 2:
                margin[left_out] = machine(rest, mine).decision_function(x64[left_out])
        facts.append((float(whole.intercept_[0]), *logistic_curve(margin, mine)))
    dual = np.stack(duals, axis=1)
    used = (dual != 0).any(axis=1)
    bias, slope, shift = np.array(facts).T
    return {
        "support": x[used],
        "dual": dual[used],
        "bias": bias,
        "slope": slope,
        "shift": shift,
        "gamma": np.array([gamma]),
    }


def check_installed(kind: Algorithm) -> None:
    """Raise UserError where a package that a kind learns with isn't installed; called before long work."""
    if kind != "knn":
        _scikit_learn("ensemble")


def _scikit_learn(part: str) -> Any:
    """A module of scikit-learn, which only training needs."""
    from importlib import import_module

    extras.check_installed("Learning without a network", "sklearn")
    return import_module(f"sklearn.{part}")


def _folds(place: Labels, seed: int) -> Labels:
    """A fold for each example, each with its share of each class."""
    rng = np.random.default_rng(seed)
    count = min(FOLDS, max(2, int(np.bincount(place).min())))
    fold = np.empty(len(place), np.int64)
    for number in range(int(place.max()) + 1):
        rows = rng.permutation(np.flatnonzero(place == number))
        fold[rows] = np.arange(len(rows)) % count
    return fold


def logistic_curve(margin: Floats, mine: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and shift of the logistic curve that turns margins into probabilities.

    Newton's method on the cross-entropy, with equal weight for both sides. As in Platt 1999, targets aren't
    quite 0 and 1, so that the slope stays finite where margins separate the classes.
    """
    n = np.array([np.count_nonzero(~mine), np.count_nonzero(mine)], np.float64)
    wanted = np.where(mine, (n[1] + 1) / (n[1] + 2), 1 / (n[0] + 2))
    weight = np.where(mine, 0.5 / n[1], 0.5 / n[0])
    design = np.column_stack([margin, np.ones(len(margin))])
    now = np.array([1.0, 0.0])

    def loss(at: Floats) -> float:
        z = design @ at
        return float(weight @ (np.logaddexp(0, z) - wanted * z))

    for _ in range(50):
        sure = _logistic(design @ now)
        slope = design.T @ (weight * (sure - wanted))
        bend = (design.T * (weight * np.maximum(sure * (1 - sure), 1e-9))) @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while size > 1e-6 and loss(now - size * step) > loss(now):
            size /= 2
        now = now - size * step
        if float(np.abs(size * step).max()) < 1e-9:
            break
    # Margins without information about held-out examples must not reverse the answer.
    return (float(now[0]), float(now[1])) if now[0] > 0 else (1e-6, 0.0)


def _standardised(features: NDArray[Any], mean: Floats, scale: Floats) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        x = (features.astype(np.float64) - mean) / scale
    x[~np.isfinite(features)] = 0.0
    return np.clip(x, -_FARTHEST, _FARTHEST).astype(np.float32)


def _squared(one: NDArray[np.float32], two: NDArray[Any]) -> Floats:
    """Squared distances, (N, M); in 64 bits, because they are small differences of large numbers."""
    a, b = one.astype(np.float64), two.astype(np.float64)
    away = a @ b.T
    away *= -2
    away += np.einsum("ij,ij->i", a, a)[:, None]
    away += np.einsum("ij,ij->i", b, b)
    return np.maximum(away, 0.0, out=away)


def _logistic(z: Floats) -> Floats:
    found: Floats = 0.5 * (1 + np.tanh(0.5 * z))
    return found


def _shared(values: Floats) -> Floats:
    """Rows divided by their sum; equal values where it is 0."""
    total = values.sum(axis=1, keepdims=True)
    found: Floats = np.where(total > 0, values / np.where(total > 0, total, 1.0), 1 / values.shape[1])
    return found


# -- what a bundle may hold --------------------------------------------------------------------------------


def _check(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError or KeyError, in words, where arrays aren't a learner's."""
    kind, classes = settings["kind"], settings["classes"]
    if kind not in ALGORITHMS:
        raise ValueError(f"its kind is {str(kind)[:40]!r}, not {', '.join(ALGORITHMS)}")
    _whole("classes", classes, 2, _MOST_CLASSES)
    c = len(_array(arrays, "mean", 1, "f"))
    _whole("features", c, 1, _MOST_FEATURES)
    if _array(arrays, "scale", 1, "f", c).min() <= 0:
        raise ValueError("a scale isn't above 0")
    seen = _array(arrays, "seen", 1, "i")
    if not 2 <= len(seen) <= classes or len(np.unique(seen)) != len(seen):
        raise ValueError("the classes that it has seen aren't some of its classes")
    _within("seen", seen, 0, classes)
    if kind == "knn":
        _whole("neighbours", settings["neighbours"], 1, _MOST_NEIGHBOURS)
        label = _array(arrays, "label", 1, "i")
        if not len(label):
            raise ValueError("it has no examples")
        _array(arrays, "examples", 2, "f", len(label), c)
        _within("label", label, 0, len(seen))
        if np.bincount(label, minlength=len(seen)).min() == 0:
            raise ValueError("a class has no example")
    elif kind == "forest":
        _check_forest(arrays, c, len(seen))
    else:
        machines = 1 if len(seen) == 2 else len(seen)
        support = _array(arrays, "support", 2, "f", None, c)
        _array(arrays, "dual", 2, "f", len(support), machines)
        for name in ("bias", "slope", "shift"):
            _array(arrays, name, 1, "f", machines)
        if _array(arrays, "gamma", 1, "f", 1)[0] <= 0:
            raise ValueError("gamma isn't above 0")


def _check_forest(arrays: Mapping[str, NDArray[Any]], c: int, classes: int) -> None:
    feature, root = _array(arrays, "feature", 1, "i"), _array(arrays, "root", 1, "i")
    n = len(feature)
    left, right = _array(arrays, "left", 1, "i", n), _array(arrays, "right", 1, "i", n)
    _array(arrays, "threshold", 1, "f", n)
    if _array(arrays, "share", 2, "f", n, classes).min(initial=0) < 0:
        raise ValueError("a share is below 0")
    if not 1 <= len(root) <= n:
        raise ValueError(f"it has {len(root)} trees of {n} nodes in all")
    _within("root", root, 0, n)
    _within("feature", feature, -1, c)
    inner = feature >= 0
    for name, child in (("left", left), ("right", right)):
        _within(name, child[inner], 0, n)
    # Down all trees at once: one with a circle never ends.
    level = np.unique(root)
    for _ in range(_DEEPEST):
        level = level[inner[level]]
        if not len(level):
            return
        level = np.unique(np.concatenate([left[level], right[level]]))
    raise ValueError(f"a tree is deeper than {_DEEPEST} levels, or has a circle")


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} can't be {str(value)[:40]}")


def _within(name: str, values: NDArray[Any], low: int, high: int) -> None:
    if len(values) and (values.min() < low or values.max() >= high):
        raise ValueError(f"{name} points outside of {low} to {high - 1}")


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, dimensions: int, kind: str, *shape: int | None
) -> NDArray[Any]:
    """An array of this kind ("f": finite floats, "i": whole numbers) and shape; None: any length."""
    values = arrays[name]
    expected = shape or (None,) * dimensions
    if values.ndim != dimensions or any(
        want is not None and got != want for got, want in zip(values.shape, expected, strict=True)
    ):
        raise ValueError(f"{name} has the shape {values.shape}")
    if values.dtype.kind != kind:
        raise ValueError(f"{name} is of {values.dtype}")
    if kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds a value that isn't a number")
    return values
