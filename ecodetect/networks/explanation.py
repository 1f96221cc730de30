"""Grad-CAM: which parts of a window support an answer, by the gradient of the answer at the last features.

Selvaraju et al. 2017, arXiv:1610.02391. The features are those before the last layer; in `ValidClassifier`
they have one cell, so a layer with 12 cells along a side is used instead.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ecodetect.networks.network import TrainableNetwork
from ecodetect.networks.windows import ValidClassifier, Windowed

# The layer with 12 x 12 cells; they lie 8 to 56 px from the window's edge.
_VALID_LAYER, _VALID_MARGIN_PX = 3, 8


def class_activation(
    network: TrainableNetwork, image: NDArray[np.float32], output: int, *, is_whole: bool
) -> NDArray[np.float32]:
    """How much each pixel's features support an output, (S, S), 0 to 1; all 0 if none does.

    network : of `windows.build_single`, in evaluation mode.
    image : (B, S, S), scaled as the card says.
    output : number of the logit.
    is_whole : the answer is the mean over all cells of the map, not the cell in the middle.
    """
    held: list[torch.Tensor] = []
    layer, margin = _last_features(network)
    hook = layer.register_forward_hook(lambda module, given, features: held.append(features))
    try:
        with torch.enable_grad():
            x = torch.from_numpy(np.ascontiguousarray(image[None])).requires_grad_()
            logits = network(x)[:, output]
            score = logits.mean() if is_whole else logits[0, logits.shape[1] // 2, logits.shape[2] // 2]
            (gradient,) = torch.autograd.grad(score, held[0])
    finally:
        hook.remove()
    features = held[0].detach()
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    spoken = functional.relu((weight * features).sum(dim=1, keepdim=True))
    side = image.shape[1] - 2 * margin
    whole = functional.interpolate(spoken, size=(side, side), mode="bilinear", align_corners=False)
    found = functional.pad(whole, (margin,) * 4, mode="replicate")[0, 0].numpy()
    most = float(found.max())
    return np.asarray(found / most if most > 0 else found, np.float32)


def _last_features(network: TrainableNetwork) -> tuple[nn.Module, int]:
    """The layer, and the distance of its first cells from the image's edge, in pixels."""
    if isinstance(network, Windowed) and isinstance(network.classifier, ValidClassifier):
        return network.classifier.body[_VALID_LAYER], _VALID_MARGIN_PX
    return network.stages()[-1], 0
