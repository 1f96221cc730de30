"""The user's settings of a training; unset ones are derived from the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ecodetect.sizes import Length

if TYPE_CHECKING:
    from ecodetect.training.augmentation import Augmentations


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """The settings of a training, apart from the data.

    model : kind of detector, or a bundle (file or name) to fine-tune. None: a heat map that starts from the
        nearest shipped model (transfer learning); see `beginning.nearest`.
    backbone : name of a network as encoder, torchvision's, or, after "timm/", timm's.
    weights : "imagenet", "coco", "none", or a file of the backbone's weights.
    freeze : stages of the encoder that keep their weights, from the first; or "all".
    split_by : "auto", "blocks", "files", "none", or a column; see `splits.split`.
    gsd : metres per pixel at which the model works; None: chosen from the objects' sizes.
    epochs : None: chosen from the data, with early stopping.
    within : largest distance of a validation detection from its truth; None: the radius of individuals, or
        half the distance to their neighbours.
    seed : random seed: the same seed gives the same bytes on the CPU.
    device : "auto", "cpu", "cuda" or "mps".
    workers : threads that prepare chips; None: up to four.
    resume : continue an interrupted training.
    overwrite : replace an existing bundle.
    augmentations : instead of the detector's defaults.
    settings : of the detector's training, as name -> text; see its `Kind.training`.
    command : the command to state on the card.
    """

    model: str | os.PathLike[str] | None = None
    backbone: str | None = None
    weights: str | None = None
    freeze: int | Literal["all"] = 0
    split_by: str = "auto"
    gsd: float | None = None
    epochs: int | None = None
    within: Length | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    resume: bool = False
    overwrite: bool = False
    augmentations: Augmentations | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
