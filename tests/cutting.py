"""A detector that has surveyed a raster in memory, for tests of those that need no training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecodetect.detectors.protocol import Detector
from ecodetect.detectors.table import build
from ecodetect.grid import Window
from ecodetect.testing import chip_of, scene_of


def built(
    name: str, pixels: NDArray[Any], valid: NDArray[np.bool_] | None, bands: tuple[str, ...], **options: str
) -> Detector:
    """The detector, having surveyed all of the raster."""
    detector = build(name, scene_of(pixels, bands), options)
    chosen = [bands.index(band) for band in detector.needs.bands]
    if not detector.needs.survey:
        return detector
    height, width = pixels.shape[1:]
    whole = Window(0, 0, width, height)
    return detector.surveyed([chip_of(pixels[chosen], valid, detector.needs.bands, whole)])
