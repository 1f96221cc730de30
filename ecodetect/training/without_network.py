"""Training without a network: examples are gathered once, learners are compared, the best one is kept.

The detector turns an image into rows of features (`learned.Classical`); learners are fitted to them here.
Validation chooses the learner and its thresholds, as for any other detector. Learners overfit, so figures for
training ground are cross-validated: ground is cut into blocks, and a learner that hasn't seen a block
classifies it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.sample import Sample
from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import learners
from ecodetect.detectors.learned import Classical, Kind, Looked
from ecodetect.detectors.learners import ClassicalClassifier
from ecodetect.metrics import Rates
from ecodetect.notes import Note
from ecodetect.training import selection
from ecodetect.training.selection import Counted, RankedMatches

_FOLDS = 4  # of training ground
_BLOCK = 4.0  # side of a block of ground, in typical objects
_Compared = tuple[float, learners.Algorithm, ClassicalClassifier, Card, RankedMatches, RankedMatches]
_MOST = 6000  # examples of all classes; the time of a support vector machine grows with their square
MOST_PIECES = 150  # of ground, on each side: bounds memory at about 600 MB

_SAID = {"knn": "nearest neighbours", "forest": "a random forest", "svm": "a support vector machine"}


@dataclass(frozen=True, eq=False, slots=True)
class Chosen:
    """The result of training.

    bundle : with its thresholds.  kind : of the learner.
    validation : rates at the threshold "f1".  ap : there.
    counted : errors of counts there; None where the threshold isn't chosen there.
    crossed : cross-validated rates on training ground.
    """

    bundle: Bundle
    kind: learners.Algorithm
    validation: Rates
    ap: float
    counted: Counted | None
    crossed: Rates


@dataclass(frozen=True, eq=False, slots=True)
class _Piece:
    """A piece of ground.

    sample : without its image.  look : the detector's features of the image.
    label : (n,), of the rows.  fold : (n,), the fold that leaves each out.
    """

    sample: Sample
    look: Looked
    label: NDArray[np.int64]
    fold: NDArray[np.int64]


def learn(
    kind_of: Kind,
    taught: Classical,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    card: Card,
    seed: int,
    say: Callable[[Note], None],
    *,
    most_pieces: int | None = MOST_PIECES,
) -> Chosen:
    """Fit learners, and keep the one with the highest average precision.

    The card's head names one kind of learner, or "best": all are compared.

    taught : turns images into rows of features, and rows into objects.
    most_pieces : of ground, on each side, that are used; None: all.
    Raises UserError where there is nothing to distinguish, or scikit-learn isn't installed.
    """
    head = kind_of.head(card)
    kinds = [kind for kind in learners.ALGORITHMS if head in ("best", kind)]
    for kind in kinds:
        learners.check_installed(kind)
    rng = np.random.default_rng(seed)
    side = _BLOCK * kind_of.options_of(card).typical_px
    shown = _pieces(taught, training, card, side, most_pieces, rng, say)
    unseen = _pieces(taught, validation, card, side, most_pieces, rng, say)
    best: _Compared | None = None
    reached = dict.fromkeys(kinds, 0.0)
    background = len(card.classes)
    features, label, fold = _examples(shown, rng, background + 1)
    for kind in kinds:
        whole = learners.fit(kind, features, label, background + 1, seed, fold)
        parts = [_without(kind, features, label, fold, one, background + 1, seed) for one in range(_FOLDS)]
        answers = [_crossed(piece, parts, whole) for piece in shown]
        others = [whole.probability(piece.look.features) for piece in unseen]
        for way in kind_of.alternatives(card).values():
            crossed = _judged(taught, shown, answers, way)
            judged = _judged(taught, unseen, others, way)
            score = _told(judged, crossed, background).mean_ap()
            reached[kind] = max(reached[kind], score)
            if best is None or score > best[0]:
                best = (score, kind, whole, way, judged, crossed)
    assert best is not None, "there are kinds of learners"
    _, kind, learner, card, judged, crossed = best
    fixed = kind_of.thresholds(card)
    thresholds = fixed or selection.choose(_told(judged, crossed, background), otherwise=0.5)
    each = ", ".join(f"{_SAID[one]} {score:.3f}" for one, score in reached.items())
    say(Note("learner-chosen", f"The learner with the highest average precision is chosen: {each}."))
    versions = {**card.versions, **({"scikit-learn": version("scikit-learn")} if kind != "knn" else {})}
    made = taught.bundled(replace(card, thresholds=thresholds, versions=versions), learner)
    cut = thresholds["f1"]
    counted = None if fixed else selection.counted(judged, thresholds["count"])
    return Chosen(made, kind, judged.rates(cut), judged.ap().coco, counted, crossed.rates(cut))


def verdict(chosen: Chosen, method: str) -> str:
    """What training and validation figures mean together."""
    n = chosen.validation.n_truths
    crossed = f"{chosen.crossed.f1:.2f} cross-validated on training ground (n = {chosen.crossed.n_truths:,})"
    learner = _SAID[chosen.kind]
    if not n:
        return (
            f"F1 {crossed}, by {learner}; nothing was left for validation, so its quality elsewhere is"
            " unknown: annotate another place and compare with `ecodetect evaluate`."
        )
    few = f"; n = {n} is small, so this is rough" if n < selection.FEW else ""
    figures = f"F1 {chosen.validation.f1:.2f} on validation (n = {n:,}, {method})"
    return f"{figures}, {crossed}, by {learner}{few}. {chosen.counted or ''}".rstrip()


def _pieces(
    taught: Classical,
    cut: Sequence[Sample],
    card: Card,
    side: float,
    most: int | None,
    rng: np.random.Generator,
    say: Callable[[Note], None],
) -> list[_Piece]:
    """All pieces of a side, or `most` random ones.

    side : of a block of ground, in pixels.
    """
    chosen = np.arange(len(cut))
    if most is not None and len(cut) > most:
        chosen = np.sort(rng.choice(len(cut), most, replace=False))
        text = f"{most} random pieces of ground are used, of {len(cut):,}."
        say(Note("pieces-drawn", text, kind="choice"))
    found = []
    for number in chosen.tolist():
        sample = cut[number]
        look = taught.features_of(sample.image, sample.valid, card)
        label, xy = taught.examples(sample, look, card)
        column, row = np.floor(xy / side).astype(np.int64).T
        # Blocks of a piece are assigned to folds in turn, starting with another fold in each piece.
        block = column * 7919 + row
        _, place = np.unique(block, return_inverse=True)
        deal = rng.permutation(int(place.max(initial=0)) + 1)
        bare = replace(sample, image=sample.image[:0])
        found.append(_Piece(bare, look, label, (deal[place] + number) % _FOLDS))
    return found


def _examples(
    pieces: Sequence[_Piece], rng: np.random.Generator, classes: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Features, labels and folds of rows with a known class; each class has at most its share of `_MOST`."""
    label = np.concatenate([np.empty(0, np.int64), *(piece.label for piece in pieces)])
    fold = np.concatenate([np.empty(0, np.int64), *(piece.fold for piece in pieces)])
    taken = []
    for number in range(classes):
        rows = np.flatnonzero(label == number)
        most = _MOST // classes
        taken.append(np.sort(rng.choice(rows, most, replace=False)) if len(rows) > most else rows)
    rows = np.sort(np.concatenate(taken))
    features = np.concatenate([piece.look.features for piece in pieces]) if pieces else np.empty((0, 1))
    return features[rows], label[rows], fold[rows]


def _without(
    kind: learners.Algorithm,
    features: NDArray[Any],
    label: NDArray[np.int64],
    fold: NDArray[np.int64],
    one: int,
    classes: int,
    seed: int,
) -> ClassicalClassifier | None:
    """A learner that hasn't seen a fold; None where the others have one class only."""
    rest = fold != one
    if len(np.unique(label[rest])) < 2:
        return None
    return learners.fit(kind, features[rest], label[rest], classes, seed, fold[rest])


def _crossed(
    piece: _Piece, parts: Sequence[ClassicalClassifier | None], whole: ClassicalClassifier
) -> NDArray[np.float64]:
    """The class probabilities of each row of a piece, by the learner that hasn't seen its block."""
    out = np.zeros((len(piece.label), int(whole.settings["classes"])))
    for one, learner in enumerate(parts):
        mine = piece.fold == one
        out[mine] = (learner or whole).probability(piece.look.features[mine])
    return out


def _judged(
    taught: Classical, pieces: Sequence[_Piece], answers: Sequence[NDArray[np.float64]], card: Card
) -> RankedMatches:
    """Detections on pieces compared with the truth, by boxes, as for outlines of networks."""
    classes = len(card.classes)
    parts, cut = [], selection.parts_of(len(pieces))
    for piece, answer in zip(pieces, answers, strict=True):
        found = taught.decode(piece.look, answer, card)
        boxes = np.asarray(shapely.bounds(found.geometry), np.float64).reshape(-1, 4)
        boxed = found._replace(geometry=boxes)
        parts.append(selection.judge(boxed, piece.sample, 0.0, classes, cut))
    return selection.pooled(parts, classes)


def _told(judged: RankedMatches, crossed: RankedMatches, classes: int) -> RankedMatches:
    """The figures that choices are based on; with few individuals, those of training ground are included."""
    few = judged.n_truths.sum() < selection.FEW
    return selection.pooled([judged, crossed], classes) if few else judged
