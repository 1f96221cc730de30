"""Boxes in one stage, without anchors: one box per object, or the best after non-maximum suppression.

Two heads are trained together on the same features. One learns several boxes for each object, as usual, and
trains the features. The other learns one box per object, so its boxes above the threshold are the
individuals, and touching individuals stay separate. So it counts without duplicates (Jackson and Obara take
boxes above 0.5 as they are) and without non-maximum suppression, which drops neighbours in a crowd. This head
takes long to train, so validation chooses between the two. Sources: YOLOv10
(Wang et al. 2024, arXiv:2405.14458) for the two heads; TOOD (Feng et al. 2021, arXiv:2108.07755) for which
places learn which object; Zheng et al. 2020 (arXiv:1911.08287) for the loss of overlap; generalised focal
loss (Li et al. 2020, arXiv:2006.04388) for edges as distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import boxes, card_reading
from ecodetect.detectors.boxes import Boxes, check_sizes
from ecodetect.detectors.card_reading import Count
from ecodetect.detectors.learned import NO_WISHES, Answer, Arrays, Image, NetworkKind, Outputs, Wishes
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook
from ecodetect.detectors.protocol import Scene, scaling_of
from ecodetect.grid import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from ecodetect.annotations.sample import Sample
    from ecodetect.networks.network import TrainableNetwork, Weights
    from ecodetect.runtime.opening import Network

Head = Literal["one", "many"]

BINS = 16  # as `networks.yolo.BINS`, which needs torch
_SMALL_PX, _LARGE_PX = 14.0, 48.0  # smaller objects need a level at stride 4; larger ones one at stride 32
SUPPRESSION = 0.5
_COST = 12.0  # time per pixel of the nano network, where decoding a pixel is 1
_MOST = 3000  # the best boxes of a chip that are kept


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which score threshold from validation applies, unless a score is given: "f1" (best F1) or
        "count" (counts nearly unbiased).
    head : the head that is used. "one" gives one box per object; "many" gives several, of which the best
        survives (non-maximum suppression); "card": whichever had the higher average precision on validation.
    suppression : IoU above which boxes of the head "many" mean the same object.
    """

    threshold: Literal["f1", "count"] = "f1"
    head: Literal["card", "one", "many"] = "card"
    suppression: float = SUPPRESSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Shape of the network; see `networks.yolo.build`."""

    kind: card_reading.NetworkName
    strides: Annotated[tuple[card_reading.Stride, ...], Count(1, 5)]
    size: Literal["nano", "small", "medium"] = "nano"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says about the detector.

    typical_px : width of a typical object.  head : the better one on validation.
    """

    network: Shape
    typical_px: card_reading.TypicalPx
    head: Head = "one"


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of this detector."""
    found = card_reading.options_of(CardOptions, card)
    card_reading.check_strides(found.network.strides, card)
    return found


def network(card: Card, weights: Weights | None = None) -> TrainableNetwork:
    """The network that a card describes.

    weights : of a backbone's encoder; see `networks.building.build`. None: at random.
    """
    return _network(card, ("one", "many"), weights)


def _network(card: Card, answers: Sequence[Head], weights: Weights | None = None) -> TrainableNetwork:
    from ecodetect.networks import yolo

    return yolo.build(
        asdict(options_of(card).network), card.bands, len(card.classes), weights, answers=answers
    )


def card_options(diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `learned.ChoosesOptions`.

    spacing_px : not used.
    Raises UserError where most objects have no size.
    """
    known = check_sizes(diameter_px, "yolo")
    first = 4 if np.percentile(known, 10) < _SMALL_PX else 8
    last = 32 if np.percentile(known, 95) > _LARGE_PX else 16
    shape: dict[str, Any] = {"kind": "nano", "strides": [], "size": "nano"}
    shape.update({key: value for key, value in wishes.network.items() if key in shape})
    if shape["kind"] not in ("nano", "small", "medium"):
        from ecodetect.networks.backbones import encoder

        last = encoder(str(shape["kind"]), None, ("",), depth=last.bit_length() - 1, is_most=True).strides[-1]
    shape["strides"] = shape["strides"] or [s for s in (4, 8, 16, 32) if first <= s <= last]
    return {"network": shape, "typical_px": round(float(np.median(known)), 2)}


# -- training ----


def targets(sample: Sample, card: Card) -> Arrays:
    """Boxes and background; see `boxes.targets`."""
    return boxes.targets(sample, options_of(card).typical_px)


def losses(outputs: Sequence[Tensor], targets: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Losses of a batch; training minimises their sum."""
    from ecodetect.networks import yolo_losses

    return yolo_losses.losses(outputs, targets, options_of(card).network.strides)


# -- reading the outputs ----


def alternatives(card: Card) -> dict[str, Card]:
    """The card with each head, the preferred one first; validation chooses."""
    return {head: replace(card, options={**card.options, "head": head}) for head in ("one", "many")}


def decode(
    outputs: Outputs,
    card: Card,
    head: Head | None = None,
    suppression: float = SUPPRESSION,
) -> list[Answer]:
    """Boxes of each image, in pixels of the input.

    outputs : of the network, (N, 4 · BINS + K, h, w) for each level; of both heads, "one" first, or of one.
    head : the head to decode; the card's if not given.
    suppression : IoU above which only the better of two boxes of a class survives, for the head "many".
    """
    strides = options_of(card).network.strides
    head = head or options_of(card).head
    if head == "many" and len(outputs) > len(strides):
        outputs = outputs[len(strides) :]
    found = []
    for number in range(len(outputs[0])):
        parts = [
            _decoded(each[number], stride)
            for each, stride in zip(outputs[: len(strides)], strides, strict=True)
        ]
        box, score, label = (np.concatenate(each) for each in zip(*parts, strict=True))
        if len(score) > _MOST:
            best = np.argsort(-score, kind="stable")[:_MOST]
            box, score, label = box[best], score[best], label[best]
        if head == "many":
            kept = boxes.suppressed(box, score, label, suppression)
            box, score, label = box[kept], score[kept], label[kept]
        found.append(Answer(*boxes.class_agnostic_nms(box, score, label)))
    return found


def _decoded(raw: NDArray[np.float32], stride: int) -> Boxes:
    """Boxes of one level, (4 · BINS + K, h, w): each place may hold one object, of its most likely class."""
    kinds = raw[4 * BINS :]
    label = kinds.argmax(0)
    logit = np.take_along_axis(kinds, label[None], 0)[0]
    row, column = np.nonzero(logit > math.log(boxes.LEAST_SCORE / (1 - boxes.LEAST_SCORE)))
    edges = raw[: 4 * BINS, row, column].astype(np.float64).reshape(4, BINS, -1)
    edges = np.exp(edges - edges.max(axis=1, keepdims=True))
    reach = (edges * np.arange(BINS)[:, None]).sum(axis=1) / edges.sum(axis=1)  # (4, n)
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    left, top, right, bottom = reach * stride
    box = np.stack([x - left, y - top, x + right, y + bottom], axis=1)
    score = 1 / (1 + np.exp(-logit[row, column].astype(np.float64)))
    return box, score, label[row, column].astype(np.int64)


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    card, stated = bundle.card, options_of(bundle.card)
    head: Head = stated.head if options.head == "card" else options.head
    threshold = options.threshold if head == stated.head else f"{head}_{options.threshold}"
    opened = _opened(bundle, head, device, threads)
    needs = boxes.box_needs(card, scene, threshold, opened, stated.typical_px, cost=_COST)
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind="box",
        look=NetworkLook(
            card=card,
            network=opened,
            kind="box",
            read=partial(decode, card=card, head=head, suppression=options.suppression),
        ),
        scaling=scaling_of(card, scene),
        threshold=threshold,
        own_needs=replace(needs, bytes_per_pixel=4 * len(card.bands) + (opened.bytes_per_pixel or 200)),
        own_settings={"head": head, **({"suppression": options.suppression} if head == "many" else {})},
    )


@lru_cache(maxsize=4)
def _opened(bundle: Bundle, answer: Head, device: str, threads: int | None) -> Network:
    """The network of a bundle; cached, because a detector is built for each raster."""
    from ecodetect.runtime.opening import open_network

    card = bundle.card
    channels = 4 * BINS + len(card.classes)
    outputs = {f"{answer}_{stride}": (channels, 1 / stride) for stride in options_of(card).network.strides}
    return open_network(bundle, lambda: _network(card, (answer,)), outputs, device=device, threads=threads)


def measure_agreement(bundle: Bundle, image: Image | None = None) -> dict[str, float]:
    """How much detections depend on the tiling; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    if image is None:
        return {}
    stated = options_of(bundle.card)
    opened = _opened(bundle, stated.head, "cpu", None)
    return boxes.network_agreement(
        opened, decode, bundle.card, image, boxes.halo_px(opened, stated.typical_px)
    )


KIND = NetworkKind(
    name="yolo",
    purpose=__doc__,
    options=Options,
    card_options=card_options,
    options_of=options_of,
    build=build,
    network=network,
    targets=targets,
    losses=losses,
    decode=decode,
    alternatives=alternatives,
    typical_px=boxes.TYPICAL_PX,
    criterion=boxes.CRITERION,
    # A rotated box isn't the box of the rotated object: only quarter turns.
    augmentations={"rotation": 0.0, "scale": 0.4, "mosaic": 0.5},
    measure_agreement=measure_agreement,
)
