"""Individuals as the peaks of a learned map: needs only points, and counts touching individuals one by one.

A network with an encoder, a decoder and skip connections (a U-Net) regresses, for each class, a map with a
Gaussian of height 1 at each annotated centre. Its peaks are the detections, so there are no boxes to
suppress. Sources:  Tompson et al. 2014 (arXiv:1406.2984) and Newell et al. 2016 (arXiv:1603.06937) for the
regressed map, Zhou et al. 2019 (arXiv:1904.07850, "Objects as Points") for objects as its peaks with sizes
read off there, Ventura et al. 2022 (arXiv:2208.10607) for tree crowns.

- The map is smoothed by half the width of its Gaussians before the search for peaks. Where a network is
unsure,
  its map is a plateau with ripples, and each would count as an individual (trees-naip, a network after five
  minutes: F1 0.49 without smoothing, 0.66 with it). A clear peak stays a peak, and its height is restored.
- Positions are refined to subpixels, continuously: small noise in the map moves them only a little.
- Where a bundle has learned sizes, a second map gives the diameter at the peak. Then each object's Gaussian
is
  as wide as its size requires, and only the highest peak within the middle of an object counts: a large
  object isn't counted twice, and small neighbours don't merge into one.
- Where individuals are too close to be separated, another map learns their density, whose sum still counts
  them (Lempitsky and Zisserman 2010); see `density`.
- A position known only to a few pixels (GPS) gets a correspondingly wider Gaussian.
- Outside completely annotated ground, only the surroundings of objects are used for training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ecodetect.bundle.card import Card
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.detectors import card_reading, peaks
from ecodetect.detectors.card_reading import Within
from ecodetect.detectors.learned import NO_WISHES, Answer, Arrays, Image, NetworkKind, Outputs, Wishes
from ecodetect.detectors.learned_detector import LearnedDetector, NetworkLook, card_needs
from ecodetect.detectors.protocol import Scene, Settling, scaling_of
from ecodetect.errors import BundleError
from ecodetect.grid import Floats

if TYPE_CHECKING:
    import torch

    from ecodetect.annotations.sample import Sample
    from ecodetect.networks.network import TrainableNetwork, Weights
    from ecodetect.runtime.opening import Network

_DECODING_BYTES = 20  # of a pixel of the map: it blurred, its highest neighbours, and which are peaks

# Two tiles see the same peak within 0.01 px; peaks of different objects are at least a pixel apart.
_SAME_PX = 0.25
# Where annotation isn't complete, a pixel belongs to an object down to this height of its Gaussian.
_COVERED = 0.05
# Time per pixel and channel of the finest level, where decoding a pixel is 1; measured on two cores.
_COST = 8.0
# Narrower Gaussians are like single pixels; wider ones hide neighbours, unless each is as wide as its object
# requires.
SIGMA_PX = (1.0, 4.0)
SIZED_SIGMA_PX = (1.0, 6.0)
# Shares of an object's diameter, where sizes are known: the width of its Gaussian, the radius of its middle,
# and the radius around its peak that refines its position.
_SIGMA_SHARE, _MIDDLE_SHARE, _AROUND_SHARE = 0.2, 0.3, 0.7
_EMPHASIS = (0.25, 6.0)  # least and most weight of an object's pixels, relative to an object of typical size
_MIDDLE_PX = 16.0  # no middle is wider, so that a damaged size doesn't suppress its surroundings
# Objects closer to each other than this need a finer map to be separated.
_CLOSE_PX = 4.0
_FEW_MAPS, _MAP_BYTES = 4, 8  # as the network outputs them, and as they are decoded
_STRIP = 128  # rows of a map whose sizes are in memory at once
# Sides of the windows in which a density must give the right count, and the weight of one individual too many
# there against the squared error of its height.
_COUNTED_PX, _COUNT_WEIGHT = (16, 32), 0.08


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Shape of the network; see `networks.building.build`."""

    kind: card_reading.NetworkName
    width: card_reading.Width
    depth: Annotated[int, Within(1, 7)]
    up: Literal[1, 2, 4]
    finest: Literal[1, 2] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What a card says about the detector.

    sigma_px, sigma_share : width of the Gaussians: the same for all, or a share of each object's diameter (0:
        the same for all).
    smooth_px, window_px : width of the Gaussian that smooths a map, and the radius in which a peak is the
        maximum.
    sized, typical_px : whether sizes are learned; width of a typical object.
    density_px, density_gain : width of the Gaussians of the density (0: none), and the factor that corrects
        its sum.
    positive_weight, size_weight, density_weight : see `losses`.
    """

    network: Shape = Shape(kind="unet", width=16, depth=4, finest=2, up=1)
    sigma_px: Annotated[float, Within(0.1, 100)] = 2.0
    sigma_share: Annotated[float, Within(0, 1)] = 0.0
    smooth_px: Annotated[float, Within(0, 32)] = 1.0
    window_px: Annotated[float, Within(0, 64)] = 2.0
    sized: bool = False
    typical_px: card_reading.TypicalPx = 10.0
    density_px: Annotated[float, Within(0, 32)] = 0.0
    density_gain: tuple[Annotated[float, Within(0, 1e3)], ...] = ()
    positive_weight: Annotated[float, Within(0, 1e3)] = 3.0
    size_weight: Annotated[float, Within(0, 1e3)] = 0.1
    density_weight: Annotated[float, Within(0, 1e3)] = 2.0


DEFAULTS: Mapping[str, Any] = dataclasses.asdict(CardOptions())


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    threshold : which score threshold from validation applies, unless a score is given: "f1" (best F1) or
        "count" (counts nearly unbiased).
    """

    threshold: Literal["f1", "count"] = "f1"


def options_of(card: Card) -> CardOptions:
    """The options of a card; raises BundleError where they can't be a heatmap's."""
    found = card_reading.options_of(CardOptions, card)
    if found.density_gain and len(found.density_gain) != len(card.classes):
        raise BundleError(f"The card of '{card.name}' is damaged (density_gain is for other classes).")
    if found.sigma_share and not found.sized:
        raise BundleError(f"The card of '{card.name}' is damaged (sigma_share needs sizes, and it has none).")
    return found


def network(card: Card, weights: Weights | None = None) -> TrainableNetwork:
    """The network that a card describes.

    weights : of a backbone's encoder; see `networks.building.build`. None: random.
    """
    from ecodetect.networks import building as networks

    return networks.build(dataclasses.asdict(options_of(card).network), card.bands, _maps(card), weights)


def _maps(card: Card) -> int:
    """Number of maps that the network outputs."""
    return len(card.classes) * (2 if options_of(card).density_px else 1) + options_of(card).sized


def card_options(diameter_px: Floats, spacing_px: Floats, wishes: Wishes = NO_WISHES) -> dict[str, Any]:
    """Options of the card of a network to be trained; see `learned.ChoosesOptions`.

    Where most objects have a size, the Gaussian's width is a fifth of it. Otherwise all widths are a quarter
    of the typical distance, but small enough that close neighbours keep separate peaks: two at distance s
    have two peaks if s > 2 sigma. Features at every second pixel are enough; where objects are closer than 4
    px, the map is twice as fine as the image.
    """
    known = diameter_px[np.isfinite(diameter_px)]
    near = spacing_px[np.isfinite(spacing_px)]
    is_sized = len(known) >= max(20, len(diameter_px) // 2)
    typical = float(np.median(known)) if len(known) else None
    close = float(np.percentile(near, 5)) if len(near) else math.inf
    if is_sized:
        share = _SIGMA_SHARE
        sigma, least = np.clip(_SIGMA_SHARE * np.percentile(known, (50, 10)), *SIZED_SIGMA_PX)
        smooth, window = least / 2, max(1.0, least)
    else:
        share, sigma = 0.0, typical / 4 if typical is not None else 2.0
        if typical is None and len(near):
            sigma = float(np.median(near)) / 4
        sigma = float(np.clip(min(sigma, close / 2), *SIGMA_PX))
        smooth, window = sigma / 2, max(1.0, min(sigma, close / 2))
    shape = dict(DEFAULTS["network"])
    shape |= {"finest": 2, "up": 2 if close < _CLOSE_PX else 1}
    shape.update(wishes.network)
    found = {
        **DEFAULTS,
        "network": shape,
        "sigma_px": round(float(sigma), 2),
        "sigma_share": share,
        "smooth_px": round(float(smooth), 2),
        "window_px": round(float(window), 2),
        "sized": bool(is_sized),
        "typical_px": round(typical, 2) if typical is not None else DEFAULTS["typical_px"],
        "density_px": 0.0,
    }
    if close < _CLOSE_PX:
        found["density_px"] = round(float(np.clip(np.median(near) / 4, *SIGMA_PX)), 2)
    return found


# -- training ----


def targets(sample: Sample, card: Card) -> Arrays:
    """Training targets of a sample, on the pixels of the network's output.

    Returns heat (K, H', W') in [0, 1], weight (K, H', W') of each pixel's error, counted (1, H', W') in {0,
    1}; if the card's network learns sizes log_size (1, H', W') = ln(diameter / typical) with sized (1, H',
    W') in [0, 1], the weight of each pixel; if it learns their density, density (K, H', W'), a sum of
    Gaussians of height 1.
    """
    up = options_of(card).network.up
    height, width = sample.valid.shape[0] * up, sample.valid.shape[1] * up
    objects = sample.objects
    heat = np.zeros((len(card.classes), height, width), np.float32)
    weight = np.zeros_like(heat)
    log_size = np.zeros((1, height, width), np.float32)
    sized = np.zeros((1, height, width), np.float32)
    density, spread = np.zeros_like(heat), options_of(card).density_px
    visible = _finer(sample.valid, up)
    diameter = np.sqrt(np.prod(objects.size, axis=1)) / options_of(card).typical_px
    sigmas = sigma_px(card, np.sqrt(np.prod(objects.size, axis=1)))
    emphases = np.clip((options_of(card).sigma_px / sigmas) ** 2, *_EMPHASIS)
    for row in range(len(objects)):
        number, (x, y) = objects.label[row], objects.xy[row] * up
        sigma = math.hypot(float(sigmas[row]), float(objects.accuracy_px[row])) * up
        where, bump = _gaussian(x, y, sigma, (height, width))
        np.maximum(heat[number][where], bump, out=heat[number][where])
        np.maximum(weight[number][where], bump * np.float32(emphases[row]), out=weight[number][where])
        if math.isfinite(diameter[row]) and diameter[row] > 0:
            nearest = bump > sized[0][where]
            log_size[0][where][nearest] = math.log(diameter[row])
            sized[0][where][nearest] = bump[nearest]
        if spread:
            where, bump = _gaussian(x, y, spread * up, (height, width))
            density[number][where] += _kept_inside(bump, visible[where])
    usable, known = _finer(sample.valid & ~sample.ignored, up), _finer(sample.known, up)
    counted = usable & (known | (heat > _COVERED).any(axis=0))
    weight = counted * (1 + options_of(card).positive_weight * weight)
    out = {"heat": heat, "weight": weight.astype(np.float32), "counted": counted[None].astype(np.float32)}
    if options_of(card).sized:
        sized[:, ~usable] = 0
        sized[sized < 0.5] = 0  # sizes are read at peaks; farther away a neighbour's size would be as right
        out |= {"log_size": log_size, "sized": sized}
    return out | {"density": density} if spread else out


def _gaussian(
    x: float, y: float, sigma: float, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """A Gaussian of height 1 at (x, y): where it lies in an array of this shape, and its values there."""
    reach = 3.5 * sigma  # it is 0.002 there
    x0, x1 = max(0, math.floor(x - reach)), min(shape[1], math.ceil(x + reach))
    y0, y1 = max(0, math.floor(y - reach)), min(shape[0], math.ceil(y + reach))
    along = np.exp(-((np.arange(x0, x1) + 0.5 - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(y0, y1) + 0.5 - y) ** 2) / (2 * sigma**2))
    where = slice(y0, max(y0, y1)), slice(x0, max(x0, x1))
    return where, np.outer(down, along).astype(np.float32)


def _kept_inside(bump: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A Gaussian whose part beyond the data is added to the rest: an individual at the edge counts as one."""
    inside = bump * visible
    kept = float(inside.sum())
    return np.asarray(inside * (float(bump.sum()) / kept) if kept > 0 else inside, np.float32)


def sigma_px(card: Card, diameter_px: Floats) -> Floats:
    """Width of the Gaussian of objects of these diameters, in pixels; NaN: of unknown size."""
    usual, share = options_of(card).sigma_px, options_of(card).sigma_share
    if not share:
        return np.full(diameter_px.shape, usual)
    return np.where(np.isnan(diameter_px), usual, np.clip(share * diameter_px, *SIZED_SIGMA_PX))


def _finer(mask: NDArray[np.bool_], up: int) -> NDArray[np.bool_]:
    return mask.repeat(up, 0).repeat(up, 1) if up > 1 else mask


def losses(outputs: torch.Tensor, targets: Mapping[str, torch.Tensor], card: Card) -> dict[str, torch.Tensor]:
    """Losses of a batch; training minimises their sum.

    heat: squared error per counted pixel, weighted by 1 + positive_weight * target, because most of the
    ground is empty, and more on smaller objects, which have fewer pixels. size: squared error of the
    logarithm near centres, times size_weight. density: squared error times density_weight; it is unweighted,
    because only then its sum is unbiased.
    """
    classes = len(card.classes)
    heat, counted = targets["heat"], targets["counted"]
    error = targets["weight"] * (outputs[:, :classes] - heat) ** 2
    found = {"heat": error.sum() / (counted.sum() * classes).clamp(min=1.0)}
    if options_of(card).sized:
        near = targets["sized"]
        off = near * (outputs[:, classes : classes + 1] - targets["log_size"]) ** 2
        found["size"] = options_of(card).size_weight * off.sum() / near.sum().clamp(min=1.0)
    if options_of(card).density_px:
        off = counted * (outputs[:, -classes:] - targets["density"])
        mean = (off**2).sum() / (counted.sum() * classes).clamp(min=1.0)
        found["density"] = options_of(card).density_weight * (mean + _COUNT_WEIGHT * _miscounted(off, card))
    return found


def _miscounted(off: torch.Tensor, card: Card) -> torch.Tensor:
    """Mean absolute error of the number of individuals in windows, from the error of a density's height."""
    from torch.nn.functional import avg_pool2d

    total = off.new_zeros(())
    for window in _COUNTED_PX:
        side = min(window * options_of(card).network.up, *off.shape[-2:])
        sums = avg_pool2d(off, side, stride=max(1, side // 4)) * side**2
        total = total + sums.abs().mean() / _volume(card)
    return total / len(_COUNTED_PX)


def _volume(card: Card) -> float:
    """Sum of the density's Gaussian of height 1, in pixels of the map."""
    return 2 * math.pi * (options_of(card).density_px * options_of(card).network.up) ** 2


# -- decoding a map ----


def decode(outputs: Outputs, card: Card) -> list[Answer]:
    """Peaks of each image, in pixels of the input.

    outputs : of the network; the first (N, K or K + 1, H', W').
    """
    return [_decoded(maps, card) for maps in outputs[0]]


def _decoded(maps: NDArray[np.float32], card: Card) -> Answer:
    up = options_of(card).network.up
    radius = max(1, round(options_of(card).window_px * up))
    classes = len(card.classes)
    places, scores, labels, sizes = [], [], [], []
    is_sized = options_of(card).sized
    for label in range(classes):
        heat = peaks.smooth(maps[label], _smooth_px(card) * up)
        rows, columns = peaks.find(heat, radius)
        xy, size = peaks.refine(heat, rows, columns) / up, np.full(len(rows), np.nan)
        if is_sized:
            size = _size(card, maps[classes][rows, columns])
        gain = _gain(card, size)
        score = np.clip(gain * heat[rows, columns], 0.0, 1.0)
        if options_of(card).sigma_share:
            first = peaks.highest(
                xy, gain * heat[rows, columns], np.minimum(_MIDDLE_SHARE * size, _MIDDLE_PX)
            )
            xy, size, score = xy[first], size[first], score[first]
            around = np.clip(_AROUND_SHARE * size, 1.5, _MIDDLE_PX) * up
            xy = peaks.centred(maps[label], xy * up, around) / up
        places.append(xy)
        scores.append(score)
        labels.append(np.full(len(xy), label, np.int64))
        if is_sized:
            sizes.append(size)
    return Answer(
        np.concatenate(places),
        np.concatenate(scores),
        np.concatenate(labels),
        np.concatenate(sizes) if is_sized else None,
    )


def _size(card: Card, log_size: NDArray[np.float32]) -> Floats:
    """Diameters in pixels, decoded from the network's output."""
    # A hundredth to a hundredfold: a network that diverged must not give infinity.
    ratio = np.exp(np.clip(log_size.astype(np.float64), -4.6, 4.6))
    return np.asarray(options_of(card).typical_px * ratio)


def _gain(card: Card, diameter_px: Floats) -> Floats:
    """Factor that restores heights: smoothing lowers the peak of a Gaussian, a narrow one more."""
    return np.asarray(1 + (_smooth_px(card) / sigma_px(card, diameter_px)) ** 2)


def score_maps(outputs: Outputs, card: Card) -> NDArray[np.float32]:
    """The maps that give peaks their scores, (N, K, H, W) in [0, 1], on the pixels of the input.

    outputs : of the network. Where its maps are finer than the input, a pixel gets the highest value of its
        parts, so that no peak is lost.
    """
    up, classes = options_of(card).network.up, len(card.classes)
    found = []
    for maps in outputs[0]:
        gain = _gain(card, np.full(1, np.nan)).astype(np.float32)
        if options_of(card).sigma_share:
            strips = np.array_split(maps[classes], math.ceil(len(maps[classes]) / _STRIP))
            gain = np.concatenate([_gain(card, _size(card, strip)).astype(np.float32) for strip in strips])
        heat = np.stack([gain * peaks.smooth(maps[label], _smooth_px(card) * up) for label in range(classes)])
        k, height, width = heat.shape
        found.append(heat.reshape(k, height // up, up, width // up, up).max(axis=(2, 4)).clip(0.0, 1.0))
    return np.stack(found)


def density(outputs: Outputs, card: Card) -> NDArray[np.float32]:
    """Individuals of each class per pixel of the input, (N, K, H, W); the sum over any ground is a count.

    outputs : of the network. For a card whose `density_px` is above 0.
    """
    up = options_of(card).network.up
    maps = outputs[0][:, -len(card.classes) :]
    n, k, height, width = maps.shape
    fine = maps.reshape(n, k, height // up, up, width // up, up).sum(axis=(3, 5))
    gain = np.array(options_of(card).density_gain or [1.0] * k)[:, None, None]
    return np.asarray(fine * gain / _volume(card), np.float32)


def calibrated(bundle: Bundle, training: Iterable[Sample], validation: Iterable[Sample]) -> Card:
    """The card of a bundle, with the factors that correct its density's sum over all annotated ground.

    A network's sums are biased by a few percent, similarly in all pictures (vgg-cells: 1 to 8).
    """
    card = bundle.card
    if not options_of(card).density_px:
        return card
    plain = replace(card, options={**card.options, "density_gain": []})
    opened, found, true = open_heatmap(bundle, "cpu", None), 0.0, 0.0
    up = options_of(card).network.up
    for sample in chain(training, validation):
        height, width = sample.valid.shape
        image = padded_to_stride(sample.image, opened.stride, card.fill)
        made = targets(sample, card)
        counted = made["counted"][0, ::up, ::up]
        seen = density(opened.run(image[None]), plain)[0, :, :height, :width]
        found = found + (seen * counted).sum(axis=(1, 2), dtype=np.float64)
        ideal = made["density"] * made["counted"]
        true = true + ideal.sum(axis=(1, 2), dtype=np.float64) / _volume(card)
    gain = np.where(found > 0, true / np.maximum(found, 1e-9), 1.0)
    return replace(card, options={**card.options, "density_gain": [round(float(each), 4) for each in gain]})


def _smooth_px(card: Card) -> float:
    return options_of(card).smooth_px


def _beyond_px(card: Card) -> int:
    """Radius around a peak that smoothing, window, refinement and the middles of objects depend on."""
    middle = 2 * math.ceil(_MIDDLE_PX) if options_of(card).sigma_share else 0
    return 2 + math.ceil(peaks.SMOOTH_REACH * _smooth_px(card)) + round(options_of(card).window_px) + middle


# -- scanning ----


def build(
    options: Options, scene: Scene, bundle: Bundle, *, device: str = "auto", threads: int | None = None
) -> LearnedDetector:
    """The detector of a bundle for a scene; raises UserError where they don't fit."""
    card, stated = bundle.card, options_of(bundle.card)
    needs = card_needs(card, scene, options.threshold, margin_px=1.0)
    opened, shape = open_heatmap(bundle, device, threads), stated.network
    reach = 4 * opened.stride if opened.reach_px is None else opened.reach_px
    # By torch: features at full resolution and their neighbours, measured with a few maps; more need more.
    held = (opened.bytes_per_pixel or 24 * shape.width * shape.up) + _DECODING_BYTES * shape.up**2
    more_maps = _MAP_BYTES * shape.up**2 * max(0, _maps(card) - _FEW_MAPS)
    return LearnedDetector(
        card=card,
        hash=bundle.hash,
        kind="point",
        look=NetworkLook(
            card=card,
            network=opened,
            kind="point",
            read=partial(decode, card=card),
            density=partial(density, card=card) if stated.density_px else None,
            score_maps=partial(score_maps, card=card),
        ),
        scaling=scaling_of(card, scene),
        threshold=options.threshold,
        own_needs=replace(
            needs,
            stride_px=opened.stride,
            reach_px=reach + _beyond_px(card),
            is_local=opened.is_local,
            settling=Settling("distance", _SAME_PX),
            bytes_per_pixel=4 * len(card.bands) + held + more_maps,
            cost=_COST * shape.width * shape.up,
            map_px=1,
            typical_px=stated.typical_px if stated.sized else None,
        ),
    )


@lru_cache(maxsize=4)
def open_heatmap(bundle: Bundle, device: str, threads: int | None) -> Network:
    """The network of a bundle; cached, because a detector is built for each raster."""
    from ecodetect.runtime.opening import open_network

    card = bundle.card
    outputs = {"maps": (_maps(card), float(options_of(card).network.up))}
    return open_network(bundle, lambda: network(card), outputs, device=device, threads=threads)


def measure_agreement(bundle: Bundle, image: Image | None = None, *, seed: int = 0) -> dict[str, float]:
    """How much detections depend on the tiling: the same ground is seen in shifted chips.

    image : (B, H, W), scaled as the card says, padded by reflection where it is smaller than the receptive
        field; None: noise, which shows locality, but a trained network may find little on it.
    Returns shift_px, score: the largest differences of peaks that both see; alone: the share that only one
    sees; n: the number compared. Peaks below 0.05 are left out.
    """
    card = bundle.card
    opened = open_heatmap(bundle, "cpu", None)
    stride = opened.stride
    rim = _beyond_px(card) + (opened.reach_px if opened.reach_px is not None else 4 * stride)
    rim = -(-rim // stride) * stride
    side = 2 * rim + 16 * stride
    if image is not None:
        lack = [max(0, side - length) for length in image.shape[1:]]
        image = np.pad(image, [(0, 0), *((each // 2, each - each // 2) for each in lack)], mode="symmetric")
    else:
        image = np.random.default_rng(seed).normal(0.5, 0.3, (len(card.bands), side, side)).astype(np.float32)
    height, width = (side // stride * stride for side in image.shape[1:])
    whole = _seen(opened, card, image[None, :, :height, :width], (0, 0))
    worst = {"shift_px": 0.0, "score": 0.0}
    alone = n = 0
    for shift in (stride, 3 * stride):
        part = _seen(opened, card, image[None, :, shift:height, shift:width], (shift, shift))
        low, high = shift + rim, np.array([width - rim, height - rim])
        one, two = (seen[((seen[:, :2] >= low) & (seen[:, :2] < high)).all(axis=1)] for seen in (whole, part))
        if not len(one) or not len(two):
            alone, n = alone + len(one) + len(two), n + len(one) + len(two)
            continue
        off, nearest = KDTree(two[:, :2]).query(one[:, :2])
        same = off < 1.0
        n += len(one)
        alone += int(np.count_nonzero(~same)) + abs(len(two) - len(one))
        if same.any():
            worst["shift_px"] = max(worst["shift_px"], float(off[same].max()))
            change = np.abs(one[same, 2] - two[nearest[same], 2])
            worst["score"] = max(worst["score"], float(change.max()))
    return {**worst, "alone": alone / n if n else 0.0, "n": float(n)}


def _seen(opened: Network, card: Card, image: NDArray[np.float32], origin: tuple[int, int]) -> Floats:
    """Peaks as rows of x, y, score, in pixels of the whole."""
    (found,) = decode(opened.run(image), card)
    rows = np.column_stack([found.geometry + origin, found.score])
    return np.asarray(rows[found.score > 0.05], np.float64)


KIND = NetworkKind(
    name="heatmap",
    purpose=__doc__,
    options=Options,
    card_options=card_options,
    options_of=options_of,
    build=build,
    network=network,
    targets=targets,
    losses=losses,
    decode=decode,
    calibrated=calibrated,
    measure_agreement=measure_agreement,
    has_score_map=True,
)
