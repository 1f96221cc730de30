"""Small bundles with random weights, for the tests of learned detectors: what they say means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.bundle.file import Bundle, Card, Scaling
from ecodetect.detectors.table import TABLE, is_learned, network_kind

TINY = {"kind": "unet", "width": 4, "depth": 2, "up": 1}
PYRAMID = {"kind": "mobilenet_v2", "strides": [8], "coarsest": 16, "width": 32, "smallest_px": 10.0}
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
        return _of_discs(card, seed)
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
    """Dark discs on rough bright ground, as boxes; all is known. One row of classes after the other."""
    rng = np.random.default_rng(seed)
    bands, classes = len(card.bands), len(card.classes)
    image = np.full((side, side), 0.5, np.float32)
    middle: list[tuple[float, float]] = []
    size, label = [], []
    for y in range(20, side - 15, 28):
        for x in range(20, side - 15, 28):
            radius = int(rng.integers(5, 9))
            cv2.circle(image, (x, y), radius, -1.8 - len(middle) % classes, -1)
            middle.append((x + 0.5, y + 0.5))
            size.append(2 * radius + 1)
            label.append(len(middle[1:]) % classes)
    stack = image + rng.normal(0, 0.1, (bands, side, side)).astype(np.float32)
    yes = np.ones((side, side), np.bool_)
    sides = np.array([size, size], np.float64).T
    objects = Objects.about(np.array(middle), sides, np.array(label, np.int64), np.zeros(len(size)))
    return Sample(stack.astype(np.float32), yes, yes, ~yes, objects)


def _of_discs(card: Card, seed: int) -> Bundle:
    from ecodetect.detectors import learners, obia

    sample = discs(card, seed)
    look = obia.features_of(sample.image, sample.valid, card)
    label, _ = obia.examples(sample, look, card)
    known = label >= 0
    learner = learners.fit("knn", look.features[known], label[known], len(card.classes) + 1, seed)
    return obia.bundled(card, learner)


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
