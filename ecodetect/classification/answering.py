"""Classifiers ready to run: window networks, single or as an ensemble, with test-time augmentation.

A `Member` is one model; a `ClassifierEnsemble` is one or several with the same classes. Both take images
scaled as the card says, which `Sight` reads around places of a raster. `layers` classifies layers, `folders`
pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.input_spec import InputSpec, input_spec
from ecodetect.bundle.scaling import padded_to_stride, scaled, surveyed
from ecodetect.bundle.value_survey import Companions, seen_unit, survey
from ecodetect.bundle.values import Choice, ValueUnit, remarks
from ecodetect.detectors import sliding_window, window_networks
from ecodetect.detectors.protocol import scene_of
from ecodetect.detectors.window_networks import options_of
from ecodetect.errors import UserError
from ecodetect.grid import Floats, Window
from ecodetect.models import choosing as models
from ecodetect.notes import Note
from ecodetect.raster.bands import stand_ins

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster
    from ecodetect.runtime.opening import Network

Vote = Literal["mean", "majority"]
Views = Literal["none", "flips", "flips+crops"]
Scores = NDArray[np.float32]

BACKGROUND = "background"
DETECTOR = "sliding_window"  # whose models are classifiers
_TOP = 3  # answers per object
_BATCH_PX = 2**19  # pixels per batch
CELL_PX = 512  # side of the ground that is read at once for all places on it
_ROUNDING_PX = 1e-6
_SHIFT = 1 / 16  # of a window: offset of crops from the middle


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """One model, opened.

    side : of its network's input images, in pixels.
    views : number of views per image (test-time augmentation).
    """

    bundle: Bundle
    network: Network
    side: int
    views: Views = "none"

    @property
    def card(self) -> Card:
        return self.bundle.card

    @property
    def answers(self) -> tuple[str, ...]:
        """See `answers_of`."""
        return answers_of(self.card)

    @property
    def shift(self) -> int:
        """Offset of crops from the middle, in pixels."""
        window = options_of(self.card).network.window
        return max(1, round(window * _SHIFT)) if self.views == "flips+crops" else 0

    @property
    def read_px(self) -> int:
        """Side of the images that it takes, large enough for all views."""
        return self.side + 2 * self.shift

    def probability(self, images: NDArray[np.float32]) -> Scores:
        """Calibrated probabilities.  images : (n, B, read_px, read_px).  Returns (n, K)."""
        at_once = max(1, _BATCH_PX // self.read_px**2)
        parts = [self._seen(images[start : start + at_once]) for start in range(0, len(images), at_once)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.answers)), np.float32)

    def _seen(self, images: NDArray[np.float32]) -> Scores:
        """The mean over the views."""
        total: Any = 0.0
        count = 0
        for crop in self._crops(images):
            for view in flipped(crop) if self.views != "none" else (crop,):
                total = total + self._answered(np.ascontiguousarray(view))
                count += 1
        return np.asarray(total / count, np.float32)

    def _crops(self, images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        s, side = self.shift, self.side
        places = [(s, s)] if not s else [(s, s), (0, 0), (0, 2 * s), (2 * s, 0), (2 * s, 2 * s)]
        for y, x in places:
            yield images[:, :, y : y + side, x : x + side]

    def _answered(self, images: NDArray[np.float32]) -> Scores:
        is_taught_whole = options_of(self.card).patches
        if is_taught_whole and self.side % self.network.stride:
            images = np.stack(
                [padded_to_stride(each, self.network.stride, self.card.fill) for each in images]
            )
        (logits,) = self.network.run(images)
        if is_taught_whole:  # in training each cell had the picture's class
            logits = logits.mean(axis=(2, 3))
        else:
            logits = logits[:, :, logits.shape[2] // 2, logits.shape[3] // 2]
        return sliding_window.probability(logits.T, self.card, calibrated=True, has_background=True).T


def flipped(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Images (n, B, S, S) in the eight quarter turns and mirrorings."""
    for turns in range(4):
        turned = np.rot90(images, turns, axes=(2, 3))
        yield turned
        yield turned[:, :, :, ::-1]


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """The answers for N objects.

    names : the K possible answers.
    score : (N, K), mean probability over members.
    votes : (N, K), votes of members; None where the mean decides.
    known : (N,), whether there were data to see; other values of a False row are undefined.
    """

    names: tuple[str, ...]
    score: Scores
    votes: NDArray[np.int64] | None
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.score)

    def ranked(self) -> NDArray[np.int64]:
        """Numbers of the answers of each object, first one first; (N, K). Ties go by the order of names."""
        # Half a vote is more than any mean.
        weight = self.score if self.votes is None else self.votes + self.score / 2
        return np.argsort(-weight, axis=1, kind="stable").astype(np.int64)

    def first(self) -> NDArray[np.object_]:
        """The first answer of each, "" where there were no data."""
        found = np.array(self.names, dtype=object)[self.ranked()[:, 0]]
        found[~self.known] = ""
        return found

    def columns(self, top: int) -> dict[str, NDArray[Any]]:
        """The `top` first answers with their scores as columns; see `column_kinds`."""
        ranked = self.ranked()
        names = np.array(self.names, dtype=object)
        found: dict[str, NDArray[Any]] = {}
        for place, (name, score) in enumerate(_column_names(top)):
            answer = ranked[:, place]
            label = names[answer]
            label[~self.known] = ""
            sure = self.score[np.arange(len(answer)), answer].astype(np.float64).round(4)
            sure[~self.known] = np.nan
            found[name], found[score] = label, sure
        return found


def _column_names(top: int) -> list[tuple[str, str]]:
    stems = ["species" if place == 1 else f"species_{place}" for place in range(1, top + 1)]
    return [(stem, f"{stem}_score") for stem in stems]


def column_kinds(top: int) -> dict[str, str]:
    """Name -> kind of the columns with answers: species, species_score, species_2, species_2_score, …"""
    kinds: dict[str, str] = {}
    for name, score in _column_names(top):
        kinds |= {name: "str", score: "float"}
    return kinds


@dataclass(frozen=True, eq=False, slots=True)
class ClassifierEnsemble:
    """An ensemble of one or several members.

    members : with the same answers, in any order.
    vote : "mean" of the probabilities, or "majority": each member has one vote, and the mean breaks ties.
    """

    members: tuple[Member, ...]
    vote: Vote = "mean"

    @property
    def names(self) -> tuple[str, ...]:
        return self.members[0].answers

    def top(self, asked: int | None) -> int:
        """The number of answers per object; raises UserError where there are fewer classes."""
        if asked is None:
            return min(_TOP, len(self.names))
        if not 1 <= asked <= len(self.names):
            raise UserError(
                f"The number of answers must be 1 to {len(self.names)}; got {asked}.",
                parameter="top",
            )
        return asked

    def described(self) -> dict[str, Any]:
        """Its entry in the metadata of an output."""
        several = {"vote": self.vote} if len(self.members) > 1 else {}
        models = [{"name": each.card.name, "hash": each.bundle.hash} for each in self.members]
        return {"models": models, **several, "views": self.members[0].views}

    def together(self, parts: Sequence[Scores], known: NDArray[np.bool_]) -> Answers:
        """The combined answers, from the probabilities of each member, (N, K) in its own order of answers."""
        total = np.zeros((len(known), len(self.names)), np.float32)
        votes = np.zeros(total.shape, np.int64) if self.vote == "majority" else None
        for member, likely in zip(self.members, parts, strict=True):
            mine = likely[:, [member.answers.index(name) for name in self.names]]
            total += mine
            if votes is not None:
                votes[np.arange(len(mine)), mine.argmax(axis=1)] += 1
        return Answers(self.names, total / np.float32(len(self.members)), votes, known)

    def seeing(
        self, raster: Raster, values: ValueUnit | None = None, companions: Companions | None = None
    ) -> EnsembleOnRaster:
        """The same on a raster; raises UserError, in one sentence, for a member that doesn't fit it.

        values : the values that count as black and white in it; None: inferred from its values.
        companions : rasters that share a unit with it.
        """
        sights = (Sight.of(each, raster, values, companions) for each in self.members)
        return EnsembleOnRaster(self, raster, tuple(sights))


def open_classifier(
    names: Sequence[str | os.PathLike[str]],
    *,
    vote: Vote = "mean",
    views: Views = "none",
    device: str = "auto",
    threads: int | None = None,
) -> ClassifierEnsemble:
    """The classifier of one model or several.

    names : files of models, or names of those that come with ecodetect.
    Raises UserError for a model that is not a classifier, and for members that don't know the same classes.
    """
    members = []
    for found in read_classifiers(names):
        network, side = window_networks.open_single(found, device, threads)
        members.append(Member(found, network, side, views))
    return ClassifierEnsemble(tuple(members), vote)


def read_classifiers(names: Sequence[str | os.PathLike[str]]) -> list[Bundle]:
    """The bundles of models for one ensemble; no network is opened yet.

    Raises UserError for a model that is not a classifier, and for members that don't know the same classes.
    """
    bundles = []
    for name in names:
        found = models.opened(name)
        if found is None:
            raise UserError(
                f"{name} is a kind of detector; name a trained classifier, usually a file.", parameter="model"
            )
        if found.card.detector != DETECTOR:
            raise UserError(
                f"The model '{found.card.name}' is of the detector {found.card.detector}, which finds and"
                f" doesn't classify windows; name one of the detector {DETECTOR}.",
                parameter="model",
            )
        bundles.append(found)
    if not bundles:
        return []
    first, *others = (each.card for each in bundles)
    for other in others:
        mine, its = sorted(answers_of(first)), sorted(answers_of(other))
        if mine != its:
            raise UserError(
                f"Models that answer together must know the same: '{first.name}' says {', '.join(mine)},"
                f" '{other.name}' {', '.join(its)}."
            )
    return bundles


def answers_of(card: Card) -> tuple[str, ...]:
    """The possible answers: its classes and, if it has one, the background."""
    return card.classes if options_of(card).patches else (*card.classes, BACKGROUND)


def check_fits(bundles: Sequence[Bundle], raster: Raster) -> None:
    """Raise UserError, in one sentence, for a classifier that can't be used on a raster."""
    scene = scene_of(raster)
    for each in bundles:
        why = models.misfit(each.card, scene, source=raster.name)
        if why is not None:
            raise why


def said_of_values(
    bundles: Sequence[Bundle], raster: Raster, values: ValueUnit | None, companions: Companions | None = None
) -> tuple[Note, ...]:
    """Notes about a raster's values before classifiers see them; see `ClassifierEnsemble.seeing`.

    Raises UserError, in one sentence, for values that can't be brought to those that one has learned.
    """
    return tuple(note for each in bundles for note in _told(each.card, raster, values, companions)[1])


def _told(
    card: Card, raster: Raster, values: ValueUnit | None, companions: Companions | None
) -> tuple[Choice | None, tuple[Note, ...]]:
    """The unit of a raster that fits a model, and the notes about its values."""
    choice, found = seen_unit(card, raster, stated=values, companions=companions)
    bands = stand_ins(card.bands, raster.bands)
    if found is None and card.learned is not None and bands is not None:
        found = survey(raster, bands)
    return choice, tuple(remarks(raster.name, card, choice, found))


# -- on rasters --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Sight:
    """A member before a raster.

    spec : its input specification, with the results of a survey of this raster.
    notes : about the raster's values.
    """

    member: Member
    spec: InputSpec
    notes: tuple[Note, ...]

    @classmethod
    def of(
        cls,
        member: Member,
        raster: Raster,
        values: ValueUnit | None = None,
        companions: Companions | None = None,
    ) -> Sight:
        """Raises UserError where a model and a raster don't fit together; see `ClassifierEnsemble.seeing`."""
        check_fits([member.bundle], raster)
        card = member.card
        choice, notes = _told(card, raster, values, companions)
        unit = None if choice is None else choice.unit
        spec = input_spec(card, raster, unit, is_stated=values is not None, widened=_widened(card))
        scaling = surveyed(spec.scaling, raster.samples(spec.grid, spec.distinct))
        return cls(member, replace(spec, scaling=scaling), notes)

    def places(self, raster: Raster, xy: Floats) -> Floats:
        """Pixels of the raster's own grid in pixels of the one that is read, (N, 2)."""
        a, b, c, d, e, f = self.spec.grid.pixels_from(raster.grid)
        return np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)

    def image(self, raster: Raster, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window of the grid scaled as the card says, (B, H, W), and which of its pixels are data."""
        spec = self.spec
        chip = raster.read(window, spec.distinct, spec.grid).picked(spec.bands)
        valid = chip.mask()
        return scaled(chip.pixels, chip.valid, spec.scaling, spec.fill), valid

    def windows(
        self, raster: Raster, xy: Floats
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]]:
        """Images about places (N, 2) of the raster's own pixels, in batches, ordered by place.

        Yields rows of `xy` (n,), images (n, B, S, S), and whether there is anything to see (n,). Ground is
        read cell by cell, once for all places on it, so memory depends on neither raster nor number.
        """
        side = self.member.read_px
        # Middles of pixels lie between two corners: after a way through map coordinates it is the same one.
        corner = np.floor(self.places(raster, xy) - side / 2 + 0.5 + _ROUNDING_PX).astype(np.int64)
        cell = corner // CELL_PX
        order = np.lexsort((np.arange(len(xy)), cell[:, 0], cell[:, 1]))
        breaks = np.flatnonzero(np.any(np.diff(cell[order], axis=0) != 0, axis=1)) + 1
        at_once = max(1, _BATCH_PX // side**2)
        for rows in np.split(order, breaks) if len(order) else ():
            low, high = corner[rows].min(axis=0), corner[rows].max(axis=0) + side
            ground = Window(int(low[0]), int(low[1]), *(high - low).tolist())
            image, valid = self.image(raster, ground)
            for start in range(0, len(rows), at_once):
                part = rows[start : start + at_once]
                cuts = [(slice(y, y + side), slice(x, x + side)) for x, y in (corner[part] - low).tolist()]
                yield (
                    part,
                    np.stack([image[:, down, across] for down, across in cuts]),
                    np.array([valid[cut].any() for cut in cuts], np.bool_),
                )


def _widened(card: Card) -> float:
    """The pixel size, in pixels of the card, at which a window shows as much ground as the pictures did.

    In training, pictures in folders by class were resized to the window; so the window shows the median width
    of ground that they showed.
    """
    if not options_of(card).patches:
        return 1.0
    return options_of(card).typical_px / options_of(card).network.window


@dataclass(frozen=True, eq=False, slots=True)
class EnsembleOnRaster:
    """A classifier on one raster."""

    classifier: ClassifierEnsemble
    raster: Raster
    sights: tuple[Sight, ...]

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes about the raster's values."""
        return tuple(dict.fromkeys(note for sight in self.sights for note in sight.notes))

    def at(self, xy: Floats) -> Answers:
        """The answers at places, (N, 2) in pixels of the raster's own grid; a NaN place is unknown."""
        known = np.zeros(len(xy), np.bool_)
        somewhere = np.flatnonzero(np.isfinite(xy).all(axis=1) & (np.abs(xy) < 2**31).all(axis=1))
        parts = []
        for sight in self.sights:
            likely = np.zeros((len(xy), len(sight.member.answers)), np.float32)
            for rows, images, seen in sight.windows(self.raster, xy[somewhere]):
                likely[somewhere[rows]] = sight.member.probability(images)
                known[somewhere[rows]] |= seen
            parts.append(likely)
        return self.classifier.together(parts, known)
