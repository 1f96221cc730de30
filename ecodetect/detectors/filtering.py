"""Filters whose result doesn't depend on the tiling: exact sums over valid pixels.

All weights are whole numbers, so all sums are, and floats hold them exactly (below 2^24 in float32, 2^53 in
float64) in any order of additions. Each result is divided once, correctly rounded. Nothing is valid beyond
the array, except where the mask is None: there the border is padded by reflection and lies in the halo.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_KERNEL_PX = 12  # up to this radius, moving a disc over the mask is quicker than distances
# Sums of 4 or 8 bytes are computed in strips of about this many pixels, which fit the processor's cache.
STRIP_VALUES, _LEAST_STRIP_PX = 2**18, 64


@lru_cache(maxsize=8)
def gaussian_kernel(sigma: float, total: int) -> NDArray[np.float64]:
    """A sampled Gaussian in whole numbers that sum to `total`; of odd length, symmetric.

    sigma : standard deviation in pixels.
    """
    radius = math.ceil(3.5 * sigma)
    x = np.arange(-radius, radius + 1)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    kernel = np.rint(bell / bell.sum() * total)
    kernel[radius] += total - kernel.sum()
    used = np.flatnonzero(kernel)
    return np.asarray(kernel[used[0] : used[-1] + 1], np.float64)


def _gaussian(image: NDArray[Any], sigma: float) -> tuple[NDArray[np.float64], int]:
    """Kernel and OpenCV depth in which the weighted sum of such an image is exact."""
    # 255 · 256² < 2^24: float32 is twice as fast; wider bells and 16 bits need finer weights and float64.
    if image.dtype == np.uint8 and sigma <= 8:
        return gaussian_kernel(sigma, 256), cv2.CV_32F
    return gaussian_kernel(sigma, 4096), cv2.CV_64F


def gaussian_reach(dtype: Any, sigma: float) -> int:
    """Radius of `gaussian` in pixels."""
    return 0 if sigma == 0 else len(_gaussian(np.empty(0, dtype), sigma)[0]) // 2


def gaussian(image: NDArray[Any], valid: Mask | None, sigma: float) -> NDArray[Any]:
    """The mean of the valid pixels around each, weighted by a Gaussian, rounded to a whole number.

    image : uint8 or uint16 (H, W), 0 where it isn't valid.
    sigma : standard deviation in pixels; 0: the image itself.
    Returns the same type; 0 where it isn't valid.
    """
    if sigma == 0:
        return image
    kernel, depth = _gaussian(image, sigma)
    if valid is None:
        total = cv2.sepFilter2D(image, depth, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
        scale = 1 / kernel.sum() ** 2  # a power of two: exact
        if image.dtype == np.uint8:
            return np.asarray(cv2.convertScaleAbs(total, alpha=scale))
        return np.asarray(np.rint(total * scale), image.dtype)
    total = cv2.sepFilter2D(image, depth, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    weight = cv2.sepFilter2D(valid.view(np.uint8), depth, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    weight[weight == 0] = 1
    smooth = np.asarray(np.rint(total / weight), image.dtype)
    smooth[~valid] = 0
    return smooth


def gaussian_at_most(image: NDArray[Any], valid: Mask | None, sigma: float, level: int) -> Mask:
    """`gaussian(image, valid, sigma) <= level`, without computing the means; undefined where not valid."""
    if sigma == 0:
        return np.asarray(image <= level)
    kernel, depth = _gaussian(image, sigma)
    reach = len(kernel) // 2
    height, width = image.shape
    below = np.empty(image.shape, np.bool_)
    step = max(_LEAST_STRIP_PX, STRIP_VALUES // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first = max(top - reach, 0)
        rows = slice(first, bottom + reach)
        # Where all pixels within the kernel lie on one side of the level, so does their mean.
        low = image[rows].min(axis=0) <= level
        is_low = bool(low.all())
        below[top:bottom] = is_low
        other = np.flatnonzero(image[rows].max(axis=0) > level if is_low else low)
        if not len(other):
            continue
        left, right = max(int(other[0]) - reach, 0), int(other[-1]) + 1 + reach
        begin = max(left - reach, 0)
        part = (rows, slice(begin, right + reach))
        found = _at_most(image[part], None if valid is None else valid[part], kernel, depth, level)
        below[top:bottom, left:right] = found[top - first : bottom - first, left - begin : right - begin]
    return below


def _at_most(
    image: NDArray[Any], valid: Mask | None, kernel: NDArray[np.float64], depth: int, level: int
) -> Mask:
    """Where the mean weighted by a kernel is at most `level`."""
    border = cv2.BORDER_REFLECT_101 if valid is None else cv2.BORDER_CONSTANT
    total = cv2.sepFilter2D(image, depth, kernel, kernel, borderType=border)
    # Halves are rounded to the even number.
    below = np.asarray(total <= (level + 0.5) * float(kernel.sum()) ** 2 - level % 2)
    if valid is not None:
        # The weights differ from place to place only near invalid pixels.
        square = np.ones((len(kernel), len(kernel)), np.uint8)
        known = valid.view(np.uint8)
        inner = cv2.erode(known, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        near = np.flatnonzero(inner != known)
        if len(near):
            weight = cv2.sepFilter2D(known, depth, kernel, kernel, borderType=border)
            below.ravel()[near] = np.rint(total.ravel()[near] / weight.ravel()[near]) <= level
    return below


def box_mean(image: NDArray[Any], valid: Mask | None, width: int, times: int = 1) -> NDArray[np.float64]:
    """The mean of the valid pixels in a square around each, in float64; 0 where there are none.

    image : uint8 or uint16 (H, W), 0 where it isn't valid.
    width : side of the square, odd, in pixels.
    times : repetitions: three are nearly a Gaussian of variance (width² - 1) / 4. Weights are divided out at
        the end, so that the sums stay whole numbers: width^(2 · times) of them must fit into float64.
    """
    if valid is None:
        total = _box_sum(image, width, times, cv2.BORDER_REFLECT_101)
        total /= float(width) ** (2 * times)
        return total
    total = _box_sum(image, width, times, cv2.BORDER_CONSTANT)
    count = _box_sum(valid.view(np.uint8), width, times, cv2.BORDER_CONSTANT)
    count[count == 0] = 1
    total /= count
    return total


def _box_sum(image: NDArray[Any], width: int, times: int, border: int) -> NDArray[np.float64]:
    total = image
    for _ in range(times):
        total = cv2.boxFilter(total, cv2.CV_64F, (width, width), normalize=False, borderType=border)
    return np.asarray(total, np.float64)


def opening_reach(radius: int) -> int:
    """Radius of `opened` in pixels."""
    # OpenCV's distances are up to 2 % short.
    return 2 * (radius if radius <= _KERNEL_PX else math.ceil(1.03 * radius) + 1)


def opened(mask: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Morphological opening of a mask by a disc of this radius; beyond the array nothing is set.

    mask : uint8 (H, W), 0 or 1.  radius : pixels.
    """
    if radius == 0:
        return mask
    if radius <= _KERNEL_PX:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        inner = cv2.erode(mask, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        return np.asarray(cv2.dilate(inner, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)
    # By distances, which are whole numbers inside OpenCV and cost the same for any radius.
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outside = np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)) <= radius
    near = np.asarray(cv2.distanceTransform(outside.view(np.uint8), cv2.DIST_L2, 5)) <= radius
    return near[1:-1, 1:-1].view(np.uint8)
