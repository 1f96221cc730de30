"""How much of what to train with, for data like these."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ecodetect.annotations.dataset import Statistics
from ecodetect.bundle.card import Card
from ecodetect.training.augmentation import Augmentations

PASSES = 40  # over the ground; a standstill ends it sooner
PATCH_PASSES = 16  # over pictures by class, for a network that knows pictures already
LEAST_STEPS, MOST_STEPS = 300, 12_000
STEP_PX = 150_000  # pixels in a step: of a fixed number of passes, more and smaller steps learn more
LEAST_SIDE_PX = 160  # of a chip
EPOCHS = 24  # so many validations: a curve to look at, at a few percent of the time
# Highest rates of AdamW at this batch: a network from scratch, one with a pretrained encoder, a bundle.
RATE_SCRATCH, RATE_BACKBONE, RATE_BUNDLE = 2e-3, 2e-3, 1e-3
SLOWER = 0.3  # pretrained layers, against those that begin at random


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How much of what.

    size_px : side of the chips that the network is trained on.
    batch : chips in a step.
    steps : in all, unless validation stops improving.
    every : steps from one validation to the next: an epoch.
    rim_px : along a chip's border, where individuals are cut and nothing is learned.
    rate : highest learning rate (AdamW), reached after the warm-up, falling to 1 % of it as a cosine.
    slower : factor on the rate of pretrained layers (those of `network.backbone()`).
    frozen : stages of the encoder that aren't changed, from the first.
    decay : weight decay.
    within_px : how far from its truth a detection of validation may lie.
    patience : epochs without a better validation after which training stops.
    seed : random seed.
    workers : threads that prepare chips; the result doesn't depend on it.
    augmentations : what happens to chips.
    mines : whether chips with false detections come back more often.
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
    """Whether an encoder begins with weights that were learned elsewhere."""
    return backbone is not None and weights != "none"


def plan_for(
    statistics: Statistics,
    card: Card,
    from_bundle: bool,
    from_weights: bool,
    epochs: int | None = None,
    side: int | None = None,
) -> Schedule:
    """How much of what, for data like these.

    side : of the chips, where the network asks for one: a window, of which it answers the middle.

    Chips show some eight individuals side by side; a step has about as many pixels whatever their size; the
    ground is passed `PASSES` times, in no fewer steps than a few individuals need and no more than a night
    has.
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
    # A position counts as found within an object's radius; of points half the way to the neighbour.
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
