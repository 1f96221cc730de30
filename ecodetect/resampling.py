"""Resampling pixels to another size: area mean down, bilinear up, and invalid pixels carry no weight.

Each target pixel is a pure function of its place in the target grid: weights are computed from absolute
positions and added in a fixed order, so that a part resampled alone equals that part of the whole, bit for
bit. Both axes are separate, and the outer corner of the grids is the same. Nothing here reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Taps:
    """Which source pixels make a run of target pixels, and with which weight: both (N, K), weights at most 1.

    The weights of a target pixel add up to 1, less what lies outside the source.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """How one axis is resampled over a run of target pixels.

    value : what makes the pixel's value.
    cover : the share of the pixel's extent that lies in each source pixel.
    start, stop : the source pixels needed.
    """

    value: Taps
    cover: Taps
    start: int
    stop: int

    def from_source(self, start: int) -> Axis:
        """This axis with source indices counted from `start`."""
        value = Taps(self.value.index - start, self.value.weight)
        cover = value if self.cover is self.value else Taps(self.cover.index - start, self.cover.weight)
        return Axis(value, cover, self.start - start, self.stop - start)


def axis(first: int, count: int, factor: float, size: int) -> Axis:
    """Taps of the target pixels first, …, first + count - 1.

    factor : source pixels per target pixel; above 1 is an area mean, below it bilinear.
    size : number of source pixels.
    """
    target = np.arange(first, first + count, dtype=np.int64)
    low, high = target * factor, (target + 1) * factor
    index = np.floor(low).astype(np.int64)[:, None] + np.arange(int(np.floor(factor)) + 2)
    overlap = np.minimum(index + 1, high[:, None]) - np.maximum(index, low[:, None])
    cover = _inside(index, np.clip(overlap, 0, None) / factor, size)
    value = cover
    if factor < 1:
        centre = (target + 0.5) * factor - 0.5  # in source pixels, counted from the first centre
        left = np.floor(centre).astype(np.int64)
        right_share = centre - left
        value = _inside(left[:, None] + np.arange(2), np.stack([1 - right_share, right_share], axis=1), size)
    used = np.concatenate([taps.index[taps.weight > 0] for taps in (value, cover)])
    start, stop = (int(used.min()), int(used.max()) + 1) if used.size else (0, 0)
    return Axis(value, cover, start, stop)


def _inside(index: NDArray[np.int64], weight: NDArray[np.float64], size: int) -> Taps:
    return Taps(index, np.where((index >= 0) & (index < size), weight, 0.0))


def resample(
    pixels: NDArray[Any], valid: NDArray[np.bool_] | None, rows: Axis, columns: Axis
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Target pixels (B, h, w) in the dtype of `pixels`, integers rounded, and their mask; None: all valid.

    pixels : (B, H, W), the source pixels rows.start to rows.stop and columns.start to columns.stop, which
        `rows` and `columns` count from 0 (`Axis.from_source`).
    valid : bool (H, W), or None when all are.
    A target pixel is valid if at least half of its area is; invalid ones are 0.
    """
    # float32 holds 8-bit means to 1e-5 and is twice as fast.
    kind = np.float32 if pixels.dtype.itemsize == 1 else np.float64
    whole = np.ones((1, 1, 1), kind)
    mask = whole if valid is None else valid[None].astype(kind)
    values = pixels if valid is None else np.where(valid, pixels, pixels.dtype.type(0))
    weight = _weighted(mask, rows.value, columns.value, kind)[0]
    same = rows.cover is rows.value and columns.cover is columns.value
    cover = weight if same else _weighted(mask, rows.cover, columns.cover, kind)[0]
    out_valid = cover >= 0.5 - 1e-5  # a half that rounding made a little less
    out = _weighted(values, rows.value, columns.value, kind)
    np.divide(out, weight, out=out, where=weight > 0)
    if out_valid.all():
        return _as(out, pixels.dtype), None
    out[:, ~out_valid] = 0
    return _as(out, pixels.dtype), out_valid


def _weighted(values: NDArray[Any], rows: Taps, columns: Taps, kind: type) -> NDArray[Any]:
    """Σ weight · value over both axes, one tap after the other; an axis of length 1 counts for any length."""
    row_weight: NDArray[Any] = rows.weight.astype(kind)
    column_weight: NDArray[Any] = columns.weight.astype(kind)
    tall: NDArray[Any] = np.zeros((values.shape[0], len(row_weight), values.shape[2]), kind)
    for k in range(row_weight.shape[1]):
        tall += np.take(values, rows.index[:, k], axis=1, mode="clip") * row_weight[:, k, None]
    out: NDArray[Any] = np.zeros((values.shape[0], len(row_weight), len(column_weight)), kind)
    for k in range(column_weight.shape[1]):
        out += np.take(tall, columns.index[:, k], axis=2, mode="clip") * column_weight[:, k]
    return out


def _as(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
