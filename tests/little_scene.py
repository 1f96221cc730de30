"""A raster of a few dark spots on bright ground, which a scan is through with at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin


def write_scene(path: Path, *, seed: int = 0, side: int = 260, spots: int = 40) -> Path:
    """Write it and return its path.  The seed decides where the spots lie."""
    random = np.random.default_rng(seed)
    pixels = random.integers(170, 190, (3, side, side)).astype(np.uint8)
    for x, y, size in random.integers((5, 5, 4), (side - 15, side - 15, 10), (spots, 3)).tolist():
        pixels[:, y : y + size, x : x + size] = random.integers(30, 70)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    with rasterio.open(
        path, "w", **profile, crs="EPSG:32630", transform=from_origin(500_000, 4_100_000, 0.1, 0.1)
    ) as file:
        file.write(pixels)
    return path
