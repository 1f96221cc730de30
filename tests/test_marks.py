"""Marks: every detection has one, whatever is known of its size."""

from __future__ import annotations

import numpy as np

from ecodetect.detections import Detections
from ecodetect.grid import Grid
from ecodetect.pictures.marks import Marks


def test_a_point_of_unknown_size_has_a_ring_beside_those_of_known_ones() -> None:
    xy = np.array([[20.0, 20.0], [60.0, 20.0]])
    grid = Grid(80, 40)
    marks = Marks(80, 40, line_px=1, ring_px=6)
    marks.draw(
        Detections(grid, "point", xy, np.ones(2), np.zeros(2, np.int64), ("tree",), np.array([12.0, np.nan]))
    )
    ink = marks._ink[..., 3] > 0
    assert ink[:, :40].any()
    assert ink[:, 40:].any()
