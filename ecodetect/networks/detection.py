"""torchvision's detection networks on our pyramid, without its preprocessing and with unknown ground.

torchvision's own steps are removed: images aren't resized, normalised or padded (a card's scaling is the only
one), and the limit of 100 boxes is replaced by the number that a tile can hold. Unknown ground is added:
where annotation isn't complete there is no loss unless a place is matched to a truth, and a batch without
anything to learn has a loss of 0 instead of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

from ecodetect.networks.background import is_wrong
from ecodetect.networks.box_limits import (
    LEAST,
    LEAST_OBJECTNESS,
    LEAST_SCORE,
    LOOKED_AT,
    POOLED,
    POOLED_MASK,
    POOLED_STRIDES,
    PROPOSED,
    SAME_IOU,
    SAME_PROPOSAL,
    most_boxes,
)
from ecodetect.networks.network import Encoder, Part, Settings, TrainableNetwork, Weights
from ecodetect.networks.pyramid import build as build_pyramid

_SAMPLED_ANCHORS, _SAMPLED_PROPOSALS = 256, 128  # per image, that have a loss
_MISSED = -100.0  # logit of certain background: no loss, no gradient
_NEGATIVES, _LEAST_NEGATIVES = 3, 16  # SSD, hard-negative mining: per box with an object, and least per image


class _Watched:
    """Heads that record whether their outputs are finite: torchvision silently drops boxes that aren't."""

    is_finite = True

    def note(self, *answers: Tensor) -> None:
        self.is_finite = all(bool(each.sum().isfinite()) or bool(each.isfinite().all()) for each in answers)


class _OneStage(_Watched):
    """The decoding of torchvision's one-stage networks."""

    def postprocess_detections(self, head_outputs: Mapping[str, Any], *rest: Any) -> Any:
        levels = [each if isinstance(each, list) else [each] for each in head_outputs.values()]
        self.note(*(each for level in levels for each in level))
        return super().postprocess_detections(head_outputs, *rest)  # type: ignore[misc]


class _RetinaNet(_OneStage, RetinaNet):  # type: ignore[misc]
    pass


class _Fcos(_OneStage, FCOS):  # type: ignore[misc]
    pass


class _Untouched(nn.Module):
    """Replaces torchvision's `transform`: images and boxes pass unchanged."""

    def forward(self, images: Tensor, targets: Any = None) -> tuple[ImageList, Any]:
        height, width = images.shape[-2:]
        return ImageList(images, [(height, width)] * len(images)), targets

    def postprocess(self, result: Any, shapes: Any, original: Any) -> Any:
        return result


class Detection(TrainableNetwork):
    """One of torchvision's detection networks.

    model : torchvision's, on a `Pyramid`.
    limit : sets the number of boxes that the model may return.
    parts : what of the model is stored as graphs; `runtime.box_stages` does the rest.
    first_label : the model's number of the first class: 1 where 0 is the background.
    smallest_px : width of the smallest typical objects.
    stride : sides of images are multiples of it.

    forward(images (N, B, H, W), targets) while training: losses by name. Targets: boxes (N, M, 5), xmin,
    ymin, xmax, ymax, class, rows of NaN where an image has fewer; background (N, 1, H, W), as
    `networks.background` has it.
    forward(images) otherwise: (N, D, 6), xmin, ymin, xmax, ymax, score, class, by falling score; rows of
    score 0 where fewer are found; all NaN where a head's outputs weren't finite. D depends on the size of the
    images only. A network with outlines returns a list of that and (N, D, M, M), in [0, 1]: the probability
    that each part of a box belongs to its object.
    """

    takes_targets = True
    works_out_places = True
    sees_all = True

    def __init__(
        self,
        model: Any,
        limit: Callable[[Any, int], None],
        parts: Callable[[Any], Mapping[str, Part]],
        *,
        first_label: int,
        smallest_px: float,
    ) -> None:
        super().__init__()
        model.transform = _Untouched()
        self.model = model
        self.limit, self.first_label, self.smallest_px = limit, first_label, smallest_px
        self.stride = int(model.backbone.stride)
        self._parts = parts

    def parts(self) -> Mapping[str, Part]:
        return self._parts(self.model)

    def backbone(self) -> Encoder:
        found: Encoder = self.model.backbone.encoder
        return found

    def stages(self) -> Sequence[nn.Module]:
        return self.backbone().in_stages()

    def forward(self, images: Tensor, targets: Mapping[str, Tensor] | None = None) -> Any:
        most = most_boxes(images.shape[-2], images.shape[-1], self.smallest_px)
        self.limit(self.model, most)
        if targets is not None and self.training:
            return self.model(images, _listed(targets, self.first_label))
        found = self.model(images)
        rows = torch.stack([_padded(each, most, self.first_label) for each in found])
        if not all(part.is_finite for part in self.model.modules() if isinstance(part, _Watched)):
            rows = torch.full_like(rows, torch.nan)
        if "masks" not in found[0]:
            return rows
        masks = [each["masks"][:most, 0].float() for each in found]
        return [rows, torch.stack([functional.pad(m, (0, 0, 0, 0, 0, most - len(m))) for m in masks])]


def _listed(targets: Mapping[str, Tensor], first_label: int) -> list[dict[str, Tensor]]:
    """Targets as torchvision wants them, image by image; boxes without an area are left out."""
    found = []
    for number, (boxes, background) in enumerate(zip(targets["boxes"], targets["background"], strict=True)):
        there = (boxes[:, 2:4] > boxes[:, :2]).all(1)  # a NaN is never greater
        found.append(
            {
                "boxes": boxes[there, :4],
                "labels": boxes[there, 4].long() + first_label,
                "background": background[0],
            }
        )
        if "masks" in targets:
            found[-1]["masks"] = targets["masks"][number, there]
    return found


def _padded(found: Mapping[str, Tensor], rows: int, first_label: int) -> Tensor:
    """Boxes of one image, (rows, 6)."""
    label = (found["labels"] - first_label).to(found["boxes"])
    each = torch.cat([found["boxes"], found["scores"][:, None], label[:, None]], 1)[:rows].float()
    return functional.pad(each, (0, 0, 0, rows - len(each)))


def _unknown(
    anchors: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]], owner: Sequence[Tensor]
) -> Tensor:
    """Anchors (N, A) without a truth on unknown ground."""
    return torch.stack(
        [
            (mine < 0) & ~is_wrong(each, target["background"])
            for each, target, mine in zip(anchors, targets, owner, strict=True)
        ]
    )


def _anchors(settings: Settings) -> AnchorGenerator:
    sizes = tuple(tuple(float(size) for size in level) for level in settings["anchors"])
    return AnchorGenerator(sizes, (tuple(map(float, settings["ratios"])),) * len(sizes))


# -- two stages ----


class _Proposals(_Watched, RegionProposalNetwork):  # type: ignore[misc]
    """Anchors on unknown ground have no loss."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, each, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & ~is_wrong(each, target["background"])] = -1.0
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], wanted: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if all((label < 0).all() for label in labels):
            return 0 * objectness.sum(), 0 * deltas.sum()
        one, two = super().compute_loss(objectness, deltas, labels, wanted)
        return one, two

    def filter_proposals(self, proposals: Tensor, objectness: Tensor, *rest: Any) -> Any:
        self.note(proposals, objectness)
        return super().filter_proposals(proposals, objectness, *rest)


class _Heads(_Watched, RoIHeads):  # type: ignore[misc]
    """Proposals on unknown ground have no loss."""

    def select_training_samples(self, proposals: list[Tensor], targets: Any) -> Any:
        self.grounds = [target["background"] for target in targets]
        chosen = super().select_training_samples(proposals, targets)
        self.is_empty = not sum(map(len, chosen[0]))
        return chosen

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        matched, found = super().assign_targets_to_proposals(proposals, boxes, labels)
        for label, each, background in zip(found, proposals, self.grounds, strict=True):
            label[(label == 0) & ~is_wrong(each, background)] = -1
        return matched, found

    def postprocess_detections(self, logits: Tensor, deltas: Tensor, *rest: Any) -> Any:
        self.note(logits, deltas)
        return super().postprocess_detections(logits, deltas, *rest)

    def forward(self, features: Any, proposals: Any, shapes: Any, targets: Any = None) -> Any:
        result, losses = super().forward(features, proposals, shapes, targets)
        if self.training and self.is_empty:
            losses = {name: torch.zeros_like(each) for name, each in losses.items()}
        return result, losses


def _limit_proposals(model: GeneralizedRCNN, most: int) -> None:
    # The same number per area in small training chips and large tiles. With a fixed number for all sizes, as
    # published, the second stage would get other proposals than in training.
    kept = PROPOSED * most
    for use in ("training", "testing"):
        model.rpn._post_nms_top_n[use] = kept
        model.rpn._pre_nms_top_n[use] = 2 * kept
    model.rpn.score_thresh = 0.0 if model.training else LEAST_OBJECTNESS
    model.roi_heads.detections_per_img = most


def mask_rcnn(settings: Settings, bands: Sequence[str], classes: int, weights: Weights | None) -> Detection:
    """The same, with a third stage that outlines each object; see `detectors.mask_rcnn`.

    settings : as of `faster_rcnn`.
    """
    made = faster_rcnn(settings, bands, classes, weights)
    heads, width = made.model.roi_heads, made.model.backbone.out_channels
    heads.mask_roi_pool = _pool(settings, POOLED_MASK)
    heads.mask_head = MaskRCNNHeads(width, (width,) * 4, 1)
    heads.mask_predictor = MaskRCNNPredictor(width, width, classes + 1)
    return made


def _pool(settings: Settings, side: int) -> MultiScaleRoIAlign:
    """Features under a box: up to eight strides wide from the finest level, up to 16 from the next."""
    first = int(settings["strides"][0])
    return MultiScaleRoIAlign(
        [str(level) for level in range(len(settings["strides"]))],
        output_size=side,
        sampling_ratio=2,
        canonical_scale=POOLED_STRIDES * first,
        canonical_level=first.bit_length(),
    )


def faster_rcnn(settings: Settings, bands: Sequence[str], classes: int, weights: Weights | None) -> Detection:
    """Two stages: one proposes regions, the other classifies them; see `detectors.torchvision_boxes`.

    settings : of the pyramid, see `pyramid.build`; anchors, their sizes in pixels for each level; ratios of
        height to width; smallest_px.
    """
    pyramid = build_pyramid(settings, bands, weights)
    width = pyramid.out_channels
    anchors = _anchors(settings)
    proposals = _Proposals(
        anchors,
        RPNHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=_SAMPLED_ANCHORS,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 0, "testing": 0},  # by the size of the image: `_limit_proposals`
        post_nms_top_n={"training": 0, "testing": 0},
        nms_thresh=SAME_PROPOSAL,
    )
    heads = _Heads(
        _pool(settings, POOLED),
        TwoMLPHead(width * POOLED**2, 4 * width),
        FastRCNNPredictor(4 * width, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=_SAMPLED_PROPOSALS,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=LEAST_SCORE,
        nms_thresh=SAME_IOU,
        detections_per_img=LEAST,
    )
    model = GeneralizedRCNN(pyramid, proposals, heads, _Untouched())
    return Detection(
        model, _limit_proposals, _two_stages, first_label=1, smallest_px=float(settings["smallest_px"])
    )


def _two_stages(model: GeneralizedRCNN) -> Mapping[str, Part]:
    """The pyramid with what its levels propose, and what is said of the features under boxes."""
    heads, width = model.roi_heads, model.backbone.out_channels

    def proposed(images: Tensor) -> list[Tensor]:
        levels = list(model.backbone(images).values())
        return [*levels, *(each for maps in model.rpn.head(levels) for each in maps)]

    count = range(len(model.rpn.anchor_generator.sizes))
    names = tuple(f"{what}_{level}" for what in ("level", "objectness", "deltas") for level in count)
    parts = {
        "image": Part(proposed, names),
        "boxes": Part(
            lambda pooled: heads.box_predictor(heads.box_head(pooled)), ("logits", "deltas"),
            channels=width, side=POOLED, is_fixed=True,
        ),
    }  # fmt: skip
    if heads.has_mask():
        parts["masks"] = Part(
            lambda pooled: heads.mask_predictor(heads.mask_head(pooled)), ("masks",),
            channels=width, side=POOLED_MASK, is_fixed=True,
        )  # fmt: skip
    return parts


# -- one stage ----


def _limit(model: Any, most: int) -> None:
    model.detections_per_img, model.topk_candidates = most, LOOKED_AT * most


def _one_stage(
    heads: Callable[[Any, int, Tensor], Sequence[Tensor]], names: Sequence[str], model: Any
) -> Mapping[str, Part]:
    """What the heads make of each level, as maps: not yet put together, which would copy them.

    heads : the model's head, a level and its features to maps (N, C, H, W) of these names.
    """

    def forward(images: Tensor) -> list[Tensor]:
        levels = model.backbone(images).values()
        return [each for level, features in enumerate(levels) for each in heads(model.head, level, features)]

    count = len(model.anchor_generator.sizes)
    return {"image": Part(forward, tuple(f"{name}_{level}" for level in range(count) for name in names))}


def _without_unknown(
    targets: Any, outputs: Mapping[str, Tensor], anchors: Any, owner: Any
) -> dict[str, Tensor]:
    """Outputs that equal their targets on unknown ground, so that nothing is learned there."""
    unknown = _unknown(anchors, targets, owner)[..., None]
    return {**outputs, "cls_logits": torch.where(unknown, _MISSED, outputs["cls_logits"])}


class _RetinaHead(RetinaNetHead):  # type: ignore[misc]
    def compute_loss(self, targets: Any, outputs: Any, anchors: Any, owner: Any) -> Any:
        return super().compute_loss(
            targets, _without_unknown(targets, outputs, anchors, owner), anchors, owner
        )


class _FcosHead(FCOSHead):  # type: ignore[misc]
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, 1, classes)
        # Distances go through a ReLU: those that start at 0 may never be learned.
        nn.init.ones_(self.regression_head.bbox_reg.bias)

    def compute_loss(self, targets: Any, outputs: Any, anchors: Any, owner: Any) -> Any:
        return super().compute_loss(
            targets, _without_unknown(targets, outputs, anchors, owner), anchors, owner
        )


def _retina_maps(head: RetinaNetHead, level: int, features: Tensor) -> Sequence[Tensor]:
    kinds, edges = head.classification_head, head.regression_head
    return kinds.cls_logits(kinds.conv(features)), edges.bbox_reg(edges.conv(features))


def retinanet(settings: Settings, bands: Sequence[str], classes: int, weights: Weights | None) -> Detection:
    """One stage with anchors and focal loss; see `detectors.torchvision_boxes`.

    settings : as of `faster_rcnn`.
    """
    pyramid, anchors = build_pyramid(settings, bands, weights), _anchors(settings)
    head = _RetinaHead(
        pyramid.out_channels,
        anchors.num_anchors_per_location()[0],
        classes,
        norm_layer=partial(nn.GroupNorm, 32),
    )
    model = _RetinaNet(
        pyramid, classes, anchor_generator=anchors, head=head, score_thresh=LEAST_SCORE, nms_thresh=SAME_IOU
    )
    parts = partial(_one_stage, _retina_maps, ("scores", "boxes"))
    return Detection(model, _limit, parts, first_label=0, smallest_px=float(settings["smallest_px"]))


def _fcos_maps(head: FCOSHead, level: int, features: Tensor) -> Sequence[Tensor]:
    kinds, edges = head.classification_head, head.regression_head
    seen = edges.conv(features)
    return kinds.cls_logits(kinds.conv(features)), edges.bbox_reg(seen).relu(), edges.bbox_ctrness(seen)


def fcos(settings: Settings, bands: Sequence[str], classes: int, weights: Weights | None) -> Detection:
    """One stage without anchors: places predict distances to edges; see `detectors.torchvision_boxes`.

    settings : as of `faster_rcnn`, without anchors.
    """
    pyramid = build_pyramid(settings, bands, weights)
    places = AnchorGenerator(
        tuple((int(stride),) for stride in settings["strides"]), ((1.0,),) * len(settings["strides"])
    )
    model = _Fcos(
        pyramid,
        classes,
        anchor_generator=places,
        head=_FcosHead(pyramid.out_channels, classes),
        score_thresh=LEAST_SCORE,
        nms_thresh=SAME_IOU,
    )
    parts = partial(_one_stage, _fcos_maps, ("scores", "boxes", "centreness"))
    return Detection(model, _limit, parts, first_label=0, smallest_px=float(settings["smallest_px"]))


class _Ssd(_OneStage, SSD):  # type: ignore[misc]
    """With a loss that leaves unknown ground out of hard-negative mining."""

    def compute_loss(
        self, targets: Any, head_outputs: Any, anchors: list[Tensor], matched_idxs: list[Tensor]
    ) -> dict[str, Tensor]:
        deltas, logits = head_outputs["bbox_regression"], head_outputs["cls_logits"]
        owner = torch.stack(matched_idxs)
        label = torch.zeros_like(owner)
        off = deltas.new_zeros(())
        for number, target in enumerate(targets):
            mine = owner[number] >= 0
            which = owner[number][mine]
            label[number][mine] = target["labels"][which]
            wanted = self.box_coder.encode_single(target["boxes"][which], anchors[number][mine])
            off = off + functional.smooth_l1_loss(deltas[number][mine], wanted, reduction="sum")
        is_object = owner >= 0
        error = functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        error = error.view_as(label)
        empty = error.detach().masked_fill(is_object | _unknown(anchors, targets, matched_idxs), -math.inf)
        count = (_NEGATIVES * is_object.sum(1, keepdim=True)).clamp(min=_LEAST_NEGATIVES)
        worst = (empty.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < count) & empty.isfinite()
        total = is_object.sum().clamp(min=1)
        return {"bbox_regression": off / total, "classification": error[is_object | worst].sum() / total}


def _ssd_maps(head: SSDHead, level: int, features: Tensor) -> Sequence[Tensor]:
    kinds, edges = head.classification_head.module_list, head.regression_head.module_list
    return kinds[level](features), edges[level](features)


def ssd(settings: Settings, bands: Sequence[str], classes: int, weights: Weights | None) -> Detection:
    """One stage with anchors and hard-negative mining; see `detectors.torchvision_boxes`.

    settings : as of `faster_rcnn`.
    """
    pyramid, anchors = build_pyramid(settings, bands, weights), _anchors(settings)
    per_place = anchors.num_anchors_per_location()
    head = SSDHead([pyramid.out_channels] * len(per_place), per_place, classes + 1)
    model = _Ssd(
        pyramid,
        anchors,
        size=(1, 1),  # of torchvision's `transform`, which is replaced
        num_classes=classes + 1,
        head=head,
        score_thresh=LEAST_SCORE,
        nms_thresh=SAME_IOU,
    )
    parts = partial(_one_stage, _ssd_maps, ("scores", "boxes"))
    return Detection(model, _limit, parts, first_label=1, smallest_px=float(settings["smallest_px"]))


Builds = Callable[[Settings, Sequence[str], int, Weights | None], Detection]
# By the name of their detector.
NETWORKS: Mapping[str, Builds] = {
    "faster_rcnn": faster_rcnn,
    "fcos": fcos,
    "mask_rcnn": mask_rcnn,
    "retinanet": retinanet,
    "ssd": ssd,
}
