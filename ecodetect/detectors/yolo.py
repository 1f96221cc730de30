"""Boxes in one look, without anchors: each object is answered once, or the surest of its boxes stays.

Two heads are trained side by side on the same features. One is taught several boxes for each object, as
usual, and teaches the features; the other is taught one, so its boxes above the threshold are the
individuals, and touching ones aren't taken for the same. That is how detections are counted without over-
detection (Jackson and Obara take boxes above 0.5 as they are) and without non-maximum suppression, which
drops neighbours in a crowd. It takes long to learn, so validation chooses between the two. Sources: YOLOv10
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

from ecodetect.bundle.file import Bundle, Card
from ecodetect.detectors import boxes, card_reading
from ecodetect.detectors.boxes import BoxDetector, Boxes, check_sizes, targets
from ecodetect.detectors.card_reading import Count
from ecodetect.detectors.protocol import Scene, bands_of, scaling_of
from ecodetect.grid import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ecodetect.runtime.opening import Network

__all__ = ["build", "card_options", "decode", "losses", "measure_agreement", "network", "targets"]

Head = Literal["one", "many"]

IS_LEARNED = True
TYPICAL_PX = boxes.TYPICAL_PX
# A turned box isn't the box of what was turned: no rotation but by quarters.
AUGMENTATIONS = {"rotation": 0.0, "scale": 0.4, "mosaic": 0.5}
CRITERION = boxes.CRITERION

BINS = 16  # as `networks.yolo.BINS`, which needs torch
_SMALL_PX, _LARGE_PX = 14.0, 48.0  # smaller objects need a level at stride 4; larger ones one at stride 32
# How many places learn an object, and how much their score and overlap count in the choice (TOOD, YOLOv8).
_MANY, _SCORE_POWER, _IOU_POWER = 10, 0.5, 6.0
_AGAIN = 2  # times that truths without a place choose again
_BOX_WEIGHT, _EDGE_WEIGHT, _CLASS_WEIGHT = 1.5, 0.3, 0.1  # 7.5 : 1.5 : 0.5, as in YOLOv8
SUPPRESSION = 0.5
_COST = 12.0  # time per pixel of the nano network, where decoding a pixel is 1
_MOST = 3000  # boxes of a chip that are looked at, the best


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which of the scores chosen on validation cuts, unless --score is given: "f1" (fewest errors)
        or "count" (as many too many as too few).
    head : who answers. "one" says each object once; of "many" boxes of an object the best stays
        (non-maximum suppression); "card": whichever of the two had the higher average precision on
        validation.
    suppression : IoU above which boxes of the head "many" mean the same object.
    """

    threshold: Literal["f1", "count"] = "f1"
    head: Literal["card", "one", "many"] = "card"
    suppression: float = SUPPRESSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Of the network; see `networks.yolo.build`."""

    kind: card_reading.Kind
    strides: Annotated[tuple[card_reading.Stride, ...], Count(1, 5)]
    size: Literal["nano", "small", "medium"] = "nano"


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says of the detector.

    typical_px : of a usual object.  head : which validation preferred.
    """

    network: Shape
    typical_px: card_reading.TypicalPx
    head: Head = "one"


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be of this detector."""
    found = card_reading.options_of(CardOptions, card)
    card_reading.check_strides(found.network.strides, card)
    return found


def network(card: Card, weights: Mapping[str, Any] | None = None) -> nn.Module:
    """The network that a card describes.

    weights : of a backbone's encoder; see `networks.building.build`. None: at random.
    """
    return _network(card, ("one", "many"), weights)


def _network(card: Card, answers: Sequence[Head], weights: Mapping[str, Any] | None = None) -> nn.Module:
    from ecodetect.networks import yolo

    return yolo.build(
        asdict(options_of(card).network), card.bands, len(card.classes), weights, answers=answers
    )


def card_options(
    diameter_px: Floats, spacing_px: Floats, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the card of a network to be trained, from what the annotations are like.

    diameter_px : (N,), of the annotated objects at the GSD of the network; NaN where unknown.
    spacing_px : (N,), distance from each object to the nearest other; not used.
    asked : options that a user has stated; they are kept.
    Raises UserError where most objects have no size.
    """
    asked = dict(asked or {})
    known = check_sizes(diameter_px, "yolo")
    first = 4 if np.percentile(known, 10) < _SMALL_PX else 8
    last = 32 if np.percentile(known, 95) > _LARGE_PX else 16
    shape: dict[str, Any] = {"kind": "nano", "strides": [], "size": "nano"}
    shape.update({key: value for key, value in asked.pop("network", {}).items() if key in shape})
    if shape["kind"] not in ("nano", "small", "medium"):
        from ecodetect.networks.backbones import encoder

        last = encoder(str(shape["kind"]), None, ("",), depth=last.bit_length() - 1, is_most=True).strides[-1]
    shape["strides"] = shape["strides"] or [s for s in (4, 8, 16, 32) if first <= s <= last]
    return {"network": shape, "typical_px": round(float(np.median(known)), 2), **asked}


# -- training ----


def losses(outputs: Sequence[Tensor], targets: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Losses of a batch; their sum is what training lowers.

    outputs : of both heads, those that answer once first.
    targets : boxes (N, M, 5), rows of NaN where an image has fewer; background (N, 1, H, W), as
        `networks.background` has it.
    """
    strides = options_of(card).network.strides
    levels = len(strides)
    places = _places([each.shape[-2:] for each in outputs[:levels]], strides, outputs[0])
    ground = targets["background"][:, 0]
    under = _at_places(targets["background"], strides)
    found: dict[str, Tensor] = {}
    for name, part, most in (("one", outputs[:levels], 1), ("many", outputs[levels:], _MANY)):
        raw = _flat(part)
        for kind, value in _head_losses(raw, places, targets["boxes"], ground, under, most).items():
            found[f"{name}_{kind}"] = value
    return found


@dataclass(frozen=True, eq=False, slots=True)
class _Places:
    """Where boxes are looked for: centres (A, 2) in pixels and the stride (A, 1) of each."""

    xy: Tensor
    stride: Tensor


def _places(shapes: Sequence[Sequence[int]], strides: Sequence[int], like: Tensor) -> _Places:
    import torch

    centres, steps = [], []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((rows * columns, 1), float(stride)))
    return _Places(torch.cat(centres).to(like), torch.cat(steps).to(like))


def _flat(maps: Sequence[Tensor]) -> Tensor:
    """(N, C, H, W) of each level to (N, A, C)."""
    import torch

    return torch.cat([each.flatten(2) for each in maps], 2).transpose(1, 2)


def _at_places(mask: Tensor, strides: Sequence[int]) -> Tensor:
    """A mask (N, 1, H, W) at the places of all levels, (N, A)."""
    import torch

    return torch.cat([mask[:, 0, s // 2 :: s, s // 2 :: s].flatten(1) for s in strides], 1)


def _head_losses(
    raw: Tensor, places: _Places, truths: Tensor, ground: Tensor, under: Tensor, most: int
) -> dict[str, Tensor]:
    """Losses of one head.

    raw : (N, A, 4 · BINS + K).  ground : (N, H, W), and `under` each place, (N, A).  most : places an object.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    from ecodetect.networks.background import wrong_at

    edges, kinds = raw[..., : 4 * BINS], raw[..., 4 * BINS :]
    distances = edges.reshape(*edges.shape[:-1], 4, BINS)
    steps = torch.arange(BINS, dtype=raw.dtype, device=raw.device)
    reach = distances.softmax(-1) @ steps  # (N, A, 4), in strides
    found = _boxes(reach, places)
    with torch.no_grad():
        owner, wanted = _assigned(kinds.sigmoid(), found, places, truths, most)
        wrong = torch.stack([wrong_at(*each) for each in zip(under, found, ground, strict=True)])
    is_object = owner >= 0
    total = wanted.sum().clamp(min=1.0)
    counts = wrong | is_object
    error = binary_cross_entropy_with_logits(kinds, wanted, reduction="none").sum(-1)
    out = {"class": _CLASS_WEIGHT * (error * counts).sum() / total}
    image, place = is_object.nonzero(as_tuple=True)
    weight = wanted[image, place].sum(-1)
    truth = truths[image, owner[image, place], :4]
    overlap = _complete_iou(found[image, place], truth)
    out["box"] = _BOX_WEIGHT * ((1 - overlap) * weight).sum() / total
    away = _reach_of(truth, places, place).clamp(0, BINS - 1.01)
    low = away.floor()
    part = distances[image, place].flatten(0, 1)
    target = low.flatten().long()
    above = (away - low).flatten()
    error = cross_entropy(part, target, reduction="none") * (1 - above)
    error = error + cross_entropy(part, target + 1, reduction="none") * above
    out["edge"] = _EDGE_WEIGHT * (error.reshape(-1, 4).mean(-1) * weight).sum() / total
    return out


def _boxes(reach: Tensor, places: _Places) -> Tensor:
    """Boxes from the distances (…, A, 4) of left, top, right, bottom in strides."""
    import torch

    return torch.cat(
        [places.xy - reach[..., :2] * places.stride, places.xy + reach[..., 2:] * places.stride], -1
    )


def _reach_of(truth: Tensor, places: _Places, place: Tensor) -> Tensor:
    """The inverse of `_boxes` for some places, (n, 4)."""
    import torch

    xy, stride = places.xy[place], places.stride[place]
    return torch.cat([xy - truth[:, :2], truth[:, 2:] - xy], 1) / stride


def _assigned(
    score: Tensor, found: Tensor, places: _Places, truths: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Which truth each place learns, and how sure it should be of which class.

    score : (N, A, K).  found : (N, A, 4).  truths : (N, M, 5).  most : places an object.
    Returns owner (N, A), -1 for none, and wanted (N, A, K).

    Of the places inside a truth (or inside a square of two of the finest strides about its middle) those with
    the highest score^0.5 · IoU^6 learn it; one that two truths want goes to the one it overlaps more.
    """
    import torch

    n, a, _ = score.shape
    m = truths.shape[1]
    wanted = torch.zeros_like(score)
    owner = torch.full((n, a), -1, dtype=torch.long, device=score.device)
    if not m:
        return owner, wanted
    there = truths[..., 0].isfinite()
    box = truths[..., :4].nan_to_num(0.0)
    label = truths[..., 4].nan_to_num(0.0).long()
    middle, half = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]) / 2
    half = half.clamp(min=float(places.stride.min()))
    inside = ((places.xy[None, None] - middle[:, :, None]).abs() < half[:, :, None]).all(-1)  # (N, M, A)
    inside &= there[..., None]
    iou = torch.zeros_like(inside, dtype=score.dtype)
    image, truth, place = inside.nonzero(as_tuple=True)
    overlap = _iou(box[image, truth], found[image, place])
    iou[image, truth, place] = overlap
    fit = torch.zeros_like(iou)
    fit[image, truth, place] = (
        score[image, place, label[image, truth]] ** _SCORE_POWER * overlap**_IOU_POWER + 1e-12
    )
    chosen = _chosen(fit, iou, most)
    for _ in range(_AGAIN if m > 1 else 0):
        # In a crowd some have lost all they wanted; they take what is free.
        lost = there & ~chosen.any(-1)
        free = fit * lost[..., None] * ~chosen.any(1, keepdim=True)
        chosen |= _chosen(free, iou, 1)
    is_object = chosen.any(1)
    which = chosen.int().argmax(1)  # (N, A)
    owner[is_object] = which[is_object]
    fit = fit * chosen
    sure = fit / fit.amax(-1, keepdim=True).clamp(min=1e-12) * (iou * chosen).amax(-1, keepdim=True)
    value = sure.gather(1, which[:, None]).squeeze(1)  # (N, A)
    image, place = is_object.nonzero(as_tuple=True)
    wanted[image, place, label[image, which[image, place]]] = value[image, place].to(wanted.dtype)
    return owner, wanted


def _chosen(fit: Tensor, iou: Tensor, most: int) -> Tensor:
    """The fittest places of each truth (N, M, A), each place for the one that it overlaps most."""
    import torch

    best = fit.topk(min(most, fit.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(fit, dtype=torch.bool).scatter_(-1, best, True) & (fit > 0)
    first = torch.where(chosen, iou + 1e-9, 0.0).argmax(1, keepdim=True)  # (N, 1, A)
    return chosen & torch.zeros_like(chosen).scatter_(1, first, True)


def _iou(one: Tensor, two: Tensor) -> Tensor:
    """Of aligned boxes (n, 4)."""
    common = _area_of(one[:, :2].maximum(two[:, :2]), one[:, 2:].minimum(two[:, 2:]))
    union = _area_of(one[:, :2], one[:, 2:]) + _area_of(two[:, :2], two[:, 2:]) - common
    return common / union.clamp(min=1e-9)


def _area_of(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def _complete_iou(one: Tensor, two: Tensor) -> Tensor:
    """IoU less what middles and proportions differ (Zheng et al. 2020, equations 9 to 11)."""
    import torch

    iou = _iou(one, two)
    around = (one[:, 2:].maximum(two[:, 2:]) - one[:, :2].minimum(two[:, :2])).pow(2).sum(1).clamp(min=1e-9)
    apart = ((one[:, :2] + one[:, 2:] - two[:, :2] - two[:, 2:]) / 2).pow(2).sum(1)
    sides = [(each[:, 2:] - each[:, :2]).clamp(min=1e-6) for each in (one, two)]
    angle = [torch.atan(each[:, 0] / each[:, 1]) for each in sides]
    unlike = (4 / math.pi**2) * (angle[0] - angle[1]) ** 2
    with torch.no_grad():
        factor = unlike / (1 - iou + unlike + 1e-9)
    return iou - apart / around - factor * unlike


# -- reading the outputs ----


def alternatives(card: Card) -> dict[str, Card]:
    """The card with each head, the first to be preferred; validation chooses."""
    return {head: replace(card, options={**card.options, "head": head}) for head in ("one", "many")}


def head_of(card: Card) -> Head:
    """The head that a card takes."""
    return options_of(card).head


def decode(
    outputs: Sequence[NDArray[np.float32]],
    card: Card,
    head: Head | None = None,
    suppression: float = SUPPRESSION,
) -> list[Boxes]:
    """Boxes of each image.

    outputs : of the network, (N, 4 · BINS + K, h, w) for each level; of both heads, "one" first, or of one.
    head : which it is, or is to be taken; the card's if not given.
    suppression : IoU above which of two boxes of a class and of the head "many" the better survives.
    Returns for each image boxes float64 (n, 4) in pixels of the input, score (n,), label (n,).
    """
    strides = options_of(card).network.strides
    head = head or head_of(card)
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
        found.append(boxes.told_apart(box, score, label))
    return found


def _decoded(raw: NDArray[np.float32], stride: int) -> Boxes:
    """Of one level, (4 · BINS + K, h, w): each place may hold one object, of its likeliest class."""
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
) -> BoxDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    card = bundle.card
    head: Head = head_of(card) if options.head == "card" else options.head
    return BoxDetector(
        card=card,
        hash=bundle.hash,
        network=_opened(bundle, head, device, threads),
        bands=bands_of(card, scene),
        scaling=scaling_of(card, scene),
        threshold=options.threshold if head == head_of(card) else f"{head}_{options.threshold}",
        find=partial(decode, card=card, head=head, suppression=options.suppression),
        own_settings={"head": head, **({"suppression": options.suppression} if head == "many" else {})},
        cost=_COST,
        bytes_per_pixel=4 * len(card.bands) + 200,
    )


@lru_cache(maxsize=4)
def _opened(bundle: Bundle, answer: Head, device: str, threads: int | None) -> Network:
    """The network of a bundle; kept, for a detector is built for each raster of many."""
    from ecodetect.runtime.opening import open_network

    card = bundle.card
    channels = 4 * BINS + len(card.classes)
    outputs = {f"{answer}_{stride}": (channels, 1 / stride) for stride in options_of(card).network.strides}
    return open_network(bundle, lambda: _network(card, (answer,)), outputs, device=device, threads=threads)


def measure_agreement(bundle: Bundle, image: NDArray[np.float32] | None = None) -> dict[str, float]:
    """How much what is found depends on how a raster is cut; see `boxes.agreement`.

    image : (B, H, W), scaled as the card says; None: nothing is measured.
    """
    if image is None:
        return {}
    card, opened = bundle.card, _opened(bundle, head_of(bundle.card), "cpu", None)
    rim = boxes.halo_px(opened, options_of(card).typical_px)
    return boxes.agreement(opened, card, partial(decode, card=card), image, rim)
