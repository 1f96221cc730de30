"""How the values of a raster become colours: which bands are shown, what is black and what is white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecodetect.chip import Chip
from ecodetect.pictures.colours import Pixels

if TYPE_CHECKING:
    from ecodetect.raster.reading import Raster
    from ecodetect.region import Region

_SAMPLED = 36  # blocks from which the contrast is taken
_DULL = 100  # 8-bit data whose values span less than this of 255 are stretched


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which bands are shown, and which values are black and white.

    bands : one name (grey) or three (shown as red, green, blue).
    low, high : per band, in the raster's values.
    described : what a reader must know about it; None for ordinary pictures.
    """

    bands: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    described: str | None

    @classmethod
    def of(cls, raster: Raster, area: Region | None) -> Stretch:
        """The look of a raster: as it is for ordinary 8-bit pictures, else between its own extremes.

        The 0.5 and 99.5 percentiles of full-resolution blocks are black and white. 8-bit data are stretched
        with one pair of values, so that hues stay; others band by band, as their scales may differ.
        """
        bands = _shown_bands(raster.bands)
        where = None if area is None else area.moved_to(raster.grid).bounds
        chips = list(raster.samples(raster.grid, bands, where, _SAMPLED))
        spans = [_span(chips, band) for band in range(len(bands))]
        low, high = min(lo for lo, _ in spans), max(hi for _, hi in spans)
        notes = []
        if len(bands) == 3 and bands != ("red", "green", "blue"):
            notes.append(f"{', '.join(bands)} shown as red, green, blue")
        if raster.dtype == "uint8" and (high - low >= _DULL or high == low):
            return cls(bands, (0.0,) * len(bands), (255.0,) * len(bands), "; ".join(notes) or None)
        if raster.dtype == "uint8":
            spans = [(low, high)] * len(bands)
        # A band of nothing but noise must not be blown up to full contrast.
        least = (high - low) / 8
        spans = [(lo, max(hi, lo + least)) for lo, hi in spans]
        shown = ", ".join(dict.fromkeys(f"{lo:.4g} to {hi:.4g}" for lo, hi in spans))
        if chips:
            notes.append(f"contrast stretched: {shown}")
        return cls(
            bands, tuple(lo for lo, _ in spans), tuple(hi for _, hi in spans), "; ".join(notes) or None
        )

    def paint(self, chip: Chip, onto: Pixels) -> None:
        """Write the chip as RGBA into `onto` (H, W, 4), transparent where it isn't valid."""
        valid = chip.mask()
        for channel in range(3):
            band = channel if len(self.bands) == 3 else 0
            values = chip.pixels[band]
            if (self.low[band], self.high[band]) == (0.0, 255.0) and values.dtype == np.uint8:
                onto[:, :, channel] = values
                continue
            shown = values.astype(np.float32) if values.dtype.itemsize < 4 else values.astype(np.float64)
            finite = np.isfinite(shown)
            valid = valid & finite
            span = (self.high[band] - self.low[band]) or 1.0
            share = (np.where(finite, shown, 0) - self.low[band]) / span
            onto[:, :, channel] = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
        onto[:, :, 3] = np.where(valid, 255, 0)


def _shown_bands(bands: Sequence[str]) -> tuple[str, ...]:
    if {"red", "green", "blue"} <= set(bands):
        return ("red", "green", "blue")
    if "grey" in bands or len(bands) < 3:
        return ("grey",) if "grey" in bands else (bands[0],)
    return tuple(bands[:3])


def _span(chips: Sequence[Chip], band: int) -> tuple[float, float]:
    """Values between which nearly all of a band lies; (0, 1) where it has none."""
    parts = []
    for chip in chips:
        values = chip.pixels[band] if chip.valid is None else chip.pixels[band][chip.valid]
        values = values.ravel()[:: values.size // 65_536 | 1]  # odd, so that no column is left out
        parts.append(values[np.isfinite(values)].astype(np.float64))
    values = np.concatenate(parts) if parts else np.empty(0)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:  # rare things on even ground, such as a mask
        low, high = values.min(), values.max()
    return float(low), float(high)
