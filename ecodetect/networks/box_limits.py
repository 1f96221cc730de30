"""How many boxes an image may have, and which are kept: what torch and numpy must do alike."""

from __future__ import annotations

import math

LEAST_SCORE = 0.01  # boxes below aren't given
SAME_IOU = 0.5  # of two boxes of a class that overlap more the surer stays
LEAST, _MOST = 100, 3000  # boxes that an image may have, within these
_FULL = 2.0  # so many for each object of the smallest size side by side
LOOKED_AT = 4  # for each of them so many are looked at before those that overlap are taken out

# What the first of two stages thinks less likely isn't looked at when scanning: a quarter of the proposals,
# none of which became a box that counts (seals: the same mean average precision to 0.001).
LEAST_OBJECTNESS = 0.005
SAME_PROPOSAL = 0.7  # of two proposals that overlap more the surer stays
PROPOSED = 2  # so many proposals for each box stay, of twice as many that are looked at
POOLED, POOLED_MASK = 7, 14  # cells along a side of the features under a box, and for its mask
POOLED_STRIDES = 8  # features under boxes up to so many strides wide are from the finest level


def most_boxes(height: int, width: int, smallest_px: float) -> int:
    """How many boxes an image of this size may have.

    smallest_px : width of the smallest usual objects.
    """
    full = _FULL * height * width / smallest_px**2
    return int(min(max(math.ceil(full), LEAST), _MOST))
