"""Resampling pixels to another size: area mean down, bilinear up, and invalid pixels carry no weight.

Each target pixel is a pure function of its place in the target grid: weights are computed from absolute
positions and added in a fixed order, so that a part resampled alone equals that part of the whole, bit for
bit. Both axes are separate, and the outer corner of the grids is the same. Nothing here reads files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_STRIP_VALUES = 2**18  # read or made at once: they stay in a core's cache


@dataclass(frozen=True, eq=False, slots=True)
class Taps:
    """Which source pixels make a run of target pixels, and with which weight: both (N, K), weights at most 1.

    The weights of a target pixel add up to 1, less what lies outside the source.
    grows : whether there are more target than source pixels.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    grows: bool


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
        value = replace(self.value, index=self.value.index - start)
        cover = value if self.cover is self.value else replace(self.cover, index=self.cover.index - start)
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
    grows = factor < 1
    cover = _inside(index, np.clip(overlap, 0, None) / factor, size, grows)
    value = cover
    if grows:
        centre = (target + 0.5) * factor - 0.5  # in source pixels, counted from the first centre
        left = np.floor(centre).astype(np.int64)
        right_share = centre - left
        shares = np.stack([1 - right_share, right_share], axis=1)
        value = _inside(left[:, None] + np.arange(2), shares, size, grows)
    used = np.concatenate([taps.index[taps.weight > 0] for taps in (value, cover)])
    start, stop = (int(used.min()), int(used.max()) + 1) if used.size else (0, 0)
    return Axis(value, cover, start, stop)


def _inside(index: NDArray[np.int64], weight: NDArray[np.float64], size: int, grows: bool) -> Taps:
    return Taps(index, np.where((index >= 0) & (index < size), weight, 0.0), grows)


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
    size = pixels.shape[1], pixels.shape[2]
    value = _Sums.of(rows.value, columns.value, size, kind)
    weight = value.weights(valid, size[0])
    if valid is None and _is_inside(rows, columns):
        out_valid = None
    else:
        same = rows.cover is rows.value and columns.cover is columns.value
        shares = weight if same else _Sums.of(rows.cover, columns.cover, size, kind).weights(valid, size[0])
        out_valid = shares >= 0.5 - 1e-5  # a half that rounding made a little less
    weight[weight == 0] = 1
    out: NDArray[Any] = np.empty((len(pixels), *weight.shape), pixels.dtype)
    for band, made in zip(pixels, out, strict=True):
        values = band if valid is None else np.where(valid, band, band.dtype.type(0))
        for strip, sums in value.strips(values):
            if pixels.dtype == np.uint8:  # in one pass, rounded as by rint
                cv2.divide(sums, weight[strip], made[strip], dtype=cv2.CV_8U)
            else:
                sums /= weight[strip]
                made[strip] = np.rint(sums, out=sums) if band.dtype.kind in "iu" else sums
    if out_valid is None or out_valid.all():
        return out, None
    out[:, ~out_valid] = 0
    return out, out_valid


def _is_inside(rows: Axis, columns: Axis) -> bool:
    """Whether more than half of each target pixel lies in the source, which holds but at its edge."""
    return all(axis.cover.weight.sum(axis=1).min(initial=1) > 0.8 for axis in (rows, columns))


@dataclass(frozen=True, eq=False, slots=True)
class _Sums:
    """Σ weight · value over both axes of (H, W), one tap after the other, as products with sparse matrices.

    Rows that become fewer come first, rows that become more last: the work in between is small, and which
    it is doesn't depend on the window.

    down : of strips of target rows, (h', H') each, and the source rows that they need.
    across : (w, W).
    kind : of the numbers added.
    """

    down: Sequence[tuple[slice, slice, csr_array]]
    across: csr_array
    kind: type
    rows_grow: bool

    @classmethod
    def of(cls, rows: Taps, columns: Taps, size: tuple[int, int], kind: type) -> _Sums:
        """size : height and width of the source."""
        down, across = _matrix(rows, size[0], kind), _matrix(columns, size[1], kind)
        widest = max(size[0] * size[1], len(rows.index) * len(columns.index))  # source or target
        step = max(1, _STRIP_VALUES * len(rows.index) // max(1, widest))
        strips = []
        for first in range(0, len(rows.index), step):
            strip = slice(first, first + step)
            part = down[strip]
            needed = slice(int(part.indices.min(initial=size[0])), int(part.indices.max(initial=-1)) + 1)
            strips.append((strip, needed, part[:, needed]))
        return cls(strips, across, kind, rows.grows)

    def strips(self, values: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The sums of each strip of target rows, (h', w), from values (H, W)."""
        if self.rows_grow:
            yield from self._along_rows(self._along_columns(values))
        else:
            for strip, sums in self._along_rows(values):
                yield strip, self._along_columns(sums)

    def weights(self, valid: NDArray[np.bool_] | None, height: int) -> NDArray[Any]:
        """How much of each target pixel comes from valid source pixels, (h, w); None: all are valid.

        The order of the sums is that of values, so that a window with a mask gives what one without does.
        """
        width = self.across.shape[1]
        parts: Iterator[tuple[slice, NDArray[Any]]]
        if valid is not None:
            parts = self.strips(valid)
        elif self.rows_grow:  # all rows are alike
            row = (self.across @ np.ones((width, 1), self.kind)).T
            parts = self._along_rows(np.broadcast_to(row, (height, row.shape[1])))
        else:  # all columns are
            each = self._along_rows(np.ones((height, 1), self.kind))
            parts = ((strip, self._along_columns(np.repeat(column, width, axis=1))) for strip, column in each)
        return np.concatenate([sums for _, sums in parts])

    def _along_rows(self, values: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
        for strip, needed, matrix in self.down:
            yield strip, matrix @ values[needed].astype(self.kind, "C", copy=False)

    def _along_columns(self, values: NDArray[Any]) -> NDArray[Any]:
        turned: NDArray[Any] = np.asarray(cv2.transpose(np.ascontiguousarray(values)), self.kind)
        return np.asarray(cv2.transpose(self.across @ turned))


def _matrix(taps: Taps, size: int, kind: type) -> csr_array:
    """The taps as a sparse matrix: SciPy adds weight · row for each in one pass, in their order."""
    used = taps.weight != 0
    ends = np.concatenate([[0], np.cumsum(np.count_nonzero(used, axis=1))])
    return csr_array((taps.weight[used].astype(kind), taps.index[used], ends), shape=(len(used), size))
