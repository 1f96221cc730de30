"""Boxes in one look, from anchors: the many of them that are no object weigh little.

Source: RetinaNet (Lin et al. 2017, arXiv:1708.02002), torchvision's implementation with group normalisation
in the heads; see `networks.detection` for what is different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.file import Bundle, Card
from ecodetect.detectors import torchvision_boxes
from ecodetect.detectors.boxes import CRITERION, TYPICAL_PX, BoxDetector, targets
from ecodetect.detectors.protocol import Scene
from ecodetect.detectors.torchvision_boxes import AUGMENTATIONS, Options, decode, losses, options_of
from ecodetect.grid import Floats

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "AUGMENTATIONS", "CRITERION", "TYPICAL_PX", "Options", "build", "card_options", "decode", "losses",
    "measure_agreement", "network", "options_of", "targets",
]  # fmt: skip

IS_LEARNED = True

_COST = 40.0  # time per pixel with the default backbone, where decoding a pixel is 1


def network(card: Card, weights: Mapping[str, Any] | None = None) -> nn.Module:
    """The network that a card describes.

    weights : of the backbone; see `networks.backbones`. None: at random.
    """
    from ecodetect.networks import detection

    return detection.retinanet(asdict(options_of(card).network), card.bands, len(card.classes), weights)


def card_options(
    diameter_px: Floats, spacing_px: Floats, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `torchvision_boxes.card_options`.

    spacing_px : not used.
    """
    return torchvision_boxes.card_options("retinanet", diameter_px, asked)


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> BoxDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    return torchvision_boxes.build(options, scene, bundle, network, cost=_COST, device=device, threads=threads)


def measure_agreement(bundle: Bundle, image: NDArray[np.float32] | None = None) -> dict[str, float]:
    """How much what is found depends on how a raster is cut; see `boxes.agreement`."""
    return torchvision_boxes.measure_agreement(bundle, image, network)
