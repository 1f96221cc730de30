"""The colours that pictures are drawn in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe & Ito (2008), distinguishable with any colour vision; first those that stand out on soil, plants and
# black. With more classes than colours they repeat: more can't be distinguished on a map.
PALETTE: tuple[Colour, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (204, 121, 167),
    (213, 94, 0),
    (0, 158, 115),
    (230, 159, 0),
    (0, 114, 178),
    (255, 255, 255),
)
PAPER, TEXT, FAINT = (255, 255, 255), (32, 32, 32), (112, 112, 112)
CASING = (18, 18, 18)  # the dark edge that keeps a light outline readable on light ground
