"""What detectors of boxes share: training targets, non-maximum suppression, and their needs.

A detector's own file defines the network, its losses and how its outputs become boxes; the rest is here. This
file doesn't choose between detectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.bundle.card import Card
from ecodetect.detectors.learned import Answer, Arrays, Image, Labels, Outputs
from ecodetect.detectors.learned_detector import card_needs
from ecodetect.detectors.protocol import Needs, Scene, Settling
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.settling import settle

if TYPE_CHECKING:
    from ecodetect.annotations.sample import Sample
    from ecodetect.runtime.opening import Network

Boxes = tuple[Floats, Floats, Labels]

TYPICAL_PX = 40.0  # width of a typical object when a raster is read: large enough to draw its box
CRITERION = "IoU ≥ 0.5, one to one"  # makes a validation box a true positive; see `training.selection`
# IoU of non-maximum suppression: boxes that overlap more are the same object, seen twice by one or two tiles.
SAME_IOU = 0.7
LEAST_SCORE = 0.01  # lower boxes are dropped
# Context around an object's box, in strides of the network; beyond it pixels change the score little.
_CONTEXT_STRIDES = 2
_POINT_REACH = 0.5  # of a typical object: radius around an unsized truth that is neither box nor background


def check_sizes(diameter_px: Floats, name: str) -> Floats:
    """The sizes that are known; raises UserError where most aren't.

    diameter_px : (N,), of the annotated objects, NaN where unknown.
    """
    known = diameter_px[np.isfinite(diameter_px)]
    if len(known) < max(1, len(diameter_px) / 2):
        raise UserError(
            f"{name} learns boxes, but {len(diameter_px) - len(known)} of {len(diameter_px)} annotations are"
            " points without a size; state their radius (a length, or contour, which takes it from the"
            " outline around each), or train a heatmap, which needs points only.",
            parameter=("radius", "model"),
        )
    return known


def targets(sample: Sample, typical_px: float) -> Arrays:
    """Target boxes, and the ground that counts as background.

    typical_px : width of a typical object.

    Returns boxes (n, 5): xmin, ymin, xmax, ymax in pixels and the class; background (1, H, W): whether a box
    with its middle here and no truth is a false positive; see `networks.background`.
    """
    from ecodetect.networks.background import IGNORED, UNKNOWN, WRONG, WRONG_INSIDE

    objects = sample.objects
    clear = sample.valid & ~sample.ignored
    background = clear & sample.known
    for x, y in objects.xy[~objects.is_sized]:
        reach = _POINT_REACH * typical_px
        rows = slice(max(0, math.floor(y - reach)), max(0, math.ceil(y + reach)))
        background[rows, max(0, math.floor(x - reach)) : max(0, math.ceil(x + reach))] = False
    learned = is_learned(sample)
    boxes = np.column_stack([objects.box[learned], objects.label[learned]])
    ground = np.where(background, WRONG, UNKNOWN)
    if sample.beside is not None:
        ground[clear & sample.beside & ~background] = WRONG_INSIDE
        ground[sample.ignored] = IGNORED
    return {"boxes": boxes.astype(np.float32), "background": ground[None].astype(np.float32)}


def is_learned(sample: Sample) -> NDArray[np.bool_]:
    """Which objects have their box's middle on ground that counts; (N,)."""
    objects, (height, width) = sample.objects, sample.valid.shape
    centre = np.where(objects.is_sized[:, None], (objects.box[:, :2] + objects.box[:, 2:]) / 2, -1.0)
    column, row = np.floor(centre).astype(np.int64).T
    learned: NDArray[np.bool_] = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    learned[learned] = (sample.valid & ~sample.ignored)[row[learned], column[learned]]
    return learned


def suppressed(boxes: Floats, score: Floats, label: Labels, iou: float) -> NDArray[np.bool_]:
    """Which boxes survive non-maximum suppression per class; (N,)."""
    kept = np.zeros(len(boxes), np.bool_)
    order = np.argsort(label, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        kept[mine[settle(boxes[mine], score[mine], criterion="iou", limit=iou)]] = True
    return kept


def class_agnostic_nms(boxes: Floats, score: Floats, label: Labels) -> Boxes:
    """Boxes as a scan settles them, class-agnostic, so that validation judges what a scan gives."""
    kept = settle(boxes, score, criterion="iou", limit=SAME_IOU)
    return boxes[kept], score[kept], label[kept]


def halo_px(network: Network, typical_px: float) -> int:
    """Context around an object's box in pixels; anything farther changes its score a little, but not zero."""
    context = max(_CONTEXT_STRIDES * network.stride, round(typical_px))
    whole = math.ceil(context / network.stride) * network.stride
    return whole if network.reach_px is None else min(network.reach_px, whole)


def box_needs(
    card: Card, scene: Scene, threshold: str, network: Network, typical_px: float, *, cost: float
) -> Needs:
    """The needs of a network that finds boxes or outlines; see `Needs`."""
    return replace(
        card_needs(card, scene, threshold, margin_px=2.0),
        stride_px=network.stride,
        reach_px=halo_px(network, typical_px),
        is_local=False,
        settling=Settling("iou", SAME_IOU),
        cost=cost,
        typical_px=typical_px,
    )


def agreement(
    find: Callable[[Image], Answer], card: Card, image: Image, *, stride_px: int, rim_px: int
) -> dict[str, float]:
    """How much detections depend on the tiling: the same ground is seen in shifted chips.

    find : finds boxes, or outlines, on an image whose sides are multiples of `stride_px`.
    image : (B, H, W), scaled as the card says.
    rim_px : boxes within this distance from the border aren't compared.
    Returns shift_px: the largest difference between edges of boxes that both see; score: the largest
    difference of their scores; alone: the share that only one sees; n: the number compared. Only boxes above
    the card's lowest threshold are compared.
    """
    stride = stride_px
    height, width = (side // stride * stride for side in image.shape[1:])
    own = [card.thresholds[name] for name in ("f1", "count") if name in card.thresholds]
    floor = min((min(scores) for scores in own), default=0.5)

    def seen(shift: int) -> tuple[Floats, Floats]:
        found = find(image[:, shift:height, shift:width])
        ends = shapely.bounds(found.geometry) if found.geometry.ndim == 1 else found.geometry
        good = found.score >= floor
        boxes: Floats = np.asarray(ends, np.float64).reshape(-1, 4)[good] + shift
        return boxes, found.score[good]

    worst = {"shift_px": 0.0, "score": 0.0}
    alone = n = 0
    whole, whole_score = seen(0)
    for shift in (stride, 3 * stride):
        part, part_score = seen(shift)
        low, high = shift + rim_px, np.array([width - rim_px, height - rim_px])
        inner = [((b[:, :2] >= low) & (b[:, 2:] <= high)).all(axis=1) for b in (whole, part)]
        one, two = whole[inner[0]], part[inner[1]]
        n += len(one)
        pairs = _same(one, two)
        alone += len(one) + len(two) - 2 * len(pairs)
        for a, b in pairs:
            worst["shift_px"] = max(worst["shift_px"], float(np.abs(one[a] - two[b]).max()))
            change = abs(float(whole_score[inner[0]][a] - part_score[inner[1]][b]))
            worst["score"] = max(worst["score"], change)
    return {**worst, "alone": alone / (2 * n) if n else 0.0, "n": float(n)}


def network_agreement(
    network: Network,
    decode: Callable[[Outputs, Card], Sequence[Answer]],
    card: Card,
    image: Image,
    rim_px: int,
) -> dict[str, float]:
    """The same, for a network and the function that decodes its outputs."""
    return agreement(
        lambda part: decode(network.run(part[None]), card)[0],
        card,
        image,
        stride_px=network.stride,
        rim_px=rim_px,
    )


def _same(one: Floats, two: Floats) -> list[tuple[int, int]]:
    """Pairs of boxes of the same object, one to one."""
    from ecodetect import matching

    pairs = matching.by_iou(shapely.box(*one.T), shapely.box(*two.T), SAME_IOU)
    matched = matching.assign(pairs)
    return list(zip(matched.detection.tolist(), matched.truth.tolist(), strict=True))
