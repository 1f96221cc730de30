"""Chooses the hyperparameters of a training from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ecodetect.annotations.dataset import Statistics
from ecodetect.bundle.card import Card
from ecodetect.training.augmentation import Augmentations

PASSES = 40  # over the ground; early stopping may end it sooner
PATCH_PASSES = 16  # over pictures by class, for a pretrained network
LEAST_STEPS, MOST_STEPS = 300, 12_000
STEP_PX = 150_000  # pixels in a step: with a fixed number of passes, more and smaller steps learn more
LEAST_SIDE_PX = 160  # of a chip
EPOCHS = 24  # number of validations: a readable curve, for a few percent of the time
# Highest learning rates of AdamW at this batch size: from scratch, with a pretrained encoder, from a bundle.
RATE_SCRATCH, RATE_BACKBONE, RATE_BUNDLE = 2e-3, 2e-3, 1e-3
SLOWER = 0.3  # factor on the learning rate of pretrained layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The hyperparameters of a training.

    size_px : side of the training chips.
    batch : batch size: chips per step.
    steps : in all, unless early stopping ends training.
    every : steps from one validation to the next: an epoch.
    rim_px : width of a chip's border, where individuals are cut and nothing is learned.
    rate : highest learning rate (AdamW), reached after the warm-up; a cosine lowers it to 1 %.
    slower : factor on the learning rate of pretrained layers (those of `network.backbone()`).
    frozen : number of frozen stages of the encoder, from the first.
    decay : weight decay.
    within_px : largest distance of a validation detection from its truth.
    patience : early stopping: epochs without a better validation after which training stops.
    seed : random seed.
    workers : threads that prepare chips; the result doesn't depend on it.
    augmentations : of chips.
    mines : hard-negative mining: chips with false positives are drawn more often.
    """

    size_px: int
    batch: int
    steps: int
    every: int
    rate: float
    within_px: float
    rim_px: int = 0
    slower: float = 1.0
    frozen: int = 0
    decay: float = 0.01
    patience: int = 1000
    seed: int = 0
    workers: int = 2
    augmentations: Augmentations = field(default_factory=Augmentations)
    mines: bool = True


def weights_are_learned(backbone: str | None, weights: str | None) -> bool:
    """Whether an encoder starts with pretrained weights."""
    return backbone is not None and weights != "none"


def plan_for(
    statistics: Statistics,
    card: Card,
    from_bundle: bool,
    from_weights: bool,
    epochs: int | None = None,
    side: int | None = None,
) -> Schedule:
    """The hyperparameters for these data.

    side : of the chips, where the network requires one: a window whose middle it classifies.

    A chip is about eight individuals wide; a step has about the same number of pixels for any chip size;
    there are `PASSES` passes over the ground, in no fewer steps than a few individuals need and no more than
    a night allows.
    """
    size, spaces = statistics.size_px, statistics.spacing_px
    typical = size[1] if size is not None else spaces[2] if spaces is not None else 24.0
    is_window = side is not None
    side = side or 32 * round(float(np.clip(8 * typical, LEAST_SIDE_PX, 320)) / 32)
    batch = max(4, round(STEP_PX / side**2))
    ground = max(statistics.known_px, statistics.objects * (2 * typical) ** 2)
    passes = PASSES
    if is_window and statistics.known_px <= statistics.images * side**2:  # pictures of one individual each
        ground, passes = statistics.known_px, PATCH_PASSES if from_weights else PASSES
    steps = float(np.clip(passes * ground / (batch * side**2), LEAST_STEPS, MOST_STEPS))
    every = math.ceil(steps / EPOCHS)
    widest = size[2] if size is not None else typical
    # A position counts as found within an object's radius; for points, half the distance to the neighbour.
    within = size[1] / 2 if size is not None else spaces[2] / 2 if spaces is not None else 12.0
    return Schedule(
        size_px=side,
        batch=batch,
        steps=every * (epochs or EPOCHS),
        every=every,
        rate=RATE_BUNDLE if from_bundle else RATE_BACKBONE if from_weights else RATE_SCRATCH,
        slower=SLOWER if from_weights else 1.0,
        within_px=max(2.0, round(within, 2)),
        rim_px=0 if is_window else round(float(np.clip(widest / 2, 4, side / 8))),
        patience=EPOCHS // 2 - 2,
    )
