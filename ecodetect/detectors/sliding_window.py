"""A classifier swept over the raster: it classifies the individual, if any, in the middle of each window.

The oldest way to detect with a network that can only classify pictures, and the method of the study that
ecodetect began with (Guirado et al. 2017, doi:10.3390/rs9121220: GoogLeNet on windows of 64 px, 19.2 px
apart). Where the network allows, all windows of a tile share one computation of its features ("dense"; see
`networks.windows`); the card fixes which way the network was trained and is used.

- A window belongs to an individual if its middle lies in the individual's middle: an ellipse of 0.7 of its
  box. Between 0.7 and 0.9 nothing is learned; beyond is background.
- Scores form a map. Boxes are its regions above half of their maximum, one per individual, enlarged by the
ratio
  of box to middle; or its peaks, with a box of fixed size. Validation chooses.
- From pictures in folders by class (`patches`) it learns to classify: then there is no background, and each
  window gets a class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.detectors import boxes, map_boxes, window_networks
from ecodetect.detectors.learned import (
    NO_WISHES,
    Answer,
    Arrays,
    Head,
    Image,
    NetworkKind,
    Outputs,
    Thresholds,
    Wishes,
)
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook
from ecodetect.detectors.learners import ClassicalClassifier
from ecodetect.detectors.protocol import Scene, scaling_of
from ecodetect.detectors.window_networks import TAUGHT, open_classifier, options_of
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.sizes import Length

if TYPE_CHECKING:
    from torch import Tensor

    from ecodetect.annotations.sample import Sample
    from ecodetect.runtime.opening import Network, Runtime

TYPICAL_PX = 32.0  # a typical object is half as wide as the window: its surroundings are as informative
PATCH_PX = 96.0  # width of pictures in folders by class, if they have as many pixels
WINDOW_PX = 64
_STEP_SHARE = 0.25  # of a window, where each is computed separately
# Of an individual's box: a window in the first is its; beyond the second it isn't.
_MIDDLE, _NOT_MIDDLE = 0.7, 0.9
_EDGE = (_MIDDLE + _NOT_MIDDLE) / 2  # between them the map crosses one half
_UNUSED = -1  # label of a cell that isn't used
_SAME_IOU = 0.3  # of boxes from windows of several sizes: the same individual
_COST = {"dense": 8.0, "windows": 120.0}  # time per pixel, where decoding a pixel is 1

Way = Literal["regions", "peaks", "windows"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which score threshold from validation applies, unless a score is given: "f1" (best F1) or
        "count" (counts nearly unbiased).
    boxes : what counts as an individual in the map of scores: "regions", "peaks", or each of the "windows";
        "card": the way that was best on validation.
    windows : sides of the windows, each twice the one before (8m,16m), where individuals differ much in size;
        none: the side it was trained with.
    stride : step from one window to the next, as a share of its side; none: as in training. The network
        "valid" supports 0.25, 0.125, 0.0625 and 0.03125, a dense backbone only its own.
    """

    threshold: Literal["f1", "count"] = "f1"
    boxes: Literal["card", "regions", "peaks", "windows"] = "card"
    windows: str | None = None
    stride: float | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and not 0 < self.stride <= 1:
            raise UserError(f"stride must be above 0 and at most 1, a whole window; got {self.stride:g}.")


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What a user may set when training.

    window : side of the windows; none: twice as wide as a typical individual.
    evaluation : "dense": features are computed once for all windows of a tile; "windows": separately for each
        window; "auto": dense, but windows for pictures in folders by class.
    smoothing : label smoothing: how far the network's targets are from 0 and 1.
    class_weights : "balanced": rare classes count more; "none": each individual counts the same.
    head : the classifier of the features: the "network" itself, trained end to end; or nearest neighbours
        ("knn"), a random "forest" or a support vector machine ("svm") on the features of a frozen backbone;
        "best": whichever of these is best on validation.
    """

    window: Length | None = None
    evaluation: Literal["auto", "dense", "windows"] = "auto"
    smoothing: float = 0.05
    class_weights: Literal["balanced", "none"] = "none"
    head: Head = "network"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing must be at least 0 and below 1; got {self.smoothing:g}.")
        if self.window is not None and not self.window.value > 0:
            raise UserError(f"window must be above 0; got {self.window}.")


def card_options(diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `learned.ChoosesOptions`.

    wishes : with `TrainingOptions`.
    """
    wished: TrainingOptions = wishes.training or TrainingOptions()
    patches = wishes.is_patches
    shape: dict[str, Any] = {"kind": "valid", "evaluation": "", "window": WINDOW_PX, "step": 0, "width": 24}
    shape.update({key: value for key, value in wishes.network.items() if key in shape})
    known = diameter_px[np.isfinite(diameter_px)]
    near = spacing_px[np.isfinite(spacing_px)]
    is_sized = len(known) >= max(1, len(diameter_px) / 2)
    typical = float(np.median(known)) if is_sized else WINDOW_PX / 2
    if not is_sized and len(near):
        typical = float(np.clip(np.median(near) / 2, 8, WINDOW_PX / 2))
    if not shape["evaluation"]:
        way = "windows" if patches and wished.evaluation == "auto" else wished.evaluation
        shape["evaluation"] = "dense" if way == "auto" else way
    if patches and shape["kind"] != "valid":
        shape["window"] = math.ceil(typical)
    if shape["kind"] == "valid":
        step = WINDOW_PX if shape["evaluation"] == "windows" else 8
        shape |= {"window": WINDOW_PX, "step": shape["step"] or step}
    elif shape["evaluation"] == "dense":
        shape["step"] = 16
    elif not shape["step"]:
        window = int(shape["window"])
        shape["step"] = window if patches else max(1, 2 * round(window * _STEP_SHARE / 2))
    return {
        "network": shape,
        "typical_px": round(typical, 2),
        "sized": is_sized,
        "patches": patches,
        "boxes": "windows" if patches else "regions" if is_sized else "peaks",
        "head": wished.head,
        "smoothing": wished.smoothing,
        "class_weights": [],
        "temperature": 1.0,
    }


def chip_px(card: Card) -> int | None:
    """Side of the training chips: a window; None: the default, because features are shared."""
    shape = options_of(card).network
    return shape.window if shape.evaluation == "windows" or options_of(card).patches else None


# -- training ----


def targets(sample: Sample, card: Card) -> Arrays:
    """Training targets of a sample, cell by cell.

    Returns answer (h, w): number of the output that should be highest; counted (h, w) in {0, 1}: whether the
    cell's window is used.
    """
    step = options_of(card).network.step
    height, width = (max(1, round(side / step)) for side in sample.valid.shape)
    y, x = (np.arange(height) + 0.5) * step, (np.arange(width) + 0.5) * step
    row = np.minimum(y.astype(np.int64), sample.valid.shape[0] - 1)
    column = np.minimum(x.astype(np.int64), sample.valid.shape[1] - 1)
    usable = (sample.valid & ~sample.ignored)[np.ix_(row, column)]
    counted = sample.known[np.ix_(row, column)].copy()
    answer = np.zeros((height, width), np.float32)
    objects = sample.objects
    first = 0 if options_of(card).patches else 1
    typical = options_of(card).typical_px
    size = np.where(np.isfinite(objects.size), objects.size, typical)
    middle = np.where(objects.is_sized[:, None], (objects.box[:, :2] + objects.box[:, 2:]) / 2, objects.xy)
    away = np.full((len(objects), height, width), np.inf)
    for number in range(len(objects)):
        across = (x - middle[number, 0]) / max(size[number, 0] / 2, step / 2)
        down = (y - middle[number, 1]) / max(size[number, 1] / 2, step / 2)
        away[number] = np.hypot(down[:, None], across[None])  # 1 on the ellipse in its box
    if len(objects):
        nearest, least = away.argmin(axis=0), away.min(axis=0)
        inside = np.ones_like(counted) if options_of(card).patches else least <= _MIDDLE
        # A small one may lie between the middles of windows: it gets the nearest.
        for number in range(len(objects)):
            at = int(middle[number, 1] // step), int(middle[number, 0] // step)
            if 0 <= at[0] < height and 0 <= at[1] < width:
                inside[at], nearest[at] = True, number
        counted = np.where(inside, True, counted & (least > _NOT_MIDDLE))
        answer[inside] = objects.label[nearest[inside]] + first
    return {"answer": answer, "counted": (counted & usable).astype(np.float32)}


def losses(outputs: Tensor, targets: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Cross-entropy, the mean over the windows that count; rare classes may have a higher weight.

    outputs : (N, K, h, w).
    """
    import torch
    from torch.nn.functional import cross_entropy

    weights = options_of(card).class_weights
    each = cross_entropy(
        outputs,
        targets["answer"].long(),
        weight=torch.tensor(weights, device=outputs.device) if len(weights) else None,
        label_smoothing=options_of(card).smoothing,
        reduction="none",
    )
    counted = targets["counted"]
    return {"class": (each * counted).sum() / counted.sum().clamp(min=1.0)}


def weighted(card: Card, per_class: Mapping[str, int], asked: TrainingOptions) -> Card:
    """The card with the weight of each class, if requested: one over the square root of its number."""
    if asked.class_weights == "none":
        return card
    counts = np.array([max(1, per_class.get(name, 0)) for name in card.classes], np.float64)
    weight = np.sqrt(counts.mean() / counts)
    whole = [*([] if options_of(card).patches else [1.0]), *weight.round(4).tolist()]
    return replace(card, options={**card.options, "class_weights": whole})


# -- a learner on the features of a frozen backbone; see `training.without_network` ----


@dataclass(frozen=True, eq=False, slots=True)
class FeatureMap:
    """An image as a backbone sees it: features float32 (n, C) of the cells of a map of `shape` (h, w)."""

    features: NDArray[np.float32]
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False, slots=True)
class Frozen:
    """A backbone whose features train a learner.

    weights : the backbone's.  network : opened.
    """

    weights: Mapping[str, NDArray[Any]]
    network: Network

    def features_of(self, image: NDArray[np.float32], valid: NDArray[np.bool_], card: Card) -> FeatureMap:
        (maps,) = self.network.run(padded_to_stride(image, self.network.stride, card.fill)[None])
        channels, height, width = maps[0].shape
        return FeatureMap(maps[0].transpose(1, 2, 0).reshape(-1, channels), (height, width))

    def examples(self, sample: Sample, look: FeatureMap, card: Card) -> tuple[NDArray[np.int64], Floats]:
        """The class of each cell (the number of classes: background; -1: unused), and its middle (n, 2)."""
        made = targets(sample, card)
        (rows, columns), step = look.shape, options_of(card).network.step
        label = np.full(look.shape, _UNUSED, np.int64)
        height, width = made["answer"].shape
        answer = made["answer"].astype(np.int64)
        if not options_of(card).patches:
            answer = np.where(answer == 0, len(card.classes), answer - 1)
        label[:height, :width] = np.where(made["counted"] > 0, answer, _UNUSED)
        y, x = np.mgrid[:rows, :columns]
        return label.ravel(), np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1) * step

    def decode(self, look: FeatureMap, likely: Floats, card: Card) -> Answer:
        score = likely[:, : len(card.classes)].T.reshape(-1, *look.shape).astype(np.float32)
        box, sure, label = read_map(score, card, options_of(card).boxes, 1)
        if not options_of(card).patches:
            box, sure, label = boxes.class_agnostic_nms(box, sure, label)
        return Answer(np.asarray(shapely.box(*box.T), dtype=object).reshape(-1), sure, label)

    def bundled(self, card: Card, learner: ClassicalClassifier) -> Bundle:
        options = {**card.options, "learner": dict(learner.settings)}
        taught = {TAUGHT + name: values for name, values in learner.arrays.items()}
        return Bundle(replace(card, options=options), {**self.weights, **taught})


def frozen(card: Card, weights: Mapping[str, NDArray[Any]]) -> Frozen:
    """What trains a learner, where a card asks for one."""
    if options_of(card).network.kind == "valid":
        raise UserError(
            f"head={options_of(card).head} decides by the features of a backbone; name one.",
            parameter="backbone",
        )
    return Frozen(weights, open_classifier(Bundle(card, weights), "cpu", None))


# -- reading the map ----


def probability(
    logits: NDArray[np.float32], card: Card, *, calibrated: bool = False, has_background: bool = False
) -> NDArray[np.float32]:
    """The probability of each class in the middle of each window: (K', …) to (K, …) without background.

    calibrated : logits are divided by the temperature from validation (Guo et al. 2017, arXiv:1706.04599).
    has_background : include the background, last, where there is one.
    """
    x = logits.astype(np.float32)
    if calibrated:
        x = x / np.float32(options_of(card).temperature)
    x = np.exp(x - x.max(axis=0))
    x = np.asarray(x / x.sum(axis=0), np.float32)
    if options_of(card).patches:
        return x
    return np.concatenate([x[1:], x[:1]]) if has_background else x[1:]


def alternatives(card: Card) -> dict[str, Card]:
    """The card with each way to decode a map of individuals; validation chooses."""
    if options_of(card).patches or not options_of(card).sized:
        return {options_of(card).boxes: card}
    return {way: replace(card, options={**card.options, "boxes": way}) for way in ("regions", "peaks")}


def decode(outputs: Outputs, card: Card, way: Way | None = None) -> list[Answer]:
    """Boxes of each image, in pixels of the input.

    outputs : of the network, (N, K', h, w); where windows have several sizes, a map for each, each half as
        fine as the one before.
    way : how a map is decoded; the card's if not given.
    Without a stated way, and where no sizes were learned, validation judges positions: the boxes' middles.
    """
    is_placed = way is None and not options_of(card).sized
    way = way or options_of(card).boxes
    found = []
    for number in range(len(outputs[0])):
        parts = [
            read_map(probability(each[number], card), card, way, 2**level)
            for level, each in enumerate(outputs)
        ]
        box, score, label = (np.concatenate(each) for each in zip(*parts, strict=True))
        if len(parts) > 1:
            kept = boxes.suppressed(box, score, label, _SAME_IOU)
            box, score, label = box[kept], score[kept], label[kept]
        if way != "windows":
            box, score, label = boxes.class_agnostic_nms(box, score, label)
        found.append(Answer((box[:, :2] + box[:, 2:]) / 2 if is_placed else box, score, label))
    return found


def read_map(score: NDArray[np.float32], card: Card, way: Way, scale: int) -> boxes.Boxes:
    """Boxes of the maps (K, h, w) of one image, whose pixels are `scale` of the input's."""
    step = float(options_of(card).network.step * scale)
    typical = float(options_of(card).typical_px * scale)
    if way == "windows":
        return _windows(score, step, float(options_of(card).network.window * scale), card)
    found, scores, labels = [], [], []
    for label, each in enumerate(score):
        if way == "regions":
            box, sure = map_boxes.regions(each)
            box = box * step
            middle, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / (2 * _EDGE)
        else:
            middle, sure = map_boxes.peaks(each, max(1, round(0.3 * typical / step)))
            middle = middle * step
            half = np.full_like(middle, typical / 2)
        found.append(np.concatenate([middle - half, middle + half], axis=1))
        scores.append(sure)
        labels.append(np.full(len(sure), label, np.int64))
    return np.concatenate(found), np.concatenate(scores), np.concatenate(labels)


def _windows(score: NDArray[np.float32], step: float, window: float, card: Card) -> boxes.Boxes:
    """Each window with its most likely class, except where background is more likely."""
    label = score.argmax(axis=0)
    best = score.max(axis=0)
    row, column = np.nonzero(best > (0.0 if options_of(card).patches else 0.5))
    middle = np.stack([(column + 0.5) * step, (row + 0.5) * step], axis=1)
    box = np.concatenate([middle - window / 2, middle + window / 2], axis=1)
    return box, best[row, column].astype(np.float64), label[row, column].astype(np.int64)


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    bundle = bundle if options.stride is None else _of_stride(bundle, options.stride)
    card, stated = bundle.card, options_of(bundle.card)
    opened = open_classifier(bundle, device, threads)
    way: Way = stated.boxes if options.boxes == "card" else options.boxes
    if way == "regions":
        map_boxes.load()
    if options.windows is not None:
        card, opened = _of_sizes(card, opened, options.windows, scene)
    threshold = options.threshold if way == stated.boxes else f"{way}_{options.threshold}"
    step, cost = stated.network.step, _COST[stated.network.evaluation]
    needs = boxes.box_needs(card, scene, threshold, opened, stated.typical_px, cost=cost)
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind="box",
        look=NetworkLook(
            card=card,
            network=opened,
            kind="box",
            read=partial(decode, card=card, way=way),
            score_maps=partial(maps_of, card=card),
            map_px=step,
        ),
        scaling=scaling_of(card, scene),
        threshold=threshold,
        own_needs=replace(
            needs, bytes_per_pixel=bytes_per_pixel(card), map_px=step, least_px=_least_px(card)
        ),
        own_settings={
            "boxes": way,
            "step_px": step,
            **({"windows": options.windows} if options.windows else {}),
        },
    )


def bytes_per_pixel(card: Card) -> int:
    """Memory per pixel: four copies of the image, and the widest features of the network."""
    shape = options_of(card).network
    features = 3 * shape.width if shape.kind == "valid" else 300
    return 16 * len(card.bands) + features


def _least_px(card: Card) -> int:
    """The side of a window."""
    shape = options_of(card).network
    is_exact = shape.kind == "valid" or shape.evaluation == "windows"
    return shape.window if is_exact else 1


def _of_stride(bundle: Bundle, stride: float) -> Bundle:
    """The model with this step between windows, as a share of their side, in whole pixels."""
    card, shape = bundle.card, options_of(bundle.card).network
    window, dense = shape.window, shape.evaluation == "dense"
    step = max(1, round(stride * window))
    if dense and step != shape.step and (shape.kind != "valid" or step not in (2, 4, 8, 16)):
        known = "0.25, 0.125, 0.0625 or 0.03125" if shape.kind == "valid" else f"{shape.step / window:g}"
        raise UserError(
            f"'{card.name}' shares its features between windows, so it supports only a stride of {known}; got"
            f" {stride:g}."
        )
    options = {**card.options, "network": {**card.options["network"], "step": step}}
    # The result for a window depends on all of it.
    reach = window if _least_px(card) > 1 else card.reach_px
    return replace(bundle, card=replace(card, options=options, reach_px=reach))


def maps_of(outputs: Outputs, card: Card) -> NDArray[np.float32]:
    """The maps that give the boxes, (N, K, h, w); for windows of several sizes, the highest score."""
    found = np.stack([probability(each, card) for each in outputs[0]])
    for level, coarser in enumerate(outputs[1:], 1):
        likely = np.stack([probability(each, card) for each in coarser])
        found = np.maximum(found, likely.repeat(2**level, axis=2).repeat(2**level, axis=3))
    return found


@dataclass(frozen=True, eq=False, slots=True)
class _Sizes:
    """A network that runs on an image pyramid, each level half as fine, so that its windows grow."""

    of: Network
    levels: int

    @property
    def runtime(self) -> Runtime:
        return self.of.runtime

    @property
    def device(self) -> str:
        return self.of.device

    @property
    def stride(self) -> int:
        return int(self.of.stride * 2 ** (self.levels - 1))

    @property
    def reach_px(self) -> int | None:
        reach = self.of.reach_px
        return None if reach is None else int(reach * 2 ** (self.levels - 1))

    @property
    def is_local(self) -> bool:
        return self.of.is_local

    @property
    def bytes_per_pixel(self) -> int | None:
        return self.of.bytes_per_pixel

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = []
        for level in range(self.levels):
            if level:
                n, bands, height, width = batch.shape
                batch = batch.reshape(n, bands, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
            found += self.of.run(batch)
        return found


def _of_sizes(card: Card, opened: Network, stated: str, scene: Scene) -> tuple[Card, Network]:
    """The card with the GSD at which windows have the smallest stated size, and a network for all sizes."""
    sides = [Length.parse(each.strip(), name="windows") for each in stated.split(",")]
    if any(not side.value > 0 for side in sides):
        raise UserError(f"windows must be above 0; got {stated}.")
    pixels = [side.pixels(scene.gsd, name="windows") for side in sides]
    if any(abs(big / small - 2) > 0.01 for small, big in pairwise(pixels)):
        raise UserError(f"windows must each be twice as wide as the one before (8m,16m,32m); got {stated}.")
    own = pixels[0] / options_of(card).network.window  # width of the network's pixel in pixels of the raster
    scale = own * (scene.gsd_mean or 1.0)
    if card.unit == "um":
        scale *= 1e6
    elif card.unit == "px":
        scale = own
    grown = scale / card.unit_per_px * 2 ** (len(sides) - 1)
    return replace(card, gsd=scale, largest=card.largest * max(1.0, grown)), _Sizes(opened, len(sides))


def measure_agreement(bundle: Bundle, image: Image | None = None) -> dict[str, float]:
    """How much detections depend on the tiling; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    card, stated = bundle.card, options_of(bundle.card)
    if image is None or stated.patches:
        return {}
    opened = open_classifier(bundle, "cpu", None)
    return boxes.network_agreement(opened, decode, card, image, boxes.halo_px(opened, stated.typical_px))


def calibrated(bundle: Bundle, training: Iterable[Sample], validation: Iterable[Sample]) -> Card:
    """The card with a temperature that calibrates the probabilities of single windows.

    Found on validation ground, or on training ground where there is none. It doesn't change detections from a
    map, which have thresholds of their own.
    """
    card = bundle.card
    opened = open_classifier(bundle, "cpu", None)
    logits: list[NDArray[np.float32]] = []
    answers: list[NDArray[np.float32]] = []
    for ground in (validation, training):
        if logits:
            break
        for sample in ground:
            made = targets(sample, card)
            image = padded_to_stride(sample.image, opened.stride, card.fill)
            (scores,) = opened.run(image[None])
            rows, columns = made["answer"].shape
            counts = made["counted"] > 0
            logits.append(scores[0, :, :rows, :columns][:, counts].T)
            answers.append(made["answer"][counts])
    x, y = np.concatenate(logits), np.concatenate(answers).astype(np.int64)
    return replace(card, options={**card.options, "temperature": temperature(x, y)})


def thresholds(card: Card) -> Thresholds | None:
    """Thresholds of 0 where every picture gets a class; otherwise None: validation chooses them."""
    zero = (0.0,) * len(card.classes)
    return {"f1": zero, "count": zero} if options_of(card).patches else None


def temperature(x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """The temperature that calibrates the softmax of logits (n, K) for labels y (n,), by division."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def unlikely(log_temperature: float) -> float:
        return -float(log_softmax(x / math.exp(log_temperature), axis=1)[np.arange(len(y)), y].mean())

    found = minimize_scalar(unlikely, bounds=(-2.0, 2.0), method="bounded")
    return round(math.exp(float(found.x)), 4)


KIND = NetworkKind(
    name="sliding_window",
    purpose=__doc__,
    options=Options,
    card_options=card_options,
    options_of=options_of,
    build=build,
    network=window_networks.network,
    targets=targets,
    losses=losses,
    decode=decode,
    training=TrainingOptions,
    window=lambda training: training.window,
    weighted=weighted,
    typical_px=TYPICAL_PX,
    window_px=WINDOW_PX,
    patch_px=PATCH_PX,
    chip_px=chip_px,
    kept=("kind", "evaluation", "window", "step", "width"),
    head=lambda card: options_of(card).head,
    taught=frozen,
    alternatives=alternatives,
    thresholds=thresholds,
    criterion=boxes.CRITERION,
    calibrated=calibrated,
    measure_agreement=measure_agreement,
    has_score_map=True,
)
