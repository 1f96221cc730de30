"""Without deep learning: an image is cut into segments, which are classified and merged into objects.

Object-based image analysis (Blaschke 2010, doi:10.1016/j.isprsjprs.2009.06.004), as Guirado et al. 2017
(doi:10.3390/rs9121220) compared it with a network: segments (SLIC, or the graph of Felzenszwalb and
Huttenlocher) with colour, texture, shape and contrast to their neighbours (`segments`), a learner (nearest
neighbours, a random forest or a support vector machine, whichever is best on validation; `learners`), and
touching segments of one class merged into one outline. Two touching individuals are split where there is a
neck between them, as in `threshold` (`splitting`).

It isn't local: the segments at a place depend a little on the chip around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.chip import Chip
from ecodetect.detections import Detections
from ecodetect.detectors import boxes, card_reading, outlines, segments, splitting
from ecodetect.detectors.boxes import check_sizes
from ecodetect.detectors.card_reading import Within
from ecodetect.detectors.learned import NO_WISHES, Answer, Image, Kind, Wishes
from ecodetect.detectors.learned_detector import LearnedDetector, card_needs
from ecodetect.detectors.learners import ClassicalClassifier
from ecodetect.detectors.protocol import Scene, Settling, scaling_of
from ecodetect.errors import BundleError
from ecodetect.grid import Floats, Grid, Window
from ecodetect.region import Region

if TYPE_CHECKING:
    from ecodetect.annotations.sample import Objects, Sample

TYPICAL_PX = 40.0  # width of a typical object when a raster is read: about six segments across

SAME_IOU = 0.5  # of outlines of two tiles: segments differ more between tiles than boxes
_SEGMENT_SHARE = 6.0  # segments across a typical object
_LEAST_SEGMENT_PX = 4
_NECK = 0.6  # as in `threshold`: parts are separate where the saddle is below this share of the lower summit
_SMALLEST = 0.6  # of the width of the 5 % smallest annotated objects; anything smaller is dropped
# The probability that a segment of an object must have; validation chooses. Probabilities smoothed over
# neighbours were tried: on zone1 the best average precision fell from 0.79 to 0.64.
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
# Shares of a segment: least in an object; most in one, as background on known ground.
_MOST, _HARDLY = 0.5, 0.1
_PREFIX = "learner."
_COST = 60.0  # time per pixel, where decoding a pixel is 1
_MOST_PX = 1000.0  # limit of a card's options: more is damage

BACKGROUND = "background"  # the learner's last class
UNUSED = -1


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which score threshold from validation applies, unless a score is given: "f1" (best F1) or
        "count" (counts nearly unbiased).
    """

    threshold: Literal["f1", "count"] = "f1"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What a user may set when training.

    segmentation : the algorithm: "slic", or "felzenszwalb", whose segments follow edges more closely and
        differ more in size.
    head : the classifier of their features: nearest neighbours ("knn"), a random "forest", a support vector
        machine ("svm"), or "best": whichever of these is best on validation.
    """

    segmentation: Literal["slic", "felzenszwalb"] = "slic"
    head: Literal["best", "knn", "forest", "svm"] = "best"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says about the detector.

    segmentation, segment_px : the algorithm, and the width of segments.
    typical_px, smallest_px : width of a typical object and of the smallest.
    level : least probability of an object's segment; see `LEVELS`.
    head : the classifier that was asked for.  learner : settings of the one that was trained.
    """

    segmentation: Literal["slic", "felzenszwalb"]
    segment_px: Annotated[int, Within(2, _MOST_PX)]
    typical_px: Annotated[float, Within(1, _MOST_PX)]
    smallest_px: Annotated[float, Within(0, _MOST_PX)]
    level: Annotated[float, Within(0, 1)]
    head: Literal["best", "knn", "forest", "svm"] = "best"
    learner: Mapping[str, Any] | None = None


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of this detector."""
    return card_reading.options_of(CardOptions, card)


def card_options(diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES) -> dict[str, Any]:
    """Options of the card of a model to be trained; see `learned.ChoosesOptions`.

    spacing_px : not used.
    wishes : with `TrainingOptions`.
    Raises UserError where most objects have no size.
    """
    known = check_sizes(diameter_px, "obia")
    typical = float(np.median(known))
    wished: TrainingOptions = wishes.training or TrainingOptions()
    return {
        "segmentation": wished.segmentation,
        "head": wished.head,
        "segment_px": max(_LEAST_SEGMENT_PX, round(typical / _SEGMENT_SHARE)),
        "typical_px": round(typical, 2),
        "smallest_px": round(_SMALLEST * float(np.percentile(known, 5)), 2),
        "level": 0.5,
    }


# -- from pixels to segments to outlines ----


@dataclass(frozen=True, eq=False, slots=True)
class Segmented:
    """An image in segments.

    labels : int32 (H, W), from 1; 0 where there are no data.
    features : float32 (n, C), of segment 1, 2, …; see `segments.described`.
    """

    labels: segments.Ints
    features: NDArray[Any]


def features_of(image: NDArray[np.float32], valid: NDArray[np.bool_], card: Card) -> Segmented:
    """An image (B, H, W), scaled as the card says, in segments."""
    options = options_of(card)
    labels = segments.cut(image, valid, options.segmentation, options.segment_px)
    return Segmented(labels, segments.described(image, valid, labels, card.scaling, options.typical_px))


def decode(look: Segmented, probability: Floats, card: Card) -> Answer:
    """Outlines of the objects that segments form.

    probability : (n, classes + 1), of each segment; background last.
    Returns polygons (m,) in pixels of the image, along the edges of pixels; score (m,), the mean probability
    of an outline's pixels; label (m,).
    """
    level, smallest = options_of(card).level, options_of(card).smallest_px
    largest = card.largest_px
    # A frame of one pixel, so that regions at the border end there.
    labels = np.pad(look.labels, 1)
    sure = np.concatenate([np.zeros((1, len(card.classes))), probability[:, : len(card.classes)]])
    best = sure.argmax(axis=1)
    found: list[Answer] = []
    for number in range(len(card.classes)):
        of_segment = sure[:, number]
        mask = ((of_segment >= level) & (best == number) & (np.arange(len(sure)) > 0))[labels]
        mask = _opened(mask, smallest / 4)
        if not mask.any():
            continue
        regions = outlines.regions_in(mask.view(np.uint8))
        regions = outlines.regions_of(splitting.split(regions, largest, _NECK))
        wide = regions.box[:, 2:] - regions.box[:, :2]
        drawn = outlines.traced(regions, (wide.max(axis=1) <= largest) & (wide.max(axis=1) >= smallest))
        drawn = drawn[drawn.areas() >= math.pi / 4 * smallest**2]
        painted = regions.painted().ravel()
        area = np.bincount(painted, minlength=regions.number + 1)
        total = np.bincount(painted, of_segment[labels].ravel(), minlength=regions.number + 1)
        score = np.clip(total[drawn.label] / np.maximum(area[drawn.label], 1), 0.0, 1.0)
        found.append(Answer(drawn.polygons(-1, -1), score, np.full(len(drawn), number, np.int64)))
    if not found:
        return Answer(np.empty(0, dtype=object), np.empty(0), np.empty(0, np.int64))
    return Answer(
        np.concatenate([each.geometry for each in found]),
        np.concatenate([each.score for each in found]),
        np.concatenate([each.label for each in found]),
    )


def _opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Morphological opening: removes what is narrower than twice the radius, such as bridges and tails."""
    reach = int(radius)
    if reach < 1:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    opened = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, disc)
    opened[[0, -1]] = 0
    opened[:, [0, -1]] = 0
    return np.asarray(opened, np.uint8).view(np.bool_)


# -- training; `training.without_network` does the rest ----


def examples(sample: Sample, look: Segmented, card: Card) -> tuple[NDArray[np.int64], Floats]:
    """The class of each segment, and the place that it belongs to.

    Returns int64 (n,): the class of which most of the segment lies in an object's shape; the number of
    classes (background) on known ground with hardly any part in an object; UNUSED otherwise. And (n, 2): the
    centre of the object that it is part of, else its own.
    """
    n, classes = len(look.features), len(card.classes)
    flat = look.labels.ravel()
    area = np.maximum(np.bincount(flat, minlength=n + 1)[1:], 1)

    def share(mask: NDArray[np.bool_]) -> Floats:
        found: Floats = np.bincount(flat, mask.ravel(), minlength=n + 1)[1:] / area
        return found

    where = segments.centres(look.labels)
    label = np.full(n, UNUSED, np.int64)
    taken = np.zeros(look.labels.shape, np.bool_)
    most = np.full(n, _MOST)
    doubtful = share(sample.ignored | ~sample.valid) > _HARDLY
    is_learned = boxes.is_learned(sample)
    for row in range(len(sample.objects)):
        each = sample.objects[row : row + 1]
        shape, whole = _shapes(each, options_of(card).typical_px)
        _paint(taken, whole)
        if not is_learned[row]:
            continue
        inside = np.zeros_like(taken)
        window = _paint(inside, shape)
        part = look.labels[window][inside[window]]
        count = np.bincount(part, minlength=n + 1)[1:] / area
        mine = count > most
        most[mine] = count[mine]
        label[mine] = each.label[0]
        where[mine] = each.xy[0]
    label[doubtful] = UNUSED
    is_background = (share(taken) < _HARDLY) & (share(sample.known) > 1 - _HARDLY) & ~doubtful
    label[is_background & (label == UNUSED)] = classes
    return label, where


def _shapes(one: Objects, typical_px: float) -> tuple[shapely.Geometry, shapely.Geometry]:
    """The shape that an object surely covers, and the shape that it surely lies in.

    For a box the first is the ellipse in it, because its corners show the surroundings; a point surely covers
    nothing, and the second shape is its surroundings.
    """
    if not one.is_sized[0]:
        return shapely.Polygon(), shapely.Point(one.xy[0]).buffer(typical_px / 2)
    x0, y0, x1, y1 = one.box[0].tolist()
    box = shapely.box(x0, y0, x1, y1)
    drawn = None if one.shape is None else one.shape[0]
    if drawn is not None and drawn.area > 0 and drawn.area < 0.98 * box.area:
        return drawn, drawn
    circle = shapely.get_coordinates(shapely.Point(0.0, 0.0).buffer(1.0))
    middle, half = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0]) / 2
    return shapely.Polygon(circle * half + middle), box


def _paint(mask: NDArray[np.bool_], shape: shapely.Geometry) -> tuple[slice, slice]:
    """Set the pixels with their centre in a shape; returns the part of the mask that it may touch."""
    height, width = mask.shape
    if shape.is_empty:
        return slice(0, 0), slice(0, 0)
    x0, y0, x1, y1 = shape.bounds
    left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
    right, bottom = min(width, math.ceil(x1)), min(height, math.ceil(y1))
    if right <= left or bottom <= top:
        return slice(0, 0), slice(0, 0)
    rows, columns = slice(top, bottom), slice(left, right)
    area = Region(shapely.make_valid(shape), Grid(width, height))
    mask[rows, columns] |= area.pixels(Window(left, top, right - left, bottom - top))
    return rows, columns


def alternatives(card: Card) -> dict[str, Card]:
    """The card with each way to turn segments into objects; validation chooses."""
    return {f"{level:g}": replace(card, options={**card.options, "level": level}) for level in LEVELS}


def bundled(card: Card, learner: ClassicalClassifier) -> Bundle:
    """A model from a card and what was learned."""
    options = {**card.options, "learner": dict(learner.settings)}
    weights = {_PREFIX + name: values for name, values in learner.arrays.items()}
    return Bundle(replace(card, options=options), weights)


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit.

    device, threads : not used: it runs on one CPU core, and a scan processes a tile on each core.
    """
    card = bundle.card
    needs = card_needs(card, scene, options.threshold, margin_px=2.0)
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind="polygon",
        look=Segments(card, _opened_learner(bundle)),
        scaling=scaling_of(card, scene),
        threshold=options.threshold,
        own_needs=replace(
            needs,
            stride_px=stride_px(card),
            reach_px=reach_px(card),
            is_local=False,
            settling=Settling("iou", SAME_IOU),
            bytes_per_pixel=24 * len(card.bands) + 200,
            cost=_COST,
            typical_px=options_of(card).typical_px,
        ),
    )


@lru_cache(maxsize=4)
def _opened_learner(bundle: Bundle) -> ClassicalClassifier:
    """The learner of a bundle; raises BundleError where card and arrays don't fit each other."""
    card, settings = bundle.card, options_of(bundle.card).learner
    if settings is None:
        raise BundleError(f"The card of '{card.name}' is damaged (it has no learner).")
    arrays = {
        name.removeprefix(_PREFIX): values
        for name, values in bundle.weights.items()
        if name.startswith(_PREFIX)
    }
    learner = ClassicalClassifier.of(settings, arrays)
    expected = len(segments.names(card.bands)), len(card.classes) + 1
    if (learner.features, learner.settings["classes"]) != expected:
        raise BundleError(
            f"The learner of '{card.name}' has {learner.features} features and"
            f" {learner.settings['classes']} classes, but its card says {expected[0]} and {expected[1]}."
        )
    return learner


@dataclass(frozen=True, eq=False, slots=True)
class Segments:
    """Finds objects on images: segments are classified and merged."""

    card: Card
    learner: ClassicalClassifier

    runtime: None = field(default=None, init=False)
    device: None = field(default=None, init=False)
    settings: Mapping[str, Any] = field(default_factory=dict, init=False)

    def surveyed(self, samples: Iterable[Chip], image_of: Callable[[Chip], Image]) -> Segments:
        return self

    def detect(self, chips: Sequence[Chip], images: Iterable[Image]) -> list[Detections]:
        found = []
        for chip, image in zip(chips, images, strict=True):
            shapes, score, label, _ = found_in(image, chip.mask(), self.card, self.learner)
            found.append(Detections(chip.grid, "polygon", shapes, score, label, self.card.classes))
        return found


def found_in(image: Image, valid: NDArray[np.bool_], card: Card, learner: ClassicalClassifier) -> Answer:
    """Objects of an image (B, H, W), scaled as the card says."""
    look = features_of(image, valid, card)
    return decode(look, learner.probability(look.features), card)


def stride_px(card: Card) -> int:
    """Tile origins are multiples of this, so that seeds lie at the same places."""
    return options_of(card).segment_px if options_of(card).segmentation == "slic" else 1


def reach_px(card: Card) -> int:
    """Context around an object: the widest surroundings, and what the seeds of SLIC see in turn."""
    typical, segment = options_of(card).typical_px, options_of(card).segment_px
    reach = math.ceil(typical + (segments.ROUNDS + 1) * segment)
    return -(-reach // stride_px(card)) * stride_px(card)


def measure_agreement(bundle: Bundle, image: Image | None = None) -> dict[str, float]:
    """How much detections depend on the tiling; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    if image is None:
        return {}
    card, learner = bundle.card, _opened_learner(bundle)

    def find(part: Image) -> Answer:
        return found_in(part, np.ones(part.shape[1:], np.bool_), card, learner)

    return boxes.agreement(find, card, image, stride_px=stride_px(card), rim_px=reach_px(card))


@dataclass(frozen=True, slots=True)
class Taught:
    """What training a learner needs; see `learned.Classical`."""

    features_of = staticmethod(features_of)
    examples = staticmethod(examples)
    decode = staticmethod(decode)
    bundled = staticmethod(bundled)


KIND = Kind(
    name="obia",
    purpose=__doc__,
    options=Options,
    card_options=card_options,
    options_of=options_of,
    build=build,
    training=TrainingOptions,
    typical_px=TYPICAL_PX,
    needs_shapes=True,
    head=lambda card: options_of(card).head,
    taught=lambda card, weights: Taught(),
    alternatives=alternatives,
    criterion=boxes.CRITERION,
    measure_agreement=measure_agreement,
)
