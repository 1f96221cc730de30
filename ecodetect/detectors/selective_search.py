"""Class-agnostic region proposals: regions that belong together by colour, texture and size.

Selective search (Uijlings et al. 2013, doi:10.1007/s11263-013-0620-5): the picture is cut into small segments
(Felzenszwalb and Huttenlocher 2004, doi:10.1023/B:VISI.0000022288.19776.77), in several colour spaces and at
several scales, and the most similar neighbours are merged repeatedly (`hierarchy`). Every region with the
size of an object is a proposal: a crown, a part of it, a group.

- Proposals overlap, and most aren't objects: they are meant for people or for a classifier.
- They are outlines, not boxes: a proposal that a classifier accepts has the crown's outline and area. This
costs
  little: among nearly equal boxes only the one that stands out most is traced.
- The raster is read so that the smallest object is 10 px wide: finer detail costs time and adds little.
- A segment depends on all pixels around it, so the result depends a little on the tiling.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.chip import Chip
from ecodetect.detections import Detections, GeometryType
from ecodetect.detectors import intensity
from ecodetect.detectors.hierarchy import Hierarchy, grouped
from ecodetect.detectors.intensity import RGB, Intensity
from ecodetect.detectors.outlines import between, integral
from ecodetect.detectors.protocol import Needs, Plain, Scene, Settling
from ecodetect.errors import UserError
from ecodetect.settling import settle
from ecodetect.sizes import Length

Mask = NDArray[np.bool_]
COLOURS = ("rgb", "lab", "hsv", "rgi")
# Width of the smallest object on the searched grid, so that segments are parts of it.
DETAIL_PX = 10.0
SMALLEST_PX, LARGEST_PX = 4.0, 1024.0  # of an object, on the raster and on the searched grid
# Of proposals whose boxes overlap more than this, the one that stands out most survives.
SAME_IOU = 0.7
# Width of the surroundings of an object's box that the score compares with.
SURROUNDINGS_PX = 5
_SMOOTH_PX = 0.8  # standard deviation of the Gaussian before segmentation, as in its paper
# Context around an object, as a share of the largest object's width. On zone 1 in tiles of 256 px, 94 % of
# the proposals had exactly the box from the whole picture; with half a width 95 %, with none 91 %.
_REACH = 0.25
_LEAST_PART = 0.25  # segments below this share of the smallest object's area are joined to a neighbour


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    band : "auto" (red, green and blue, or else the first three bands, as colours), or one image: a band's
        name, or an index: `ndvi`, `exg`.
    smallest : diameter of the circle with the area of the smallest object; it sets the pixel size to work at.
    largest : longer side of the box around the largest object.
    colours : the colour spaces segments are made in, comma-separated: rgb, lab, hsv, rgi (shares of red and
        green, and intensity); a single band has none.
    scales : how different the pixels of the first segments may be, comma-separated: higher makes larger
        segments.
    min_contrast : least contrast to the surroundings, 0 to 1; the contrast is the score.
    """

    band: str = "auto"
    smallest: Length = Length(20, "px")
    largest: Length = Length(256, "px")
    colours: str = "rgb,lab"
    scales: str = "50"
    min_contrast: float = 0.1


def build(options: Options, scene: Scene) -> SelectiveSearch:
    """The detector for a scene; raises UserError for impossible options."""
    smallest = options.smallest.pixels(scene.gsd, name="smallest")
    largest = options.largest.pixels(scene.gsd, name="largest")
    own_px = max(1.0, smallest / DETAIL_PX)
    if not SMALLEST_PX <= smallest < largest <= LARGEST_PX * own_px:
        raise UserError(
            f"Objects must be {SMALLEST_PX:g} px wide or more, and largest above smallest, but not above"
            f" {LARGEST_PX * own_px:g} px; got smallest={options.smallest} ({smallest:.3g} px) and"
            f" largest={options.largest} ({largest:.3g} px)."
        )
    if options.band == "auto" and len(scene.bands) >= 3:
        names = RGB if all(name in scene.bands for name in RGB) else scene.bands[:3]
    else:
        names = (options.band,)
    images = tuple(intensity.choose(scene, name) for name in names)
    if not 0 <= options.min_contrast <= 1:
        raise UserError(f"min_contrast must lie in 0 to 1; got {options.min_contrast:g}.")
    colours = _colours(options.colours)
    return SelectiveSearch(
        options=options,
        images=images,
        colours=colours if len(images) == 3 else ("grey",),
        scales=_scales(options.scales),
        own_px=own_px,
        smallest_px=smallest / own_px,
        largest_px=largest / own_px,
    )


def _colours(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in COLOURS:
            raise UserError(f"colours must be some of {', '.join(COLOURS)}; got '{name}'.")
    return names


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 10_000 for scale in scales):
        raise UserError(
            f"scales must be numbers above 0 and at most 10000, such as 50 or 50,100; got '{text}'."
        )
    return scales


@dataclass(frozen=True, slots=True)
class SelectiveSearch:
    """Regions of the hierarchies of several segmentations.

    images : three channels, or one.
    colours : of `COLOURS`, or "grey" alone, if there is one image.
    own_px : width of a pixel of the searched grid in pixels of the raster.
    smallest_px, largest_px : of objects, in pixels of the searched grid.
    """

    options: Options
    images: tuple[Intensity, ...]
    colours: tuple[str, ...]
    scales: tuple[float, ...]
    own_px: float
    smallest_px: float
    largest_px: float

    name = "selective_search"
    classes = ("object",)
    kind: GeometryType = dataclasses.field(default="polygon", init=False)

    @property
    def needs(self) -> Needs:
        return Needs(
            bands=tuple(dict.fromkeys(band for image in self.images for band in image.bands)),
            largest_px=self.largest_px,
            own_px=self.own_px,
            reach_px=math.ceil(_REACH * self.largest_px) + SURROUNDINGS_PX,
            margin_px=2.0,
            is_local=False,
            settling=Settling("iou", SAME_IOU),
            survey=not all(image.is_known for image in self.images),
            bytes_per_pixel=400,
            cost=100.0 * len(self.colours) * len(self.scales),
        )

    @property
    def settings(self) -> dict[str, Any]:
        given = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(self.options)}
        stated = {k: str(v) if isinstance(v, Length) else v for k, v in given.items()}
        spans = [image.span for image in self.images]
        return {**stated, "bands": list(self.needs.bands), "spans": spans, "own_px": self.own_px}

    def surveyed(self, samples: Iterable[Chip]) -> SelectiveSearch:
        """This detector with the spans of values measured on samples of the raster."""
        return replace(self, images=tuple(image.measured(samples) for image in self.images))

    def detect(self, chips: Sequence[Chip]) -> list[Detections]:
        """Proposals of each chip, after non-maximum suppression of nearly equal boxes."""
        return [self._detect(chip) for chip in chips]

    def _detect(self, chip: Chip) -> Detections:
        extent = chip.extent
        if extent.area < self._least_area:
            return Detections.empty(chip.grid, self.kind, self.classes)
        left, top = extent.x - chip.window.x, extent.y - chip.window.y
        images, valid = self._seen(chip.crop(extent))
        smooth = [
            _smoothed(image, valid) / np.float32(made.step)
            for image, made in zip(images, self.images, strict=True)
        ]
        found: list[tuple[Hierarchy, NDArray[np.int64]]] = []
        boxes, scores = [np.empty((0, 4))], [np.empty(0)]
        for colour in self.colours:
            channels = _channels(colour, smooth)
            for scale in self.scales:
                regions = grouped(self._segments(channels, scale, valid), channels, self.largest_px)
                worth, score = self._worth(regions, images, valid, chip, (left, top))
                found.append((regions, worth))
                boxes.append(regions.box[worth].astype(np.float64))
                scores.append(score)
        score = np.concatenate(scores)
        kept = settle(np.concatenate(boxes), score, criterion="iou", limit=SAME_IOU)
        parts = np.split(kept, np.cumsum([len(worth) for _, worth in found])[:-1])
        outlines = [
            regions.polygons(worth[part], left, top)
            for (regions, worth), part in zip(found, parts, strict=True)
        ]
        label = np.zeros(int(kept.sum()), np.int64)
        return Detections(chip.grid, self.kind, np.concatenate(outlines), score[kept], label, self.classes)

    @property
    def _least_area(self) -> float:
        """Diameter of an object, in pixels."""
        return math.pi / 4 * self.smallest_px**2

    def _seen(self, chip: Chip) -> tuple[list[NDArray[Any]], Mask]:
        """The images of a chip in whole numbers, 0 where they aren't valid, and where all are valid."""
        made = [image.image(chip) for image in self.images]
        valid = np.ones(chip.pixels.shape[1:], np.bool_)
        for _, known in made:
            if known is not None:
                valid &= known
        return [np.where(valid, image, 0).astype(image.dtype) for image, _ in made], valid

    def _segments(
        self, channels: Sequence[NDArray[np.float32]], scale: float, valid: Mask
    ) -> NDArray[np.int64]:
        """The first segments, numbered from 1, each 4-connected; 0 where pixels aren't valid."""
        from skimage.measure import label
        from skimage.segmentation import felzenszwalb

        least = math.ceil(_LEAST_PART * self._least_area)
        image = np.stack(channels, axis=2).astype(np.float64) / 255  # scales refer to this range
        segments = felzenszwalb(image, scale=scale, sigma=0, min_size=least) + 1
        segments[~valid] = 0
        parts: NDArray[np.int64] = label(segments, background=0, connectivity=1)  # type: ignore[no-untyped-call]
        return parts.astype(np.int64)

    def _worth(
        self,
        regions: Hierarchy,
        images: Sequence[NDArray[Any]],
        valid: Mask,
        chip: Chip,
        corner: tuple[int, int],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Which regions are asked for, have the size of an object and stand out; and their contrast.

        corner : where the hierarchy's first pixel lies in the chip.
        """
        size = regions.sums()
        fits = (regions.box[:, 2:] - regions.box[:, :2]).max(axis=1, initial=0) <= self.largest_px
        fits &= size >= self._least_area
        if chip.asked is not None:
            at = np.array([chip.window.x, chip.window.y]) + corner
            fits &= chip.asked.owns((regions.box[:, :2] + regions.box[:, 2:]) / 2 + at)
        score = np.zeros(len(regions))
        for image in images:
            score = np.maximum(score, _contrast(regions, size, image, valid))
        worth = np.flatnonzero(fits & (score > 0) & (score >= self.options.min_contrast))
        return worth, score[worth]


def _smoothed(image: NDArray[Any], valid: Mask) -> NDArray[np.float32]:
    """The mean of the valid pixels around each, weighted by a Gaussian; 0 where it isn't valid."""
    known = valid.astype(np.float32)
    total = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _SMOOTH_PX)
    weight = cv2.GaussianBlur(known, (0, 0), _SMOOTH_PX)
    return np.asarray(np.where(valid, total / np.where(valid, weight, 1), 0), np.float32)


def _channels(colour: str, smooth: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The channels of a colour space, each 0 to 255, of red, green and blue of 0 to 255, or of one image."""
    if colour in ("grey", "rgb"):
        return list(smooth)
    image = np.clip(cv2.merge(list(smooth)) / np.float32(255), 0, 1)
    if colour == "lab":
        lightness, a, b = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2Lab))
        return [lightness * np.float32(2.55), a + np.float32(128), b + np.float32(128)]
    if colour == "hsv":
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        return [hue * np.float32(255 / 360), saturation * np.float32(255), value * np.float32(255)]
    total = np.maximum(image.sum(axis=2), np.float32(1e-3))  # black has no shares
    shares = [image[:, :, k] / total * np.float32(255) for k in range(2)]
    return [*shares, total * np.float32(255 / 3)]


def _contrast(
    regions: Hierarchy, size: NDArray[np.float64], image: NDArray[Any], valid: Mask
) -> NDArray[np.float64]:
    """Contrast of regions to their surroundings in one image, in [0, 1], (M,).

    Weber contrast, as in the score of `threshold`, but for both dark and bright regions: the difference of
    the means over the larger one. The surroundings are the rest of the region's box widened by
    SURROUNDINGS_PX; without any, the contrast is 0.
    """
    height, width = image.shape
    box = regions.box + np.array([-1, -1, 1, 1]) * SURROUNDINGS_PX
    box = np.clip(box, 0, [width, height, width, height])
    own = regions.sums(image)
    area = between(integral(valid.view(np.uint8)), *box.T) - size
    inside, around = own / size, (between(integral(image), *box.T) - own) / np.maximum(area, 1)
    contrast = np.abs(inside - around) / np.maximum(np.maximum(inside, around), 1)
    return np.asarray(np.where(area > 0, contrast, 0.0), np.float64)


KIND = Plain(purpose=__doc__, options=Options, build=build)
