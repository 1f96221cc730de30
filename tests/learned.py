"""Small bundles with random weights, for the tests of learned detectors: what they say means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ecodetect.bundle import Bundle, Card, Scaling

TINY = {"kind": "unet", "width": 4, "depth": 2, "up": 1}


def card(**changes: Any) -> Card:
    """A card of a heat map network for four bands of 0 to 120."""
    options = {"network": TINY, "sigma_px": 2.0, **changes.pop("options", {})}
    facts: dict[str, Any] = {
        "name": "heatmap",
        "detector": "heatmap",
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
    """Random weights, such that most peaks of the map lie well above nothing and below 1."""
    torch = pytest.importorskip("torch")
    from ecodetect.detectors import heatmap

    torch.manual_seed(seed)
    network = heatmap.network(card)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):  # as if it had seen something
                part.running_mean.uniform_(-0.2, 0.2)
                part.running_var.uniform_(0.5, 2.0)
        network.decoder.head.weight.mul_(2.0)
        network.decoder.head.bias.fill_(0.4)
    return Bundle(card, {name: values.numpy() for name, values in network.state_dict().items()})
