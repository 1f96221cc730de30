"""Small bundles with random weights, for the tests of learned detectors: what they say means nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ecodetect.bundle import Bundle, Card, Scaling
from ecodetect.detectors import TABLE, _module, is_learned

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
    name for name in TABLE if is_learned(name) and name not in ("heatmap", "proposals", "sliding_window")
)
SWEPT: Mapping[str, Any] = {
    "typical_px": 32.0, "sized": True, "patches": False, "boxes": "regions", "smoothing": 0.0,
    "class_weights": [], "temperature": 1.0,
}  # fmt: skip
PROPOSER = {"name": "threshold", "smallest_px": 4.0, "largest_px": 40.0, "area_px": 12.0, "level": "otsu"}
OWN: Mapping[str, Mapping[str, Any]] = {
    "heatmap": {"sigma_px": 2.0},
    "proposals": {**SWEPT, "proposer": {**PROPOSER, "objects": "dark"}},
    "sliding_window": SWEPT,
}


def card(detector: str = "heatmap", **changes: Any) -> Card:
    """A card of a network for four bands of 0 to 120."""
    own = OWN.get(detector, {"typical_px": 14.0})
    options = {"network": NETWORKS[detector], **own, **changes.pop("options", {})}
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
    facts.setdefault("scaling", Scaling(offset=(0.0,) * bands, span=(120.0,) * bands))
    return Card(**facts)


def bundle(card: Card, seed: int = 0) -> Bundle:
    """Random weights, such that most answers lie well above nothing and below 1."""
    torch = pytest.importorskip("torch")

    torch.manual_seed(seed)
    network = _module(card.detector).network(card)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # as if it had seen something
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 2.0)
        _waken(network, card.detector)
    return Bundle(card, {name: values.numpy() for name, values in network.state_dict().items()})


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
