"""Small round things, such as cells: maxima of a scale space (differences of Gaussians).

Lindeberg 1998 (doi:10.1023/A:1008045108935): a round spot gives a maximum over place and scale of the
Laplacian times the variance, at the Gaussian whose standard deviation is the spot's radius / √2. The
Laplacian is a difference of two Gaussians, each of them three box filters (Wells 1986,
doi:10.1109/TPAMI.1986.4767776): whole numbers, so that the answer doesn't depend on how the raster was cut.

- Unset options are measured on the whole raster: the band that varies most, whether spots are bright or
  dark, how much they stand out, how large they are.
- Touching spots have one maximum at the scale of their clump, but two a little below their own scale: so the
  search starts at half the smallest diameter.
- `scanning` settles overlapping candidates (non-maximum suppression): the strongest stays.
- The diameter reported is 1.2 times that of a sharp disc with the same scale: spots have soft edges.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors import filtering, intensity
from ecodetect.detectors.intensity import Intensity
from ecodetect.detectors.protocol import Needs, Plain, Scene, Settling
from ecodetect.errors import UserError
from ecodetect.settling import settle
from ecodetect.sizes import Length

# Diameters searched when none is stated, in pixels, and the largest that can be stated: box sums of wider
# filters over 16-bit pixels would not fit the 53 bits of a float64.
SMALLEST_PX, LARGEST_PX, LIMIT_PX = 6.0, 64.0, 100.0
# Measured on the nuclei of BBBC038 and on synthetic cells: these gave the best counts across kinds of
# pictures.
BELOW, ABOVE = 0.5, 0.8  # scales go from this share of the smallest diameter to that of the largest
# Cells are this much wider than the scale at which they stand out most, because their edges are soft: the
# median over the same pictures, whose kinds range from 1.0 to 1.4. For a sharp disc it is 1.
SOFT = 1.2
UNLIKE = 1.4  # ratio of diameters from which two spots count as different in size
SHARE = 0.4  # of the difference between dark and bright parts that a spot must stand out by
OVERLAP = 0.2  # IoU of the squares around two candidates above which they are the same spot
LEAST_CONTRAST = 3.0  # of 255: below it is noise
SURVEY_SAMPLES = 16  # full-resolution blocks on which the diameter is measured: about a thousand cells
# Laplacian times variance in the middle of a disc of contrast 1 at the best scale: 2 / e.
DISC = 2 / math.e
STEPS = 64  # responses are kept in 1/64 of an 8-bit level


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    band : "auto" (the one that varies most of red, green, blue, or of the first three), a band's name, or an
        index: `ndvi`, `exg`.
    objects : "dark" or "bright"; "auto": whichever is rarer.
    min_diameter, max_diameter : of the spots; None: half or double the other; if neither is set, both are
        measured on the raster.
    contrast : how much a spot must differ from its surroundings, on the 8-bit scale (0 to 255); None: 0.4
        times the difference between the raster's dark and bright parts.
    gsd : metres per pixel to work at; None: the raster's own.
    """

    band: str = "auto"
    objects: Literal["auto", "dark", "bright"] = "auto"
    min_diameter: Length | None = None
    max_diameter: Length | None = None
    contrast: float | None = None
    gsd: Length | None = None


def build(options: Options, scene: Scene) -> Blobs:
    """The detector for a scene; raises UserError for impossible options."""
    if options.gsd is not None and (options.gsd.unit != "m" or options.gsd.value <= 0):
        raise UserError(f"gsd must be a length in metres above 0; got '{options.gsd}'.")
    if options.contrast is not None and not 0 < options.contrast <= 255:
        raise UserError(f"contrast must lie in 0 to 255 of the 8-bit scale; got {options.contrast:g}.")
    gsd = scene.gsd if options.gsd is None else (options.gsd.value, options.gsd.value)
    low, high = (
        None if length is None else length.pixels(gsd, name=name)
        for name, length in (("min_diameter", options.min_diameter), ("max_diameter", options.max_diameter))
    )
    diameters: tuple[float, float] | None = None
    if low is not None or high is not None:
        smallest = low if low is not None else high / 2  # type: ignore[operator]
        largest = high if high is not None else 2 * smallest
        if not 2 <= smallest <= largest <= LIMIT_PX:
            raise UserError(
                f"Diameters must lie in 2 to {LIMIT_PX:g} px, the smallest first; got {smallest:.3g} to "
                f"{largest:.3g} px (a coarser gsd makes large spots small)."
            )
        diameters = (smallest, largest)
    return Blobs(
        options=options,
        intensity=intensity.choose(scene, options.band, strongest=True),
        is_bright=None if options.objects == "auto" else options.objects == "bright",
        contrast=options.contrast,
        diameters=diameters,
    )


@dataclass(frozen=True, slots=True)
class Blobs:
    """Spots of a range of diameters.

    is_bright, contrast, diameters : None until they are measured on the raster. contrast is on the 8-bit
        scale, diameters (smallest, largest) in pixels.
    """

    options: Options
    intensity: Intensity
    is_bright: bool | None
    contrast: float | None
    diameters: tuple[float, float] | None

    name = "blobs"
    classes = ("object",)
    kind: GeometryType = dataclasses.field(default="point", init=False)

    @property
    def needs(self) -> Needs:
        scales = ladder(*(self.diameters or (SMALLEST_PX, LARGEST_PX)))
        stated = (self.is_bright, self.contrast, self.diameters)
        return Needs(
            bands=self.intensity.bands,
            largest_px=SOFT * scales[-1].diameter,
            gsd_m=None if self.options.gsd is None else self.options.gsd.value,
            reach_px=3 * (scales[-1].outer // 2) + 2,
            settling=Settling("iou", OVERLAP),
            survey=not self.intensity.is_known or None in stated,
            bytes_per_pixel=44 + 4 * len(scales),  # sums in float64, and a response per scale
        )

    @property
    def settings(self) -> dict[str, Any]:
        given = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(self.options)}
        stated = {k: str(v) if isinstance(v, Length) else v for k, v in given.items()}
        found = {"bands": list(self.intensity.bands), "span": self.intensity.span}
        kind = None if self.is_bright is None else ("bright" if self.is_bright else "dark")
        return {
            **stated, **found, "objects_found": kind, "contrast_found": self.contrast,
            "diameters_px": self.diameters,
        }  # fmt: skip

    def surveyed(self, samples: Iterable[Chip]) -> Blobs:
        """This detector with band, kind of spots, contrast and diameters measured on samples."""
        image = self.intensity.measured(samples)
        counts = image.histogram(samples)
        level = intensity.otsu(counts)
        if level is None:  # one value or none: nothing stands out
            return replace(
                self, intensity=image, is_bright=bool(self.is_bright), contrast=self.contrast or 255.0,
                diameters=self.diameters or (SMALLEST_PX, LARGEST_PX),
            )  # fmt: skip
        dark, bright = counts[: level + 1], counts[level + 1 :]
        levels = np.arange(len(counts)) / image.step
        between = np.average(levels[level + 1 :], weights=bright) - np.average(
            levels[: level + 1], weights=dark
        )
        ready = replace(
            self,
            intensity=image,
            is_bright=bool(bright.sum() < dark.sum()) if self.is_bright is None else self.is_bright,
            contrast=max(LEAST_CONTRAST, SHARE * float(between)) if self.contrast is None else self.contrast,
        )
        return ready if self.diameters is not None else replace(ready, diameters=ready._typical(samples))

    def _typical(self, samples: Iterable[Chip]) -> tuple[float, float]:
        """The median diameter of the spots in samples, as smallest and largest."""
        wide = replace(self, diameters=(SMALLEST_PX, LARGEST_PX))
        found = []
        for chip in islice(samples, SURVEY_SAMPLES):
            spots = wide._candidates(chip)
            kept = settle(spots.bounds(), spots.score, criterion="iou", limit=OVERLAP)
            assert spots.diameter is not None
            found.append(spots.diameter[kept] / SOFT)
        diameters = np.sort(np.concatenate(found)) if found else np.empty(0)
        if not len(diameters):
            return SMALLEST_PX, LARGEST_PX
        # Weighted by area: there are more specks than cells, but they cover little.
        covered = np.cumsum(diameters**2)
        middle = float(diameters[np.searchsorted(covered, covered[-1] / 2)])
        return middle, middle

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """Candidates of each chip; candidates of the same spot overlap (see `Needs.settling`)."""
        return [self._candidates(chip) for chip in chips]

    def _candidates(self, chip: Chip) -> Detections:
        assert self.diameters is not None, "surveyed before use"
        assert self.contrast is not None, "surveyed before use"
        image, valid = self.intensity.image(chip)
        scales = ladder(*self.diameters)
        responses = self._responses(image, valid, scales)
        least = math.ceil(self.contrast * STEPS)
        parts = []
        for k, scale in enumerate(scales):
            pixel = _maxima(responses, k, least, valid)
            around, size = responses[k].ravel(), image.shape[1]
            x = pixel % size + 0.5 + _offset(around[pixel - 1], around[pixel], around[pixel + 1])
            y = pixel // size + 0.5 + _offset(around[pixel - size], around[pixel], around[pixel + size])
            diameter = np.full(len(pixel), scale.diameter)
            if 0 < k < len(scales) - 1:
                below, above = responses[k - 1].ravel()[pixel], responses[k + 1].ravel()[pixel]
                step = _offset(below, around[pixel], above)
                wider, narrower = scales[k + 1].diameter, scales[k - 1].diameter
                diameter += step * np.where(step > 0, wider - scale.diameter, scale.diameter - narrower)
            parts.append(np.stack([x, y, diameter, around[pixel].astype(np.float64)], axis=1))
        spots = np.concatenate(parts)
        x, y, diameter, response = spots[_stand_alone(spots)].T
        score = np.minimum(response / (255 * STEPS), 1.0)
        label = np.zeros(len(x), np.int64)
        xy = np.stack([x, y], axis=1)
        return Detections(chip.grid, "point", xy, score, label, self.classes, SOFT * diameter)

    def _responses(
        self, image: NDArray[Any], valid: NDArray[np.bool_] | None, scales: Sequence[Scale]
    ) -> list[NDArray[np.float32]]:
        """How much spots of each scale stand out at each pixel, in whole steps (`STEPS`)."""
        responses = []
        inner = filtering.box_mean(image, valid, scales[0].inner, 3)
        for scale in scales:
            outer = filtering.box_mean(image, valid, scale.outer, 3)
            difference = inner - outer if self.is_bright else outer - inner
            difference *= scale.gain * STEPS / self.intensity.step
            responses.append(np.rint(difference, out=difference).astype(np.float32))
            inner = outer
        return responses


@dataclass(frozen=True, slots=True)
class Scale:
    """A difference of two Gaussians, each three box filters.

    inner, outer : widths of the boxes, odd, in pixels.
    diameter : of the disc with the strongest response, in pixels.
    gain : contrast of that disc for a difference of 1 in its middle.
    """

    inner: int
    outer: int
    diameter: float
    gain: float


def ladder(smallest: float, largest: float) -> list[Scale]:
    """The scales for spots of these diameters, in pixels; each Gaussian is used twice."""
    scales: list[Scale] = []
    inner = 1
    while not scales or scales[-1].diameter < ABOVE * largest:
        outer = max(inner + 2, 2 * math.ceil((1.2 * inner - 1) / 2) + 1)
        # Variances of three boxes.
        low, high = (inner**2 - 1) / 4, (outer**2 - 1) / 4
        variance = (low + high) / 2
        scale = Scale(inner, outer, math.sqrt(8 * variance), 2 * variance / (high - low) / DISC)
        inner = outer
        if scale.diameter >= BELOW * smallest:
            scales.append(scale)
    return scales


def _maxima(
    responses: Sequence[NDArray[np.float32]], k: int, least: int, valid: NDArray[np.bool_] | None
) -> NDArray[np.intp]:
    """Flat index of the pixels where the response of scale k is a maximum over place and scale.

    Ties: the first counts as higher, by lower scale, then reading order.
    """
    here = responses[k]
    is_high = (here >= cv2.dilate(here, np.ones((3, 3), np.uint8))) & (here >= least)
    if valid is not None:
        is_high &= valid
    is_high[[0, -1]] = False
    is_high[:, [0, -1]] = False
    pixel = np.flatnonzero(is_high)
    size = here.shape[1]
    for scale in range(max(k - 1, 0), min(k + 2, len(responses))):
        flat = responses[scale].ravel()
        for dy, dx in np.ndindex(3, 3):
            place = (scale - k, dy - 1, dx - 1)
            if place == (0, 0, 0):
                continue
            there, value = flat[pixel + place[1] * size + place[2]], here.ravel()[pixel]
            pixel = pixel[value > there if place < (0, 0, 0) else value >= there]
    return pixel


def _stand_alone(spots: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which spots have no stronger spot, much larger or smaller, at the same place.

    A weaker small spot is texture of the larger one, a weaker large spot is a clump of smaller ones. Spots of
    similar size are left to `scanning`.
    spots : (N, 4), x, y, diameter, response.
    """
    xy, diameter, response = spots[:, :2], spots[:, 2], spots[:, 3]
    alone = np.ones(len(spots), np.bool_)
    if not len(spots):
        return alone
    pairs = KDTree(xy).query_pairs(diameter.max() / 2 + 1, output_type="ndarray")
    a, b = pairs.T
    wide, narrow = np.maximum(diameter[a], diameter[b]), np.minimum(diameter[a], diameter[b])
    apart = ((xy[a] - xy[b]) ** 2).sum(axis=1)
    share = (wide >= UNLIKE * narrow) & (4 * apart < wide**2)
    alone[np.where(response[a] < response[b], a, b)[share & (response[a] != response[b])]] = False
    return alone


def _offset(
    before: NDArray[np.float32], peak: NDArray[np.float32], after: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Position of the maximum of a parabola through three values, in [-1/2, 1/2], to 1/8."""
    # Whole numbers below 2^24: the sums are exact in float32, and the quotient is rounded once.
    bend = 2 * peak - before - after
    eighths = np.rint(8 * (after - before) / (2 * np.where(bend > 0, bend, 1)))
    return np.asarray(eighths, np.float64) / 8


KIND = Plain(purpose=__doc__, options=Options, build=build)
