"""Anchors, and the boxes that a network's answers make of them, in float32 as torchvision reckons.

Source: torchvision's `models.detection.anchor_utils.AnchorGenerator`, `_utils.BoxCoder` and
`_utils.BoxLinearCoder`. Boxes are xmin, ymin, xmax, ymax in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Places = NDArray[np.int64]

# What offsets of the middle, and logarithms of the size, are multiplied with.
PLAIN = (1.0, 1.0, 1.0, 1.0)  # of proposals, RetinaNet
ENLARGED = (10.0, 10.0, 5.0, 5.0)  # of second stages, SSD
_WIDEST = np.float32(math.log(1000 / 16))  # a box is at most so many times as wide as its anchor
_HALF = np.float32(0.5)


@dataclass(frozen=True, eq=False, slots=True)
class Level:
    """A level of a pyramid.

    stride : of its places, in pixels.
    anchors : (A, 4), around the first place's corner.
    """

    stride: int
    anchors: Values

    def at(self, which: Places, place: Places, columns: int) -> Values:
        """Anchors (n, 4).

        which : of the anchors (n,).  place : numbers of places (n,), row by row of so many columns.
        """
        corner = np.stack([place % columns, place // columns], axis=1) * self.stride
        found: Values = np.tile(corner, 2).astype(np.float32) + self.anchors[which]
        return found


def with_anchors(stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Level:
    """A level with anchors of these sizes, in pixels, each in these ratios of height to width."""
    side = np.array(sizes, np.float32)
    high = np.sqrt(np.array(ratios, np.float32))
    height, width = ((each[:, None] * side).ravel() for each in (high, np.float32(1) / high))
    ends: Values = np.stack([-width, -height, width, height], axis=1)
    return Level(stride, np.round(ends * _HALF))


def shifted(deltas: Values, boxes: Values, weights: Sequence[float]) -> Values:
    """Boxes (n, 4) from what is said of anchors or proposals.

    deltas : (n, 4), offsets of the middle in sizes, and logarithms of how much larger, times `weights`.
    """
    moved, grown = np.split(deltas / np.array(weights, np.float32), 2, axis=1)
    size = boxes[:, 2:] - boxes[:, :2]
    middle = moved * size + (boxes[:, :2] + _HALF * size)
    half = _HALF * (np.exp(np.minimum(grown, _WIDEST)) * size)
    return np.concatenate([middle - half, middle + half], axis=1)


def around(distances: Values, boxes: Values) -> Values:
    """Boxes (n, 4) whose edges lie so far from the middles of others, in the sizes of these: (n, 4)."""
    middle = _HALF * (boxes[:, :2] + boxes[:, 2:])
    reach = distances * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], axis=1)


def clipped(boxes: Values, height: int, width: int) -> Values:
    """Boxes within an image."""
    found: Values = np.clip(boxes, np.float32(0), np.array([width, height] * 2, np.float32))
    return found
