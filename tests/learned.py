"""Small bundles with random weights, for the tests of learned detectors: what they say means nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from ecodetect import testing
from ecodetect.annotations.sample import Sample
from ecodetect.bundle.card import Card, Scaling
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import yolo
from ecodetect.detectors.learned import Arrays, Outputs
from ecodetect.detectors.table import TABLE, is_learned, network_kind
from ecodetect.detectors.table import learned as kind_of

TINY = {"kind": "unet", "width": 4, "depth": 2, "up": 1}
PYRAMID = {"kind": "squeezenet1_1", "strides": [8], "coarsest": 16, "width": 32, "smallest_px": 10.0}
ANCHORED = {**PYRAMID, "anchors": [[10.0, 16.0]], "ratios": [0.5, 1.0, 2.0]}
VALID = {"kind": "valid", "evaluation": "dense", "window": 64, "step": 8, "width": 4}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "faster_rcnn": ANCHORED,
    "fcos": PYRAMID,
    "heatmap": TINY,
    "mask_rcnn": ANCHORED,
    "proposals": VALID,
    "retinanet": ANCHORED,
    "sliding_window": VALID,
    "ssd": ANCHORED,
    "yolo": {"kind": "nano", "strides": [8, 16], "size": "nano"},
}
BOXES = sorted(
    name
    for name in TABLE
    if is_learned(name) and name not in ("heatmap", "obia", "proposals", "sliding_window")
)
SWEPT: Mapping[str, Any] = {
    "typical_px": 32.0, "sized": True, "patches": False, "boxes": "regions", "smoothing": 0.0,
    "head": "network",
    "class_weights": [], "temperature": 1.0,
}  # fmt: skip
PROPOSER = {"name": "threshold", "smallest_px": 4.0, "largest_px": 40.0, "area_px": 12.0, "level": "otsu"}
OWN: Mapping[str, Mapping[str, Any]] = {
    "heatmap": {"sigma_px": 2.0},
    "proposals": {**SWEPT, "proposer": {**PROPOSER, "objects": "dark"}},
    "sliding_window": SWEPT,
}
SEGMENTS = {"segmentation": "slic", "segment_px": 4, "smallest_px": 5.0, "level": 0.5}


def card(detector: str = "heatmap", **changes: Any) -> Card:
    """A card of a network for four bands of 0 to 120."""
    own = OWN.get(detector, {"typical_px": 14.0})
    shape = SEGMENTS if detector == "obia" else {"network": NETWORKS[detector]}
    options = {**shape, **own, **changes.pop("options", {})}
    facts: dict[str, Any] = {
        "name": detector,
        "detector": detector,
        "bands": ("red", "green", "blue", "nir"),
        "unit": "px",
        "largest": 20.0,
        "classes": ("object",),
        "options": options,
    }
    facts |= changes
    bands = len(facts["bands"])
    offset, span = (75.0, 30.0) if detector == "obia" else (0.0, 120.0)
    facts.setdefault("scaling", Scaling(offset=(offset,) * bands, span=(span,) * bands))
    return Card(**facts)


def bundle(card: Card, seed: int = 0) -> Bundle:
    """Random weights, such that most answers lie well above nothing and below 1.

    Of `obia`, which has no weights: what neighbours say who have seen dark discs.
    """
    if card.detector == "obia":
        return testing.taught(kind_of(card.detector), card, discs(card, seed), seed=seed)
    torch = pytest.importorskip("torch")

    torch.manual_seed(seed)
    network = network_kind(card.detector).network(card, None)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # as if it had seen something
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 2.0)
        _waken(network, card.detector)
    return Bundle(card, {name: values.numpy() for name, values in network.state_dict().items()})


def discs(card: Card, seed: int = 0, side: int = 160) -> Sample:
    """`testing.discs` with the bands and classes of a card."""
    return testing.discs(len(card.bands), len(card.classes), seed=seed, side=side)


def _waken(network: Any, detector: str) -> None:
    """Networks begin by finding nothing."""
    if detector == "heatmap":
        network.decoder.head.weight.mul_(2.0)
        network.decoder.head.bias.fill_(0.4)
    elif detector == "yolo":
        for head in (network.one, network.many):
            for kinds in head.kinds:
                kinds[-1].bias.fill_(0.0)
                # Hardly two boxes are as sure as each other, so it is clear which one survives.
                kinds[-1].weight.mul_(300.0)
    elif detector in ("proposals", "sliding_window"):
        for part in network.classifier.body:
            part[0].weight.mul_(3.0)  # so that what they see isn't lost on the way
        network.classifier.head.weight.mul_(20.0)
    elif detector == "mask_rcnn":
        network.model.roi_heads.mask_predictor.mask_fcn_logits.bias.fill_(20.0)
    elif detector in ("fcos", "retinanet"):
        network.model.head.classification_head.cls_logits.bias.fill_(0.0)
        if detector == "fcos":
            network.model.head.regression_head.bbox_reg.bias.fill_(1.0)


# -- outputs of a network that answers as its targets ask ----


def _of_heat(made: Arrays, card: Card) -> Outputs:
    return [made["heat"][None]]


def _of_cells(made: Arrays, card: Card) -> Outputs:
    logits = np.stack([made["answer"] == number for number in range(len(card.classes) + 1)])
    return [20.0 * logits[None].astype(np.float32)]


def _of_rows(made: Arrays, card: Card) -> Outputs:
    """Boxes as torchvision's networks give them: score 1, then rows of nothing."""
    boxes = made["boxes"]
    rows = np.column_stack([boxes[:, :4], np.ones(len(boxes)), boxes[:, 4]])
    return [np.concatenate([rows, np.zeros((5, 6))])[None].astype(np.float32)]


def _of_places(made: Arrays, card: Card) -> Outputs:
    """The place in the middle of each box, at the finest stride; edges lie between two bins."""
    options = yolo.options_of(card)
    first = options.network.strides[0]
    height, width = made["background"].shape[1:]
    maps = [
        np.full((1, 4 * yolo.BINS + len(card.classes), height // s, width // s), -12.0, np.float32)
        for s in options.network.strides
    ]
    for x0, y0, x1, y1, label in made["boxes"]:
        column, row = int((x0 + x1) / 2 / first), int((y0 + y1) / 2 / first)
        x, y = (column + 0.5) * first, (row + 0.5) * first
        for edge, far in enumerate(np.array([x - x0, y - y0, x1 - x, y1 - y]) / first):
            low, bins = int(far), maps[0][0, edge * yolo.BINS : (edge + 1) * yolo.BINS, row, column]
            bins[:] = -30.0
            bins[low], bins[low + 1] = np.log(1 - far + low + 1e-12), np.log(far - low + 1e-12)
        maps[0][0, 4 * yolo.BINS + int(label), row, column] = 6.0
    return [*maps, *maps]


IDEAL: Mapping[str, Callable[[Arrays, Card], Outputs]] = {
    "faster_rcnn": _of_rows,
    "fcos": _of_rows,
    "heatmap": _of_heat,
    "mask_rcnn": _of_rows,
    "proposals": _of_cells,
    "retinanet": _of_rows,
    "sliding_window": _of_cells,
    "ssd": _of_rows,
    "yolo": _of_places,
}
# Options with which what is drawn is read exactly: cells finer than the objects.
SHARP: Mapping[str, Mapping[str, Any]] = {
    name: {"network": {**VALID, "step": 2}, "typical_px": 14.0} for name in ("proposals", "sliding_window")
}
