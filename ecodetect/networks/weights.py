"""Weights that a backbone has learned elsewhere: where they lie, and how they are put into a network.

They are read from .safetensors files, in the naming of the library that the network is from; nothing here
unpickles.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ecodetect.bundle.file import read_weights
from ecodetect.errors import UserError
from ecodetect.networks.network import Weights

VARIABLE = "ECODETECT_WEIGHTS"
_BODY = "backbone.body."  # what torchvision's detectors call a backbone inside
_CHANNELS = ("red", "green", "blue")


def stored(stem: str, others: Sequence[str]) -> Path | None:
    """The file of weights of this name on this machine.

    others : all names: `vgg11` must not find `vgg11_bn`, so what a file's name begins with is the longest.
    """
    stated = os.environ.get(VARIABLE)
    folders = [*([Path(stated)] if stated else []), Path(torch.hub.get_dir()) / "checkpoints"]
    for folder in folders:
        for path in sorted(folder.glob(f"{stem}*.safetensors")):
            begins = (other for other in others if path.stem.startswith(other))
            if max(begins, key=len, default="") == stem:
                return path
    return None


def from_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Weights of a backbone from a file, a classifier's or those of one of torchvision's detectors.

    Raises BundleError for what is not a .safetensors file; anything pickled is refused, for it may hold a
    program.
    """
    if Path(path).suffix.lower() in (".pth", ".pt", ".ckpt", ".pkl", ".bin"):
        raise UserError(
            f"{path} is a pickled file, which may hold a program and so isn't opened; save its weights as"
            " .safetensors (safetensors.torch.save_file) where you trust it."
        )
    return of_backbone(read_weights(path))


def of_backbone(weights: Weights) -> dict[str, Any]:
    """The backbone's weights out of a detector's, under the names that they have in a classifier."""
    if not any(key.startswith(_BODY) for key in weights):
        return dict(weights)
    body = {key.removeprefix(_BODY): each for key, each in weights.items() if key.startswith(_BODY)}
    # torchvision takes a MobileNet's features out of the network, and so their name.
    return {f"features.{key}" if key[0].isdigit() else key: each for key, each in body.items()}


def load(model: nn.Module, weights: Weights, name: str) -> None:
    """Put a backbone's weights into it; raises UserError where they are another network's."""
    tensors = {key: torch.as_tensor(value) for key, value in weights.items()}
    wanted = model.state_dict()
    # The classifier isn't used, so it may have other classes.
    features = {key for key in wanted if not key.startswith(("classifier", "fc", "head"))}
    wrong = [key for key in features if key not in tensors or tensors[key].shape != wanted[key].shape]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(f"These aren't weights of {name}: '{min(wrong)}' is missing or of another shape.")
    model.load_state_dict({key: tensors[key] for key in features if key in tensors}, strict=False)


def for_bands(weight: torch.Tensor, bands: Sequence[str]) -> torch.Tensor:
    """The weights of a first convolution (out, 3, h, w), learned for red, green and blue, for these bands."""
    mean = weight.mean(dim=1)
    columns = [weight[:, _CHANNELS.index(band)] if band in _CHANNELS else mean for band in bands]
    return torch.stack(columns, dim=1) * (3 / len(bands))
