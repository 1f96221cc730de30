"""Which unmatched boxes are false positives: those where annotation is complete.

Ground (H, W) states for each place how an unmatched box with its middle there counts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WRONG = 1.0
WRONG_INSIDE = 0.5  # unless it reaches ignored ground, which may hide an unmarked part of it
UNKNOWN = 0.0
IGNORED = -1.0  # unknown, like boxes that reach it


def is_wrong(boxes: Tensor, ground: Tensor) -> Tensor:
    """Whether unmatched boxes (A, 4) of an image are false positives; (A,).

    ground : (H, W); padded with its border values.
    """
    height, width = ground.shape
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).long().unbind(1)
    return wrong_at(ground[y.clamp(0, height - 1), x.clamp(0, width - 1)], boxes, ground)


def wrong_at(value: Tensor, boxes: Tensor, ground: Tensor) -> Tensor:
    """The same, given the ground value under each box, (A,)."""
    wrong = value == WRONG
    beside = value == WRONG_INSIDE
    if not bool(beside.any()):
        return wrong
    return wrong | (beside & ~_reaches_ignored(boxes, ground))


def _reaches_ignored(boxes: Tensor, ground: Tensor) -> Tensor:
    """Whether any pixel that a box (A, 4) covers is ignored; (A,)."""
    height, width = ground.shape
    # Integral image of ignored pixels: four corners give the number in a box.
    before = functional.pad((ground == IGNORED).int().cumsum(0).cumsum(1), (1, 0, 1, 0))
    x0, y0 = boxes[:, 0].floor().long().clamp(0, width), boxes[:, 1].floor().long().clamp(0, height)
    x1, y1 = boxes[:, 2].ceil().long().clamp(0, width), boxes[:, 3].ceil().long().clamp(0, height)
    count = before[y1, x1] - before[y0, x1] - before[y1, x0] + before[y0, x0]
    return torch.gt(count, 0)
