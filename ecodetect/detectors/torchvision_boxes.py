"""What the detectors on torchvision's networks share: a pyramid that fits the objects, reading boxes.

Each detector's own file names its network (`networks.detection`) and its source.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle, BundleError, Card
from ecodetect.detectors import boxes, card_reading
from ecodetect.detectors.boxes import BoxDetector, Boxes, Outlined
from ecodetect.detectors.card_reading import Count, Within
from ecodetect.detectors.protocol import Scene, bands_of, scaling_of
from ecodetect.grid import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ecodetect.runtime.torch_network import Network

BACKBONE = "mobilenet_v2"  # runs on a laptop
# A turned box isn't the box of what was turned: no rotation but by quarters.
AUGMENTATIONS: Mapping[str, float] = {"rotation": 0.0, "scale": 0.4}
# Objects are looked for on the level whose stride goes at least this often into the smallest of them, and on
# the next coarser ones until it goes no more than this often into the largest.
_FINE, _COARSE = 2.0, 8.0
_LARGE_PX = 48.0  # larger objects need the features at stride 32; for smaller ones those at 16 see enough
_STEP = 1.5  # from one anchor to the next larger: any object between two has an IoU of 0.67 with one
_RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
# Channels of the pyramid: of backbones that are made for phones, and of others, as published.
_LIGHT = ("mobilenet", "squeezenet", "shufflenet", "mnasnet")
_WIDTH_LIGHT, _WIDTH = 64, 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which of the scores chosen on validation cuts, unless --score is given: "f1" (fewest errors)
        or "count" (as many too many as too few).
    """

    threshold: Literal["f1", "count"] = "f1"


Sizes = Annotated[tuple[Annotated[float, Within(0.1, 1e5)], ...], Count(1, 64)]  # of the anchors of a level


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Of the network; see `networks.pyramid.build` and `networks.detection`."""

    kind: card_reading.Kind
    strides: Annotated[tuple[card_reading.Stride, ...], Count(1, 5)]
    coarsest: card_reading.Stride
    width: Annotated[int, Within(8, 1024)]
    smallest_px: Annotated[float, Within(0.1, 1e5)]
    anchors: Annotated[tuple[Sizes, ...], Count(0, 5)] = ()
    ratios: Annotated[tuple[Annotated[float, Within(0.01, 100)], ...], Count(0, 16)] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says of the detector.

    typical_px : of a usual object.
    """

    network: Shape
    typical_px: card_reading.TypicalPx


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of a detector on a pyramid."""
    found = card_reading.options_of(CardOptions, card)
    shape = found.network
    card_reading.check_strides(shape.strides, card)
    has_anchors = card.detector != "fcos"
    per_level = {len(level) for level in shape.anchors}
    fits = len(shape.anchors) == len(shape.strides) and len(per_level) == 1 and bool(shape.ratios)
    if has_anchors and not fits:
        raise BundleError(f"The card of '{card.name}' is damaged (its anchors aren't those of its strides).")
    return found


def card_options(
    name: str, diameter_px: Floats, asked: Mapping[str, Any] | None = None, *, has_anchors: bool = True
) -> dict[str, Any]:
    """Options of the card of a network to be trained, from what the annotations are like.

    name : of the detector.
    diameter_px : (N,), of the annotated objects at the GSD of the network; NaN where unknown.
    asked : options that a user has stated; they are kept.
    Raises UserError where most objects have no size.
    """
    asked = dict(asked or {})
    known = boxes.check_sizes(diameter_px, name)
    small, large = (float(each) for each in np.percentile(known, (10, 95)))
    wanted = asked.pop("network", {})
    kind = str(wanted.get("kind", BACKBONE))
    strides = _strides(small, large)
    shape: dict[str, Any] = {
        "kind": kind,
        "strides": strides,
        "coarsest": max(strides[-1], 32 if large > _LARGE_PX else 16),
        "width": _WIDTH_LIGHT if _is_light(kind) else _WIDTH,
        "smallest_px": round(small, 2),
    }
    if has_anchors:
        shape |= {"anchors": _anchors(known, len(strides)), "ratios": list(_RATIOS)}
    shape.update({key: value for key, value in wanted.items() if key in shape})
    return {"network": shape, "typical_px": round(float(np.median(known)), 2), **asked}


def _is_light(kind: str) -> bool:
    """Whether a backbone is one for telephones, with few channels."""
    return kind.startswith(_LIGHT)


def _strides(small: float, large: float) -> list[int]:
    """Strides of the levels on which objects of these widths are looked for."""
    first = next((stride for stride in (16, 8) if stride * _FINE <= small), 4)
    last = next((stride for stride in (4, 8, 16, 32) if stride * _COARSE >= large), 64)
    return [stride for stride in (4, 8, 16, 32, 64) if first <= stride <= max(first, last)]


def _anchors(known: Floats, levels: int) -> list[list[float]]:
    """Sizes of the anchors of each level, as many on each, such that one is near any object's."""
    low, high = (float(each) for each in np.percentile(known, (2, 98)))
    count = max(2, levels, math.ceil(math.log(high / low) / math.log(_STEP)) + 1)
    each = math.ceil(count / levels)
    if high < low * _STEP:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(_STEP), middle * math.sqrt(_STEP)
    sizes = np.geomspace(low, high, levels * each).round(2).tolist()
    return [sizes[level * each : (level + 1) * each] for level in range(levels)]


def losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Losses of a batch, which the network gives by itself while it is trained."""
    return dict(outputs)


def decode(outputs: Sequence[NDArray[np.float32]], card: Card) -> list[Boxes]:
    """Boxes of each image, overlapping ones already taken out by the network.

    outputs : of the network; the first (N, D, 6).
    Returns for each image boxes float64 (n, 4) in pixels of the input, score (n,), label (n,).
    """
    found = []
    for rows in outputs[0]:
        there = rows[rows[:, 4] > 0].astype(np.float64)
        found.append((there[:, :4], np.clip(there[:, 4], 0.0, 1.0), there[:, 5].astype(np.int64)))
    return found


def _told(outputs: Sequence[NDArray[np.float32]], card: Card, told: list[bool]) -> list[Boxes]:
    """The same, and a warning, once, where an image has as many boxes as fit that are sure enough."""
    surest = min((min(scores) for scores in card.thresholds.values()), default=0.5)
    if not told and len(outputs[0]) and (outputs[0][:, -1, 4] >= surest).any():
        told.append(True)
        _log.warning(
            "'%s' gives no more than %d objects for a tile, and one has as many; there may be more: take"
            " smaller tiles (`scan --tile`), or a higher score (`scan --score`).",
            card.name,
            outputs[0].shape[1],
        )
    return decode(outputs, card)


def build(
    options: Any,
    scene: Scene,
    bundle: Bundle,
    network: Callable[[Card], nn.Module],
    *,
    cost: float,
    device: str = "auto",
    threads: int | None = None,
    outlined: Callable[[Sequence[NDArray[np.float32]], Sequence[Boxes]], Sequence[Outlined]] | None = None,
) -> BoxDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit.

    network : the detector's own.
    cost : see `Needs`.
    outlined : outputs of the network and boxes of each image to outlines, where those are found.
    """
    card = bundle.card
    find = partial(_told, card=card, told=[])
    return BoxDetector(
        card=card,
        hash=bundle.hash,
        network=_opened(bundle, network, device, threads),
        bands=bands_of(card, scene),
        scaling=scaling_of(card, scene),
        threshold=options.threshold,
        find=find if outlined is None else lambda outputs: outlined(outputs, find(outputs)),
        own_settings={},
        cost=cost,
        bytes_per_pixel=12 * len(card.bands) + (180 if _is_light(options_of(card).network.kind) else 300),
        kind="box" if outlined is None else "polygon",
    )


@lru_cache(maxsize=4)
def _opened(
    bundle: Bundle, network: Callable[[Card], nn.Module], device: str, threads: int | None
) -> Network:
    """The network of a bundle; kept, for a detector is built for each raster of many."""
    from ecodetect.runtime.torch_network import open_network

    return open_network(bundle, lambda: network(bundle.card), device=device, threads=threads)


def measure_agreement(
    bundle: Bundle, image: NDArray[np.float32] | None, network: Callable[[Card], nn.Module]
) -> dict[str, float]:
    """How much what is found depends on how a raster is cut; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    if image is None:
        return {}
    card, opened = bundle.card, _opened(bundle, network, "cpu", None)
    rim = boxes.halo_px(opened, options_of(card).typical_px)
    return boxes.agreement(opened, card, partial(decode, card=card), image, rim)
