"""Objects darker or brighter than their background: a threshold, then gates on size and shape.

The preprocessing of Guirado et al. (2017, doi:10.3390/rs9121220) as a detector: the picture becomes
panchromatic, pixels darker than a level are objects, and morphological opening removes small things (their
level, 100 of 255, is `level=100`). By default the level is measured on the whole raster (Otsu 1979,
doi:10.1109/TSMC.1979.4310076).

- Pixels are connected through four neighbours; pixels that touch only at a corner are separate.
- Outlines follow the edges of pixels; gaps inside are filled. An object in the gap of another is reported
too.
- Nodata and ground beyond the raster are never part of an object and have no weight in a mean.
- Lengths are as the user states them (`3m`, `25px`); the defaults are pixels, so at another GSD the same
  command finds objects of another size.
- With `split`, `largest` limits the width of a whole clump: a wider one isn't split, and is dropped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors import filtering, intensity, outlines, splitting
from ecodetect.detectors.intensity import INDICES, Intensity
from ecodetect.detectors.protocol import Needs, Plain, Scene
from ecodetect.errors import UserError
from ecodetect.sizes import Area, Length

# Width of the surroundings of an object's box that the score compares with.
SURROUNDINGS_PX = 5
# Beyond this the halo is larger than any tile: look for such objects at a coarser GSD.
LARGEST_PX = 4096
# Beyond this the weights of a Gaussian are too small for whole numbers.
SMOOTHEST_PX = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    band : "auto" (panchromatic of red, green, blue; else the mean of the first three bands), a band's name,
        or an index: `ndvi`, `exg`.
    objects : "dark" or "bright"; None: bright for an index, else dark.
    level : separates objects from background: a number on the raster's 8-bit scale (0 to 255), "otsu"
        (measured on the whole raster), or "local" (the mean of the surroundings).
    window : width of the square whose mean "local" compares with; None: `largest`.
    offset : how much "local" objects must differ from that mean, on the 8-bit scale.
    smooth : standard deviation of a Gaussian; 0px: none.
    open : radius of morphological opening: objects narrower than this disc are removed; 0px: none.
    min_area, max_area : of the outline, gaps filled.
    largest : wider objects are dropped.
    min_solidity : area / area of the convex hull.
    min_circularity : 4π · area / perimeter²; about 0.9 for a disc of pixels.
    max_elongation : longer / shorter axis of the ellipse with the same moments.
    split : split touching objects where there is a neck between them.
    neck : a neck is narrower than this share of the smaller part.
    geometry : the kind of geometry that is reported.
    gsd : metres per pixel to work at; None: the raster's own.
    """

    band: str = "auto"
    objects: Literal["dark", "bright"] | None = None
    level: Literal["otsu", "local"] | float = "otsu"
    window: Length | None = None
    offset: float = 10.0
    smooth: Length = Length(1, "px")
    open: Length = Length(2, "px")
    min_area: Area = Area(64, "px")
    max_area: Area | None = None
    largest: Length = Length(256, "px")
    min_solidity: float | None = None
    min_circularity: float | None = None
    max_elongation: float | None = None
    split: bool = False
    neck: float = 0.8
    geometry: Literal["polygon", "box", "point"] = "polygon"
    gsd: Length | None = None


def build(options: Options, scene: Scene) -> Threshold:
    """The detector for a scene; raises UserError for impossible options."""
    _check(options)
    gsd = scene.gsd if options.gsd is None else (options.gsd.value, options.gsd.value)
    largest = options.largest.pixels(gsd, name="largest")
    if not 1 <= largest <= LARGEST_PX:
        raise UserError(f"largest must be 1 to {LARGEST_PX} px; {options.largest} is {largest:.3g} px.")
    window = largest if options.window is None else options.window.pixels(gsd, name="window")
    smooth = options.smooth.pixels(gsd, name="smooth")
    opening = options.open.pixels(gsd, name="open")
    for name, pixels, most in (
        ("smooth", smooth, SMOOTHEST_PX), ("open", opening, LARGEST_PX), ("window", window, LARGEST_PX)
    ):  # fmt: skip
        if pixels > most:
            raise UserError(f"{name} must be at most {most} px; got {pixels:.3g} px.")
    bright = options.band in INDICES if options.objects is None else options.objects == "bright"
    image = intensity.choose(scene, options.band)
    return Threshold(
        options=options,
        intensity=image,
        is_bright=bright,
        level=None if isinstance(options.level, str) else math.floor(options.level * image.step),
        smooth_px=smooth,
        open_px=round(opening),
        window_px=2 * round(window / 2) + 1,
        largest_px=largest,
        min_area_px=options.min_area.pixels(gsd, name="min_area"),
        max_area_px=math.inf if options.max_area is None else options.max_area.pixels(gsd, name="max_area"),
    )


def _check(options: Options) -> None:
    """Raise UserError for options that are impossible on any raster."""
    if options.gsd is not None and (options.gsd.unit != "m" or options.gsd.value <= 0):
        raise UserError(f"gsd must be a length in metres above 0; got '{options.gsd}'.")
    if not isinstance(options.level, str) and not 0 <= options.level <= 255:
        raise UserError(f"level must lie in 0 to 255 of the 8-bit scale; got {options.level:g}.")
    if not 0 <= options.offset <= 255:
        raise UserError(f"offset must lie in 0 to 255 of the 8-bit scale; got {options.offset:g}.")
    if not 0 < options.neck <= 1:
        raise UserError(f"neck must be a share above 0 and at most 1; got {options.neck:g}.")
    for name, share in (("min_solidity", options.min_solidity), ("min_circularity", options.min_circularity)):
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"{name} must lie in 0 to 1; got {share:g}.")
    if options.max_elongation is not None and not options.max_elongation >= 1:
        raise UserError(f"max_elongation must be at least 1, which is round; got {options.max_elongation:g}.")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Objects on the dark or bright side of a level.

    level : in steps of the image; None until it is measured on the raster, or for a local one.
        Objects are ≤ level, or > level if bright.
    """

    options: Options
    intensity: Intensity
    is_bright: bool
    level: int | None
    smooth_px: float
    open_px: int
    window_px: int
    largest_px: float
    min_area_px: float
    max_area_px: float

    name = "threshold"
    classes = ("object",)

    @property
    def kind(self) -> GeometryType:
        return self.options.geometry

    @property
    def needs(self) -> Needs:
        dtype = np.uint8 if self.intensity.is_8bit else np.uint16
        filters = filtering.gaussian_reach(dtype, self.smooth_px)
        if self.options.level == "local":
            filters = max(filters, self.window_px // 2)
        reach = filters + filtering.opening_reach(self.open_px) + SURROUNDINGS_PX
        if self.options.split:
            # The cuts of a clump depend on all of it, and it reaches farther from the centre than a part.
            reach += math.ceil(self.largest_px / 2)
        return Needs(
            bands=self.intensity.bands,
            largest_px=self.largest_px,
            gsd_m=None if self.options.gsd is None else self.options.gsd.value,
            reach_px=reach,
            survey=self.options.level == "otsu" or not self.intensity.is_known,
            # Measured: 9 to 21, 29 to 36 and 40 to 57, depending on how much of a scene is edges.
            bytes_per_pixel=60 if not self.intensity.is_8bit else 38 if self.options.split else 22,
        )

    @property
    def settings(self) -> dict[str, Any]:
        given = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(self.options)}
        stated = {k: str(v) if isinstance(v, (Length, Area)) else v for k, v in given.items()}
        found = {"bands": list(self.intensity.bands), "objects": "bright" if self.is_bright else "dark"}
        level = None if self.level is None else self.level / self.intensity.step
        return {**stated, **found, "level_found": level, "span": self.intensity.span}

    def surveyed(self, samples: Iterable[Chip]) -> Threshold:
        """This detector with the span of values and Otsu's level measured on samples of the raster."""
        ready = replace(self, intensity=self.intensity.measured(samples))
        if self.options.level != "otsu":
            return ready
        level = intensity.otsu(ready.intensity.histogram(samples, self._smoothed))
        if level is None:  # at most one value: nothing stands out
            level = ready.intensity.highest if self.is_bright else -1
        return replace(ready, level=level)

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        return [self._detect(chip) for chip in chips]

    def _detect(self, chip: Chip) -> Detections:
        # Invalid pixels count like missing ones and needn't be processed.
        extent = chip.extent
        if not extent.area:
            return self._none(chip)
        image, valid = self.intensity.image(chip.crop(extent))
        if valid is None and extent != chip.window:
            valid = np.ones(image.shape, np.bool_)
        mask = self._mask(image, valid)
        around = _around(mask)
        if around is None:
            return self._none(chip)
        image, valid = image[around], None if valid is None else valid[around]
        mask = filtering.opened(mask[around], self.open_px)
        # A frame of one pixel, so that regions at the border end there.
        framed = np.asarray(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), np.uint8)
        regions = outlines.regions_in(framed)
        if self.options.split:
            labels = splitting.split(regions, self.largest_px, self.options.neck)
            regions = outlines.regions_of(labels)
        left = extent.x - chip.window.x + around[1].start - 1
        top = extent.y - chip.window.y + around[0].start - 1
        boxes = regions.box + np.array([left, top, left, top])
        found = outlines.traced(regions, self._worth_tracing(boxes, chip))
        found = found[self._passes(found)]
        if not len(found):
            return self._none(chip)
        gappy = None if valid is None or valid.all() else valid
        score = self._scores(image, gappy, regions, found.label)
        box = boxes[found.label].astype(np.float64)
        geometry: NDArray[Any]
        if self.kind == "polygon":
            geometry = found.polygons(left, top)
        elif self.kind == "box":
            geometry = box
        else:
            geometry = (box[:, :2] + box[:, 2:]) / 2
        diameter = np.sqrt(found.areas() * (4 / np.pi)) if self.kind == "point" else None
        label = np.zeros(len(found), np.int64)
        return Detections(chip.grid, self.kind, geometry, score, label, self.classes, diameter)

    def _none(self, chip: Chip) -> Detections:
        return Detections.empty(chip.grid, self.kind, self.classes, sized=self.kind == "point")

    def _smoothed(self, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
        return filtering.gaussian(image, valid, self.smooth_px)

    def _mask(self, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """Object pixels before morphological opening, 0 or 1, (H, W)."""
        mask: NDArray[np.bool_]
        if self.options.level == "local":
            # Strict, because a flat area is background.
            smooth = self._smoothed(image, valid)
            offset = self.options.offset * self.intensity.step
            mean = filtering.box_mean(image, valid, self.window_px)
            mask = smooth > mean + offset if self.is_bright else smooth < mean - offset
        else:
            assert self.level is not None, "surveyed before use"
            mask = filtering.gaussian_at_most(image, valid, self.smooth_px, self.level)
            if self.is_bright:
                np.logical_not(mask, out=mask)
        if valid is not None:
            mask &= valid
        return mask.view(np.uint8)

    def _worth_tracing(self, box: NDArray[np.int64], chip: Chip) -> NDArray[np.bool_]:
        """Which regions are asked for and may pass the gates, judged by their boxes in pixels of the chip."""
        width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
        fits = np.maximum(width, height) <= self.largest_px
        # Wider ones are reported where they are whole, so that they can be counted; a point wouldn't show its
        # width.
        if self.kind != "point":
            end = (chip.window.width, chip.window.height)
            fits |= (box[:, :2] > 0).all(axis=1) & (box[:, 2:] < end).all(axis=1)
        if chip.asked is not None:
            corner = np.array([chip.window.x, chip.window.y])
            fits &= chip.asked.owns((box[:, :2] + box[:, 2:]) / 2 + corner)
        return np.asarray(fits & (width * height >= self.min_area_px))

    def _passes(self, found: outlines.Outlines) -> NDArray[np.bool_]:
        """Which outlines pass the gates on area and shape, (N,)."""
        options, area = self.options, found.areas()
        passes: NDArray[np.bool_] = (area >= self.min_area_px) & (area <= self.max_area_px)
        if options.min_circularity is not None:
            passes &= 4 * np.pi * area / found.perimeters() ** 2 >= options.min_circularity
        if options.max_elongation is not None:
            passes &= found.elongations() <= options.max_elongation
        if options.min_solidity is not None:
            passes &= area / found.hull_areas() >= options.min_solidity
        return passes

    def _scores(
        self,
        image: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        regions: outlines.Regions,
        label: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """How much the pixels of objects differ from the background around them, in [0, 1].

        Weber contrast: the difference of the means over the larger one. The background is the ground without
        any object in the object's box widened by SURROUNDINGS_PX; without any background, the score is 0.
        """
        rows, columns = regions.shape
        box = regions.box[label]
        box[:, :2] = np.maximum(box[:, :2] - SURROUNDINGS_PX, 1)
        box[:, 2:] = np.minimum(box[:, 2:] + SURROUNDINGS_PX, (columns - 1, rows - 1))
        which, run, start, stop = regions.pieces(box)
        row, own = regions.row[run], regions.label[run] == label[which]

        def sums(per_piece: NDArray[Any], chosen: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
            """Sum of a whole number per piece over each of the boxes; exact below 2^53."""
            weights = per_piece if chosen is None else np.where(chosen, per_piece, 0)
            return np.asarray(np.bincount(which, weights, minlength=len(label)), np.float64)

        def covered(table: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            """Sums over whole boxes, and over each of the pieces, from the integral of an image."""
            whole = outlines.between(table, *(box - 1).T)
            return whole, outlines.between(table, start - 1, row - 1, stop - 1, row)

        whole, piece = covered(outlines.integral(image))
        inside = sums(piece, own) / sums(stop - start, own)
        if valid is None:
            area = np.prod(box[:, 2:] - box[:, :2], axis=1) - sums(stop - start)
        else:
            known, covering = covered(outlines.integral(valid.view(np.uint8)))
            area = known - sums(covering)
        around = (whole - sums(piece)) / np.maximum(area, 1)
        difference = inside - around if self.is_bright else around - inside
        contrast = np.clip(difference, 0, None) / np.maximum(np.maximum(inside, around), 1)
        return np.where(area > 0, contrast, 0.0)


def _around(mask: NDArray[np.uint8]) -> tuple[slice, slice] | None:
    """Rows and columns of the set pixels and their surroundings, which are processed; None if none is set."""
    used = [np.flatnonzero(mask.view(np.bool_).any(axis=axis)) for axis in (1, 0)]
    if not len(used[0]):
        return None
    rows, columns = (
        slice(max(int(place[0]) - SURROUNDINGS_PX, 0), int(place[-1]) + 1 + SURROUNDINGS_PX) for place in used
    )
    return rows, columns


KIND = Plain(purpose=__doc__, options=Options, build=build)
