"""How many boxes an image may have, and which are kept: what torch and numpy must do alike."""

from __future__ import annotations

import math

LEAST_SCORE = 0.01  # lower boxes are dropped
SAME_IOU = 0.5  # of non-maximum suppression per class
# Limits on the boxes of a chip: this many per object of the smallest size, within bounds.
_FULL, LEAST, _MOST = 2.0, 100, 3000
LOOKED_AT = 4  # candidates per box before non-maximum suppression
# In a scan, less likely proposals of the first stage are dropped: a quarter of them, none of which became a
# box above the threshold (seals: the same mean average precision to 0.001).
LEAST_OBJECTNESS = 0.005
SAME_PROPOSAL = 0.7  # IoU of non-maximum suppression of proposals
PROPOSED = 2  # proposals per box that a two-stage network keeps, of twice as many candidates
POOLED, POOLED_MASK = 7, 14  # cells along a side of the features under a box, and for its mask
POOLED_STRIDES = 8  # features under boxes up to this many strides wide are from the finest level


def most_boxes(height: int, width: int, smallest_px: float) -> int:
    """The largest number of boxes of an image of this size.

    smallest_px : width of the smallest usual objects.
    """
    full = _FULL * height * width / smallest_px**2
    return int(min(max(math.ceil(full), LEAST), _MOST))
