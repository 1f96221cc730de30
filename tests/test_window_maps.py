"""Window classifiers without torch: maps and features put together around a graph are torch's."""

from __future__ import annotations

from typing import Any

import learned
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from ecodetect.bundle.card import Card
from ecodetect.detectors import window_networks
from ecodetect.runtime import torch_network, tracing

SLOW = ("efficientnet_b0", "resnet18")
SHAPES = [
    *[{"kind": "valid", "evaluation": "dense", "step": step} for step in (2, 4, 8, 16)],
    {"kind": "valid", "evaluation": "windows", "step": 8},
    *[
        pytest.param(
            {"kind": kind, "evaluation": evaluation, "step": 16},
            marks=pytest.mark.slow if kind in SLOW else (),
        )
        for kind in ("mobilenet_v2", *SLOW)
        for evaluation in ("dense", "windows")
    ],
]


def card_of(shape: dict[str, Any], head: str) -> Card:
    return learned.card(
        "sliding_window", classes=("a", "b"), options={"network": {**learned.VALID, **shape}, "head": head}
    )


@pytest.mark.parametrize("head", ["network", "svm"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_maps_are_those_of_torch(shape: dict[str, Any], head: str) -> None:
    card = card_of(shape, head)
    made = torch_weights(card)
    graphed, _ = tracing.with_graphs(made, lambda: window_networks.network(card))
    opened = window_networks.open_classifier(graphed, "cpu", 1)
    batch = np.random.default_rng(0).normal(0.3, 0.5, (2, 4, 96, 128)).astype(np.float32)
    (found,) = opened.run(batch)
    torchs = torch_network.open_network(made, lambda: window_networks.network(card), device="cpu")
    (wanted,) = torchs.run(batch)
    assert not isinstance(opened, torch_network.TorchNetwork)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-4 * max(1.0, float(np.abs(wanted).max()))
    assert (opened.stride, opened.is_local) == (torchs.stride, torchs.is_local)


def torch_weights(card: Card) -> Any:
    """A network at random whose answers differ from place to place."""
    import torch

    from ecodetect.bundle.file import Bundle

    torch.manual_seed(0)
    network = window_networks.network(card)
    return Bundle(card, {name: values.numpy() for name, values in network.state_dict().items()})
