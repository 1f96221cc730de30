"""Turns a chip's bands into one image of whole numbers: panchromatic, a band, or a vegetation index.

The 8-bit scale is 0..255 for every raster: 8-bit bands are used as they are; other types are stretched and
kept in 16 bits (257 steps are one step of the 8-bit scale). Whole numbers make the detectors exact: their
sums don't depend on the order, so they don't depend on the tiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detectors.protocol import Scene
from ecodetect.errors import UserError
from ecodetect.raster.bands import listed

Mask = NDArray[np.bool_]
RGB = ("red", "green", "blue")
INDICES = {"ndvi": ("red", "nir"), "exg": RGB}
# Weights of red, green and blue in a panchromatic image: luma of ITU-R BT.601, as in OpenCV's fixed point
# code.
LUMA = (0.299, 0.587, 0.114)
# Share of the values clipped at each end when a raster that isn't 8-bit is stretched: hot and dead pixels.
TAIL = 0.001
# Values used per sample: enough for the tails; 256 samples take 32 MB.
PER_SAMPLE = 16_384


@dataclass(frozen=True, slots=True)
class Intensity:
    """How one image is made of a chip's bands.

    formula : "panchromatic" (luma of red, green, blue), "mean" (of the bands), "strongest" (the band that
        varies most, known once the raster is surveyed), "ndvi" or "exg".
    bands : the bands it needs, in this order.
    span : the values that become 0 and 255; None until the raster is surveyed.
    is_8bit : bands are 8-bit and used as they are.
    """

    formula: Literal["panchromatic", "mean", "strongest", "ndvi", "exg"]
    bands: tuple[str, ...]
    span: tuple[float, float] | None
    is_8bit: bool

    @property
    def step(self) -> int:
        """Steps of the image per step of the 8-bit scale."""
        return 1 if self.is_8bit else 257

    @property
    def highest(self) -> int:
        return 255 * self.step

    @property
    def is_known(self) -> bool:
        """Whether images can be made without a survey of the raster."""
        return self.span is not None and self.formula != "strongest"

    def measured(self, samples: Iterable[Chip]) -> Intensity:
        """This intensity with band and span measured on samples of the raster, where they aren't known."""
        if self.formula == "strongest":
            return replace(self, formula="mean", bands=(self._strongest(samples),)).measured(samples)
        if self.span is not None:
            return self
        parts = []
        for chip in samples:
            values, valid = self._values(chip)
            known = values[valid]
            parts.append(known[:: 1 + len(known) // PER_SAMPLE])
        values = np.sort(np.concatenate(parts)) if parts else np.empty(0)
        if not len(values):
            return replace(self, span=(0.0, 1.0))
        # Values that occur, not interpolated ones: the same for every order and library version.
        tail = int(TAIL * len(values))
        return replace(self, span=(float(values[tail]), float(values[-1 - tail])))

    def _strongest(self, samples: Iterable[Chip]) -> str:
        """Name of the band that varies most; the first of equal ones."""
        spread = np.zeros(len(self.bands))
        parts: list[list[NDArray[np.float64]]] = [[] for _ in self.bands]
        for chip in samples:
            for part, band in zip(parts, self._bands(chip), strict=True):
                known = (band if chip.valid is None else band[chip.valid]).ravel()
                part.append(known[:: 1 + len(known) // PER_SAMPLE].astype(np.float64))
        for k, part in enumerate(parts):
            values = np.concatenate(part) if part else np.empty(0)
            values = values[np.isfinite(values)]
            with np.errstate(over="ignore", invalid="ignore"):  # values beyond any instrument
                spread[k] = np.nan_to_num(values.var()) if len(values) else 0.0
        return self.bands[int(np.argmax(spread))]

    def _bands(self, chip: Chip) -> list[NDArray[Any]]:
        """The bands it needs from a chip that may have more (a sample taken before the band was chosen)."""
        return [chip.pixels[chip.bands.index(name)] for name in self.bands]

    def image(self, chip: Chip) -> tuple[NDArray[Any], Mask | None]:
        """The image and where it is valid (None: everywhere).

        Returns uint8 (0..255) or uint16 (0..65535), shape (H, W), and bool (H, W). Pixels that aren't valid
        are 0.
        """
        if self.is_8bit:
            valid = None if chip.valid is None or chip.valid.all() else chip.valid
            return _masked(self._image_8bit(chip), valid), valid
        assert self.span is not None, "surveyed before use"
        values, valid = self._values(chip)
        low, high = self.span
        if not high > low:  # constant: nothing stands out
            return np.zeros(values.shape, np.uint16), valid
        # (v - low) can overflow a float only for spans beyond any instrument; then all pixels get one value.
        with np.errstate(over="ignore", invalid="ignore"):
            levels = np.floor((values - low) * (self.highest / (high - low)) + 0.5)
        levels[~valid] = 0
        image = np.clip(levels, 0, self.highest, out=levels).astype(np.uint16)
        return image, None if valid.all() else valid

    def histogram(
        self,
        samples: Iterable[Chip],
        filtered: Callable[[NDArray[Any], Mask | None], NDArray[Any]] | None = None,
    ) -> NDArray[np.int64]:
        """Histogram of the samples' valid pixels over the levels of the image, after an optional filter."""
        counts = np.zeros(self.highest + 1, np.int64)
        for chip in samples:
            image, valid = self.image(chip)
            if filtered is not None:
                image = filtered(image, valid)
            known = image.ravel() if valid is None else image[valid]
            counts += np.bincount(known, minlength=len(counts))
        return counts

    def _image_8bit(self, chip: Chip) -> NDArray[np.uint8]:
        bands = self._bands(chip)
        if len(bands) == 1:
            return bands[0]
        if self.formula == "panchromatic":
            return np.asarray(cv2.cvtColor(cv2.merge(bands), cv2.COLOR_RGB2GRAY), np.uint8)
        total = np.zeros(bands[0].shape, np.uint16)
        for band in bands:
            total += band
        return ((total + len(bands) // 2) // len(bands)).astype(np.uint8)

    def _values(self, chip: Chip) -> tuple[NDArray[np.float64], Mask]:
        """The formula in float64, pixel by pixel, and where it is a number."""
        bands = [band.astype(np.float64) for band in self._bands(chip)]
        with np.errstate(all="ignore"):
            if self.formula == "ndvi":
                red, nir = bands
                values = _ratio(nir - red, nir + red)
            elif self.formula == "exg":
                red, green, blue = bands
                values = _ratio(2 * green - red - blue, red + green + blue)
            elif self.formula == "panchromatic":
                red, green, blue = bands
                values = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            else:
                values = bands[0]
                for band in bands[1:]:
                    values = values + band
                values = values / len(bands)
        valid = np.isfinite(values)
        return values, valid if chip.valid is None else valid & chip.valid


def _ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> NDArray[np.float64]:
    """over / under; 0 for 0/0, as in a black pixel, which shows no vegetation."""
    return np.asarray(np.where((over == 0) & (under == 0), 0.0, over / under), np.float64)


def _masked(image: NDArray[np.uint8], valid: Mask | None) -> NDArray[np.uint8]:
    return image if valid is None else np.asarray(cv2.multiply(image, valid.view(np.uint8)), np.uint8)


def choose(scene: Scene, band: str, *, strongest: bool = False) -> Intensity:
    """The intensity that `band` names in a scene.

    band : "auto" (of red, green and blue, or else of the first three bands), a band's name, "ndvi" or "exg".
    strongest : "auto" takes the band that varies most instead of a mean.
    Raises UserError naming the raster's bands.
    """
    if band in INDICES:
        needed = INDICES[band]
        missing = [name for name in needed if name not in scene.bands]
        if missing:
            raise UserError(
                f"band={band} needs {', '.join(needed)}, but the raster has {listed(scene.bands)}: "
                "name its bands.",
                parameter="bands",
            )
        # The whole range of (nir - red) / (nir + red) and (2g - r - b) / (r + g + b).
        span = (-1.0, 1.0) if band == "ndvi" else (-1.0, 2.0)
        return Intensity("ndvi" if band == "ndvi" else "exg", needed, span, is_8bit=False)
    if band == "auto":
        has_colour = all(name in scene.bands for name in RGB)
        bands = RGB if has_colour else scene.bands[:3]
        formula: Literal["panchromatic", "mean", "strongest"] = "panchromatic" if has_colour else "mean"
        if strongest and len(bands) > 1:
            formula = "strongest"
    elif band in scene.bands:
        bands, formula = (band,), "mean"
    else:
        known = ", ".join(("auto", *scene.bands, *INDICES))
        raise UserError(f"band={band} isn't in the raster; choose one of {known}.")
    is_8bit = scene.dtype == "uint8" and scene.value_range in (None, (0, 255))
    # Pixels of fewer bits (NBITS, 1-bit masks) fill the scale; other types are surveyed.
    few_bits = scene.value_range if scene.dtype == "uint8" else None
    return Intensity(formula, bands, (0.0, 255.0) if is_8bit else few_bits, is_8bit)


def otsu(counts: NDArray[np.int64]) -> int | None:
    """Otsu's threshold: the highest level of the darker class; None with fewer than two levels.

    counts : number of pixels at each level.
    (scikit-image sums in float32, which the counts of a large raster exceed.)
    """
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return None
    number = np.cumsum(counts[used]).astype(np.float64)
    total = np.cumsum(counts[used] * used).astype(np.float64)
    dark, bright = number[:-1], number[-1] - number[:-1]
    distance = total[:-1] / dark - (total[-1] - total[:-1]) / bright
    return int(used[np.argmax(dark * bright * distance**2)])
