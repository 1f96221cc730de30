"""Boxes by torchvision's detection networks: Faster R-CNN, RetinaNet, FCOS and SSD on a feature pyramid.

They differ mainly in the network (`networks.detection` lists the differences from torchvision's).
`mask_rcnn`, which also gives outlines, is built on this file. Sources: Faster R-CNN (Ren et al.
2015, arXiv:1506.01497), RetinaNet (Lin et al. 2017, arXiv:1708.02002; with group normalisation in the heads),
FCOS (Tian et al. 2019, arXiv:1904.01355), SSD (Liu et al. 2016, arXiv:1512.02325), the pyramid (Lin et al.
2017, arXiv:1612.03144).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.detections import GeometryType
from ecodetect.detectors import boxes, card_reading
from ecodetect.detectors.card_reading import Count, Within
from ecodetect.detectors.learned import NO_WISHES, Answer, Arrays, Image, NetworkKind, Outputs, Wishes
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook
from ecodetect.detectors.protocol import Scene, scaling_of
from ecodetect.errors import BundleError
from ecodetect.extras import TIMM
from ecodetect.grid import Floats
from ecodetect.networks import box_limits
from ecodetect.runtime.onnx_file import OnnxModel

if TYPE_CHECKING:
    from torch import Tensor

    from ecodetect.annotations.sample import Sample
    from ecodetect.networks.network import TrainableNetwork, Weights
    from ecodetect.runtime.opening import Network

BACKBONE = "mobilenet_v2"  # runs on a laptop
# Time per pixel with the default backbone, where decoding a pixel is 1.
_COST = {"faster_rcnn": 40.0, "fcos": 40.0, "mask_rcnn": 60.0, "retinanet": 40.0, "ssd": 20.0}
# Objects are detected on the level where the smallest is at least this many strides wide, and on the next
# coarser levels until the largest is at most this many strides wide.
_FINE, _COARSE = 2.0, 8.0
_LARGE_PX = 48.0  # larger objects need the features at stride 32; for smaller ones those at 16 see enough
_STEP = 1.5  # ratio of neighbouring anchor sizes: any object between two has an IoU of 0.67 with one
_RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
# Channels of the pyramid: for mobile backbones, and for others, as published.
_LIGHT = ("efficientnet_lite", "mnasnet", "mobilenet", "shufflenet", "squeezenet")
_WIDTH_LIGHT, _WIDTH = 64, 256
_WITHOUT_ANCHORS = {"fcos"}
# Memory that a score takes: of 32 bits, in the map it is answered in, put together with others, compared.
_BYTES_OF_A_SCORE = 20
_TILE_PX = 512  # side of a tile that is planned for where memory is scarce
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which score threshold from validation applies, unless a score is given: "f1" (best F1) or
        "count" (counts nearly unbiased).
    """

    threshold: Literal["f1", "count"] = "f1"


Sizes = Annotated[tuple[Annotated[float, Within(0.1, 1e5)], ...], Count(1, 64)]  # of the anchors of a level


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Shape of the network; see `networks.pyramid.build` and `networks.detection`."""

    kind: card_reading.NetworkName
    strides: Annotated[tuple[card_reading.Stride, ...], Count(1, 5)]
    coarsest: card_reading.Stride
    width: Annotated[int, Within(8, 1024)]
    smallest_px: Annotated[float, Within(0.1, 1e5)]
    anchors: Annotated[tuple[Sizes, ...], Count(0, 5)] = ()
    ratios: Annotated[tuple[Annotated[float, Within(0.01, 100)], ...], Count(0, 16)] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says about the detector.

    typical_px : width of a typical object.
    """

    network: Shape
    typical_px: card_reading.TypicalPx


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of a detector on a pyramid."""
    found = card_reading.options_of(CardOptions, card)
    shape = found.network
    card_reading.check_strides(shape.strides, card)
    per_level = {len(level) for level in shape.anchors}
    fits = len(shape.anchors) == len(shape.strides) and len(per_level) == 1 and bool(shape.ratios)
    if card.detector not in _WITHOUT_ANCHORS and not fits:
        raise BundleError(f"The card of '{card.name}' is damaged (its anchors aren't those of its strides).")
    return found


def network(card: Card, weights: Weights | None = None) -> TrainableNetwork:
    """The network that a card describes.

    weights : of the backbone; see `networks.backbones`. None: at random.
    """
    from ecodetect.networks import detection

    shape = asdict(options_of(card).network)
    return detection.NETWORKS[card.detector](shape, card.bands, len(card.classes), weights)


def card_options(
    diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES, *, name: str
) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `learned.ChoosesOptions`.

    spacing_px : not used.
    name : of the detector.
    Raises UserError where most objects have no size.
    """
    known = boxes.check_sizes(diameter_px, name)
    small, large = (float(each) for each in np.percentile(known, (10, 95)))
    wanted = wishes.network
    kind = str(wanted.get("kind", BACKBONE))
    strides = _strides(small, large)
    shape: dict[str, Any] = {
        "kind": kind,
        "strides": strides,
        "coarsest": max(strides[-1], 32 if large > _LARGE_PX else 16),
        "width": _WIDTH_LIGHT if _is_light(kind) else _WIDTH,
        "smallest_px": round(small, 2),
    }
    if name not in _WITHOUT_ANCHORS:
        shape |= {"anchors": _anchors(known, len(strides)), "ratios": list(_RATIOS)}
    shape.update({key: value for key, value in wanted.items() if key in shape})
    return {"network": shape, "typical_px": round(float(np.median(known)), 2)}


def _is_light(kind: str) -> bool:
    """Whether a backbone is a mobile one, with few channels."""
    return kind.removeprefix(TIMM).removeprefix("tf_").startswith(_LIGHT)


def _strides(small: float, large: float) -> list[int]:
    """Strides of the levels on which objects of these widths are detected."""
    first = next((stride for stride in (16, 8) if stride * _FINE <= small), 4)
    last = next((stride for stride in (4, 8, 16, 32) if stride * _COARSE >= large), 64)
    return [stride for stride in (4, 8, 16, 32, 64) if first <= stride <= max(first, last)]


def _anchors(known: Floats, levels: int) -> list[list[float]]:
    """Sizes of the anchors of each level, equally many on each, such that one is close to any object's."""
    low, high = (float(each) for each in np.percentile(known, (2, 98)))
    count = max(2, levels, math.ceil(math.log(high / low) / math.log(_STEP)) + 1)
    each = math.ceil(count / levels)
    if high < low * _STEP:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(_STEP), middle * math.sqrt(_STEP)
    sizes = np.geomspace(low, high, levels * each).round(2).tolist()
    return [sizes[level * each : (level + 1) * each] for level in range(levels)]


def targets(sample: Sample, card: Card) -> Arrays:
    """Boxes and background; see `boxes.targets`."""
    return boxes.targets(sample, options_of(card).typical_px)


def losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Losses of a batch, which the network returns in training mode."""
    return dict(outputs)


def decode(outputs: Outputs, card: Card) -> list[Answer]:
    """Boxes of each image, in pixels of the input; the network has applied non-maximum suppression.

    outputs : of the network; the first (N, D, 6).
    """
    found = []
    for rows in outputs[0]:
        there = rows[rows[:, 4] > 0].astype(np.float64)
        score, label = np.clip(there[:, 4], 0.0, 1.0), there[:, 5].astype(np.int64)
        found.append(Answer(there[:, :4], score, label))
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Reader:
    """Decodes boxes, and warns, once, where an image has the maximum number above the threshold.

    outlined : the outlines in the boxes, where the network gives these too.
    """

    card: Card
    outlined: Callable[[Outputs, Sequence[Answer]], Sequence[Answer]] | None = None
    _warned: list[bool] = field(default_factory=list)

    def __call__(self, outputs: Outputs) -> Sequence[Answer]:
        card, rows = self.card, outputs[0]
        surest = min((min(scores) for scores in card.thresholds.values()), default=0.5)
        if not self._warned and len(rows) and (rows[:, -1, 4] >= surest).any():
            self._warned.append(True)
            _log.warning(
                "'%s' gives at most %d objects for a tile, and one tile has as many; there may be more: take"
                " smaller tiles, or a higher score.",
                card.name,
                rows.shape[1],
            )
        found = decode(outputs, card)
        return found if self.outlined is None else self.outlined(outputs, found)


def build(
    options: Options,
    scene: Scene,
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,
    outlined: Callable[[Outputs, Sequence[Answer]], Sequence[Answer]] | None = None,
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit.

    outlined : see `Reader`.
    """
    card, stated = bundle.card, options_of(bundle.card)
    opened, cost = _opened(bundle, device, threads), _COST[card.detector]
    needs = boxes.box_needs(card, scene, options.threshold, opened, stated.typical_px, cost=cost)
    own = 12 * len(card.bands) + (180 if _is_light(stated.network.kind) else 300)
    own = max(own, math.ceil(_BYTES_OF_A_SCORE * _scores_per_pixel(card)))
    geometry: GeometryType = "box" if outlined is None else "polygon"
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind=geometry,
        look=NetworkLook(card=card, network=opened, kind=geometry, read=Reader(card, outlined)),
        scaling=scaling_of(card, scene),
        threshold=options.threshold,
        own_needs=replace(needs, bytes_per_pixel=own),
    )


def _scores_per_pixel(card: Card) -> float:
    """Scores that the heads give per pixel: for each class, of each anchor, or of each proposal."""
    shape, classes = options_of(card).network, len(card.classes) + 1
    if card.detector in ("faster_rcnn", "mask_rcnn"):  # with a box for each score
        proposals = box_limits.PROPOSED * box_limits.most_boxes(_TILE_PX, _TILE_PX, shape.smallest_px)
        return 5 * classes * proposals / _TILE_PX**2
    anchors = len(shape.anchors[0]) * len(shape.ratios) if shape.anchors else 1
    return anchors * classes * sum(1 / stride**2 for stride in shape.strides)


@lru_cache(maxsize=4)
def _opened(bundle: Bundle, device: str, threads: int | None) -> Network:
    """The network of a bundle; cached, because a detector is built for each raster."""
    from ecodetect.runtime import opening

    card = bundle.card
    if isinstance(bundle, OnnxModel):
        raise BundleError(
            f"The model '{card.name}' is in ONNX, which {card.detector} can't scan with; give the"
            " .safetensors file it is from."
        )

    def around(bundle: Bundle) -> Network:
        from ecodetect.runtime import box_stages

        shape = asdict(options_of(card).network)
        return box_stages.open_network(bundle, shape, device=device, threads=threads)

    return opening.open_network(
        bundle, lambda: network(card), {}, device=device, threads=threads, around=around
    )


def measure_agreement(bundle: Bundle, image: Image | None = None) -> dict[str, float]:
    """How much boxes depend on the tiling; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    if image is None:
        return {}
    card, opened = bundle.card, _opened(bundle, "cpu", None)
    rim = boxes.halo_px(opened, options_of(card).typical_px)
    return boxes.network_agreement(opened, decode, card, image, rim)


def _kind(name: str, purpose: str) -> NetworkKind:
    return NetworkKind(
        name=name,
        purpose=purpose,
        options=Options,
        card_options=partial(card_options, name=name),
        options_of=options_of,
        build=build,
        network=network,
        targets=targets,
        losses=losses,
        decode=decode,
        typical_px=boxes.TYPICAL_PX,
        criterion=boxes.CRITERION,
        # A rotated box isn't the box of the rotated object: only quarter turns.
        augmentations={"rotation": 0.0, "scale": 0.4},
        measure_agreement=measure_agreement,
    )


FASTER_RCNN = _kind(
    "faster_rcnn",
    "Boxes in two stages: a first network proposes regions, a second classifies each.",
)
RETINANET = _kind(
    "retinanet", "Boxes in one stage, from anchors: the many anchors without an object have little weight."
)
FCOS = _kind(
    "fcos",
    "Boxes in one stage, without anchors: each place predicts the distances to the edges of its object.",
)
SSD = _kind("ssd", "Boxes in one stage, from anchors, with a single layer as head: the fastest of its kind.")
