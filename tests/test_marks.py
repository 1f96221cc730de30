"""Marks: every detection has one, whatever is known of its size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from test_pictures import raster_of

from ecodetect.detections import Detections
from ecodetect.pictures.map import draw_map


def test_a_point_of_unknown_size_has_a_ring_beside_those_of_known_ones(tmp_path: Path) -> None:
    raster = raster_of(np.full((3, 400, 800), 90, np.uint8))
    xy = np.array([[200.0, 200.0], [600.0, 200.0]])

    def drawn(*rows: int) -> np.ndarray:
        sizes = np.array([60.0, np.nan])[list(rows)]
        count = len(rows)
        found = Detections(
            raster.grid, "point", xy[list(rows)], np.ones(count), np.zeros(count, np.int64), ("tree",), sizes
        )
        draw_map(raster, [found], tmp_path / "map.png")
        return np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)

    bare, both = drawn(), drawn(0, 1)
    differs = np.abs(both - bare).max(axis=2) > 60
    middle = differs.shape[1] // 2
    high = differs.shape[0] // 2
    assert differs[:high, :middle].any()
    assert differs[:high, middle:].any()
