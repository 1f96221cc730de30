"""Features under boxes, taken from a pyramid by ONNX Runtime as torchvision's `MultiScaleRoIAlign` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecodetect.networks.box_limits import POOLED_STRIDES
from ecodetect.runtime.anchors import Places, Values
from ecodetect.runtime.graph_file import roi_align
from ecodetect.runtime.onnx_network import open_session

_PORTION_BYTES = 16_000_000  # of pooled features, or of what is said of them, at once
_FINER = np.float32(1e-6)  # as torchvision has it, where a box is between two levels


@dataclass(frozen=True, eq=False, slots=True)
class Pool:
    """Takes features under boxes, from the level that suits their size.

    session : of ONNX Runtime, for `roi_align`.
    strides : of the levels.
    at_once : boxes of a portion.
    """

    session: Any
    strides: Sequence[int]
    at_once: int

    def portions(self, features: Sequence[Values], boxes: Values) -> Iterator[tuple[Places, Values]]:
        """Numbers of some boxes (m,), and what lies under them (m, C, side, side).

        features : (C, h, w) of each level.  boxes : (n, 4) in pixels.
        """
        levels = self.levels_of(boxes)
        for number, stride in enumerate(self.strides):
            mine = np.flatnonzero(levels == number)
            for start in range(0, len(mine), self.at_once):
                some = mine[start : start + self.at_once]
                given = {
                    "features": features[number][None],
                    "boxes": boxes[some] / np.float32(stride),
                    "image": np.zeros(len(some), np.int64),
                }
                yield some, self.session.run(None, given)[0]

    def levels_of(self, boxes: Values) -> Places:
        """The level under each box (n,): twice as wide, one coarser."""
        size = boxes[:, 2:] - boxes[:, :2]
        first = int(self.strides[0])
        with np.errstate(divide="ignore"):
            finer = np.log2(np.sqrt(size[:, 0] * size[:, 1]) / np.float32(POOLED_STRIDES * first))
        coarse = np.floor(np.float32(first.bit_length()) + finer + _FINER) - (first.bit_length() - 1)
        return np.asarray(np.clip(coarse, 0, len(self.strides) - 1), np.int64)


def open_pool(
    name: str,
    strides: Sequence[int],
    side: int,
    numbers: int,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Pool:
    """Ready to take features.

    name : of the model, for messages.  strides : of the levels.
    side : of what is taken, in cells.  numbers : that are held for each box.
    """
    session, _ = open_session(roi_align(side), name, device=device, threads=threads)
    return Pool(session, strides, max(1, _PORTION_BYTES // (4 * numbers)))
