"""Augmentation: random rotation, scale and light of a sample, so that a network generalises.

Each kind has a name and a strength (`Augmentations`). Geometric kinds are composed into one map from the
result to the sample and resampled once, for image, masks and objects together; photometric kinds follow. It
works for any number of bands; all randomness comes from the `Generator` argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.sample import Objects, Sample
from ecodetect.errors import UserError
from ecodetect.grid import Floats

Image = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114])  # red, green, blue in grey (ITU-R BT.601)
_RGB = ("red", "green", "blue")
_ELASTIC_STEP = 6  # bumps of an elastic field along the side of a sample
_STEPS = 12  # iterations that invert an elastic field: each gains a digit or more


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentations:
    """The augmentations and their strengths; 0 or False switches a kind off.

    The defaults are for pictures from above: no direction is special, light and season vary, and the GSD
    fixes sizes. An individual seen from above keeps its shape, so `elastic` is off: it is for tissue and
    cells. Random chips are shifted already, so `translation` is off too; `mosaic` is on for boxes.

    turns : flips and quarter turns, exact.
    rotation : maximum angle in degrees, either way.
    scale : maximum change of scale (0.2: from 1/1.2 to 1.2 times).
    translation : maximum shift as a share of the side, along both axes.
    centring : moves the foreground to the middle, by its centre of gravity; for patches cut by hand.
    elastic : maximum elastic deformation in pixels.
    brightness : maximum offset of all bands, as a share of their range.
    gain : maximum deviation of each band's own factor from 1: light, haze, season, another sensor.
    contrast : maximum deviation from 1 of the factor around each band's mean.
    gamma : maximum deviation of the exponent from 1.
    saturation : of red, green, blue, maximum deviation of the factor from 1.
    hue : of red, green, blue, maximum angle in degrees.
    greyscale : share of samples whose red, green and blue become grey.
    noise : maximum standard deviation, as a share of the range.
    blur : maximum standard deviation in pixels, in half of the samples.
    band_dropout : share of samples that lose one band (of four or more).
    mosaic : share of samples composed of parts of four; see `mosaic`.
    """

    turns: bool = True
    rotation: float = 20.0
    scale: float = 0.2
    translation: float = 0.0
    centring: bool = False
    elastic: float = 0.0
    brightness: float = 0.15
    gain: float = 0.2
    contrast: float = 0.3
    gamma: float = 0.3
    saturation: float = 0.3
    hue: float = 8.0
    greyscale: float = 0.05
    noise: float = 0.02
    blur: float = 0.8
    band_dropout: float = 0.05
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value < 0 or not math.isfinite(value):
                raise UserError(f"{name} must be 0 (off) or more; got {value}.")
        for name in ("contrast", "gain", "greyscale", "band_dropout", "mosaic"):
            if getattr(self, name) > 1:
                raise UserError(f"{name} must be at most 1; got {getattr(self, name)}.")

    @property
    def widening(self) -> float:
        """Factor by which a sample is read wider than the result, so that corners are rarely empty."""
        angle = math.radians(min(self.rotation, 45.0))
        # Half of the maximum: few samples get more, and their corners are masked.
        return (math.cos(angle / 2) + math.sin(angle / 2)) * (1 + self.scale / 2) + self.translation


NONE = Augmentations(
    turns=False, rotation=0, scale=0, brightness=0, gain=0, contrast=0, gamma=0, saturation=0, hue=0,
    greyscale=0, noise=0, blur=0, band_dropout=0, mosaic=0,
)  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Light:
    """The values of black and white in a scaled image; photometric changes are relative to their distance.

    bands : names.
    black, white : float32 (B,), in the image's own scale.
    """

    bands: tuple[str, ...]
    black: NDArray[np.float32]
    white: NDArray[np.float32]

    @classmethod
    def of(cls, samples: Iterable[Sample], bands: Sequence[str]) -> Light:
        """From the 1st and 99th percentiles of the valid pixels of some samples."""
        found = [sample.image[:, sample.valid][:, ::7] for sample in samples]
        pixels = np.concatenate([np.zeros((len(bands), 0), np.float32), *found], axis=1)
        if not pixels.shape[1]:
            return cls(tuple(bands), np.zeros(len(bands), np.float32), np.ones(len(bands), np.float32))
        black, white = np.percentile(pixels, (1, 99), axis=1).astype(np.float32)
        colours = [index for index, name in enumerate(bands) if name in _RGB]
        if colours:  # one range for all three, otherwise a green wood would become grey
            black[colours], white[colours] = black[colours].min(), white[colours].max()
        # A band without contrast has no range of its own.
        return cls(tuple(bands), black, np.where(white > black, white, black + 1).astype(np.float32))


def augment(
    sample: Sample,
    rng: np.random.Generator,
    kinds: Augmentations,
    light: Light,
    *,
    fill: float = 0.0,
    size: int | None = None,
) -> Sample:
    """One random variant of a sample.

    Parameters
    ----------
    sample : Sample
        Read wider than the result (`kinds.widening`), so that a rotated one has corners.
    rng : numpy.random.Generator
        The only source of randomness; the same state gives the same result.
    kinds : Augmentations
        The kinds and their strengths.
    light : Light
        Statistics of the training images.
    fill : float
        Value of the image where it isn't valid.
    size : int, optional
        Side of the result in pixels, cut around the middle; default: the side of the sample.

    Returns
    -------
    Sample
        Valid where all source pixels were valid, known likewise; ignored where one was ignored.
    """
    moved = _moved(sample, rng, kinds, fill, size)
    image = _recoloured(moved, rng, kinds, light)
    image[:, ~moved.valid] = fill
    return replace(moved, image=image)


# -- geometry ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Map:
    """From the result's pixels to the sample's: linear · p + shift, and an elastic part.

    bend : float32 (H, W, 2), added to it at each of the result's pixel centres; None: nothing.
    """

    linear: Floats
    shift: Floats
    bend: Image | None

    def forward(self, xy: Floats) -> Floats:
        """Positions in the result of places in the sample, (N, 2) -> (N, 2)."""
        inverse = np.linalg.inv(self.linear)
        found: Floats = (xy - self.shift) @ inverse.T
        if self.bend is not None and len(xy):
            straight = found
            for _ in range(_STEPS):
                found = straight - self._bend_at(found) @ inverse.T
        return found

    def _bend_at(self, xy: Floats) -> Floats:
        assert self.bend is not None
        x, y = (xy - 0.5).astype(np.float32).T[:, :, None]
        there = cv2.remap(self.bend, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(there, np.float64).reshape(-1, 2)


def _moved(
    sample: Sample, rng: np.random.Generator, kinds: Augmentations, fill: float, size: int | None
) -> Sample:
    height, width = sample.valid.shape
    rows, columns = (height, width) if size is None else (size, size)
    way = _drawn_map(rng, kinds, (height, width), (rows, columns))
    if kinds.centring:
        way = replace(way, shift=way.shift + _off_centre(sample))
    lack = 1.0 - np.stack([sample.valid, sample.known & sample.valid]).astype(np.float32)
    planes = [_resampled(band, way, rows, columns, fill) for band in sample.image]
    lacking = [_resampled(each, way, rows, columns, 1.0) for each in lack]
    ignored = _resampled(sample.ignored.astype(np.float32), way, rows, columns, 0.0)
    # A share of 1e-3 of a pixel is rounding.
    valid, known = lacking[0] < 1e-3, lacking[1] < 1e-3
    beside = None
    if sample.beside is not None:
        # What is neither known nor beside has no share in either.
        lack = 1.0 - (sample.valid & (sample.known | sample.beside)).astype(np.float32)
        beside = (_resampled(lack, way, rows, columns, 1.0) < 1e-3) & ~known
    objects = _moved_objects(sample.objects, way)
    return Sample(np.stack(planes), valid, known, ignored > 1e-3, objects, beside)


def _drawn_map(
    rng: np.random.Generator, kinds: Augmentations, there: tuple[int, int], here: tuple[int, int]
) -> _Map:
    """there, here : rows and columns of sample and result."""
    linear = np.eye(2)
    if kinds.turns:
        turns, is_flipped = int(rng.integers(4)), bool(rng.integers(2))
        linear = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
        if is_flipped:
            linear = linear @ np.diag([-1.0, 1.0])
    if kinds.rotation:
        angle = math.radians(rng.uniform(-kinds.rotation, kinds.rotation))
        cos, sin = math.cos(angle), math.sin(angle)
        linear = linear @ np.array([[cos, -sin], [sin, cos]])
    if kinds.scale:
        linear = linear / math.exp(rng.uniform(-1, 1) * math.log1p(kinds.scale))
    middle, centre = np.array(there[::-1]) / 2, np.array(here[::-1]) / 2
    if np.array_equal(np.abs(linear), np.rint(np.abs(linear))):
        # Without rotation and scale pixels go onto pixels, also where one side is odd and the other even.
        middle = middle - ((middle - linear @ (centre - 0.5) - 0.5) % 1.0)
    if kinds.translation:
        middle = middle + rng.uniform(-kinds.translation, kinds.translation, 2) * np.array(here[::-1])
    bend = _drawn_bend(rng, kinds.elastic, here) if kinds.elastic else None
    return _Map(linear, middle - linear @ centre, bend)


def _off_centre(sample: Sample) -> Floats:
    """Offset of the foreground's centre of gravity from the middle, in whole pixels, (2,)."""
    image, (height, width) = sample.image, sample.valid.shape
    rim = np.ones((height, width), np.bool_)
    rim[1:-1, 1:-1] = False
    usual = np.median(image[:, rim], axis=1)
    weight = np.abs(image - usual[:, None, None]).sum(axis=0, dtype=np.float64) * sample.valid
    weight = np.maximum(weight - np.median(weight), 0)  # ground like the border has none
    total = weight.sum()
    if total <= 0:
        return np.zeros(2)
    x = (weight.sum(axis=0) * (np.arange(width) + 0.5)).sum() / total - width / 2
    y = (weight.sum(axis=1) * (np.arange(height) + 0.5)).sum() / total - height / 2
    return np.rint([x, y])


def _drawn_bend(rng: np.random.Generator, most: float, here: tuple[int, int]) -> Image:
    """A smooth field: cubic between the knots of a coarse lattice, of at most `most` pixels."""
    knots = rng.uniform(-1, 1, (_ELASTIC_STEP, _ELASTIC_STEP, 2)).astype(np.float32)
    field = cv2.resize(knots, here[::-1], interpolation=cv2.INTER_CUBIC)
    # Steeper than half a pixel per pixel it would fold.
    steepest = 2 * min(here) / (_ELASTIC_STEP * 8)
    return np.asarray(field * rng.uniform(0, 1) * min(most, steepest), np.float32)


def _resampled(plane: Image, way: _Map, rows: int, columns: int, border: float) -> Image:
    # cv2 counts from the centre of the first pixel, we from its outer corner.
    shift = way.linear @ np.array([0.5, 0.5]) + way.shift - 0.5
    if way.bend is None:
        matrix = np.column_stack([way.linear, shift])
        return np.asarray(
            cv2.warpAffine(
                plane,
                matrix,
                (columns, rows),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=border,
            )
        )
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    there = (np.stack([x, y], axis=2) @ way.linear.T + shift + way.bend).astype(np.float32)
    return np.asarray(
        cv2.remap(
            plane,
            np.ascontiguousarray(there[..., 0]),
            np.ascontiguousarray(there[..., 1]),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=border,
        )
    )


def _moved_objects(objects: Objects, way: _Map) -> Objects:
    turn = np.linalg.inv(way.linear)
    # The box around an ellipse with these axes; exact for quarter turns, where axes swap.
    size = np.sqrt(np.nan_to_num(objects.size) ** 2 @ (turn**2).T)
    size[np.isnan(objects.size).any(axis=1)] = np.nan
    middle = way.forward(np.nan_to_num((objects.box[:, :2] + objects.box[:, 2:]) / 2))
    box = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
    shape = objects.shape
    if shape is not None:  # the box of the rotated outline
        shape = np.asarray(shapely.transform(shape, way.forward), dtype=object)
        box = np.where(np.isnan(box), np.nan, shapely.bounds(shape).reshape(-1, 4))
    factor = math.sqrt(abs(np.linalg.det(turn)))
    return Objects(way.forward(objects.xy), box, objects.label, objects.accuracy_px * factor, shape)


# -- four in one -------------------------------------------------------------------------------------------

_SEAM = (0.3, 0.7)  # where the parts of a mosaic meet, as a share of its side
_VISIBLE = 0.7  # an individual with less than this share left at a seam isn't learned


def mosaic(samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Parts of four samples, side by side: more individuals, other neighbours.

    Source: Bochkovskiy et al. 2020 (arXiv:2004.10934).
    samples : four of the same size, augmented already.
    Individuals that a seam cuts but mostly keeps have their box clipped; the ground of the others is
    ignored.
    """
    height, width = samples[0].valid.shape
    seam = np.rint(rng.uniform(*_SEAM, 2) * (width, height)).astype(int)
    image = np.empty_like(samples[0].image)
    masks = np.zeros((4, height, width), np.bool_)
    objects = []
    for number, sample in enumerate(samples):
        low = np.where([number % 2, number // 2], seam, 0)
        high = np.where([number % 2, number // 2], (width, height), seam)
        first = rng.integers(0, np.array([width, height]) - (high - low) + 1)  # of the sample's own part
        here = slice(low[1], high[1]), slice(low[0], high[0])
        there = tuple(slice(a, a + b) for a, b in zip(first[::-1], (high - low)[::-1], strict=True))
        image[:, here[0], here[1]] = sample.image[:, there[0], there[1]]
        for mask, own in zip(masks, (sample.valid, sample.known, sample.ignored, sample.beside), strict=True):
            if own is not None:
                mask[here] = own[there]
        kept, hidden = _seen(sample.objects, first, first + high - low)
        objects.append(kept.shifted(low - first))
        for box in hidden.box[hidden.is_sized] + np.tile(low - first, 2):
            x0, y0 = np.maximum(np.floor(box[:2]).astype(int), low)
            x1, y1 = np.minimum(np.ceil(box[2:]).astype(int), high)
            masks[2, y0 : max(y0, y1), x0 : max(x0, x1)] = True
    beside = masks[3] if masks[3].any() else None
    return Sample(image, masks[0], masks[1], masks[2], _together(objects), beside)


def _seen(objects: Objects, low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[Objects, Objects]:
    """Individuals mostly inside a window, with clipped boxes, and those that are cut off."""
    inside = ((objects.xy >= low) & (objects.xy < high)).all(axis=1)
    cut = np.hstack([np.maximum(objects.box[:, :2], low), np.minimum(objects.box[:, 2:], high)])
    area = np.prod(np.maximum(cut[:, 2:] - cut[:, :2], 0), axis=1)
    with np.errstate(invalid="ignore"):
        mostly = inside & ~(area < _VISIBLE * np.prod(objects.size, axis=1))
        hidden = ~mostly & (area > 0)
    shape = objects.shape
    if shape is not None:
        shape = np.asarray(
            shapely.intersection(shapely.make_valid(shape), shapely.box(*low, *high)), dtype=object
        )
    seen = Objects(objects.xy, cut, objects.label, objects.accuracy_px, shape)
    return seen[mostly], objects[hidden]


def _together(parts: Sequence[Objects]) -> Objects:
    return Objects(
        np.concatenate([each.xy for each in parts]),
        np.concatenate([each.box for each in parts]),
        np.concatenate([each.label for each in parts]),
        np.concatenate([each.accuracy_px for each in parts]),
        None if any(each.shape is None for each in parts) else np.concatenate([e.shape for e in parts]),
    )


# -- photometry --------------------------------------------------------------------------------------------


def _recoloured(sample: Sample, rng: np.random.Generator, kinds: Augmentations, light: Light) -> Image:
    """The image in another light; its values are undefined where it isn't valid."""
    black, span = light.black[:, None, None], (light.white - light.black)[:, None, None]
    image: Image = (sample.image - black) / span
    count = len(image)

    def about_one(most: float, shape: int | None = None) -> NDArray[np.float32]:
        return np.asarray(1 + rng.uniform(-most, most, shape), np.float32)

    if kinds.gamma:
        exponent = math.exp(rng.uniform(-1, 1) * math.log1p(kinds.gamma))
        # Odd about black, so that what lies under it (noise, percentiles) isn't cut.
        # OpenCV takes a fifth of the time that numpy takes for a power.
        image = np.copysign(cv2.pow(np.abs(image).reshape(count, -1), exponent).reshape(image.shape), image)
    factor = np.ones(count, np.float32)
    offset = np.zeros(count, np.float32)
    if kinds.gain:
        factor *= about_one(kinds.gain, count)
    if kinds.contrast:
        contrast = about_one(kinds.contrast)
        mean = image[:, sample.valid].mean(axis=1) if sample.valid.any() else offset
        offset = (factor * mean * (1 - contrast)).astype(np.float32)
        factor *= contrast
    if kinds.brightness:
        offset = offset + np.float32(rng.uniform(-kinds.brightness, kinds.brightness))
    image = image * factor[:, None, None] + offset[:, None, None]
    if all(name in light.bands for name in _RGB):
        where = [light.bands.index(name) for name in _RGB]
        image[where] = np.einsum("ij,jhw->ihw", _drawn_colours(rng, kinds), image[where])
    if kinds.blur and rng.random() < 0.5:
        sigma = rng.uniform(0, kinds.blur)
        if sigma > 0.2:  # under this nothing changes
            image = np.stack([cv2.GaussianBlur(band, (0, 0), sigma) for band in image])
    if kinds.noise:
        strength = np.float32(rng.uniform(0, kinds.noise))
        image += strength * rng.standard_normal(image.shape, dtype=np.float32)
    result: Image = image * span + black
    if kinds.band_dropout and count > 3 and rng.random() < kinds.band_dropout:
        band = int(rng.integers(count))
        result[band] = sample.image[band, sample.valid].mean() if sample.valid.any() else light.black[band]
    return result.astype(np.float32, copy=False)


def _drawn_colours(rng: np.random.Generator, kinds: Augmentations) -> NDArray[np.float32]:
    """Saturation, hue and greyscale as one 3 x 3 matrix on red, green, blue; greys stay as they are."""
    grey = np.tile(_LUMA, (3, 1))
    matrix = np.eye(3)
    if kinds.hue:
        angle = math.radians(rng.uniform(-kinds.hue, kinds.hue))
        axis = np.full(3, math.sqrt(1 / 3))  # Rodrigues' rotation about the axis of greys
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        matrix = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    if kinds.saturation:
        share = 1 + rng.uniform(-kinds.saturation, kinds.saturation)
        matrix = (grey + share * (np.eye(3) - grey)) @ matrix
    if kinds.greyscale and rng.random() < kinds.greyscale:
        matrix = grey @ matrix
    return np.asarray(matrix, np.float32)
