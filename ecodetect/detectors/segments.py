"""Superpixels of an image and their features: colour, texture, shape, surroundings.

`obia` classifies them. Sources:  SLIC (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120) and the graph of
Felzenszwalb and Huttenlocher (2004, doi:10.1023/B:VISI.0000022288.19776.77), both as scikit-image has them.

Nothing is normalised by the contents of a chip, and the seeds of SLIC lie on a lattice with the step
`segment_px`: chips whose corners differ by multiples of it start with the same seeds, so the segments at a
place are mostly the same wherever a chip begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ecodetect.bundle.card import Scaling

Method = Literal["slic", "felzenszwalb"]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

ROUNDS = 5  # iterations of SLIC; each extends a seed's context by one step
# Weight of distance against colour (an image's standard deviation is 1): one step between seeds counts as
# much as this difference in each band.
_COMPACT = 0.6
# Felzenszwalb: difference of colour that separates segments of the wanted size.
_APART = 0.3
_RANGE = 4.0  # standard deviations; values beyond are clipped
_BINS = 64  # of percentiles
_PERCENTILES = (0.1, 0.5, 0.9)
_PAIRS_OF = 5  # first bands that are compared in pairs; more would make too many pairs
_SCALES = (0.5, 1.0, 2.0)  # widths of the surroundings, in typical objects
_HATS = (0.5, 1.0)  # widths of top-hat filters, in typical objects


def cut(image: Image, valid: Mask, method: Method, segment_px: int) -> Ints:
    """Labels of the segments, (H, W), numbered from 1 without gaps; 0 where not valid.

    image : (B, H, W), with mean 0 and standard deviation 1 or so.
    segment_px : width of a typical segment.
    """
    from skimage.segmentation import felzenszwalb, slic

    height, width = valid.shape
    stack = np.clip(image, -_RANGE, _RANGE).transpose(1, 2, 0).astype(np.float64)
    stack[~valid] = 0.0
    spread = float(np.ptp(stack))
    if min(height, width) < 2 * segment_px or spread == 0:
        labels = np.ones(valid.shape, np.int64)  # nothing to cut
    elif method == "slic":
        labels = slic(
            stack,
            n_segments=max(1, round(height * width / segment_px**2)),
            # scikit-image stretches the image to [0, 1]; this keeps the weight as it was.
            compactness=_COMPACT * len(image) ** 0.5 / spread,
            max_num_iter=ROUNDS,
            convert2lab=False,
            start_label=1,
            channel_axis=-1,
        )
    else:
        labels = felzenszwalb(
            stack / (2 * _RANGE),
            # Its scale is for values of 0 to 255.
            scale=255 * _APART / (2 * _RANGE) * segment_px**2,
            sigma=0.8,
            min_size=max(2, segment_px**2 // 3),
            channel_axis=-1,
        )
        labels = labels + 1
    labels = np.where(valid, labels, 0)
    there = np.bincount(labels.ravel()) > 0
    there[0] = False
    return (np.cumsum(there) * there).astype(np.int32)[labels]


def names(bands: Sequence[str]) -> list[str]:
    """The names of the columns of `described`."""
    spectral = [f"{kind} {band}" for kind in ("mean", "sd", "p10", "p50", "p90") for band in bands]
    pairs = [f"{a} against {b}" for a, b in combinations(bands[:_PAIRS_OF], 2)]
    return [
        *spectral,
        *pairs,
        *("roughness 3", "roughness 7", "gradient", "grain"),
        *(f"{kind} {scale:g}" for scale in _SCALES for kind in ("contrast", "unrest")),
        *(f"{kind} {width:g}" for width in _HATS for kind in ("dark for itself", "bright for itself")),
        *("area", "compactness", "elongation", "fullness"),
        *(f"beside {band}" for band in bands),
        *("beside least", "beside most"),
    ]


def described(image: Image, valid: Mask, labels: Ints, scaling: Scaling, typical_px: float) -> NDArray[Any]:
    """The features of each segment, float32 (n, C); columns as in `names`.

    image : (B, H, W), scaled by `scaling`, whose offset and span give back the bands' values.
    labels : of `cut`.
    typical_px : width of a typical object, the unit of the surroundings.
    """
    n = int(labels.max(initial=0))
    if not n:
        return np.empty((0, len(names([str(i) for i in range(len(image))]))), np.float32)
    flat = labels.ravel()
    image = np.clip(image, -2 * _RANGE, 2 * _RANGE)
    area = np.bincount(flat, minlength=n + 1)[1:].astype(np.float64)

    def mean(values: NDArray[Any]) -> Floats:
        """The mean of an image over each segment, (n,)."""
        return np.bincount(flat, values.ravel(), minlength=n + 1)[1:] / area

    means = np.stack([mean(band) for band in image])  # (B, n)
    deviations = [
        np.sqrt(np.maximum(mean(band * band) - m * m, 0.0)) for band, m in zip(image, means, strict=True)
    ]
    shares = np.stack([_percentiles(band, flat, n, area) for band in image])  # (B, P, n)
    columns = [*means, *deviations, *shares.transpose(1, 0, 2).reshape(-1, n)]
    columns += _pairs(means, scaling)
    grey = image.mean(axis=0)
    grey[~valid] = 0.0  # the mean of any raster
    columns += [mean(each) for each in _texture(grey, valid)]
    own = mean(grey)
    for scale in _SCALES:
        side = 2 * round(scale * typical_px / 2) + 1
        level, unrest = _local(grey, valid, side)
        columns += [own - mean(level), mean(unrest)]
    for width in _HATS:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(width * typical_px / 2) + 1,) * 2)
        smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
        kinds = (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)
        columns += [mean(cv2.morphologyEx(smooth, kind, disc)) for kind in kinds]
    columns += _shapes(labels, n, area)
    columns += _beside(labels, n, means)
    return np.stack(columns, axis=1).astype(np.float32)


def centres(labels: Ints) -> Floats:
    """The centres of gravity of segments in pixels, (n, 2)."""
    n = int(labels.max(initial=0))
    flat = labels.ravel()
    area = np.maximum(np.bincount(flat, minlength=n + 1)[1:], 1)
    rows, columns = np.indices(labels.shape, np.float64) + 0.5
    sums = [np.bincount(flat, each.ravel(), minlength=n + 1)[1:] for each in (columns, rows)]
    return np.stack(sums, axis=1) / area[:, None]


def _percentiles(band: Image, flat: Ints, n: int, area: Floats) -> Floats:
    """(P, n), to 1/64 of the range, from histograms."""
    step = 2 * _RANGE / _BINS
    level = np.clip((band.ravel() + _RANGE) / step, 0, _BINS - 1).astype(np.int64)
    count = np.bincount(flat.astype(np.int64) * _BINS + level, minlength=(n + 1) * _BINS)
    above = np.cumsum(count.reshape(n + 1, _BINS)[1:], axis=1)
    found = [np.argmax(above >= share * area[:, None], axis=1) for share in _PERCENTILES]
    return np.asarray((np.stack(found) + 0.5) * step - _RANGE, np.float64)


def _pairs(means: Floats, scaling: Scaling) -> list[Floats]:
    """Normalised differences of pairs of bands, like NDVI, of the values before scaling."""
    offset = np.asarray(scaling.offset or (0.0,) * len(means), np.float64)
    span = np.asarray(scaling.span or (1.0,) * len(means), np.float64)
    values = np.maximum(means * span[:, None] + offset[:, None], 0.0)[:_PAIRS_OF]
    least = 1e-3 * float(span.max())
    return [(a - b) / (a + b + least) for a, b in combinations(values, 2)]


def _texture(grey: Image, valid: Mask) -> list[NDArray[Any]]:
    """Images of texture: standard deviations over 3 and 7 px, the gradient, and the difference to the next
    pixel (the contrast of a grey-level co-occurrence matrix at a distance of 1, without the matrix)."""
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    grain = np.zeros_like(grey)
    grain[:, 1:] = (grey[:, 1:] - grey[:, :-1]) ** 2
    grain[1:] += (grey[1:] - grey[:-1]) ** 2
    return [_local(grey, valid, 3)[1], _local(grey, valid, 7)[1], np.hypot(across, down), grain]


def _local(grey: Image, valid: Mask, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and standard deviation of the valid pixels in a square about each pixel."""
    known: Floats = valid.astype(np.float64)
    values: Floats = grey.astype(np.float64) * known

    def sums(of: Floats) -> Floats:
        found = cv2.boxFilter(of, cv2.CV_64F, (side, side), borderType=cv2.BORDER_CONSTANT)
        return np.asarray(found, np.float64)

    count = np.maximum(sums(known), 1 / side**2)
    mean = sums(values) / count
    return mean, np.sqrt(np.maximum(sums(values * grey) / count - mean * mean, 0.0))


def _shapes(labels: Ints, n: int, area: Floats) -> list[Floats]:
    """Area (logarithm), compactness (4 π area / perimeter²), elongation and fullness (area over that of the
    ellipse with the same second moments), in the model's own pixels."""
    flat = labels.ravel()
    edges = np.zeros(n + 1, np.int64)
    framed = np.pad(labels, 1)
    for axis in (0, 1):
        one = framed[:-1].ravel() if axis == 0 else framed[:, :-1].ravel()
        two = framed[1:].ravel() if axis == 0 else framed[:, 1:].ravel()
        apart = one != two
        edges += np.bincount(one[apart], minlength=n + 1) + np.bincount(two[apart], minlength=n + 1)
    middle = centres(labels)
    rows, columns = np.indices(labels.shape, np.float64) + 0.5
    inside = np.maximum(flat - 1, 0)
    dx, dy = columns.ravel() - middle[inside, 0], rows.ravel() - middle[inside, 1]
    xx, yy, xy = (np.bincount(flat, each, minlength=n + 1)[1:] / area for each in (dx * dx, dy * dy, dx * dy))
    xx, yy = xx + 1 / 12, yy + 1 / 12  # the extent of a pixel itself
    half, spread = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    least = np.maximum(half - spread, 1e-6)
    return [
        np.log(area),
        4 * np.pi * area / edges[1:] ** 2,
        np.sqrt((half + spread) / least),
        area / (4 * np.pi * np.sqrt((half + spread) * least)),
    ]


def _beside(labels: Ints, n: int, means: Floats) -> list[Floats]:
    """Difference of each band's mean from the neighbouring segments, weighted by the length of common edges.

    Then the smallest and the largest difference in grey to one of them.
    """
    one = np.concatenate([labels[:-1].ravel(), labels[:, :-1].ravel()]).astype(np.int64)
    two = np.concatenate([labels[1:].ravel(), labels[:, 1:].ravel()]).astype(np.int64)
    meet = (one != two) & (one > 0) & (two > 0)
    one, two = one[meet] - 1, two[meet] - 1
    pair, length = np.unique(np.concatenate([one * n + two, two * n + one]), return_counts=True)
    here, there = pair // n, pair % n
    total = np.maximum(np.bincount(here, length, minlength=n), 1)
    found = []
    for band in means:
        apart = (band[here] - band[there]) * length
        found.append(np.bincount(here, apart, minlength=n) / total)
    grey = means.mean(axis=0)
    least, most = np.zeros(n), np.zeros(n)
    np.minimum.at(least, here, grey[here] - grey[there])
    np.maximum.at(most, here, grey[here] - grey[there])
    return [*found, least, most]
