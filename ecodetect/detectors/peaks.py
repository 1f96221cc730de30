"""Peaks of a map: local maxima, their subpixel positions, and which of them count."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ecodetect.grid import Floats

# Lower values are never peaks: at any threshold, noise on empty ground isn't reported.
LOWEST_SCORE = 0.02
# Where the smoothing Gaussian is cut off, in widths: 0.003 of it lies farther out.
SMOOTH_REACH = 3.0
_AT_ONCE = 256  # peaks whose surroundings are in memory at once


def smooth(heat: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """A map (H, W) blurred by a Gaussian of `width` pixels."""
    if width <= 0:
        return heat
    size = 2 * math.ceil(SMOOTH_REACH * width) + 1
    return np.asarray(cv2.GaussianBlur(heat, (size, size), width, borderType=cv2.BORDER_REFLECT_101))


def highest(xy: Floats, score: Floats, radius: Floats) -> NDArray[np.bool_]:
    """Which peaks don't lie in the middle of a higher one.

    xy (N, 2), score (N,), radius (N,) of the middles. A peak in another's middle still suppresses those in
    its own, so survival depends on near peaks only, not on chains. Among equal peaks the first counts as
    higher.
    """
    first = np.ones(len(xy), np.bool_)
    if len(xy) < 2:
        return first
    pairs = KDTree(xy).query_pairs(float(radius.max()), output_type="ndarray")
    if not len(pairs):
        return first
    off = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    is_second_higher = score[pairs[:, 1]] > score[pairs[:, 0]]
    high = np.where(is_second_higher, pairs[:, 1], pairs[:, 0])
    low = np.where(is_second_higher, pairs[:, 0], pairs[:, 1])
    first[low[off < radius[high]]] = False
    return first


def find(heat: NDArray[np.float32], radius: int = 1) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of pixels that are the highest within `radius`, and above `LOWEST_SCORE`.

    heat : (H, W). Among equal neighbours the first in reading order counts as higher. The outermost pixels
        are
    never peaks: the values beyond them are unknown.
    """
    height, width = heat.shape
    if height < 3 or width < 3:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    disc[radius - 1 : radius + 2, radius - 1 : radius + 2] = 1
    is_high = (heat >= cv2.dilate(heat, disc)) & (heat > LOWEST_SCORE)
    is_high[[0, -1]] = False
    is_high[:, [0, -1]] = False
    rows, columns = np.divmod(np.flatnonzero(is_high), width)  # a tenth of the time of nonzero in 2-D
    is_first = np.ones(len(rows), np.bool_)
    for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1)):
        is_first &= heat[rows + dy, columns + dx] < heat[rows, columns]
    return rows[is_first], columns[is_first]


def refine(heat: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """Subpixel positions of peaks, (n, 2) as x, y.

    The vertex of a parabola through the logarithms of the peak and its two neighbours, along x and along y
    (exact for a Gaussian). Each is interpolated between the two lines on both sides of the other's result, so
    it hardly matters which of two nearly equal pixels was the highest.
    """
    around = np.stack(
        [np.stack([heat[rows + dy, columns + dx] for dx in (-1, 0, 1)], -1) for dy in (-1, 0, 1)], -2
    ).astype(np.float64)  # (n, y, x)
    around = np.log(np.maximum(around, 1e-3))
    along = _vertex(around)  # offset in x of each of the three rows
    down = _vertex(around.transpose(0, 2, 1))  # in y of each of the three columns
    dx, dy = _between(along, down[:, 1]), _between(down, along[:, 1])
    return np.stack([columns + 0.5 + dx, rows + 0.5 + dy], axis=1)


def centred(heat: NDArray[np.float32], xy: Floats, radius: Floats) -> Floats:
    """Positions moved to the centre of mass of the map around them, (n, 2).

    A large object's peak is flat, so its maximum may lie anywhere on it. The mean of the surrounding places
    is more stable: each is weighted by the map's height there, and less towards the radius, so that nothing
    jumps.

    heat (H, W), xy (n, 2), radius (n,), all in pixels of the map.
    """
    if not len(xy):
        return xy
    reach = math.ceil(float(radius.max())) + 1
    padded = np.pad(np.maximum(heat, 0), reach)
    steps = np.arange(-reach, reach + 1)
    moved = np.array(xy, np.float64)
    for first in range(0, len(xy), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        x, y = np.floor(xy[part]).astype(np.int64).T
        columns, rows = x[:, None] + steps, y[:, None] + steps
        around = padded[(rows + reach)[:, :, None], (columns + reach)[:, None, :]].astype(np.float64)
        dx, dy = columns + 0.5 - xy[part, :1], rows + 0.5 - xy[part, 1:]
        far = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / radius[part, None, None] ** 2
        weight = around * np.maximum(1 - far, 0)
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
        moved[part, 0] += (weight.sum(axis=1) * dx).sum(axis=1) / total
        moved[part, 1] += (weight.sum(axis=2) * dy).sum(axis=1) / total
    return moved


def _vertex(lines: Floats) -> Floats:
    """Offset of a parabola's vertex from the middle of its three values, within a pixel; values (n, 3)."""
    before, middle, after = lines[..., 0], lines[..., 1], lines[..., 2]
    bend = 2 * middle - before - after
    offset = (after - before) / (2 * np.where(bend > 1e-9, bend, 1.0))
    return np.asarray(np.where(bend > 1e-9, np.clip(offset, -1.0, 1.0), 0.0), np.float64)


def _between(values: Floats, at: Floats) -> Floats:
    """Values of three lines at -1, 0, 1, interpolated at places from -0.5 to 0.5."""
    at = np.clip(at, -0.5, 0.5)
    beside = np.where(at < 0, values[:, 0], values[:, 2])
    return np.asarray(values[:, 1] + np.abs(at) * (beside - values[:, 1]), np.float64)
