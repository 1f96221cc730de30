"""The losses of `networks.yolo`, with the assignment of places to objects.

Sources: TOOD (Feng et al. 2021, arXiv:2108.07755) for which places learn which object; Zheng et al. 2020
(arXiv:1911.08287) for the loss of overlap; generalised focal loss (Li et al. 2020, arXiv:2006.04388) for
edges as distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ecodetect.networks.background import wrong_at
from ecodetect.networks.yolo import BINS

# Number of places per object, and the exponents of score and overlap in their choice (TOOD, YOLOv8).
_MANY, _SCORE_POWER, _IOU_POWER = 10, 0.5, 6.0
_AGAIN = 2  # times that truths without a place choose again
_BOX_WEIGHT, _EDGE_WEIGHT, _CLASS_WEIGHT = 1.5, 0.3, 0.1  # 7.5 : 1.5 : 0.5, as in YOLOv8


def losses(
    outputs: Sequence[Tensor], targets: Mapping[str, Tensor], strides: Sequence[int]
) -> dict[str, Tensor]:
    """Losses of a batch; training minimises their sum.

    outputs : of the levels of both heads, those of "one" first.
    targets : boxes (N, M, 5), rows of NaN where an image has fewer; background (N, 1, H, W), as
        `networks.background` has it.
    """
    levels = len(strides)
    places = places_of([each.shape[-2:] for each in outputs[:levels]], strides, outputs[0])
    ground = targets["background"][:, 0]
    under = _atplaces_of(targets["background"], strides)
    found: dict[str, Tensor] = {}
    for name, part, most in (("one", outputs[:levels], 1), ("many", outputs[levels:], _MANY)):
        raw = _flat(part)
        for kind, value in _head_losses(raw, places, targets["boxes"], ground, under, most).items():
            found[f"{name}_{kind}"] = value
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """The places of predictions: centres (A, 2) in pixels and the stride (A, 1) of each."""

    xy: Tensor
    stride: Tensor


def places_of(shapes: Sequence[Sequence[int]], strides: Sequence[int], like: Tensor) -> Places:
    """The places of all levels, finest first.

    shapes : rows and columns of each level.  strides : pixels of the input between its places.
    like : a tensor with the type and device of the result.
    """
    centres, steps = [], []
    for (rows, columns), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((rows * columns, 1), float(stride)))
    return Places(torch.cat(centres).to(like), torch.cat(steps).to(like))


def _flat(maps: Sequence[Tensor]) -> Tensor:
    """(N, C, H, W) of each level to (N, A, C)."""
    return torch.cat([each.flatten(2) for each in maps], 2).transpose(1, 2)


def _atplaces_of(mask: Tensor, strides: Sequence[int]) -> Tensor:
    """A mask (N, 1, H, W) at the places of all levels, (N, A)."""
    return torch.cat([mask[:, 0, s // 2 :: s, s // 2 :: s].flatten(1) for s in strides], 1)


def _head_losses(
    raw: Tensor, places: Places, truths: Tensor, ground: Tensor, under: Tensor, most: int
) -> dict[str, Tensor]:
    """Losses of one head.

    raw : (N, A, 4 · BINS + K).  ground : (N, H, W), and `under` each place, (N, A).  most : places an object.
    """
    edges, kinds = raw[..., : 4 * BINS], raw[..., 4 * BINS :]
    distances = edges.reshape(*edges.shape[:-1], 4, BINS)
    steps = torch.arange(BINS, dtype=raw.dtype, device=raw.device)
    reach = distances.softmax(-1) @ steps  # (N, A, 4), in strides
    found = boxes_of(reach, places)
    with torch.no_grad():
        owner, wanted = assigned(kinds.sigmoid(), found, places, truths, most)
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


def boxes_of(reach: Tensor, places: Places) -> Tensor:
    """Boxes from the distances (…, A, 4) of left, top, right, bottom in strides."""
    return torch.cat(
        [places.xy - reach[..., :2] * places.stride, places.xy + reach[..., 2:] * places.stride], -1
    )


def _reach_of(truth: Tensor, places: Places, place: Tensor) -> Tensor:
    """The inverse of `boxes_of` for some places, (n, 4)."""
    xy, stride = places.xy[place], places.stride[place]
    return torch.cat([xy - truth[:, :2], truth[:, 2:] - xy], 1) / stride


def assigned(
    score: Tensor, found: Tensor, places: Places, truths: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Which truth each place learns, and its target score per class.

    score : (N, A, K).  found : (N, A, 4).  truths : (N, M, 5).  most : places an object.
    Returns owner (N, A), -1 for none, and wanted (N, A, K).

    Among the places inside a truth (or inside a square of two of the finest strides about its middle) those
    with the highest score^0.5 · IoU^6 learn it; one that two truths want goes to the one it overlaps more.
    """
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
        # In a crowd some truths have lost all their places; they take free ones.
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
    """The best places of each truth (N, M, A); each place belongs to the truth that it overlaps most."""
    best = fit.topk(min(most, fit.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(fit, dtype=torch.bool).scatter_(-1, best, True) & (fit > 0)
    first = torch.where(chosen, iou + 1e-9, 0.0).argmax(1, keepdim=True)  # (N, 1, A)
    return chosen & torch.zeros_like(chosen).scatter_(1, first, True)


def _iou(one: Tensor, two: Tensor) -> Tensor:
    """The IoU of aligned boxes (n, 4)."""
    common = _area_of(one[:, :2].maximum(two[:, :2]), one[:, 2:].minimum(two[:, 2:]))
    union = _area_of(one[:, :2], one[:, 2:]) + _area_of(two[:, :2], two[:, 2:]) - common
    return common / union.clamp(min=1e-9)


def _area_of(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def _complete_iou(one: Tensor, two: Tensor) -> Tensor:
    """Complete IoU: penalised by centres and aspect ratio (Zheng et al. 2020, equations 9 to 11)."""
    iou = _iou(one, two)
    around = (one[:, 2:].maximum(two[:, 2:]) - one[:, :2].minimum(two[:, :2])).pow(2).sum(1).clamp(min=1e-9)
    apart = ((one[:, :2] + one[:, 2:] - two[:, :2] - two[:, 2:]) / 2).pow(2).sum(1)
    sides = [(each[:, 2:] - each[:, :2]).clamp(min=1e-6) for each in (one, two)]
    angle = [torch.atan(each[:, 0] / each[:, 1]) for each in sides]
    unlike = (4 / math.pi**2) * (angle[0] - angle[1]) ** 2
    with torch.no_grad():
        factor = unlike / (1 - iou + unlike + 1e-9)
    return iou - apart / around - factor * unlike
